"""Storage of runs: task log, artifacts and data sets.

Appends are idempotent, stored schemas carry a version that is checked, and a written artifact never
changes.
"""
