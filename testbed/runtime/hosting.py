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
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from testbed.errors import Problem, UsageError
from testbed.runtime.base import node_process
from testbed.scenario.plan import PlanHead

if TYPE_CHECKING:
    from testbed.scenario.schema import Deployment

AUTO: Final = 0
"""Number of nodes per process that is chosen by what the machine carries."""

CARRIED: Final = 10
"""Nodes with a process each that two cores carry with a valid certificate: measured with
``python -m benchmarks carriers``."""

LOOPBACK: Final = "127.0.0.1"
"""Where nodes of this machine take HTTP requests: of processes of this machine only."""

LAST_PORT: Final = 65_535

CALIBRATION: Final = "calibration.json"
"""File of a home with what `testbed calibrate` has measured, by machine."""

_SHAREABLE: Final = "emulated"
"""The application that uses no processor time, so that its node disturbs no other."""


@dataclass(frozen=True, slots=True)
class Hosting:
    """The part of ``deployment`` that is for this machine.

    Nodes per process, the carrier, the port of node 0 for HTTP requests (0: any), and the port for
    metrics (0: none).
    """

    nodes_per_process: int = AUTO
    transport: str = "auto"
    http_port: int = 0
    metrics_port: int = 0

    @classmethod
    def of(cls, deployment: Deployment | None) -> Hosting:
        """Return what a scenario's section says; the default without one."""
        if deployment is None:
            return cls()
        return cls(
            deployment.nodes_per_process,
            deployment.transport,
            deployment.http_port,
            deployment.metrics_port,
        )

    def http(self, plan: PlanHead) -> str:
        """Return where nodes take HTTP requests, as an argument of them; empty if they take none.

        Raises: UsageError: there are not as many ports, or one of them is taken.
        """
        if not plan.fronted:
            return ""
        first = self.http_port
        if first == 0:
            return f"{LOOPBACK}:0"
        last = first + plan.size - 1
        if last > LAST_PORT:
            raise UsageError(
                "there are not enough ports",
                [
                    Problem(
                        "deployment.httpPort",
                        f"{first}: {plan.size} nodes would need ports up to {last}",
                        f"at most {LAST_PORT - plan.size + 1}, or 0 for any free ports",
                    )
                ],
            )
        if taken := [port for port in range(first, last + 1) if not _is_free(port)]:
            raise UsageError(
                "ports of this machine are taken",
                [
                    Problem(
                        "deployment.httpPort",
                        f"port {port} of node {port - first} is used by another program",
                        "another port, or 0 for any free ports",
                    )
                    for port in taken[:3]
                ],
            )
        return f"{LOOPBACK}:{first}+"

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


def _is_free(port: int) -> bool:
    """Return whether this process could listen at a port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trying:
        trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trying.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


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
