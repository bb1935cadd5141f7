"""One episode: arrivals told ahead to their nodes, until every task has ended or is out of reach.

Nodes let tasks arrive by their own clocks; this process enters them by its own. The episode waits
on one event, ``over``, set by whatever settles it: the last record of the last task, the loss of
the node that held it, a stop, or the hard bound. Nothing polls, and nothing is waited for beyond
the bound: the last slot plus the longest deadline plus ``GRACE_S``, in time during which this
process ran.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from controller.arrivals import Supply
from controller.ledger import Ledger
from testbed.errors import TestbedError
from testbed.model.events import Record, RecordKind
from testbed.model.faults import Timeline
from testbed.model.task import Task
from testbed.model.units import SECOND, Micros
from testbed.rpc.generated import edge_pb2 as pb
from testbed.scenario.plan import Plan

_log = structlog.get_logger("controller.episode")

AHEAD_S: Final = 4.0
"""Real seconds that nodes are told of their arrivals ahead."""

MOST_AHEAD: Final = 10_000
"""Most slots, summed over the nodes, that are drawn and told ahead."""

AT_ONCE: Final = 2_000
"""Slots, summed over the nodes, that are drawn before whatever else happens here has its turn."""

RETRY_S: Final = 0.2
"""Seconds between two attempts to tell a node something, and two looks at one that is behind."""

GRACE_S: Final = 3.0
"""Real seconds a task may take longer than its deadline allows before it counts as lost."""

STOP_S: Final = 20.0
"""Real seconds that tasks under way get to end once the run is stopped; then they are lost."""


@dataclass(frozen=True, slots=True)
class Overdue:
    """Work that an episode had not done at its hard bound.

    Of ``arrivals`` tasks ``not_begun`` had not arrived at their nodes, as far as these have said;
    ``open`` tasks, these included, had not ended. ``lateness`` is the worst one of an arrival by
    node, in emulated microseconds, of those that had not arrived too.
    """

    arrivals: int
    not_begun: int
    open: int
    lateness: tuple[Micros, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """The state that an episode shares with its run.

    ``late`` is told how late each task arrived, in emulated microseconds, ``changed`` that its
    progress has. ``lost`` are the tasks that earlier episodes of the run closed as lost. ``awake``
    counts the seconds in which this process ran; without it all seconds count.
    """

    lost: set[int]
    late: Callable[[Micros], None]
    changed: Callable[[], None]
    awake: Callable[[], float] | None = None


class Receiver(Protocol):
    """Takes a node's arrivals to it: ``controller.link.NodeLink``."""

    async def arrive(self, arrivals: pb.Arrivals) -> pb.ArrivalsTaken:
        """Tell the node. Raises: TestbedError: it did not answer, or refuses."""
        ...


