"""One node of a serving network as a state machine: events in, effects out.

A request is answered exactly once by the node that it came to: by a service there, by the
neighbour that it was forwarded to, or with a status that says why not. It is forwarded at most
once. The node keeps requests that are being served or forwarded, and nothing of those answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from testbed.errors import PermanentError
from testbed.model.own_code import defined_at, described, interrupted, name_of
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
from testbed.model.serving.network import ServingNetwork
from testbed.model.serving.proxy import Local, ProxyState, Refused
from testbed.model.serving.route import (
    LATER,
    Heard,
    RouteObservation,
    Router,
    RouterFailed,
    Routing,
    RoutingRecord,
    checked,
    phases_of,
)
from testbed.model.serving.windows import counted_since
from testbed.model.units import Micros

HERE: Final = -1
"""In the place of a peer: the request is with the own service."""


class Timetable(NamedTuple):
    """When routers are called: ``offset`` after the beginning of the episode, then each period."""

    period: Micros
    offset: Micros = 0

    def at(self, period: int, phase: float) -> Micros:
        """Return the instant of a phase of a period, which counts from 0."""
        return self.offset + period * self.period + round(phase * self.period)


class IllegalEvent(PermanentError):
    """An event that cannot happen in the node's state: a defect of the driver."""


class _Open(NamedTuple):
    """A request that is not answered: who sent it, where it is, and since when."""

    request: Request
    sender: int | None
    peer: int
    since: Micros


