"""One run from end to end, its certificate, and what its log yields: comparison and report.

Everything here works on a task log alone, whichever driver wrote it.
"""
