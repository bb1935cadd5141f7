"""The seam between a node and what answers requests; imports nothing that serves HTTP."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from testbed.model.serving.events import Request, Status
from testbed.model.units import Micros
from testbed.rpc.generated import edge_pb2 as pb
from testbed.scenario.plan import ServingPlan


class Content(NamedTuple):
    """The part of a user's request that goes on with it."""

    method: str = "GET"
    body: bytes = b""


class Answered(NamedTuple):
    """How a request was answered. ``elapsed`` is the emulated time it took, by the real clock."""

    request: Request
    status: Status
    server: int | None
    elapsed: Micros


class Ended(Exception):
    """The episode ended before the request was answered."""


class Down(Exception):
    """A fault has taken the node down; to a neighbour it is as if nothing were there."""


class Answers(Protocol):
    """An episode in which requests are answered."""

    @property
    def plan(self) -> ServingPlan: ...

    @property
    def episode(self) -> int: ...

    @property
    def begun(self) -> bool: ...

    def function(self, name: str) -> int | None:
        """Return the index of a function; None if there is none of that name."""
        ...

    async def request(
        self,
        function: int,
        content: Content,
        *,
        number: int | None = None,
        sender: int | None = None,
    ) -> Answered:
        """Answer a request: of a user, or of the neighbour ``sender`` that forwards it.

        ``number`` is its id; one of nobody the node knows has none, and is given one.

        Raises: Ended: the episode is over. Down: the node is down, for a neighbour. KeyError: a
        request with this id is open.
        """
        ...

    def refused(self, function: int, what: str) -> None:
        """Count a request that the model was not asked about in the present window."""
        ...

    def heard(self, sender: int, said: pb.Said) -> None:
        """Take what a neighbour says."""
        ...
