"""A small driver of serving nodes in virtual time, for tests that script what happens.

It keeps a heap of its own, so a mistake in the simulator cannot hide one in the model.
"""

from __future__ import annotations

import heapq
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

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
from testbed.model.serving.network import Function, ServingNetwork
from testbed.model.serving.node import ServingState, Timetable
from testbed.model.serving.route import Router, RouterContext, RoutingRecord
from testbed.model.units import MILLISECOND, SECOND, Micros
from testbed.schedulers import registry


def meshed(
    rates: Iterable[int] = (10, 20, 30), time: Micros = 5 * MILLISECOND, enforce: bool = False
) -> ServingNetwork:
    """Return a network with one function ``f``, in which everybody is everybody's neighbour."""
    rates = tuple(rates)
    nodes = range(len(rates))
    return ServingNetwork(
        (Function("f", time, rates),),
        tuple(tuple(peer for peer in nodes if peer != node) for node in nodes),
        enforce_limits=enforce,
    )


class Network:
    """Serving nodes side by side; messages take ``delay``, and words are lost where told so."""

    def __init__(
        self,
        network: ServingNetwork,
        routers: Callable[[int], Router] | str,
        *,
        options: Mapping[str, object] | None = None,
        timetable: Timetable | None = None,
        delay: Micros = MILLISECOND,
        unheard: Callable[[int, int], bool] = lambda node, peer: False,
    ) -> None:
        self.now: Micros = 0
        self.dead: dict[int, Micros] = {}
        self.answers: list[tuple[Micros, Answer]] = []
        """To users, and when."""
        self.refused: list[tuple[Micros, int, Answer]] = []
        """To neighbours with another status than OK: when, and by which node."""
        self.forwards: list[tuple[Micros, int, Forward]] = []
        self.came: dict[int, Micros] = {}
        self.routings: list[RoutingRecord] = []
        self._network = network
        self._delay = delay
        self._unheard = unheard
        self._number = 0
        self._heap: list[tuple[Micros, int, int, Event]] = []

        def made(node: int) -> Router:
            if isinstance(routers, str):
                context = RouterContext(node, network, options=dict(options or {}))
                return registry.create(routers, context)
            return routers(node)

        timetable = timetable or Timetable(60 * SECOND, 30 * SECOND)
        self.nodes = [
            ServingState(node, network, timetable, 5, 0, made(node)) for node in range(network.size)
        ]
        for node in range(network.size):
            self.at(0, node, Began())

    def at(self, when: Micros, node: int, event: Event) -> None:
        """Have an event happen at a node."""
        self._number += 1
        heapq.heappush(self._heap, (when, self._number, node, event))

    def users(self, node: int, rate: int, seconds: int, first: int = 0) -> None:
        """Have ``rate`` requests a second come to a node, evenly spread."""
        for second in range(first, seconds):
            for k in range(rate):
                self.request(second * SECOND + k * SECOND // rate, node)

    def request(self, when: Micros, node: int, function: int = 0) -> int:
        """Have a request of a user come to a node; return its id."""
        number = len(self.came)
        self.came[number] = when
        self.at(when, node, RequestCame(Request(number, 0, node, function)))
        return number

    def run(self, until: Micros | None = None) -> None:
        """Run until the instant, or until only routers are called."""
        while self._heap and (until is None or self._heap[0][0] < until):
            if until is None and all(isinstance(each[3], RouteDue) for each in self._heap):
                return
            self.now, _, node, event = heapq.heappop(self._heap)
            if self.now < self.dead.get(node, self.now + 1):
                for effect in self.nodes[node].handle(event, self.now):
                    self._carry_out(node, effect)
            elif isinstance(event, RequestCame):
                self._unreachable(event)

    def _carry_out(self, node: int, effect: Effect) -> None:
        now = self.now
        match effect:
            case Serve(request, duration):
                self.at(now + duration, node, Served(request.id))
            case Forward(request, peer):
                self.forwards.append((now, node, effect))
                self.at(now + self._delay, peer, RequestCame(request, node))
            case Answer(request, None, _, _, _):
                self.answers.append((now, effect))
            case Answer(request, int(to), status, _, _):
                if status is not Status.OK:
                    self.refused.append((now, node, effect))
                self.at(now + self._delay, to, PeerAnswered(request.id, status))
            case SetRouteTimer(when):
                self.at(when, node, RouteDue())
            case Say(peers, content):
                for peer in peers:
                    if not self._unheard(node, peer):
                        told = json.loads(json.dumps(content))
                        self.at(now + self._delay, peer, WasSaid(node, told))
            case RoutingRecord():
                self.routings.append(effect)

    def _unreachable(self, event: RequestCame) -> None:
        request, sender = event
        if sender is not None:
            self.at(self.now, sender, PeerFailed(request.id))
        else:
            self.answers.append((self.now, Answer(request, None, Status.UNREACHABLE, None, 0)))

    def counts(self, node: int, first: int, until: int) -> dict[tuple[Status, int | None], int]:
        """Return the requests of users of a node that came in these seconds: by status, server."""
        found: defaultdict[tuple[Status, int | None], int] = defaultdict(int)
        for _, answer in self.answers:
            came = self.came[answer.request.id]
            if answer.request.source == node and first * SECOND <= came < until * SECOND:
                found[answer.status, answer.server] += 1
        return dict(found)