class ServingState:
    """The state of node ``node`` during one episode; start a new one for each episode.

    ``router`` may be replaced at any time, and is called from its next phase on. ``seed`` keys the
    draws, so that of a request depends on the request alone.

    Raises: ValueError: the phases of the router are none, also where it is replaced.
    """

    def __init__(
        self,
        node: int,
        network: ServingNetwork,
        timetable: Timetable,
        seed: int,
        episode: int,
        router: Router,
    ) -> None:
        self.node = node
        self.episode = episode
        self.now: Micros = 0
        self._router = router
        self._phases = phases_of(router)
        self.proxy = ProxyState(node, network, seed, episode)
        self._network = network
        self._timetable = timetable
        self._neighbours = network.neighbours[node]
        self._open: dict[int, _Open] = {}
        self._heard: dict[int, Heard] = {}
        self._period = 0
        self._phase = 0
        self._routings = 0
        self._asked: tuple[Router, RouteObservation] | None = None
        # By function, since the episode began; and what they were when each phase came last.
        self._counts: tuple[dict[str, int], ...] = tuple({} for _ in network.functions)
        self._counts_at: dict[int, tuple[dict[str, int], ...]] = {}
        self._effects: list[Effect] = []
        self._handlers: dict[type, Callable[[Any, Micros], None]] = {
            Began: self._on_began,
            RequestCame: self._on_request_came,
            Served: self._on_served,
            PeerAnswered: self._on_peer_answered,
            PeerFailed: self._on_peer_failed,
            RouteDue: self._on_route_due,
            RouterAnswered: self._on_router_answered,
            WasSaid: self._on_was_said,
        }

    # --- driving ----------------------------------------------------------------------------

    def handle(self, event: Event, now: Micros) -> list[Effect]:
        """Process one event at ``now`` and return its effects.

        ``now`` must not run backwards. Events about requests that are not open here are ignored:
        answers may come late.

        Raises: IllegalEvent: the driver broke its side of the contract. RouterFailed: the router
        raised or gave an invalid answer; the node goes on with the table that it has, and
        ``effects_left`` has the effects so far, the timer of its next phase among them.
        """
        if now < self.now:
            raise IllegalEvent(f"node {self.node}: time runs backwards, {now} after {self.now}")
        self.now = now
        self._handlers[type(event)](event, now)
        effects, self._effects = self._effects, []
        return effects

    @property
    def router(self) -> Router:
        """The router of this node."""
        return self._router

    @router.setter
    def router(self, router: Router) -> None:
        self._phases = phases_of(router)
        self._router = router

    def effects_left(self) -> list[Effect]:
        """Return the effects so far of an event that raised ``RouterFailed``."""
        effects, self._effects = self._effects, []
        return effects

    @property
    def counts(self) -> tuple[Mapping[str, int], ...]:
        """What became of requests since the episode began, by function.

        Named as in ``RouteObservation``; to be looked at only.
        """
        return self._counts

    @property
    def routings(self) -> int:
        """How often the router has been called."""
        return self._routings

    @property
    def open(self) -> frozenset[int]:
        """Ids of the requests that are being served or have been forwarded."""
        return frozenset(self._open)

    # --- requests ---------------------------------------------------------------------------

    def _on_request_came(self, event: RequestCame, now: Micros) -> None:
        request, sender = event
        if request.id in self._open:
            raise IllegalEvent(f"node {self.node}: request {request.id} came twice")
        if sender is None:
            to = self.proxy.of_user(request, now)
        else:
            to = self.proxy.of_peer(request, sender, now)
        if isinstance(to, Refused):
            self._count_refused(request, sender, to.status)
            self._effects.append(Answer(request, sender, to.status, None, 0))
            return
        if isinstance(to, Local):
            self._count(request, "local" if sender is None else f"from:{sender}")
            self._open[request.id] = _Open(request, sender, HERE, now)
            duration = self._network.functions[request.function].time
            self._effects.append(Serve(request, duration))
            return
        self._count(request, f"to:{to.peer}")
        self._open[request.id] = _Open(request, sender, to.peer, now)
        self._effects.append(Forward(request, to.peer))

    def _on_served(self, event: Served, now: Micros) -> None:
        found = self._open.get(event.request_id)
        if found is not None and found.peer == HERE:
            self._answer(found, Status.OK, self.node, now)

    def _on_peer_answered(self, event: PeerAnswered, now: Micros) -> None:
        found = self._open.get(event.request_id)
        if found is None or found.peer == HERE:
            return
        if event.status is not Status.OK:
            self._count(found.request, f"failed:{found.peer}")
        server = found.peer if event.status is Status.OK else None
        self._answer(found, event.status, server, now)

    def _on_peer_failed(self, event: PeerFailed, now: Micros) -> None:
        found = self._open.get(event.request_id)
        if found is not None and found.peer != HERE:
            self._count(found.request, f"failed:{found.peer}")
            self._answer(found, Status.UNREACHABLE, None, now)

    def _answer(self, found: _Open, status: Status, server: int | None, now: Micros) -> None:
        del self._open[found.request.id]
        self._effects.append(Answer(found.request, found.sender, status, server, now - found.since))

    def _count_refused(self, request: Request, sender: int | None, status: Status) -> None:
        if status is Status.OVER_LIMIT:
            self._count(request, f"over_limit:{sender}")
        else:
            self._count(request, "forbidden" if status is Status.FORBIDDEN else "no_peer")

    def _count(self, request: Request, what: str) -> None:
        counts = self._counts[request.function]
        counts[what] = counts.get(what, 0) + 1

    def _counted(self, phase: int) -> tuple[dict[str, int], ...]:
        """Return the counts since ``phase`` came last, of what was counted."""
        before = self._counts_at.get(phase, ({},) * len(self._counts))
        self._counts_at[phase] = tuple(dict(counts) for counts in self._counts)
        return tuple(map(counted_since, before, self._counts))

    # --- routing ----------------------------------------------------------------------------

    def _on_began(self, _event: Began, now: Micros) -> None:
        # A node that begins later than the others goes on with them.
        while self._timetable.at(self._period, self._phases[self._phase]) < now:
            self._step()
        self._set_timer()

    def _on_was_said(self, event: WasSaid, now: Micros) -> None:
        if event.peer in self._neighbours:
            self._heard.pop(event.peer, None)
            self._heard[event.peer] = Heard(event.peer, event.content, now)

    def _on_route_due(self, _event: RouteDue, now: Micros) -> None:
        router, period, phase = self._router, self._period, self._phase
        if phase >= len(self._phases):
            # The router has taken the place of one that had more phases.
            self._period, self._phase = period + 1, 0
            self._set_timer()
            return
        counts = self._counted(phase)
        heard = self._heard.values()
        alive = [each for each in heard if now - each.at < self._network.expiry]
        self._heard = {each.peer: each for each in alive}
        observation = RouteObservation(
            self.node, now, period, phase, self.proxy.rates(now), counts, tuple(alive)
        )
        # First, so that a router that fails is called again.
        self._step()
        self._set_timer()
        try:
            answer: object = router.route(observation)
        except BaseException as error:
            # Code of other people may raise anything, SystemExit included.
            if interrupted(error):
                raise
            raise self._failed(router, f"raised {described(error)}") from error
        if answer is LATER:
            self._asked = router, observation
        else:
            self._take(router, observation, answer)

    def _on_router_answered(self, event: RouterAnswered, _now: Micros) -> None:
        asked = self._asked
        if asked is None or asked[1] is not event.observation:
            return
        self._asked = None
        router, observation = asked
        if event.error is not None:
            raise self._failed(router, f"raised {described(event.error)}") from event.error
        self._take(router, observation, event.answer)

    def _take(self, router: Router, observation: RouteObservation, answer: object) -> None:
        """Route by the answer of a router from now on, and say what it says."""
        routing = self._checked(router, answer)
        number, self._routings = self._routings, self._routings + 1
        self._effects.append(
            RoutingRecord(
                self.node,
                self.episode,
                number,
                observation.now,
                name_of(router),
                observation,
                routing,
            )
        )
        if routing.table is not None:
            self.proxy.set_table(routing.table)
        if routing.say is not None and self._neighbours:
            self._effects.append(Say(self._neighbours, routing.say))

    def _checked(self, router: Router, answer: object) -> Routing:
        try:
            return checked(answer, self.node, self._network)
        except BaseException as error:
            # Looking at what it answered may call code of other people too.
            if interrupted(error):
                raise
            told = str(error) if type(error) is ValueError else f"what raised {described(error)}"
            raise self._failed(router, f"answered {told}{defined_at(router.route)}") from None

    def _failed(self, router: Router, what: str) -> RouterFailed:
        return RouterFailed(name_of(router), what, self.node)

    def _step(self) -> None:
        """Go on to the next phase, by the phases that the router has now."""
        self._phase += 1
        if self._phase >= len(self._phases):
            self._period, self._phase = self._period + 1, 0

    def _set_timer(self) -> None:
        # A router that has taken the place of another may have other phases.
        phase = self._phases[min(self._phase, len(self._phases) - 1)]
        at = self._timetable.at(self._period, phase)
        self._effects.append(SetRouteTimer(max(at, self.now)))
