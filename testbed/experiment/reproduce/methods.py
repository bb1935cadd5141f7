"""The methods that stand in every figure, and how they look there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from testbed.experiment.figures import PALETTE

Group: TypeAlias = Literal["paper", "equal", "beyond", "limit"]
"""``paper``: what the paper compares. ``equal``: what it lacks, baselines with the same overload
bits that the mask of the learned policies uses. ``beyond``: the policy that ships with this
toolkit. ``limit``: knows what no scheduler can know."""

O2O: Final = "o2o"
OFFLINE: Final = "offline"
ONLINE_ONLY: Final = "online-only"
LEARNED: Final = (O2O, OFFLINE, ONLINE_ONLY)
"""The policies to train for a network before they can be evaluated on it."""

BOUND: Final = "bound"
"""Not a scheduler: the share of tasks that would succeed with the network to themselves."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method as figures and tables call it."""

    name: str
    label: str
    group: Group
    colour: str
    marker: str
    line: str = "-"


_BLUE, _ORANGE, _GREEN, _PINK, _SKY, _RED, _, _BLACK = PALETTE
_GREY: Final = "#888888"

METHODS: Final[Mapping[str, Method]] = MappingProxyType(
    {
        method.name: method
        for method in (
            Method(O2O, "O2O-DRL", "paper", _BLUE, "o"),
            Method(OFFLINE, "Offline only", "paper", _ORANGE, "s"),
            Method(ONLINE_ONLY, "Online only", "paper", _GREEN, "^"),
            Method("ratc", "RATC", "paper", _PINK, "D"),
            Method("rda", "RDA", "paper", _SKY, "v"),
            Method("random", "Random", "paper", _RED, "x"),
            Method("ratc-masked", "RATC, masked", "equal", _PINK, "D", "--"),
            Method("rda-masked", "RDA, masked", "equal", _SKY, "v", "--"),
            Method("local-or-reliable", "Local or reliable", "equal", _BLACK, "P", "--"),
            Method("untrained", "Untrained, masked", "equal", _GREY, "x", "--"),
            Method("per-destination", "Per-destination", "beyond", _BLACK, "*"),
            Method("oracle", "Oracle", "limit", _GREY, "_", ":"),
            Method(BOUND, "Bound", "limit", _GREY, "", ":"),
        )
    }
)
"""In the order of tables and legends."""

PAPER: Final = tuple(name for name, method in METHODS.items() if method.group == "paper")
EQUAL: Final = tuple(name for name, method in METHODS.items() if method.group == "equal")


def label(name: str) -> str:
    """Return the name of a method in figures; its own name where it is none of ``METHODS``."""
    return METHODS[name].label if name in METHODS else name


NOT_ON_NODES: Final = (ONLINE_ONLY, "oracle")
"""Methods that a real network lacks: ``oracle`` needs a simulator, and learning from nothing would
take too many episodes."""
