"""The faults that a network can have: one check for those that come by hand and from logs."""

from __future__ import annotations

from testbed.model.faults.registry import KINDS
from testbed.model.faults.seam import Fault


def impossible(fault: Fault, size: int) -> str:
    """Return why there can be no such fault in a network of ``size`` nodes; empty if there can.

    Its instants are not looked at.
    """
    kind = KINDS.get(fault.kind)
    if kind is None:
        return f"unknown kind of fault {fault.kind!r}; known: {', '.join(KINDS)}"
    links = kind.target == "links"
    named = [node for link in fault.links for node in link] if links else list(fault.nodes)
    if not named or (fault.nodes if links else fault.links):
        return f"{kind.name} acts on {kind.target}, and at least one of them"
    wrong = [node for node in named if type(node) is not int or not 0 <= node < size]
    if wrong or any(source == to for source, to in fault.links):
        return f"no such {kind.target}; there are nodes 0 to {size - 1}"
    if not (0 <= fault.factor <= 1000 and 0 <= fault.failure_rate <= 1e6):
        return "a factor is from 0 to 1000, a failure rate from 0 to 1e6 per second"
    if fault.factor == 0 and kind.name != "arrivals":
        return "a factor of 0 is for arrivals only; a partition or a hung node stands still"
    if kind.modes and fault.mode not in kind.modes:
        return f"mode {fault.mode!r}; allowed: {' or '.join(kind.modes)}"
    return ""
