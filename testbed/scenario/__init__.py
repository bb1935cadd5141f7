"""The scenario file: its versioned schema, defaults, validation and the scenarios that ship.

Validation reports all problems at once, each with its path and what is allowed there.
"""
