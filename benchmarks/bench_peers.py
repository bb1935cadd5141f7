"""Alternatives to the toolkit, side by side: SimPy, RLlib, PettingZoo, Gymnasium, Locust.

Those that are not installed are left out.
"""

from __future__ import annotations

from benchmarks.peers import rows as rows

__all__ = ["rows"]
