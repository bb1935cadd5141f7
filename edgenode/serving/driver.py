"""Drives the serving model of one node through one episode in real time.

The driver turns requests, words and the clock into events of ``ServingState`` and carries out its
effects. It decides nothing. Events of timers are handed in at the instant they were set for, so
lateness does not add up; how long a request took is what the real clock said.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from edgenode.answers import Answered, Answers, Content, Down, Ended
from edgenode.clock import Urgency
from edgenode.faulting import Faulting
from edgenode.realtime import RealTimeEpisode
from edgenode.seam import Surroundings
from edgenode.serving.neighbours import Neighbour, Unanswered
from edgenode.serving.routing import CalledElsewhere
from testbed.model.faults import State
from testbed.model.faults.scene import NORMAL, Conditions
from testbed.model.hook import Decided
from testbed.model.serving.bus import bytes_of
from testbed.model.serving.events import (
    Answer,
    Began,
    Effect,
    Event,
    Forward,
    PeerAnswered,
    PeerFailed,
    Request,
    RequestCame,
    RouteDue,
    RouterAnswered,
    Say,
    Serve,
    Served,
    SetRouteTimer,
    Status,
    WasSaid,
)
from testbed.model.serving.node import ServingState
from testbed.model.serving.record import RequestRecord, WindowRecord
from testbed.model.serving.route import (
    RouteObservation,
    Router,
    RouterFailed,
    RoutingRecord,
)
from testbed.model.serving.users import external
from testbed.model.serving.windows import Windows
from testbed.model.units import SECOND, Micros
from testbed.rpc import front
from testbed.rpc.generated import edge_pb2 as pb
from testbed.scenario.plan import ServingPlan

_logger: Final = logging.getLogger(__name__)

LEAST_PATIENCE_S: Final = 1.0
"""Real seconds that a neighbour gets to answer at least: emulated time may run faster."""

LARGEST_SAID: Final = 16_384
"""Bytes of a message of a neighbour that are read."""

MOST_WORDS: Final = 1_024
"""Messages of neighbours that wait for their delay; more are dropped, as if they were lost."""

MOST_BACKLOG: Final = 8 << 20
"""Bytes of a log above which requests of other people are counted in windows only."""


class ServingLog(Protocol):
    """Takes what happened; keeps it until the controller has it."""

    @property
    def backlog(self) -> int:
        """Bytes that the controller does not have yet."""
        ...

    def request(self, record: RequestRecord) -> None: ...

    def window(self, record: WindowRecord) -> None: ...

    def decision(self, decision: Decided) -> None: ...

    def tick(self, lateness: Micros) -> None: ...

    def failure(self, node: int, reason: str) -> None: ...

    def fault(self, document: bytes) -> None: ...

    def hurry(self) -> None: ...


def _unlogged(_document: bytes) -> None:
    """Log nothing."""


class _Waiting(NamedTuple):
    """Who waits for the answer to a request, since when, and what is to be sent on with it.

    ``told``: the controller has sent it.
    """

    answer: asyncio.Future[Answered]
    request: Request
    sender: int | None
    came: Micros
    content: Content
    told: bool


def _fail(waiting: _Waiting, error: Exception) -> None:
    """Tell who waits that there will be no answer."""
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
        # Nobody may wait any more: then it is no defect that nobody looks at it.
        waiting.answer.exception()


class ServingDriver(RealTimeEpisode[Event]):
    """One episode at one node, from its preparation until ``close``.

    Nothing happens before ``begin``: requests that come before wait. ``log`` None: nothing of the
    episode is logged.
    """

    def __init__(self, at: Surroundings, run: str, episode: int, log: ServingLog | None) -> None:
        plan: ServingPlan = at.plan
        super().__init__(plan.time_scale)
        self.node = node = at.node
        self.plan = plan
        self.run = run
        self.episode = episode
        self.conditions = NORMAL
        self._neighbours: Mapping[int, Neighbour] = at.links
        self._log = log
        self._complaints = at.complaints
        self._background = at.background
        self._remake = at.remake
        self._loop = asyncio.get_running_loop()
        network = plan.network
        self.state: ServingState = self._new_state(at.scheduler)
        self._windows = Windows(node, episode, network.window)
        self._beside: tuple[dict[str, int], ...] = tuple({} for _ in network.functions)
        self._functions = {each.name: index for index, each in enumerate(network.functions)}
        self._patience = [
            2 * plan.bus.delay + network.patience(function)
            for function in range(len(network.functions))
        ]
        self._waiting: dict[int, _Waiting] = {}
        self._peers: dict[int, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._silent: set[int] = set()
        self._words = 0
        self._begun = self._loop.create_future()
        self._external = 0
        self._said = 0
        self._life = 0
        self._routings = 0
        self._hung: list[Event] = []
        self._carry_out: dict[type, Callable[[Any, Micros], None]] = {
            Serve: self._serve,
            Forward: self._forward,
            Answer: self._answer,
            SetRouteTimer: self._set_route_timer,
            Say: self._say,
            RoutingRecord: self._routed,
        }
        note = _unlogged if log is None else log.fault
        self.faulting = Faulting(self, plan.timeline(episode), note)

    # --- the episode ------------------------------------------------------------------------

    def begin(self, at: float | None = None) -> None:
        """See ``NodeDriver``."""
        if self.begun or self._closed:
            return
        self.begun = True
        self.clock.begin(at)
        self.timers.at(0, Urgency.EXECUTION, self._start)
        self._end_window_at(self._windows.end)
        self.timers.rearm()

    def _start(self, at: Micros) -> None:
        self.handle(Began(), at)
        if not self._begun.done():
            self._begun.set_result(None)

    def close(self) -> int:
        """See ``NodeDriver``: return the number of requests without an answer."""
        if self._closed:
            return 0
        if self.begun:
            self.timers.ring_due()
            self._log_window(self._windows.present(self._counts()))
        self.faulting.close()
        self._closed = True
        self.timers.close()
        self._leave(self.state.router)
        for task in self._tasks:
            task.cancel()
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            _fail(each, Ended())
        if not self._begun.done():
            self._begun.set_result(None)
        return len(waiting)

    @property
    def answers(self) -> Answers:
        """See ``NodeDriver``."""
        return self

    def take_arrivals(self, told: pb.Arrivals) -> pb.ArrivalsTaken:
        """See ``NodeDriver``: tasks do not arrive here. Raises: ValueError: always."""
        raise ValueError(f"node {self.node} serves requests, which come over HTTP")

    def describe(self, into: pb.NodeDescription) -> None:
        """Enter the number of requests that are open."""
        into.open_requests = len(self._waiting)

    # --- requests ---------------------------------------------------------------------------

    def function(self, name: str) -> int | None:
        """See ``Answers``."""
        return self._functions.get(name)

    async def request(
        self,
        function: int,
        content: Content,
        *,
        number: int | None = None,
        sender: int | None = None,
    ) -> Answered:
        """See ``Answers``."""
        if not self._begun.done():
            await asyncio.shield(self._begun)
        if self._closed:
            raise Ended
        killed = self.conditions.state is State.KILLED
        if killed and sender is not None:
            raise Down
        told = number is not None
        if number is None:
            number = external(self.node, self.plan.size, self._external)
            self._external += 1
        if number in self._waiting:
            raise KeyError(number)
        answer: asyncio.Future[Answered] = self._loop.create_future()
        source = self.node if sender is None else sender
        request = Request(number, self.episode, source, function)
        came = self.clock.now()
        self._waiting[number] = _Waiting(answer, request, sender, came, content, told)
        if killed:
            self._answered(number, Status.UNREACHABLE, None)
        else:
            self.happened(RequestCame(request, sender))
        return await answer

    def refused(self, function: int, what: str) -> None:
        """See ``Answers``."""
        if self.begun and not self._closed:
            counts = self._beside[function]
            counts[what] = counts.get(what, 0) + 1

    def heard(self, sender: int, said: pb.Said) -> None:
        """Take what a neighbour says: after the delay of the bus, if it is not lost.

        What is for another run or episode, or no message, is dropped.
        """
        if self._closed or (said.run, said.episode) != (self.run, self.episode):
            return
        if len(said.content) > LARGEST_SAID or said.number < 0 or self._words >= MOST_WORDS:
            return
        if self.plan.bus.loses(self.episode, sender, self.node, said.number):
            return
        try:
            content = json.loads(said.content)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            _logger.warning("node %d: node %d says what is no message", self.node, sender)
            return
        self._words += 1
        self._begun.add_done_callback(lambda _: self._hear(sender, content))

    def _hear(self, sender: int, content: dict[str, Any]) -> None:
        def hear(at: Micros) -> None:
            self._words -= 1
            if self.conditions.state is not State.KILLED:
                self._windows.heard(bytes_of(content))
            self.handle(WasSaid(sender, content), at)

        if not self._closed:
            self.timers.at(self.clock.now() + self.plan.bus.delay, Urgency.MESSAGE, hear)

    # --- driving the model ------------------------------------------------------------------

    def handle(self, event: Event, at: Micros) -> None:
        """See ``RealTimeEpisode``."""
        if self._closed or self.conditions.state is State.KILLED:
            return
        if self.conditions.state is State.HUNG:
            self._hang(event)
            return
        at = max(at, self.state.now)
        for effect in self._effects_of(event, at):
            self._carry_out[type(effect)](effect, at)

    def _effects_of(self, event: Event, at: Micros) -> list[Effect]:
        try:
            return self.state.handle(event, at)
        except RouterFailed as failed:
            # Somebody's own code. It costs this routing, not the node.
            self._complaints.add(str(failed), failed.reason, failed)
            if self._log is not None:
                self._log.failure(self.node, failed.reason)
            return self.state.effects_left()

    def _later(self, instant: Micros, urgency: Urgency, event: Event) -> None:
        """Handle an event at ``instant``, if the node has not been killed by then."""
        life = self._life

        def happen(at: Micros) -> None:
            if self._life == life:
                self.handle(event, at)

        self.timers.at(instant, urgency, happen)

    def _serve(self, effect: Serve, now: Micros) -> None:
        self._later(now + effect.duration, Urgency.EXECUTION, Served(effect.request.id))

    def _forward(self, effect: Forward, now: Micros) -> None:
        request, peer = effect
        self._peers[request.id] = peer
        self.timers.at(now + self.plan.bus.delay, Urgency.MESSAGE, lambda _: self._send(effect))

    def _send(self, effect: Forward) -> None:
        waiting = self._waiting.get(effect.request.id)
        if waiting is not None:
            task = self._loop.create_task(self._ask(effect, waiting.content))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _ask(self, effect: Forward, content: Content) -> None:
        """Forward a request, and hand in the answer when it has come back."""
        request, peer = effect
        patience = self._patience[request.function] / SECOND * self.clock.scale
        event: Event
        try:
            status = await self._neighbours[peer].forward(
                self.plan.network.functions[request.function].name,
                front.request_name(self.episode, request.id),
                content,
                max(LEAST_PATIENCE_S, patience),
            )
            event = PeerAnswered(request.id, status)
            if peer in self._silent:
                self._silent.discard(peer)
                _logger.info("node %d: node %d answers again", self.node, peer)
        except (Unanswered, KeyError) as error:
            event = PeerFailed(request.id)
            if peer not in self._silent:
                self._silent.add(peer)
                _logger.warning("node %d: a request is not answered: %s", self.node, error)
        self._later(self.clock.now() + self.plan.bus.delay, Urgency.MESSAGE, event)

    def _answer(self, effect: Answer, _now: Micros) -> None:
        self._answered(effect.request.id, effect.status, effect.server)

    def _answered(self, number: int, status: Status, server: int | None) -> None:
        """Answer a request, if that was not done yet, and log it."""
        waiting = self._waiting.pop(number, None)
        peer = self._peers.pop(number, None)
        if waiting is None:
            return
        request, came = waiting.request, waiting.came
        elapsed = max(0, self.clock.now() - came)
        if not waiting.answer.done():
            waiting.answer.set_result(Answered(request, status, server, elapsed))
        if waiting.sender is not None or self._log is None or self.plan.log_requests != "all":
            return
        if waiting.told or self._log.backlog <= MOST_BACKLOG:
            self._log.request(
                RequestRecord(
                    *(number, self.episode, self.node, request.function, came),
                    *(int(status), peer, server, elapsed),
                )
            )

    # --- routing ----------------------------------------------------------------------------

    def decide_by(self, router: Router) -> None:
        """Route by ``router`` from its next phase on."""
        self._leave(self.state.router)
        self._listen_to(router)
        self.state.router = router

    def _new_state(self, router: Router) -> ServingState:
        plan = self.plan
        self._listen_to(router)
        return ServingState(
            self.node, plan.network, plan.timetable, plan.seeds.workload, self.episode, router
        )

    def _listen_to(self, router: Router) -> None:
        if isinstance(router, CalledElsewhere):
            router.answered = self._router_answered

    def _leave(self, router: Router) -> None:
        if isinstance(router, CalledElsewhere) and router.answered == self._router_answered:
            router.detach()

    def _router_answered(
        self, observation: RouteObservation, answer: object, error: BaseException | None
    ) -> None:
        self.happened(RouterAnswered(observation, answer, error))

    def _set_route_timer(self, effect: SetRouteTimer, _now: Micros) -> None:
        if self._log is None or effect.at < self.plan.horizon.length:
            self._later(effect.at, Urgency.MESSAGE, RouteDue())

    def _routed(self, effect: RoutingRecord, _now: Micros) -> None:
        if self._log is not None:
            self._log.decision(effect._replace(number=self._routings + effect.number))
            self._log.tick(max(0, self.clock.now() - effect.at))

    def _say(self, effect: Say, _now: Micros) -> None:
        number, self._said = self._said, self._said + 1
        content = json.dumps(effect.content, separators=(",", ":")).encode()
        self._windows.said(len(effect.peers), len(content))
        message = pb.Said(
            sender=self.node, run=self.run, episode=self.episode, number=number, content=content
        )
        for peer in effect.peers:
            neighbour = self._neighbours.get(peer)
            if neighbour is not None:
                neighbour.say(message)

    # --- windows ----------------------------------------------------------------------------

    def _end_window_at(self, end: Micros) -> None:
        self.timers.at(end, Urgency.EXECUTION, self._end_window)

    def _end_window(self, at: Micros) -> None:
        for window in self._windows.until(at, self._counts()):
            self._log_window(window)
        self._end_window_at(self._windows.end)

    def _counts(self) -> tuple[Mapping[str, int], ...]:
        """Return what was counted so far, by the model and beside it."""
        counted = self.state.counts
        if not any(self._beside):
            return counted
        return tuple(
            {**now, **{what: count + now.get(what, 0) for what, count in more.items()}}
            for now, more in zip(counted, self._beside, strict=True)
        )

    def _log_window(self, window: WindowRecord) -> None:
        if self._log is None or self.conditions.state is State.KILLED:
            return
        within = window.window < self.plan.windows
        if within or any(window.counts) or window.said or window.heard:
            self._log.window(window)
        if window.window + 1 >= self.plan.windows and not self._waiting:
            # The controller may wait for nothing but this.
            self._log.hurry()

    # --- faults -----------------------------------------------------------------------------

    def change(self, conditions: Conditions, at: Micros) -> None:
        """See ``Faulted``: a node that was killed begins anew, one that hung goes on."""
        before, now = self.conditions.state, conditions.state
        if before is State.KILLED and now is not State.KILLED:
            self._background.start(
                self._revive(self._life, conditions), f"node {self.node} begins anew"
            )
            return
        self.conditions = conditions
        if now is State.KILLED and before is not State.KILLED:
            self._kill()
        elif before is State.HUNG and now is State.UP:
            hung, self._hung = self._hung, []
            for event in hung:
                self.handle(event, at)

    def _kill(self) -> None:
        """Lose all that is open; those who wait for it are told."""
        self._life += 1
        self._routings += self.state.routings
        self._hung.clear()
        for task in self._tasks:
            task.cancel()
        for number, waiting in list(self._waiting.items()):
            if waiting.sender is None:
                self._answered(number, Status.UNREACHABLE, None)
            else:
                del self._waiting[number]
                _fail(waiting, Down())
        self._peers.clear()

    async def _revive(self, life: int, conditions: Conditions) -> None:
        router = await self._remake()
        if self._closed or self._life != life or self.conditions.state is not State.KILLED:
            return
        self._leave(self.state.router)
        self.state = self._new_state(router)
        now = self.clock.now()
        self._windows = Windows(self.node, self.episode, self.plan.network.window, now)
        self._beside = tuple({} for _ in self._beside)
        self.conditions = conditions
        self.handle(Began(), now)

    def _hang(self, event: Event) -> None:
        """Keep an event until the node goes on; a user does not wait longer than for any node."""
        self._hung.append(event)
        if isinstance(event, RequestCame) and event.sender is None:
            number = event.request.id
            at = self.clock.now() + self._patience[event.request.function]
            self.timers.at(
                at, Urgency.MESSAGE, lambda _: self._answered(number, Status.UNREACHABLE, None)
            )
