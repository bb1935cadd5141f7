"""Runs of serving networks: the traffic of their users, and what is recorded of it."""
