"""The kinds of faults by name; a new one is a file of its own and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from testbed.errors import UsageError
from testbed.model.faults.arrivals import Arrivals
from testbed.model.faults.link_failures import LinkFailures
from testbed.model.faults.link_rate import LinkRate
from testbed.model.faults.node_down import NodeDown
from testbed.model.faults.node_failures import NodeFailures
from testbed.model.faults.partition import Partition
from testbed.model.faults.seam import FaultKind
from testbed.model.faults.slow_node import SlowNode

_ALL: Final[tuple[FaultKind, ...]] = (
    NodeDown(),
    SlowNode(),
    NodeFailures(),
    LinkRate(),
    LinkFailures(),
    Partition(),
    Arrivals(),
)

KINDS: Final[Mapping[str, FaultKind]] = {kind.name: kind for kind in _ALL}


def kind_of(name: str) -> FaultKind:
    """Return the kind of this name.

    Raises: UsageError: there is none; names those there are.
    """
    kind = KINDS.get(name)
    if kind is None:
        raise UsageError(f"unknown kind of fault '{name}'; known: {', '.join(KINDS)}")
    return kind
