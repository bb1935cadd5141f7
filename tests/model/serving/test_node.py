"""Every request is answered exactly once and forwarded at most once, whatever happens."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.model.serving.events import (
    Answer,
    Began,
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
from testbed.model.serving.network import Function, ServingNetwork
from testbed.model.serving.node import IllegalEvent, ServingState, Timetable
from testbed.model.serving.route import (
    LATER,
    Heard,
    Route,
    RouteObservation,
    RouterFailed,
    Routing,
    RoutingRecord,
)
from testbed.model.units import SECOND
from tests.model.serving.network import Network, meshed


class Given:
    """Answers with what it is given, in turn, and then nothing."""

    name = "given"

    def __init__(self, *answers: object, phases: tuple[float, ...] = (0.0, 0.5)) -> None:
        self.phases = phases
        self.seen: list[RouteObservation] = []
        self._answers = list(answers)

    def route(self, observation: RouteObservation) -> Routing:
        self.seen.append(observation)
        answer = self._answers.pop(0) if self._answers else Routing()
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[return-value]


class Case(NamedTuple):
    """A network in any state: who is whose neighbour, tables, requests, and who dies when."""

    network: ServingNetwork
    tables: tuple[tuple[Route, ...], ...]
    requests: list[tuple[int, int, int]]
    dead: dict[int, int]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    size = draw(st.integers(1, 4))
    functions = tuple(
        Function(f"f{k}", draw(st.integers(0, SECOND)), draw(_counts(size)))
        for k in range(draw(st.integers(1, 2)))
    )
    # Not both ways: who forwards to somebody to whom it is no neighbour gets 403.
    neighbours = tuple(
        tuple(peer for peer in range(size) if peer != node and draw(st.booleans()))
        for node in range(size)
    )
    network = ServingNetwork(functions, neighbours, enforce_limits=draw(st.booleans()))

    def route(node: int) -> Route:
        return Route(
            draw(st.none() | st.integers(0, 3)),
            tuple(
                draw(st.integers(0, 4)) if peer in neighbours[node] else 0 for peer in range(size)
            ),
            tuple(draw(st.none() | st.integers(0, 2)) for _ in range(size)),
            draw(st.sampled_from([0.0, 0.0, 0.4])),
        )

    tables = tuple(tuple(route(node) for _ in functions) for node in range(size))
    requests = draw(
        st.lists(
            st.tuples(
                st.integers(0, 5 * SECOND),
                st.integers(0, size - 1),
                st.integers(0, len(functions) - 1),
            ),
            max_size=60,
        )
    )
    dead = draw(st.dictionaries(st.integers(0, size - 1), st.integers(0, 5 * SECOND), max_size=1))
    return Case(network, tables, requests, dead)


def _counts(size: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(0, 5), min_size=size, max_size=size).map(tuple)


@settings(deadline=None)
@given(case=cases(), delay=st.integers(0, SECOND))
def test_every_request_is_answered_once_and_forwarded_at_most_once(case: Case, delay: int) -> None:
    played = Network(
        case.network,
        lambda node: Given(Routing(case.tables[node]), phases=(0.0,)),
        timetable=Timetable(2 * SECOND, SECOND),
        delay=delay,
    )
    played.dead.update(case.dead)
    for when, node, function in case.requests:
        played.request(when, node, function)
    played.run()

    dead = case.dead
    answered = Counter(answer.request.id for _, answer in played.answers)
    assert max(answered.values(), default=0) <= 1
    # What was under way at a node that died has nobody who could answer it.
    open_there = {number for node in dead for number in played.nodes[node].open}
    missing = set(played.came) - set(answered)
    assert missing <= open_there
    assert all(not node.open for k, node in enumerate(played.nodes) if k not in dead) or dead
    forwarded = Counter(forward.request.id for _, _, forward in played.forwards)
    assert max(forwarded.values(), default=0) <= 1
    for _, node, forward in played.forwards:
        assert forward.request.source == node
        assert forward.peer in case.network.neighbours[node]
    for when, answer in played.answers:
        assert answer.elapsed == when - played.came[answer.request.id] or answer.elapsed == 0
        assert (answer.server is not None) is (answer.status is Status.OK)
        forward_to = [f.peer for _, _, f in played.forwards if f.request == answer.request]
        if answer.status is Status.OK:
            assert answer.server in (forward_to or [answer.request.source])


@settings(deadline=None)
@given(case=cases())
def test_equal_events_have_equal_effects(case: Case) -> None:
    def answers() -> list[tuple[int, Answer]]:
        played = Network(
            case.network, lambda node: Given(Routing(case.tables[node]), phases=(0.0,))
        )
        for when, node, function in case.requests:
            played.request(when, node, function)
        played.run()
        return played.answers

    assert answers() == answers()


REQUEST = Request(7, 0, 0, 0)


def state(router: Given | None = None, node: int = 0) -> ServingState:
    return ServingState(
        node, meshed((1, 2, 3)), Timetable(10 * SECOND, SECOND), 5, 0, router or Given()
    )


def test_a_request_is_served_where_it_came_in() -> None:
    node = state()
    assert node.handle(RequestCame(REQUEST), 10) == [Serve(REQUEST, 5_000)]
    assert node.open == {7}
    # Of another request, or of one that was forwarded.
    assert node.handle(Served(8), 20) == []
    assert node.handle(PeerAnswered(7, Status.OK), 20) == []
    assert node.handle(PeerFailed(7), 20) == []
    assert node.handle(Served(7), 5_010) == [Answer(REQUEST, None, Status.OK, 0, 5_000)]
    assert node.handle(Served(7), 5_010) == []
    assert node.open == frozenset()


@pytest.mark.parametrize(
    ("event", "status", "server"),
    [
        (PeerAnswered(7, Status.OK), Status.OK, 2),
        (PeerAnswered(7, Status.OVER_LIMIT), Status.OVER_LIMIT, None),
        (PeerFailed(7), Status.UNREACHABLE, None),
    ],
)
def test_the_answer_of_a_neighbour_comes_back_through_the_node(
    event: PeerAnswered | PeerFailed, status: Status, server: int | None
) -> None:
    node = state()
    node.proxy.set_table((Route(0, (0, 0, 1), (None,) * 3),))
    assert node.handle(RequestCame(REQUEST), 10) == [Forward(REQUEST, 2)]
    assert node.handle(Served(7), 20) == []
    assert node.handle(event, 30) == [Answer(REQUEST, None, status, server, 20)]
    assert node.handle(event, 40) == []


def test_routers_are_called_at_their_phases_with_what_was_counted() -> None:
    router = Given(Routing(say={"f": 4}), Routing((Route(0, (0, 1, 0), (None,) * 3),)))
    node = state(router)
    assert node.handle(Began(), 0) == [SetRouteTimer(SECOND)]
    node.handle(RequestCame(REQUEST), 10)
    node.handle(RequestCame(REQUEST._replace(id=8)), 11)
    node.handle(WasSaid(1, {"f": 3}), 12)
    node.handle(WasSaid(5, {"f": 3}), 13)
    timer, record, words = node.handle(RouteDue(), SECOND)
    assert timer == SetRouteTimer(6 * SECOND)
    assert isinstance(record, RoutingRecord)
    assert (record.number, record.scheduler) == (0, "given")
    assert words == Say((1, 2), {"f": 4})
    seen = router.seen[0]
    assert (seen.period, seen.phase, seen.rates) == (0, 0, (2,))
    assert seen.counts == ({"local": 1, "no_peer": 1},)
    # Node 5 is no neighbour.
    assert seen.heard == (Heard(1, {"f": 3}, 12),)
    assert node.handle(RouteDue(), 6 * SECOND)[0] == SetRouteTimer(11 * SECOND)
    # The second phase comes for the first time: what was counted since the beginning.
    assert router.seen[1].counts == ({"local": 1, "no_peer": 1},)
    assert node.handle(RequestCame(REQUEST._replace(id=9)), 6 * SECOND) == [
        Forward(REQUEST._replace(id=9), 1)
    ]
    node.handle(RouteDue(), 11 * SECOND)
    assert (router.seen[2].period, router.seen[2].phase) == (1, 0)
    assert router.seen[2].counts == ({"to:1": 1},)


def test_words_are_forgotten_when_they_expire() -> None:
    router = Given(phases=(0.0,))
    node = state(router)
    node.handle(Began(), 0)
    node.handle(WasSaid(1, {"f": 3}), SECOND)
    node.handle(WasSaid(2, {"f": 4}), 2 * SECOND)
    node.handle(RouteDue(), 91 * SECOND - 1)
    node.handle(RouteDue(), 91 * SECOND)
    node.handle(RouteDue(), 92 * SECOND)
    assert [[each.peer for each in seen.heard] for seen in router.seen] == [[1, 2], [2], []]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (ValueError("no"), r"router 'given' raised ValueError: no, at .*test_node\.py"),
        (SystemExit(3), r"raised SystemExit: 3"),
        (None, r"answered None.*; it has to be Routing\(table, say\) \(.*test_node\.py:\d+\)"),
        (Routing(()), r"a table \(\).*; it has to have one Route per function: 1"),
        (Routing((3,)), "a table with 3"),  # type: ignore[arg-type]
        (Routing((Route(0, (0, -1, 0), (None,) * 3),)), "a weight -1"),
        (Routing((Route(0, (0, 0.5, 0), (None,) * 3),)), "a weight 0.5"),  # type: ignore[arg-type]
        (Routing((Route(0, (1, 0, 0), (None,) * 3),)), "node 0 has the neighbours"),
        (Routing((Route(0, (0, 1), (None,) * 3),)), "one per node: 3"),
        (Routing((Route(-2, (0,) * 3, (None,) * 3),)), "a local_cap -2"),
        (Routing((Route(0, (0,) * 3, (None, None, -1)),)), "a limit -1"),
        (Routing((Route(0, (0,) * 3, (None,) * 3, 1.5),)), "reject=1.5"),
        (Routing(say={"f": {1, 2}}), "to say"),
        (Routing(say={"f": "x" * 9_000}), "at most 4096 bytes"),
        (Routing(say=[1]), "it has to be a mapping"),  # type: ignore[arg-type]
    ],
)
def test_a_router_that_fails_costs_its_turn_and_nothing_else(answer: object, told: str) -> None:
    router = Given(answer)
    node = state(router)
    node.handle(Began(), 0)
    table = node.proxy.table
    with pytest.raises(RouterFailed, match=told):
        node.handle(RouteDue(), SECOND)
    assert node.proxy.table == table
    # The timer is set all the same; its effect comes with those of the next event.
    assert node.handle(RequestCame(REQUEST), SECOND) == [
        SetRouteTimer(6 * SECOND),
        Serve(REQUEST, 5_000),
    ]
    node.handle(RouteDue(), 6 * SECOND)
    assert len(router.seen) == 2


def test_a_router_may_answer_later() -> None:
    router = Given(LATER, LATER, LATER)
    node = state(router)
    node.handle(Began(), 0)
    assert node.handle(RouteDue(), SECOND) == [SetRouteTimer(6 * SECOND)]
    answer = Routing((Route(0, (0, 1, 1), (None,) * 3),), {"f": 1})

    effects = node.handle(RouterAnswered(router.seen[0], answer), SECOND + 700)

    assert [type(each) for each in effects] == [RoutingRecord, Say]
    assert isinstance(effects[0], RoutingRecord)
    assert (effects[0].at, effects[0].observation) == (SECOND, router.seen[0])
    assert node.proxy.table == answer.table
    # Once only, and not for a question that is not the last.
    assert node.handle(RouterAnswered(router.seen[0], Routing()), SECOND + 800) == []
    node.handle(RouteDue(), 6 * SECOND)
    assert node.handle(RouterAnswered(router.seen[0], Routing()), 6 * SECOND) == []
    with pytest.raises(RouterFailed, match="raised KeyError: 'x'"):
        node.handle(RouterAnswered(router.seen[1], error=KeyError("x")), 6 * SECOND)
    assert node.proxy.table == answer.table


@pytest.mark.parametrize("phases", [(), (0.5, 0.2), (-0.1,), (0.0, 1.0), 3, ("a",)])
def test_a_router_has_phases(phases: object) -> None:
    router = Given()
    router.phases = phases  # type: ignore[assignment]
    with pytest.raises(ValueError, match="ascending shares"):
        state(router)


def test_another_router_takes_over_at_its_next_phase() -> None:
    node = state(Given(phases=(0.0, 0.3, 0.6)))
    node.handle(Began(), 0)
    node.handle(RouteDue(), SECOND)
    node.handle(RouteDue(), 4 * SECOND)
    other = Given(phases=(0.0,))
    node.router = other
    assert node.handle(RouteDue(), 7 * SECOND)[0] == SetRouteTimer(11 * SECOND)
    node.handle(RouteDue(), 11 * SECOND)
    assert [(seen.period, seen.phase) for seen in other.seen] == [(1, 0)]


def test_a_driver_that_breaks_the_contract_is_told() -> None:
    node = state()
    node.handle(RequestCame(REQUEST), 10)
    with pytest.raises(IllegalEvent, match="came twice"):
        node.handle(RequestCame(REQUEST), 10)
    with pytest.raises(IllegalEvent, match="time runs backwards"):
        node.handle(Began(), 9)
