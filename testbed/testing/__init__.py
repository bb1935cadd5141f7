"""Conformance suites for every seam, for implementations here and in other packages.

An implementation is right when a subclass of its suite passes.
"""