class Episode:
    """Episode ``number`` of run ``run`` of ``plan``.

    ``receivers`` has the connection to each node that takes part, None for the others. Each node is
    to prepare the episode with ``first_arrivals``; ``prepared`` says that it has. Then ``begin``
    sets the instant of its beginning. ``timeline`` are its faults, None for those of the plan.
    """

    def __init__(
        self,
        plan: Plan,
        number: int,
        receivers: Sequence[Receiver | None],
        seen: Seen,
        *,
        run: str = "",
        timeline: Timeline | None = None,
    ) -> None:
        self.number = number
        self.slot = 0
        self.ledger = Ledger(seen.lost)
        self.over = asyncio.Event()
        self.overdue: Overdue | None = None
        self._plan = plan
        self._receivers = list(receivers)
        self._seen = seen
        self._loop = asyncio.get_running_loop()
        self._awake = seen.awake or self._loop.time
        self._start = math.inf
        size = len(receivers)
        self._slot_s = plan.workload.slot / SECOND * plan.time_scale
        most = max(1, MOST_AHEAD // size)
        self._window = min(most, math.ceil(AHEAD_S / self._slot_s))
        self._at_once = max(1, AT_ONCE // size)
        taking_part = [node for node, each in enumerate(receivers) if each is not None]
        self._supply = Supply(
            plan,
            number,
            timeline,
            taking_part,
            run=run,
            window=self._window,
            enter=self._enter,
        )
        self._worst = [0] * size
        for node in set(range(size)) - set(taking_part):
            self.ledger.node_died(node)
        self._supply.draw(self._window)
        self._news = [asyncio.Event() for _ in receivers]
        self._telling: dict[int, asyncio.Task[None]] = {}
        self._bound = math.inf
        self._stopped = False
        self._generating: asyncio.Task[None] | None = None

    def begin(self, at: float | None = None) -> None:
        """Begin at the instant ``at`` on the event loop's clock, in seconds; None: now."""
        plan, now = self._plan, self._loop.time()
        self._start = now if at is None else at
        longest = plan.workload.slots * plan.workload.slot + plan.workload.deadline.maximum
        ahead = max(0.0, self._start - now)
        self._bound = self._awake() + ahead + longest / SECOND * plan.time_scale + GRACE_S
        if not self._stopped:
            self._generating = self._loop.create_task(self._generate())
            self._generating.add_done_callback(self._generated)

    @property
    def timed_out(self) -> bool:
        """Whether the hard bound ended it."""
        return self.overdue is not None

    @property
    def now(self) -> Micros:
        """The present instant on the controller's clock of this episode, emulated."""
        seconds = max(0.0, self._loop.time() - self._start)
        return int(seconds / self._plan.time_scale * SECOND)

    def first_arrivals(self, node: int) -> pb.Arrivals | None:
        """Return what a node has to know when it prepares for the episode; None if it takes no
        part."""
        return self._supply.message(node)

    def prepared(self, node: int) -> None:
        """Note that a node has prepared for the episode with its first arrivals."""
        self._supply.answered(node, pb.ArrivalsTaken(number=1))
        receiver = self._receivers[node]
        if receiver is not None and node not in self._telling:
            telling = self._loop.create_task(self._keep_telling(node, receiver))
            telling.add_done_callback(self._told)
            self._telling[node] = telling
        self.settle()

    def redraw(self, timeline: Timeline) -> None:
        """Draw the arrivals of the slots to come under other faults."""
        self._supply.redraw(timeline)
        self._tell()

    def take(self, record: Record) -> bool:
        """Take a record of this episode; False if it must not be stored."""
        if not self.ledger.add(record):
            return False
        if record.kind is RecordKind.GENERATED:
            task = record.task
            self._late(task.source, record.clock - task.slot * self._plan.workload.slot)
        elif record.kind is RecordKind.DECIDED and "late" in record.data:
            self._late(record.node, int(record.data["late"]))
        return True

    def node_died(self, node: int) -> None:
        """Count a node's tasks as lost, and all that arrive at it from now on."""
        self._receivers[node] = None
        telling = self._telling.pop(node, None)
        if telling is not None:
            telling.cancel()
        self.ledger.node_died(node)
        self._supply.leave(node)
        self.settle()

    def settle(self) -> None:
        """See whether the episode is over; to be called after everything that may end it."""
        if self._supply.settled and self.ledger.settled:
            self.over.set()

    def stop(self, *, wait: bool) -> None:
        """Let no more tasks arrive; without ``wait`` the episode is over at once.

        What nodes know of slots that have not begun is taken back. Tasks whose slot has begun have
        arrived. They may end within ``STOP_S``, however long their deadlines last in real time.
        """
        self._stopped = True
        if self._generating is not None:
            self._generating.cancel()
        self._supply.stop()
        self._tell()
        if wait:
            self._loop.call_later(STOP_S, self.over.set)
        else:
            self.over.set()

    async def wait(self) -> None:
        """Return when the episode is over, at its hard bound at the latest.

        Everything that should have arrived by then has, and is in the ledger. Raises what went
        wrong in generating, which is a defect.
        """
        # A process that was paused finds its timers rung; what came meanwhile is taken first.
        while (left := self._bound - self._awake()) > 0 and not self.over.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self.over.wait()
        generating = self._generating
        if generating is not None and generating.done() and not generating.cancelled():
            generating.result()
        if not self.over.is_set():
            self._give_up()
        working = [*self._telling.values(), *([] if generating is None else [generating])]
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)

    def close(self, complete: Collection[int] = ()) -> list[Record]:
        """Enter everything that has arrived, and end what has not ended; records of those ends.

        ``complete`` are the nodes whose log of the episode is here to its end.
        """
        self._supply.close(complete)
        return self.ledger.close(self.now)

    def _give_up(self) -> None:
        """Enter all that should have arrived, and say what is missing."""
        while self._supply.begun < self._supply.last:
            self._supply.draw(self._supply.begun + self._at_once)
            self._supply.begin(self._supply.drawn)
        if not self._stopped:
            self._supply.close()
        not_begun = 0
        for task in self.ledger.not_begun():
            if self._receivers[task.source] is not None:
                not_begun += 1
                self._late(task.source, self.now - task.slot * self._plan.workload.slot)
        self.overdue = Overdue(
            self.ledger.generated, not_begun, self.ledger.unfinished, tuple(self._worst)
        )

    def _generated(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.over.set()
        self.settle()

    async def _generate(self) -> None:
        """Draw the slots ahead, and enter them when their time has come."""
        supply = self._supply
        while supply.begun < supply.last:
            due = self._start + supply.begun * self._slot_s
            # Also when it is late already: whatever else happens here must have its turn.
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            begun = math.floor((self._loop.time() - self._start) / self._slot_s) + 1
            begun = min(max(begun, supply.begun), supply.begun + self._at_once)
            supply.draw(min(begun + self._window, supply.drawn + self._at_once))
            supply.begin(begun)
            self.slot = max(0, supply.begun - 1)
            self._tell()
            self._seen.changed()

    def _enter(self, task: Task) -> None:
        self.ledger.generate(task, task.slot * self._plan.workload.slot)

    def _tell(self) -> None:
        for event in self._news:
            event.set()

    async def _keep_telling(self, node: int, receiver: Receiver) -> None:
        """Tell a node of its arrivals, again and again if it does not answer."""
        news = self._news[node]
        refused = ""
        while True:
            if self._supply.is_behind(node):
                await asyncio.sleep(RETRY_S)
            message = self._supply.message(node)
            if message is None:
                news.clear()
                await news.wait()
                continue
            try:
                answer = await receiver.arrive(message)
            except TestbedError as error:
                if str(error) != refused:
                    refused = str(error)
                    _log.warning("arrivals", node=node, episode=self.number, answer=refused)
                await asyncio.sleep(RETRY_S)
                continue
            self._supply.answered(node, answer)
            self.settle()

    def _told(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("defect in telling arrivals", exc_info=error)

    def _late(self, node: int, lateness: Micros) -> None:
        self._worst[node] = max(self._worst[node], lateness)
        self._seen.late(lateness)
