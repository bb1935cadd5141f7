"""How many nodes share a process on this machine, and which.

A process of its own isolates a node; a process shared costs less memory, and far less processor
time for each message. Code of a user may block the process it runs in, so ``auto`` gives each node
a process of its own where the scenario names such code.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from testbed.runtime.base import node_process
from testbed.scenario.plan import PlanHead

if TYPE_CHECKING:
    from testbed.scenario.schema import Deployment

AUTO: Final = 0
"""Number of nodes per process that is chosen by what the machine carries."""

CARRIED: Final = 10
"""Nodes with a process each that two cores carry with a valid certificate: measured with
``python -m benchmarks carriers``."""

CALIBRATION: Final = "calibration.json"
"""File of a home with what `testbed calibrate` has measured, by machine."""

_SHAREABLE: Final = "emulated"
"""The application that uses no processor time, so that its node disturbs no other."""


@dataclass(frozen=True, slots=True)
class Hosting:
    """The part of ``deployment`` that is for this machine: nodes per process, and the carrier."""

    nodes_per_process: int = AUTO
    transport: str = "auto"

    @classmethod
    def of(cls, deployment: Deployment | None) -> Hosting:
        """Return what a scenario's section says; the default without one."""
        if deployment is None:
            return cls()
        return cls(deployment.nodes_per_process, deployment.transport)

    def groups(self, plan: PlanHead, home: Path) -> list[range]:
        """Return which nodes each process has, in order."""
        size = plan.size
        per = self.nodes_per_process
        if per == AUTO:
            if _own_code(plan) or size <= carried(home, _payload(plan)):
                per = 1
            else:
                per = -(-size // cores())
        count = -(-size // per)
        # As even as can be: 11 nodes in two processes are 6 and 5.
        bounds = [number * size // count for number in range(count + 1)]
        return [range(first, end) for first, end in itertools.pairwise(bounds)]


def carried(home: Path, payload: str) -> int:
    """Return how many nodes with a process each this machine carries, with that payload.

    What a calibration of this machine in ``home`` has found comes before ``CARRIED``.
    """
    try:
        document: Any = json.loads((home / CALIBRATION).read_text(encoding="utf-8"))
        here = [
            (each["when"], each["knees"][f"nodes-{payload}"]["level"])
            for each in document["calibrations"]
            if each["machine"]["host"] == platform.node() and each["machine"]["cores"] == cores()
        ]
        _, level = max(here)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return CARRIED
    return level if isinstance(level, int) and level > 0 else CARRIED


def cores() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def process_name(group: range, number: int) -> str:
    """Return the name of the process of ``group``, the one with this number."""
    return node_process(group[0]) if len(group) == 1 else f"host-{number}"


def _own_code(plan: PlanHead) -> bool:
    """Return whether an application or a scheduler is named that may block its process."""
    return plan.application.name != _SHAREABLE or ":" in plan.scheduler.name


def _payload(plan: PlanHead) -> str:
    """Return what moves between nodes, as a calibration calls it."""
    return "bytes" if plan.demand.bytes_per_second else "metadata"
