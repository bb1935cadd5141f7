"""The seam between a node and families of work: what drives an episode, and its surroundings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edgenode.answers import Answers
from edgenode.applications.seam import Application
from edgenode.background import Background
from edgenode.clock import Timers
from edgenode.complaints import Complaints
from edgenode.spool import Spool
from testbed.model.faults import Fault
from testbed.rpc.generated import edge_pb2 as pb


class Link(Protocol):
    """What leads from a node to one of its peers."""

    async def close(self) -> None:
        """Close all connections."""
        ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an episode of a run at a node is made from.

    Plan, scheduler and links are those of one family of work. ``spool`` None: nothing is logged.
    """

    node: int
    run: str
    plan: Any
    scheduler: Any
    links: Mapping[int, Any]
    application: Application
    spool: Spool | None
    background: Background
    complaints: Complaints
    remake: Callable[[], Awaitable[Any]]
    """Makes another scheduler like the present one."""


class NodeDriver(Protocol):
    """One episode at one node, from its preparation until ``close``."""

    @property
    def episode(self) -> int: ...

    @property
    def begun(self) -> bool: ...

    @property
    def timers(self) -> Timers: ...

    @property
    def answers(self) -> Answers | None:
        """What answers requests in this episode; None if it has none."""
        ...

    def begin(self, at: float | None = None) -> None:
        """Begin the episode: its clock is at 0 at the instant ``at`` on ``time.monotonic``.

        None: now. No-op if it has begun.
        """
        ...

    def decide_by(self, scheduler: Any) -> None:
        """Have ``scheduler`` decide from now on."""
        ...

    def take_arrivals(self, told: pb.Arrivals) -> pb.ArrivalsTaken:
        """Take what the controller tells of the tasks to come, and return the answer to it.

        Raises: ValueError: these cannot be arrivals here; then nothing has changed.
        """
        ...

    def set_faults(self, faults: Iterable[Fault]) -> None:
        """Set the faults that were injected by hand, in place of those set before."""
        ...

    def describe(self, into: pb.NodeDescription) -> None:
        """Enter the present state."""
        ...

    def close(self) -> int:
        """End the episode; return how much work was left. Idempotent."""
        ...
