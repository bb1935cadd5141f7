"""Users of Locust that submit a task at the beginning of each slot (``locust_generator``).

Run by Locust in a process of its own, which needs nothing of this project. One user is one node;
a task is a small message over TCP to a sink that confirms it.
"""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any

from locust import User, events, task

SLOT_S = float(os.environ["PEER_SLOT_S"])
SLOTS = int(os.environ["PEER_SLOTS"])
SINK = ("127.0.0.1", int(os.environ["PEER_PORT"]))
late: list[float] = []
first: list[float] = []
"""Instant of the first slot, once all users are there: how long Locust takes to start is no
lateness."""
started: list[float] = []
"""Processor time of the start."""


class Node(User):  # type: ignore[misc]
    """Submits a task in every slot; as all others it waits for the slot's own instant."""

    def on_start(self) -> None:
        """Connect to the sink."""
        self.connection = socket.create_connection(SINK)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.slot = 0

    def wait_time(self) -> float:
        """Return the seconds until the next slot begins; none if that was missed."""
        return max(0.0, first[0] + self.slot * SLOT_S - time.time()) if first else 0.02

    @task  # type: ignore[untyped-decorator]
    def submit(self) -> None:
        """Submit a task and note how late that was."""
        due = first[0] + self.slot * SLOT_S if first else float("inf")
        if time.time() >= due:
            late.append(time.time() - due)
            self.connection.sendall(b"x" * 64)
            self.connection.recv(1)
            self.slot += 1
        if self.slot >= SLOTS:
            self.environment.runner.quit()


@events.spawning_complete.add_listener  # type: ignore[untyped-decorator]
def begin(**_: Any) -> None:
    """Begin the first slot soon."""
    first.append(time.time() + 0.5)
    started.append(time.process_time())


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def report(environment: Any, **_: Any) -> None:
    """Write what was measured."""
    spent = time.process_time() - sum(started)
    with open(os.environ["PEER_OUT"], "w", encoding="utf-8") as file:
        json.dump({"late": late, "cpu_s": spent}, file)
