"""The public Python functions behind the names of ``import testbed``, and what they share with the
command line.

docs/python.md documents the names; modules of this package are internal.
"""
