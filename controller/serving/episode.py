"""One episode of a serving run: the requests of its users, sent by an absolute schedule.

The loop is open: each request is sent at its instant on this process's clock, however many before
it have no answer yet. After the last one, those without an answer get the plan's drain to have one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from controller.serving.client import MOST_OPEN, FrontAddress, Fronts
from controller.serving.ledger import Joined, RequestLedger, Seen
from controller.serving.recording import Batch
from testbed.model.faults import Timeline
from testbed.model.serving.users import Arrival
from testbed.model.units import SECOND, Micros
from testbed.rpc import front
from testbed.rpc.generated import edge_pb2 as pb
from testbed.scenario.plan import ServingPlan

AT_ONCE: Final = 50
"""Requests that are sent one after another when late, before anything else has its turn."""

LEAST_DRAIN_S: Final = 1.0
"""Real seconds for the last answers at least; emulated time may run faster than real time."""

STOP_S: Final = 3.0
"""Real seconds that requests under way get to be answered once the run is stopped."""

PATIENCE_S: Final = 5.0
"""Real seconds that an answer may take longer than nodes wait for each other."""


@dataclass(frozen=True, slots=True)
class Watchers:
    """Callbacks of an episode: the lateness of a sent request, the end of one, and progress."""

    late: Callable[[Micros], None]
    joined: Callable[[Joined[Batch]], None]
    changed: Callable[[], None]


class ServingEpisode:
    """Episode ``number`` of ``plan``; ``fronts`` has where each node takes requests.

    Those of None take no part: requests for them find nobody. ``awake`` counts the seconds in which
    this process ran. ``most_open`` requests are open at a time at most.
    """

    def __init__(
        self,
        plan: ServingPlan,
        number: int,
        fronts: Sequence[FrontAddress | None],
        watchers: Watchers,
        *,
        awake: Callable[[], float] | None = None,
        most_open: int = MOST_OPEN,
    ) -> None:
        self.number = number
        self.over = asyncio.Event()
        self.unsent = 0
        self._plan = plan
        self._watchers = watchers
        self._loop = asyncio.get_running_loop()
        self._awake = awake or self._loop.time
        self._start: float | None = None
        self._sent = asyncio.Event()
        self._names = [function.name for function in plan.network.functions]
        self.ledger: RequestLedger[Batch] = RequestLedger(
            self._names, reports=plan.log_requests == "all"
        )
        slowest = max(map(plan.network.patience, range(len(self._names))), default=0)
        trip = (slowest + 2 * plan.bus.delay) / SECOND * plan.time_scale
        self._fronts = Fronts(
            list(fronts), plan.time_scale, trip + PATIENCE_S, self._ended, most_open=most_open
        )
        self._sending: asyncio.Task[None] | None = None

    @property
    def slot(self) -> int:
        """The present window."""
        return min(self.now // self._plan.network.window, max(0, self._plan.windows - 1))

    @property
    def now(self) -> Micros:
        """The present instant on the controller's clock of this episode, emulated."""
        if self._start is None:
            return 0
        return self._emulated(max(0.0, self._loop.time() - self._start))

    @property
    def seconds_left(self) -> float:
        """Real seconds until the last request."""
        return max(0.0, self._plan.episode_seconds - self.now / SECOND * self._plan.time_scale)

    def first_arrivals(self, node: int) -> pb.Arrivals | None:
        """Return None: requests come from outside."""
        return None

    def prepared(self, node: int) -> None:
        """Note that a node has prepared for the episode."""

    def begin(self, at: float | None = None) -> None:
        """Begin at the instant ``at`` on the event loop's clock, in seconds; None: now."""
        if self._start is not None or self._sent.is_set():
            return
        self._start = self._loop.time() if at is None else at
        self._sending = self._loop.create_task(self._send_all(self._start))
        self._sending.add_done_callback(self._all_sent)

    def node_died(self, node: int) -> None:
        """Do nothing: its users go on, and find nobody, or one who may still answer."""

    def redraw(self, timeline: Timeline) -> None:
        """Do nothing: faults change no arrivals."""

    def settle(self) -> None:
        """See whether all requests have been sent and have ended for their client."""
        if self._sent.is_set() and not self.ledger.unanswered:
            self.over.set()

    def stop(self, *, wait: bool) -> None:
        """Send no more requests; those under way may be answered if it is to ``wait``."""
        self._sent.set()
        if self._sending is not None:
            self._sending.cancel()
        if wait and self.ledger.unanswered:
            self._loop.call_later(STOP_S, self.over.set)
        else:
            self.over.set()

    async def wait(self) -> None:
        """Return when the episode is over.

        That is when all requests have been answered, and at the end of the drain at the latest.
        Raises what went wrong in sending, which is a defect.
        """
        await self._sent.wait()
        drain = max(LEAST_DRAIN_S, self._plan.horizon.drain / SECOND * self._plan.time_scale)
        until = self._awake() + drain
        # A process that was paused finds its timers rung; what came meanwhile is taken first.
        while (left := until - self._awake()) > 0 and not self.over.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self.over.wait()
        # What has no answer now has none.
        await self._fronts.close()
        if self._sending is not None:
            self._sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sending

    async def _send_all(self, start: float) -> None:
        scale, plan = self._plan.time_scale, self._plan
        at_once = 0
        for arrival in plan.arrivals(self.number):
            due = start + arrival.at / SECOND * scale
            left = due - self._loop.time()
            if left > 0 or at_once >= AT_ONCE:
                await asyncio.sleep(max(0.0, left))
                at_once = 0
            at_once += 1
            self._send(arrival, start)

    def _send(self, arrival: Arrival, start: float) -> None:
        at, request = arrival
        sent = self._emulated(self._loop.time() - start)
        self.ledger.send(request, at, sent)
        self._watchers.late(sent - at)
        name = front.request_name(self.number, request.id)
        if not self._fronts.send(request.source, request.id, self._names[request.function], name):
            self.unsent += 1
        self._watchers.changed()

    def _all_sent(self, _sending: asyncio.Task[None]) -> None:
        self._sent.set()
        self.settle()

    def _ended(self, number: int, seen: Seen) -> None:
        joined = self.ledger.ended(number, seen)
        if joined is not None:
            self._watchers.joined(joined)
        self.settle()

    def _emulated(self, seconds: float) -> Micros:
        return int(seconds / self._plan.time_scale * SECOND)
