"""Alternatives to the toolkit, measured beside it in one go.

``python -m benchmarks peers`` runs all that is installed (``pip install 'edge-testbed[peers]'``)
and says what is not. Every module here measures one peer: ``lacks()`` names the packages that are
not installed, ``rows(quick)`` gives the peer's figures, ours on the same work, and their ratios.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any, Final

Row = dict[str, Any]

PEERS: Final = ("simpy_ratc", "wrappers", "rllib", "locust_generator")


def rows(quick: bool = False) -> list[Row]:
    """Measure every peer that is installed; ``quick`` does as little as shows that it works."""
    found: list[Row] = []
    for name in PEERS:
        module = importlib.import_module(f"benchmarks.peers.{name}")
        if missing := module.lacks():
            sys.stderr.write(
                f"  {name}: skipped, {', '.join(missing)} is not installed; "
                "pip install 'edge-testbed[peers,train]'\n"
            )
            continue
        sys.stderr.write(f"  {name} ...\n")
        found += module.rows(quick)
    return found


def absent(*packages: str) -> list[str]:
    """Return those of ``packages`` that cannot be imported here."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def row(benchmark: str, value: float, unit: str) -> Row:
    """Return a figure."""
    return {"benchmark": benchmark, "value": value, "unit": unit}
