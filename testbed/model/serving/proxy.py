"""The proxy of a node: windows that count requests, and the choice of a neighbour.

Everything is counted in whole windows of the node's clock, as proxies do that limit rates; a window
begins at a multiple of its length, whatever came before.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from testbed.model.draws import Purpose, extend, key, to_unit
from testbed.model.serving.events import Request, Status
from testbed.model.serving.network import ServingNetwork
from testbed.model.serving.route import Route
from testbed.model.units import Micros


class RoundRobin:
    """Names peers in turn, each as often as its weight says, and evenly spread.

    After any number k of requests, a peer with weight w of all W has been named k w / W times, with
    a deviation of less than one request. That is the bound of Tijdeman ("The chairman assignment
    problem", Discrete Mathematics 32, 1980), whose rule this is: of the peers that may be named now
    it takes the one that has to be named soonest. The usual rule of smooth weighted round robin,
    always the peer that is furthest behind, comes to deviate by more than one request.
    """

    def __init__(self, weights: tuple[int, ...]) -> None:
        self._peers = [(peer, weight) for peer, weight in enumerate(weights) if weight]
        self._sum = sum(weights)
        self._named = [0] * len(self._peers)
        self._count = 0
        # Deviations stay within 1 - 1 / (2 n - 2), in units of 1 / (unit * sum).
        self._unit: Final = max(1, 2 * len(self._peers) - 2)

    def next(self) -> int | None:
        """Return the next peer; None if no peer has a weight."""
        if not self._sum:
            return None
        self._count += 1
        if self._count > self._sum:
            # All peers have had exactly their share: begin again, so that numbers stay small.
            self._count, self._named = 1, [0] * len(self._peers)
        unit, total = self._unit, self._sum
        chosen, best = 0, (0, 1)
        found = False
        for position, (_, weight) in enumerate(self._peers):
            lag = unit * (self._count * weight - total * self._named[position])
            if lag < total and unit > 1:
                continue
            # Time until the lag reaches what is allowed, as a fraction: smaller is sooner.
            left = ((unit - 1) * total - lag, weight)
            if not found or left[0] * best[1] < best[0] * left[1]:
                chosen, best, found = position, left, True
        self._named[chosen] += 1
        return self._peers[chosen][0]


class Local(NamedTuple):
    """Serve it here."""


class Remote(NamedTuple):
    """Forward it to ``peer``."""

    peer: int


class Refused(NamedTuple):
    """Answer it with this status, without a service."""

    status: Status


class _FunctionAt:
    """What the proxy knows of one function: its route, and the counts of the present window."""

    __slots__ = ("forwarded", "local", "route", "turns", "users", "users_before", "window")

    def __init__(self, route: Route, size: int) -> None:
        self.route = route
        self.turns = RoundRobin(route.weights)
        self.window = 0
        self.local = 0
        self.users = 0
        self.users_before = 0
        self.forwarded = [0] * size


class ProxyState:
    """The proxy of node ``node`` during one episode; ``seed`` keys its draws.

    Until a router has set a table, requests of users are served up to the node's ``max_rate`` in a
    window, and the others refused.
    """

    def __init__(self, node: int, network: ServingNetwork, seed: int, episode: int) -> None:
        size = network.size
        self._network = network
        self._neighbours = frozenset(network.neighbours[node])
        self._rejections = key(seed, Purpose.REQUEST_REJECTION, episode)
        self._functions = [
            _FunctionAt(Route(function.max_rate[node], (0,) * size, (None,) * size), size)
            for function in network.functions
        ]

    @property
    def table(self) -> tuple[Route, ...]:
        """The present route of each function."""
        return tuple(function.route for function in self._functions)

    def set_table(self, table: tuple[Route, ...]) -> None:
        """Route by ``table`` from the next request on; counts of the present window stay.

        Where weights do not change, the turns of the neighbours go on as they were.
        """
        for function, route in zip(self._functions, table, strict=True):
            if route.weights != function.route.weights:
                function.turns = RoundRobin(route.weights)
            function.route = route

    def rates(self, now: Micros) -> tuple[int, ...]:
        """Return by function the requests of users in the last whole window."""
        return tuple(self._at(function, now).users_before for function in self._functions)

    def of_user(self, request: Request, now: Micros) -> Local | Remote | Refused:
        """Decide about a request of a user, and count it."""
        function = self._at(self._functions[request.function], now)
        function.users += 1
        route = function.route
        if route.reject and to_unit(extend(self._rejections, request.id)) < route.reject:
            return Refused(Status.NO_PEER)
        if route.local_cap is None or function.local < route.local_cap:
            function.local += 1
            return Local()
        peer = function.turns.next()
        return Refused(Status.NO_PEER) if peer is None else Remote(peer)

    def of_peer(self, request: Request, sender: int, now: Micros) -> Local | Refused:
        """Decide about a request that ``sender`` has forwarded, and count it if it is served.

        It is never forwarded again, and served whatever this node has to do.
        """
        if sender not in self._neighbours:
            return Refused(Status.FORBIDDEN)
        function = self._at(self._functions[request.function], now)
        limit = function.route.limits_in[sender]
        if (
            self._network.enforce_limits
            and limit is not None
            and function.forwarded[sender] >= limit
        ):
            return Refused(Status.OVER_LIMIT)
        function.forwarded[sender] += 1
        return Local()

    def _at(self, function: _FunctionAt, now: Micros) -> _FunctionAt:
        """Return ``function`` with the counts of the window that ``now`` is in."""
        window = now // self._network.window
        if window != function.window:
            function.users_before = function.users if window == function.window + 1 else 0
            function.window, function.users, function.local = window, 0, 0
            function.forwarded = [0] * len(function.forwarded)
        return function
