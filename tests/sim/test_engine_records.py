"""Records and decisions by the engine and by the heap simulator: equal, in equal order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.errors import UsageError
from testbed.model.distributions import Constant
from testbed.model.units import MILLISECOND, SECOND
from testbed.scenario.load import load
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan as resolve
from testbed.sim import families
from testbed.sim.compiled import NAMES, CompiledSimulation
from testbed.sim.families import tasks_simulation
from testbed.sim.record import record_run
from testbed.sim.simulator import EpisodeResult, Simulation, simulate_episode
from testbed.storage.tasklog import open_task_log
from tests.sim.plans import DEADLINES, DELAYS, OVERLOADS, random_plan


def assert_same(found: EpisodeResult, expected: EpisodeResult) -> None:
    for one, other in zip(found.decisions, expected.decisions, strict=False):
        assert one == other
    for ours, theirs in zip(found.records, expected.records, strict=False):
        assert ours == theirs
    assert found == expected
    # Also in what a document would show: the order of keys, and no number for a truth value.
    assert repr(found) == repr(expected)


def compare(plan: Plan, method: str, episode: int) -> EpisodeResult:
    found = CompiledSimulation(plan, method).episode(episode)
    assert_same(found, simulate_episode(plan, episode, method))
    return found


@pytest.mark.parametrize("method", sorted(NAMES))
@pytest.mark.parametrize("name", ["paper-simulation", "paper-testbed", "quickstart"])
def test_every_record_and_decision_is_that_of_the_simulator(name: str, method: str) -> None:
    plan = resolve(load(name))
    found = compare(plan, method, 3)
    assert len(found.records) > len(found.outcomes) > 100


def test_episodes_of_one_simulation_leave_nothing_behind() -> None:
    plan = random_plan(5, size=6, slots=20, delay=DELAYS[2], queue_limit=1)
    simulation = CompiledSimulation(plan, "rda-masked")
    for episode in (7, 0, 7):
        assert_same(simulation.episode(episode), simulate_episode(plan, episode, "rda-masked"))


@settings(max_examples=250)
@given(
    seed=st.integers(0, 2**40),
    size=st.integers(1, 6),
    slots=st.integers(1, 12),
    method=st.sampled_from(sorted(NAMES)),
    overload=st.sampled_from(OVERLOADS),
    deadline=st.sampled_from(DEADLINES),
    drop_hopeless=st.booleans(),
    slot=st.sampled_from([50 * MILLISECOND, 500 * MILLISECOND]),
    failures=st.sampled_from([0.0, 1.0, 20.0, 1e5]),
    delay=st.sampled_from(DELAYS),
    queue_limit=st.sampled_from([None, None, 0, 1, 3]),
    log_idle_slots=st.booleans(),
    episode=st.integers(0, 1000),
)
def test_any_small_network_is_recorded_as_in_the_simulator(
    seed: int,
    size: int,
    slots: int,
    method: str,
    overload: object,
    deadline: object,
    drop_hopeless: bool,
    slot: int,
    failures: float,
    delay: tuple[int, int],
    queue_limit: int | None,
    log_idle_slots: bool,
    episode: int,
) -> None:
    plan = random_plan(
        seed,
        size=size,
        slots=slots,
        overload=overload,  # type: ignore[arg-type]
        deadline=deadline,  # type: ignore[arg-type]
        drop_hopeless=drop_hopeless,
        slot=slot,
        failures=failures,
        delay=delay,
        queue_limit=queue_limit,
    )
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


@pytest.mark.parametrize("scheduler", ["ratc", "central", "local"])
def test_a_long_run_is_played_by_the_engine_into_an_equal_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str
) -> None:
    plan = random_plan(4, size=4, slots=10, delay=DELAYS[2])
    plan = replace(plan, episodes=3)
    assert isinstance(tasks_simulation(plan, scheduler), Simulation)
    logged = []
    for worthwhile in (families.WORTHWHILE, 1):
        monkeypatch.setattr(families, "WORTHWHILE", worthwhile)
        with open_task_log(str(tmp_path / f"{worthwhile}.db")) as log:
            run = record_run(plan, log, scheduler=scheduler, run_id="same")
            logged.append([list(log.records(run)), list(log.decisions(run)), list(log.tasks(run))])
    assert isinstance(tasks_simulation(plan, "ratc"), CompiledSimulation)
    assert isinstance(tasks_simulation(plan, "drl"), Simulation)
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
