"""The simulator of serving networks: the figures of the paper, faults, and what always holds."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.errors import UsageError
from testbed.model.serving.bus import Bus
from testbed.model.serving.record import RequestOutcome
from testbed.model.serving.route import Route, RouteObservation, RouterContext, Routing
from testbed.model.serving.users import ConstantRate, StepRate, Users
from testbed.model.units import MILLISECOND, SECOND
from testbed.scenario.plan import ServingPlan
from testbed.scenario.plan.serving import Horizon
from testbed.sim.record import About, record_run
from testbed.sim.serving import RouterChoice, ServingResult, ServingSimulation
from testbed.storage.tasklog import RequestRow, RunState, TaskLog, open_task_log
from tests.sim.serving_plans import down, federation

SPLIT = {"advertise": "split"}


def play(plan: ServingPlan, router: RouterChoice | None = None) -> ServingResult:
    return ServingSimulation(plan, router).episode(0)


def per_second(
    result: ServingResult, source: int, first: int, until: int
) -> dict[int | str, float]:
    """Return requests a second of users at a node: by server, or by status if none served them."""
    found: Counter[int | str] = Counter()
    for record in result.requests:
        if record.source == source and first * SECOND <= record.at < until * SECOND:
            found[f"{record.status}" if record.server is None else record.server] += 1
    return {who: count / (until - first) for who, count in found.items()}


@pytest.mark.parametrize(
    ("users", "split", "expected"),
    [
        ((50, 0, 0), False, [{0: 10, 1: 16, 2: 24}]),
        ((50, 0, 0), True, [{0: 10, 1: 10, 2: 15, "429": 15}]),
        ((50, 10, 0), True, [{0: 10, 1: 5, 2: 15, "429": 20}, {1: 10}]),
        ((50, 30, 0), True, [{0: 10, 2: 15, "429": 25}, {1: 20, 2: 10}]),
        (
            (50, 50, 50),
            True,
            [{0: 10, "503": 40}, {1: 20, "503": 30}, {2: 30, "503": 20}],
        ),
    ],
)
def test_requests_per_second_after_the_first_weights(
    users: Sequence[float], split: bool, expected: list[dict[int | str, float]]
) -> None:
    plan = federation(users, enforce=split, options=SPLIT if split else None)
    result = play(plan)
    for node, each in enumerate(expected):
        assert per_second(result, node, 61, 299) == pytest.approx(each, abs=1)


def test_requests_of_a_sender_that_nobody_knows_are_forbidden() -> None:
    plan = federation((50,))
    network = dataclasses.replace(plan.network, neighbours=((1, 2), (), ()))

    class ToSecond:
        name = "to-second"

        def __init__(self, context: RouterContext) -> None:
            self.phases: tuple[float, ...] = (0.0,)
            self._away = (Route(0, (0, 1, 0), (None,) * 3),) if context.node == 0 else None

        def route(self, observation: RouteObservation) -> Routing:
            return Routing(self._away)

    result = play(dataclasses.replace(plan, network=network), ToSecond)
    assert per_second(result, 0, 60, 300) == {"403": 50}


def test_totals_of_the_paper() -> None:
    result = play(federation())
    servers = Counter(record.server for record in result.requests)
    assert servers[0] == 3000
    assert servers[1] == pytest.approx(3840, rel=0.01)
    assert servers[2] == pytest.approx(5760, rel=0.01)
    assert result.statuses[503] == 2400


@pytest.mark.parametrize(
    ("period", "offset", "refused"),
    [(60, 0, 1200), (60, 15, 1800), (60, 30, 2400), (60, 45, 3000), (30, 15, 1200), (10, 5, 400)],
)
def test_refusals_follow_the_first_weights(period: int, offset: int, refused: int) -> None:
    result = play(federation(period=period, offset=offset))
    assert result.statuses[503] == pytest.approx(refused, rel=0.02)


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("enforce", [False, True])
def test_the_share_of_a_killed_node_is_unreachable_until_its_words_expire(enforce: bool) -> None:
    plan = federation(enforce=enforce, seconds=420, faults=(down(2, 180, 600),))
    result = play(plan)
    assert per_second(result, 0, 181, 299) == pytest.approx({0: 10, 1: 16, "502": 24}, abs=1)
    after = {0: 10, 1: 20, "429": 20} if enforce else {0: 10, 1: 40}
    assert per_second(result, 0, 301, 419) == pytest.approx(after, abs=1)


def test_a_killed_node_answers_nobody_and_begins_anew_with_the_others() -> None:
    result = play(federation((0, 30, 0), seconds=300, faults=(down(1, 100, 60),)))
    assert per_second(result, 1, 101, 159) == {"502": 30}
    # As its limit allows, until it has heard what the others can spare: it calls its router at
    # the same instants as they do.
    assert per_second(result, 1, 160, 210) == pytest.approx({1: 20, "503": 10})
    calls = {at for node, at in ((each.node, each.at) for each in result.routings) if node == 1}
    assert calls <= {each.at for each in result.routings if each.node == 0}
    assert per_second(result, 1, 241, 300) == pytest.approx({1: 20, 0: 2, 2: 8}, abs=1)
    keys = [(each.node, each.number) for each in result.routings]
    assert len(keys) == len(set(keys))
    windows = {each.window for each in result.windows if each.node == 1}
    assert windows == {*range(100), *range(160, 300)}


def test_what_a_killed_node_was_working_on_is_unreachable_at_that_instant() -> None:
    plan = federation((10, 0, 0), (0, 20, 0), seconds=100, faults=(down(1, 90.003, 1),))
    under_way = play(plan)
    [cut] = [each for each in under_way.requests if each.at == 90 * SECOND]
    # It was forwarded at 90 s, began a millisecond later, and was to take five.
    assert (cut.status, cut.peer, cut.server, cut.elapsed) == (502, 1, None, 4 * MILLISECOND)


def test_whoever_asks_a_node_that_hangs_gives_up_after_a_while() -> None:
    result = play(federation((50, 10), seconds=250, faults=(down(1, 100, 100, "hung"),)))
    waited = [each for each in result.requests if each.status == 502]
    assert {each.elapsed for each in waited} == {2 * SECOND + 7 * MILLISECOND}
    assert {each.source for each in waited} == {0, 1}
    # What came shortly before it went on is answered, late.
    late = [each for each in result.requests if each.server == 1 and each.elapsed > SECOND]
    assert late
    assert all(198 * SECOND <= each.at < 200 * SECOND for each in late)
    assert not result.lost


def test_what_has_no_answer_when_the_episode_is_over_is_lost() -> None:
    plan = federation((10,), seconds=10, horizon=Horizon(10 * SECOND, SECOND))
    function = plan.network.functions[0]._replace(time=2 * SECOND)
    network = dataclasses.replace(plan.network, functions=(function,))
    result = play(dataclasses.replace(plan, network=network))
    assert [each.at for each in result.lost] == [
        each.at for each in plan.arrivals(0) if each.at + 2 * SECOND > 11 * SECOND
    ]
    assert len(result.requests) + len(result.lost) == 100


# --- routers --------------------------------------------------------------------------------------


def test_without_words_requests_are_refused_as_before_the_first_weights() -> None:
    result = play(federation(bus=Bus(loss=1.0, seed=2)))
    assert result.statuses == {200: 3000, 503: 12000}
    assert sum(each.said for each in result.windows) == 5 * 3 * 2
    assert sum(each.heard for each in result.windows) == 0


class Failing:
    """Weighs well once, then raises or answers with a weight below 0."""

    def __init__(self, context: RouterContext) -> None:
        self.name = "failing"
        self.phases: tuple[float, ...] = (0.0,)

    def route(self, observation: RouteObservation) -> Routing:
        if observation.period == 0:
            return (
                Routing((Route(10, (0, 1, 0), (None,) * 3),))
                if observation.node == 0
                else Routing()
            )
        if observation.period == 1:
            raise RuntimeError("a defect")
        return Routing((Route(10, (0, -1, 0), (None,) * 3),))


def test_a_router_that_fails_leaves_the_table_and_is_called_again() -> None:
    result = play(federation(seconds=200), Failing)
    assert per_second(result, 0, 31, 200) == pytest.approx({0: 10, 1: 40})
    assert [(each.node, each.at // SECOND) for each in result.failed] == [
        (node, at) for at in (90, 150) for node in range(3)
    ]
    raised, invalid = result.failed[0].reason, result.failed[3].reason
    assert "router 'failing' raised RuntimeError: a defect" in raised
    assert "a weight -1 (int); it has to be a whole number" in invalid


def test_a_run_whose_router_failed_is_degraded_and_says_why(task_log: TaskLog) -> None:
    plan = federation(seconds=100)
    run = task_log.run(record_run(plan, task_log, scheduler=f"{__name__}:Failing"))
    assert run.state is RunState.DEGRADED
    [line] = run.code_failures
    assert line.startswith(
        "the router failed at 3 calls, and routes stayed as they were; the first: episode 0, "
        "node 0, at 90 s: router 'failing' raised RuntimeError: a defect, at "
    )


def test_every_episode_begins_with_the_same_table() -> None:
    simulation = ServingSimulation(federation())
    first, second = simulation.episode(0), simulation.episode(1)
    assert first.statuses == second.statuses


def test_an_unknown_router_or_option_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown router 'nobody'"):
        ServingSimulation(federation(), "nobody")
    with pytest.raises(UsageError, match="unknown option"):
        ServingSimulation(federation(options={"speed": 1}))


# --- in the task log ------------------------------------------------------------------------------


@pytest.fixture
def task_log(tmp_path: Path) -> Iterator[TaskLog]:
    with open_task_log(tmp_path / "log.sqlite") as opened:
        yield opened


@pytest.mark.parametrize("logged", ["all", "windows"])
def test_all_of_a_run_is_logged_as_it_was(task_log: TaskLog, logged: Any) -> None:
    plan = federation(seconds=70, episodes=2, log_requests=logged)
    seen: list[ServingResult] = []
    run = task_log.run(record_run(plan, task_log, about=About("a label"), on_episode=seen.append))
    assert (run.state, run.info.driver, run.info.scheduler) == (
        RunState.COMPLETED,
        "simulator",
        "slack",
    )
    assert run.head == plan
    assert [result.episode for result in seen] == [0, 1]
    for result in seen:
        rows = list(task_log.requests(run.id, episode=result.episode))
        assert rows == [RequestRow.of(each, "f") for each in result.requests]
        assert bool(rows) == (logged == "all")
        assert list(task_log.windows(run.id, episode=result.episode)) == result.windows
        routings = list(task_log.routings(run.id, episode=result.episode))
        assert routings == sorted(result.routings, key=lambda each: (each.node, each.number))
    assert sum(seen[0].counts.values()) == 3500


def test_there_are_no_tasks_to_log_alone(task_log: TaskLog) -> None:
    with pytest.raises(UsageError, match="no tasks to store alone"):
        record_run(federation(seconds=10), task_log, tasks_only=True)
    assert task_log.runs() == []


def test_what_was_lost_is_logged_as_lost(task_log: TaskLog) -> None:
    # The last request comes at 9.9 s and takes 5 ms.
    plan = federation((10,), seconds=10, horizon=Horizon(9_902_000, 0))
    run_id = record_run(plan, task_log)
    outcomes = task_log.request_outcomes([run_id])[run_id]
    assert (outcomes[RequestOutcome.SERVED], outcomes[RequestOutcome.LOST]) == (99, 1)


# --- what always holds ----------------------------------------------------------------------------

_RATES = st.lists(st.sampled_from([0, 3, 10, 37, 60]), min_size=2, max_size=4)


@st.composite
def plans(draw: st.DrawFn) -> ServingPlan:
    rates = draw(_RATES)
    seconds = draw(st.sampled_from([7, 12]))
    size = len(rates)
    changes: dict[str, Any] = {
        "bus": Bus(
            draw(st.sampled_from([0, 1, 1000, 700_000])), draw(st.sampled_from([0, 0.5])), 7
        ),
    }
    if draw(st.booleans()):
        changes["faults"] = tuple(
            down(
                draw(st.integers(0, size - 1)),
                draw(st.sampled_from([1.0, 2.003, 4.5])),
                draw(st.sampled_from([0.5, 2.0, 20.0])),
                draw(st.sampled_from(["killed", "hung"])),
            )
            for _ in range(draw(st.integers(1, 2)))
        )
    plan = federation(
        rates,
        [draw(st.sampled_from([0, 5, 20])) for _ in rates],
        enforce=draw(st.booleans()),
        seconds=seconds,
        period=2,
        offset=1,
        options=draw(st.sampled_from([SPLIT, {}])),
        **changes,
    )
    if draw(st.booleans()):
        trace = StepRate((0, 3 * SECOND), (0.0, 25.0))
        plan = dataclasses.replace(plan, users=(*plan.users, Users(size - 1, 0, trace)))
    return plan


@settings(max_examples=60, deadline=None)
@given(plans())
def test_every_request_has_one_outcome_and_every_window_its_counts(plan: ServingPlan) -> None:
    result = play(plan)
    came = [each.request.id for each in plan.arrivals(0)]
    ended = [each.id for each in result.requests] + [each.request.id for each in result.lost]
    assert sorted(ended) == sorted(came)
    assert Counter(each.status for each in result.requests) == result.statuses
    assert result == play(plan)
    windows = [(each.node, each.window) for each in result.windows]
    assert windows == sorted(set(windows))
    _hold_caps(plan, result)
    if not plan.faults:
        _hold_counts(plan, result)


def _hold_caps(plan: ServingPlan, result: ServingResult) -> None:
    """No window has more than its cap of own requests."""
    [function] = plan.network.functions
    for window in result.windows:
        [counts] = window.counts
        assert counts.get("local", 0) <= function.max_rate[window.node]


def _hold_counts(plan: ServingPlan, result: ServingResult) -> None:
    """What the windows count is what became of the requests."""
    counted: Counter[tuple[int, str]] = Counter()
    for window in result.windows:
        for name, count in window.counts[0].items():
            counted[window.node, name] += count
    expected: Counter[tuple[int, str]] = Counter()
    for record in result.requests:
        if record.peer is None:
            expected[record.source, "local" if record.status == 200 else "no_peer"] += 1
            continue
        expected[record.source, f"to:{record.peer}"] += 1
        if record.status == 200:
            expected[record.peer, f"from:{record.source}"] += 1
        else:
            expected[record.source, f"failed:{record.peer}"] += 1
            expected[record.peer, f"over_limit:{record.source}"] += 1
    assert counted == expected


def test_users_without_requests_are_no_load() -> None:
    plan = dataclasses.replace(federation(seconds=3), users=(Users(0, 0, ConstantRate(0.0)),))
    result = play(plan)
    assert (result.requests, result.statuses) == ([], {})
    assert [(each.node, each.window) for each in result.windows] == [
        (node, window) for node in range(3) for window in range(3)
    ]
