"""The methods that stand in every figure, and how they look there."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from testbed.experiment.colours import PALETTE
from testbed.schedulers import catalogue
from testbed.schedulers.catalogue import Method, label

__all__ = ["Method", "label"]

O2O: Final = "o2o"
OFFLINE: Final = "offline"
ONLINE_ONLY: Final = "online-only"
LEARNED: Final = (O2O, OFFLINE, ONLINE_ONLY)
"""The policies to train for a network before they can be evaluated on it."""

BOUND: Final = "bound"
"""Not a scheduler: the share of tasks that would succeed with the network to themselves."""


METHODS: Final[Mapping[str, Method]] = MappingProxyType(
    {name: each for name, each in catalogue.METHODS.items() if each.group != "other"}
)
"""In the order of tables and legends."""

PAPER: Final = tuple(name for name, method in METHODS.items() if method.group == "paper")
EQUAL: Final = tuple(name for name, method in METHODS.items() if method.group == "equal")
ASKING: Final = tuple(name for name, method in METHODS.items() if method.group == "asking")


NOT_ON_NODES: Final = tuple(name for name, method in METHODS.items() if not method.on_nodes)
"""Methods that a real network lacks."""


def colour(method: Method) -> str:
    """Return the colour of a method in figures."""
    return "#888888" if method.style.colour is None else PALETTE[method.style.colour]
