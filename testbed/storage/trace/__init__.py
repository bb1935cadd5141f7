"""A run as a trace for viewers of time lines: Perfetto (ui.perfetto.dev) and chrome://tracing.

``writing`` writes the file; ``tasks`` and ``requests`` make the events of each family.
"""
