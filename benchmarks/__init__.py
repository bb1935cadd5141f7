"""Measured figures of the toolkit; ``make bench`` runs them and writes docs/benchmarks.md."""
