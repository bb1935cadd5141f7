"""The simulator of serving networks: one ``ServingState`` per node, driven in virtual time.

Events are handled in the order of the key (time, phase, tie, sequence), so what happens at equal
instants is part of the model; see ``Phase``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from heapq import heappop, heappush
from typing import Any, Final, NamedTuple, TypeAlias

from testbed.model.faults import State
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
    Say,
    Serve,
    Served,
    SetRouteTimer,
    Status,
    WasSaid,
)
from testbed.model.serving.failures import RoutingFailure
from testbed.model.serving.node import ServingState
from testbed.model.serving.record import RequestOutcome, RequestRecord, WindowRecord
from testbed.model.serving.route import Router, RouterContext, RouterFailed, RoutingRecord
from testbed.model.serving.users import Arrival
from testbed.model.serving.windows import Windows
from testbed.model.units import Micros
from testbed.scenario.plan import ServingPlan
from testbed.schedulers import registry
from testbed.sim.choice import chosen
from testbed.sim.garbage import no_garbage_collection


class Phase(IntEnum):
    """Order of events of the same instant.

    Windows end first of all. Within a phase, faults and calls of routers are in order of the nodes,
    and all others in the order in which they were caused.
    """

    SERVED = 0
    """What a service has been working on is done, also if its node is killed at that instant."""
    FAULT = 1
    ANSWERED = 2
    """The answer of a neighbour comes back, or it is known that none will."""
    HEARD = 3
    """What a neighbour has said is heard."""
    ROUTE = 4
    """Routers are called, with what has been heard by then."""
    FORWARDED = 5
    """Requests of neighbours come."""
    CAME = 6
    """Requests of users come, in order of their ids."""


# As plain integers for the heap: comparing enum members costs several times as much.
_SERVED: Final = int(Phase.SERVED)
_FAULT: Final = int(Phase.FAULT)
_ANSWERED: Final = int(Phase.ANSWERED)
_HEARD: Final = int(Phase.HEARD)
_ROUTE: Final = int(Phase.ROUTE)
_FORWARDED: Final = int(Phase.FORWARDED)
_CAME: Final = int(Phase.CAME)

RouterFactory: TypeAlias = Callable[[RouterContext], Router]
RouterChoice: TypeAlias = str | RouterFactory
"""A registered name, ``module:Class``, or what makes one."""


@dataclass(frozen=True, slots=True)
class ServingResult:
    """Result of one episode.

    ``requests`` are in order of their ids, ``windows`` by node and window, ``routings`` in the
    order in which they were made; all empty if they were not to be kept. ``lost`` are requests
    without an answer when the episode was over. ``statuses`` counts the others by their status.
    """

    episode: int
    requests: list[RequestRecord]
    windows: list[WindowRecord]
    routings: list[RoutingRecord]
    statuses: Mapping[int, int]
    lost: tuple[Arrival, ...] = ()
    failed: tuple[RoutingFailure, ...] = ()

    @property
    def counts(self) -> Counter[RequestOutcome]:
        """Number of requests by outcome."""
        found = {RequestOutcome.of(status): count for status, count in self.statuses.items()}
        if self.lost:
            found[RequestOutcome.LOST] = len(self.lost)
        return Counter(found)


class ServingSimulation:
    """A serving plan under one router; runs episodes, each with a fresh network.

    The routers live as long as the simulation, as they do on nodes. ``router`` None takes the
    plan's, with its options. ``keep`` False keeps counts only.

    Raises: UsageError: unknown router or option.
    """

    def __init__(
        self,
        plan: ServingPlan,
        router: RouterChoice | None = None,
        options: Mapping[str, object] | None = None,
        *,
        keep: bool = True,
    ) -> None:
        self.plan = plan
        self._keep = keep
        self._router, self._options = chosen(plan, router, options)
        self._routers = [self._made(node) for node in range(plan.size)]

    @property
    def scheduler_name(self) -> str:
        """Name of the router in the task log."""
        return self._routers[0].name

    def episode(self, episode: int) -> ServingResult:
        """Run one episode; the same number gives the same result for stateless routers."""
        with no_garbage_collection():
            return _Episode(self.plan, self._routers, self._made, episode, self._keep).run()

    def _made(self, node: int) -> Router:
        plan = self.plan
        context = RouterContext(node, plan.network, plan.seeds.schedulers, dict(self._options))
        if isinstance(self._router, str):
            return registry.create(self._router, context)
        return self._router(context)


class _Ring(NamedTuple):
    """A timer of a router; it counts only in the life of the node in which it was set."""

    life: int


class _GaveUp(NamedTuple):
    """A user has waited long enough for the answer to a request."""

    request_id: int


@dataclass(slots=True)
class _Coming:
    """A request of a user without an answer: when it came, and where it was forwarded to."""

    at: Micros
    request: Request
    peer: int | None = None


@dataclass(slots=True)
class _Place:
    """A node, and what its driver keeps of it.

    ``life`` counts how often it has been killed, ``routings`` the routings before that; ``waiting``
    is what has come since it hangs.
    """

    state: ServingState
    windows: Windows
    condition: State = State.UP
    said: int = 0
    life: int = 0
    routings: int = 0
    waiting: list[Event] = field(default_factory=list)


class _Episode:
    """One episode under way."""

    def __init__(
        self,
        plan: ServingPlan,
        routers: list[Router],
        made: Callable[[int], Router],
        episode: int,
        keep: bool,
    ) -> None:
        self._plan = plan
        self._network = plan.network
        self._delay = plan.bus.delay
        self._episode = episode
        self._keep = keep
        self._keep_requests = keep and plan.log_requests == "all"
        self._made_router = made
        self._length = plan.horizon.length
        self._over = plan.horizon.length + plan.horizon.drain
        window = plan.network.window
        self._places = [
            _Place(self._state(node, router), Windows(node, episode, window))
            for node, router in enumerate(routers)
        ]
        self._window_end = window
        self._heap: list[tuple[Micros, int, int, int, int, Any]] = []
        self._sequence = 0
        self._requests: list[RequestRecord] = []
        self._windows: list[WindowRecord] = []
        self._routings: list[RoutingRecord] = []
        self._statuses: Counter[int] = Counter()
        self._failed: list[RoutingFailure] = []
        self._coming: dict[int, _Coming] = {}
        self._timeline = plan.timeline(episode)
        changes = self._timeline.changes
        # Without nodes that hang, every request has an answer or an error before that.
        self._impatient = any(each.conditions.state is State.HUNG for each in changes)
        self._carry_out: dict[type, Callable[[int, Any, Micros], None]] = {
            Serve: self._serve,
            Forward: self._forward,
            Answer: self._answer,
            SetRouteTimer: self._set_timer,
            Say: self._say,
            RoutingRecord: self._log,
        }

    def run(self) -> ServingResult:
        for node in range(self._plan.size):
            self._deliver(node, Began(), 0)
        for at, node, conditions in self._timeline.changes:
            self._push(at, _FAULT, node, node, conditions.state)
        for at, request in self._plan.arrivals(self._episode):
            self._run_until(at, _CAME)
            self._come(request, at)
        self._run_until(self._over + 1, _SERVED)
        return self._result([Arrival(each.at, each.request) for each in self._coming.values()])

    def _run_until(self, time: Micros, phase: int) -> None:
        """Handle everything that comes before (``time``, ``phase``)."""
        heap = self._heap
        limit = (time, phase)
        while heap and heap[0] < limit:
            now, what, _, _, node, event = heappop(heap)
            if now >= self._window_end:
                self._end_windows(now)
            if what == _FAULT:
                self._change(node, event, now)
            elif type(event) is _GaveUp:
                self._record(event.request_id, Status.UNREACHABLE, None, now)
            elif what != _ROUTE or event.life == self._places[node].life:
                self._arrive(node, RouteDue() if what == _ROUTE else event, now)

    def _come(self, request: Request, now: Micros) -> None:
        """Let a user send a request to a node."""
        if now >= self._window_end:
            self._end_windows(now)
        node = request.source
        self._coming[request.id] = _Coming(now, request)
        if self._places[node].condition is State.KILLED:
            self._record(request.id, Status.UNREACHABLE, None, now)
            return
        if self._impatient:
            self._push(now + self._wait(request), _ANSWERED, 0, node, _GaveUp(request.id))
        self._arrive(node, RequestCame(request), now)

    def _arrive(self, node: int, event: Event, now: Micros) -> None:
        """Let something come to a node, or a time of its own be up."""
        place = self._places[node]
        if place.condition is State.UP:
            self._deliver(node, event, now)
        elif place.condition is State.HUNG:
            place.waiting.append(event)
        else:
            self._unreachable(event, now)

    def _deliver(self, node: int, event: Event, now: Micros) -> None:
        if type(event) is WasSaid:
            self._places[node].windows.heard(bytes_of(event.content))
        for effect in self._handled(node, event, now):
            self._carry_out[type(effect)](node, effect, now)

    def _wait(self, request: Request) -> Micros:
        """Return how long a user, or a node that forwards, waits for an answer."""
        return 2 * self._delay + self._network.patience(request.function)

    def _state(self, node: int, router: Router) -> ServingState:
        plan = self._plan
        return ServingState(
            node, plan.network, plan.timetable, plan.seeds.workload, self._episode, router
        )

    def _push(self, at: Micros, phase: int, tie: int, node: int, what: Any) -> None:
        self._sequence = sequence = self._sequence + 1
        heappush(self._heap, (at, phase, tie, sequence, node, what))

    def _handled(self, node: int, event: Event, now: Micros) -> list[Effect]:
        """Have a node handle an event; a router that fails leaves its table as it is."""
        state = self._places[node].state
        try:
            return state.handle(event, now)
        except RouterFailed as failed:
            self._failed.append(RoutingFailure(self._episode, node, now, failed.reason))
            return state.effects_left()

    def _set_timer(self, node: int, effect: SetRouteTimer, now: Micros) -> None:
        if effect.at < self._length:
            self._push(effect.at, _ROUTE, node, node, _Ring(self._places[node].life))

    def _say(self, node: int, effect: Say, now: Micros) -> None:
        place, bus = self._places[node], self._plan.bus
        number, place.said = place.said, place.said + 1
        place.windows.said(len(effect.peers), bytes_of(effect.content))
        for peer in effect.peers:
            if not bus.loses(self._episode, node, peer, number):
                self._push(now + bus.delay, _HEARD, 0, peer, WasSaid(node, effect.content))

    def _log(self, node: int, effect: RoutingRecord, now: Micros) -> None:
        # A node that has begun anew counts its routings from 0; logs count those of the episode.
        number = self._places[node].routings + effect.number
        if self._keep:
            self._routings.append(effect._replace(number=number))

    def _end_windows(self, now: Micros) -> None:
        """Enter the windows that have ended by ``now``."""
        for place in self._places:
            if place.condition is not State.KILLED:
                self._enter(place.windows.until(now, place.state.counts))
        length = self._network.window
        self._window_end = (now // length + 1) * length

    def _enter(self, windows: list[WindowRecord]) -> None:
        if self._keep:
            self._windows.extend(windows)

    def _enter_answer(
        self,
        request: Request,
        at: Micros,
        status: int,
        peer: int | None,
        server: int | None,
        elapsed: Micros,
    ) -> None:
        """Enter what a user was answered."""
        self._statuses[status] += 1
        if self._keep_requests:
            number, episode, source, function = request
            self._requests.append(
                RequestRecord(number, episode, source, function, at, status, peer, server, elapsed)
            )

    # --- faults -----------------------------------------------------------------------------

    def _change(self, node: int, condition: State, now: Micros) -> None:
        """Let a node be killed, hang, or work again: what was killed begins anew."""
        place = self._places[node]
        before, place.condition = place.condition, condition
        if condition is State.KILLED and before is not State.KILLED:
            self._kill(node, now)
        elif before is State.KILLED and condition is not State.KILLED:
            place.state = self._state(node, self._made_router(node))
            place.windows = Windows(node, self._episode, self._network.window, now)
            self._deliver(node, Began(), now)
        elif before is State.HUNG and condition is State.UP:
            waiting, place.waiting = place.waiting, []
            for event in waiting:
                self._deliver(node, event, now)

    def _kill(self, node: int, now: Micros) -> None:
        """Let all that a node has been working on be lost; those who wait for it are told."""
        place = self._places[node]
        place.life += 1
        place.routings += place.state.routings
        waiting, place.waiting = place.waiting, []
        for event in waiting:
            self._unreachable(event, now)
        for request_id, coming in list(self._coming.items()):
            if coming.request.source == node:
                self._record(request_id, Status.UNREACHABLE, None, now)
            elif coming.peer == node and request_id in place.state.open:
                self._unreachable(RequestCame(coming.request, coming.request.source), now)

    def _unreachable(self, event: Event, now: Micros) -> None:
        """Let a neighbour know that nobody serves what it forwarded; all else is lost."""
        if type(event) is RequestCame and event.sender is not None:
            failed = PeerFailed(event.request.id)
            self._push(now + self._delay, _ANSWERED, 0, event.sender, failed)

    # --- effects ----------------------------------------------------------------------------

    def _serve(self, node: int, effect: Serve, now: Micros) -> None:
        self._push(now + effect.duration, _SERVED, 0, node, Served(effect.request.id))

    def _forward(self, node: int, effect: Forward, now: Micros) -> None:
        request, peer = effect
        if (coming := self._coming.get(request.id)) is not None:
            coming.peer = peer
        self._push(now + self._delay, _FORWARDED, 0, peer, RequestCame(request, node))
        if self._impatient:
            failed = PeerFailed(request.id)
            self._push(now + self._wait(request), _ANSWERED, 0, node, failed)

    def _answer(self, node: int, effect: Answer, now: Micros) -> None:
        request, to, status, server, _ = effect
        if to is None:
            self._record(request.id, status, server, now)
        else:
            self._push(now + self._delay, _ANSWERED, 0, to, PeerAnswered(request.id, status))

    def _record(self, request_id: int, status: Status, server: int | None, now: Micros) -> None:
        """Enter the answer to a user, unless the user has given up."""
        coming = self._coming.pop(request_id, None)
        if coming is not None:
            at, request, peer = coming.at, coming.request, coming.peer
            self._enter_answer(request, at, status.value, peer, server, now - at)

    def _result(self, lost: list[Arrival]) -> ServingResult:
        plan = self._plan
        end = plan.windows * self._network.window
        if self._window_end <= end:
            self._end_windows(end)
        for place in self._places:
            if place.condition is not State.KILLED:
                self._enter([place.windows.present(place.state.counts)])
        kept = [
            window
            for window in self._windows
            if window.window < plan.windows or any(window.counts) or window.said or window.heard
        ]
        self._requests.sort()
        kept.sort(key=lambda window: (window.node, window.window))
        return ServingResult(
            self._episode,
            self._requests,
            kept,
            self._routings,
            self._statuses,
            tuple(sorted(lost, key=lambda arrival: arrival.request.id)),
            tuple(self._failed),
        )
