"""Training of the per-destination policy: one small network that scores every destination.

Import the modules directly; this package imports nothing.
"""
