"""Starts, finds and stops testbeds: by argv or manifest, never by importing what it starts.

A runtime keeps no state of its own: it finds everything again from labels or the run directory, so
it works from a new shell and after a crash.
"""
