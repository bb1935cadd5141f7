"""Scenario files with ``model: serving``: their keys, checks, and the plan drawn from them."""
