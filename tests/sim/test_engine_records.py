"""Records and decisions by the engine and by the heap simulator: equal, in equal order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from testbed.errors import UsageError
from testbed.model.distributions import Constant
from testbed.model.history import fold_all
from testbed.model.units import SECOND
from testbed.scenario.load import load
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan as resolve
from testbed.sim import families
from testbed.sim.compiled import NAMES, CompiledSimulation
from testbed.sim.families import tasks_simulation
from testbed.sim.record import record_run
from testbed.sim.simulator import EpisodeResult, Simulation, simulate_episode
from testbed.storage.tasklog import RunState, TaskLog, open_task_log, schema
from testbed.storage.tasklog.packing import decision_rows, history_rows, task_row
from testbed.storage.tasklog.sql import SqlTaskLog
from tests.sim.plans import DELAYS, random_plan, small_plans


def assert_same(found: EpisodeResult, expected: EpisodeResult) -> None:
    for one, other in zip(found.decisions, expected.decisions, strict=False):
        assert one == other
    for ours, theirs in zip(found.records, expected.records, strict=False):
        assert ours == theirs
    assert found == expected
    # Also in what a document would show: the order of keys, and no number for a truth value.
    assert repr(found) == repr(expected)


def compare(plan: Plan, method: str, episode: int) -> EpisodeResult:
    simulation = CompiledSimulation(plan, method)
    found, expected = simulation.episode(episode), simulate_episode(plan, episode, method)
    assert_same(found, expected)
    if simulation.writes_rows:
        result, columns = simulation.rows(episode)
        assert list(result.outcomes.items()) == list(expected.outcomes.items())
        histories, decisions, tasks = columns.rows(7)
        assert histories == sorted(history_rows(7, expected.records))
        assert decisions == decision_rows(7, expected.decisions, {})[0]
        ended = fold_all((), expected.records, expected.decisions).rows
        assert tasks == [task_row(7, each) for each in ended]
        few, alone = simulation.rows(episode, complete=False)
        assert few == result
        assert alone.rows(7) == ([], [], tasks)
    return found


@pytest.mark.parametrize("method", sorted(NAMES))
@pytest.mark.parametrize("name", ["paper-simulation", "paper-testbed", "quickstart"])
def test_every_record_and_decision_is_that_of_the_simulator(name: str, method: str) -> None:
    plan = resolve(load(name, ["rules.reject=true"]))
    found = compare(plan, method, 3)
    assert len(found.records) > len(found.outcomes) > 100


def test_episodes_of_one_simulation_leave_nothing_behind() -> None:
    plan = random_plan(5, size=6, slots=20, delay=DELAYS[2], queue_limit=1)
    simulation = CompiledSimulation(plan, "rda-masked")
    for episode in (7, 0, 7):
        assert_same(simulation.episode(episode), simulate_episode(plan, episode, "rda-masked"))


@settings(max_examples=250)
@given(small_plans(), st.sampled_from(sorted(NAMES)), st.booleans(), st.integers(0, 1000))
def test_any_small_network_is_recorded_as_in_the_simulator(
    plan: Plan, method: str, log_idle_slots: bool, episode: int
) -> None:
    compare(replace(plan, log_idle_slots=log_idle_slots), method, episode)


@pytest.mark.parametrize("queue_limit", [None, 0, 2])
@pytest.mark.parametrize("drop_hopeless", [True, False])
@pytest.mark.parametrize("delay", DELAYS)
def test_what_happens_at_one_instant_is_recorded_in_the_order_of_the_simulator(
    delay: tuple[int, int], drop_hopeless: bool, queue_limit: int | None
) -> None:
    # Everything takes a multiple of the slot, so queues, probes and deadlines meet at one instant.
    plan = random_plan(
        3, size=5, slots=40, delay=delay, drop_hopeless=drop_hopeless, queue_limit=queue_limit
    )
    plan = replace(
        plan,
        topology=replace(
            plan.topology,
            capacity_hz=(16_000_000_000,) * 5,
            arrival_probability=(0.9, 0.2, 0.8, 0.7, 0.5),
            link_rate=tuple(tuple(0 if i == j else 2_000_000 for j in range(5)) for i in range(5)),
        ),
        workload=replace(
            plan.workload,
            size_bytes=Constant(1e6),
            complexity=Constant(1000),
            deadline=Constant(2 * SECOND),
        ),
    )
    for method in sorted(NAMES):
        compare(plan, method, 0)


def test_decisions_of_slots_side_by_side_are_not_written_as_rows() -> None:
    assert not CompiledSimulation(random_plan(1, size=3, delay=DELAYS[4]), "ratc").writes_rows
    assert CompiledSimulation(random_plan(1, size=3, delay=DELAYS[2]), "ratc").writes_rows


def stored(log: TaskLog) -> list[list[tuple[Any, ...]]]:
    """All rows of a log as they are in the database."""
    assert isinstance(log, SqlTaskLog)
    with log.engine.connect() as connection:
        return [
            [tuple(row) for row in connection.execute(select(table))]
            for table in (schema.histories, schema.decisions, schema.tasks)
        ]


@pytest.mark.parametrize("delay", [DELAYS[2], DELAYS[4]])
@pytest.mark.parametrize("scheduler", ["ratc", "central", "central-reject", "local"])
def test_a_long_run_is_played_by_the_engine_into_an_equal_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str, delay: tuple[int, int]
) -> None:
    plan = random_plan(4, size=4, slots=10, delay=delay)
    plan = replace(plan, episodes=3)
    assert isinstance(tasks_simulation(plan, scheduler), Simulation)
    monkeypatch.setattr(families, "_TOGETHER", 30)
    logged, seen = [], []
    for worthwhile in (families.WORTHWHILE, 1):
        monkeypatch.setattr(families, "WORTHWHILE", worthwhile)
        for tasks_only in (False, True):
            results: list[EpisodeResult] = []
            with open_task_log(str(tmp_path / f"{worthwhile}-{tasks_only}.db")) as log:
                run = record_run(
                    plan,
                    log,
                    scheduler=scheduler,
                    tasks_only=tasks_only,
                    on_episode=results.append,
                )
                logged.append(stored(log))
                assert log.run(run).state is RunState.COMPLETED
            seen.append([(each.episode, each.counts) for each in results])
    assert isinstance(tasks_simulation(plan, "ratc"), CompiledSimulation)
    assert isinstance(tasks_simulation(plan, "drl"), Simulation)
    complete, few, *by_engine = logged
    assert by_engine == [complete, few]
    assert all(complete)
    assert few == [[], [], complete[2]]
    assert seen[1:] == seen[:-1]


class ServerLogTests:
    pytestmark = pytest.mark.mysql

    def test_rows_of_the_engine_are_stored_on_a_server_as_records_are(
        self, mysql_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plan = random_plan(4, size=4, slots=10, delay=DELAYS[2])
        logged = []
        with open_task_log(mysql_url) as log:
            for worthwhile in (families.WORTHWHILE, 1):
                monkeypatch.setattr(families, "WORTHWHILE", worthwhile)
                run = record_run(plan, log, scheduler="rda-masked")
                tables = (log.records(run), log.decisions(run), log.tasks(run))
                logged.append([list(each) for each in tables])
        assert logged[0] == logged[1]
        assert all(logged[0])


def test_what_the_engine_does_not_cover_is_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "WORTHWHILE", 1)
    plan = random_plan(4, size=4, slots=10)
    hasty = replace(plan, workload=replace(plan.workload, size_bytes=Constant(1)))
    assert isinstance(tasks_simulation(hasty, "ratc"), Simulation)
    assert isinstance(tasks_simulation(plan), CompiledSimulation)
    with pytest.raises(UsageError, match="nonsense"):
        tasks_simulation(plan, "ratc", {"nonsense": 1})
    with pytest.raises(UsageError, match="nobody"):
        tasks_simulation(plan, "nobody")
