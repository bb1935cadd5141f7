"""Faults of a scenario: what goes wrong when, for how long, and what it changes.

One file per kind of fault; each states its changes to the ``Scene``. The same files serve the
simulator and the network: both ask a ``Timeline`` what holds at which instant. docs/faults.md
explains the kinds and their exact meaning.
"""

from __future__ import annotations

from testbed.model.faults.registry import KINDS, kind_of
from testbed.model.faults.scene import Conditions, LinkConditions, Scene, State
from testbed.model.faults.seam import Fault, FaultKind
from testbed.model.faults.spec import ANY, Exponential, FaultSpec, draw
from testbed.model.faults.timeline import Timeline

__all__ = [
    "ANY",
    "KINDS",
    "Conditions",
    "Exponential",
    "Fault",
    "FaultKind",
    "FaultSpec",
    "LinkConditions",
    "Scene",
    "State",
    "Timeline",
    "draw",
    "kind_of",
]
