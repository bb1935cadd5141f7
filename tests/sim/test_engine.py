"""The compiled engine against the heap simulator: every task ends alike, to the microsecond."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.errors import UsageError
from testbed.model import draws
from testbed.model.distributions import Constant
from testbed.model.events import RecordKind
from testbed.model.units import NEVER, SECOND, duration
from testbed.scenario.load import load
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan as resolve
from testbed.sim.compiled import CompiledSimulation
from testbed.sim.engine import draws as engine
from testbed.sim.engine.arrays import check, pack, problems_of, without_control_delay
from testbed.sim.engine.compiled import ABSENT, OUTCOMES, Batch
from testbed.sim.engine.episodes import pack_for_baseline
from testbed.sim.engine.fates import bounds
from testbed.sim.engine.heuristics import METHODS, run_heuristic
from testbed.sim.families import tasks_simulation
from testbed.sim.play import evaluate
from testbed.sim.simulator import SchedulerChoice, Simulation, simulate_episode
from tests.sim.plans import DELAYS, random_plan, small_plans

Endings = dict[int, tuple[str, int, int]]
"""By task: outcome, instant, destination."""


def by_simulator(plan: Plan, scheduler: SchedulerChoice, episode: int) -> Endings:
    result = simulate_episode(plan, episode, scheduler)
    ended = {r.task.id: r.at for r in result.records if r.kind is RecordKind.ENDED}
    went = {d.task_id: d.destination for d in result.decisions}
    endings = {}
    for task, outcome in result.outcomes.items():
        destination = went[task]
        # A task whose deadline passes before the answers come goes nowhere.
        endings[task] = (outcome.value, ended[task], -1 if destination is None else destination)
    return endings


def by_engine(batch: Batch, row: int) -> Endings:
    episode, tasks = batch.episodes[row], batch.tasks[row]
    first = int(episode["episode"] * episode["slots"] * episode["nodes"])
    return {
        first + m: (OUTCOMES[task["outcome"]], int(task["ended_at"]), int(task["destination"]))
        for m, task in enumerate(tasks)
        if task["stage"] != ABSENT
    }


def run(plan: Plan, method: str, episode: int) -> Endings:
    batch = pack_for_baseline([plan], method)
    run_heuristic(batch.episodes[0], METHODS[method], episode)
    return by_engine(batch, 0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["paper-simulation", "paper-testbed", "quickstart"])
def test_every_baseline_meets_the_fate_it_meets_in_the_simulator(name: str, method: str) -> None:
    plan = resolve(load(name))
    found = run(plan, method, 3)
    assert found == by_simulator(plan, method, 3)
    assert len({outcome for outcome, _, _ in found.values()}) >= 2


@settings(max_examples=250)
@given(small_plans(), st.sampled_from(list(METHODS)), st.integers(0, 1000))
def test_any_small_network_runs_as_in_the_simulator(plan: Plan, method: str, episode: int) -> None:
    assert run(plan, method, episode) == by_simulator(plan, method, episode)


@pytest.mark.parametrize("queue_limit", [None, 0, 2])
@pytest.mark.parametrize("delay", DELAYS)
def test_endings_at_slot_instants_come_before_the_decisions_of_the_slot(
    delay: tuple[int, int], queue_limit: int | None
) -> None:
    # Everything takes a multiple of the slot, so queues, probes and deadlines meet at one instant.
    plan = random_plan(3, size=5, slots=40, delay=delay, queue_limit=queue_limit)
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
    for method in METHODS:
        assert run(plan, method, 0) == by_simulator(plan, method, 0)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(0, 2**20))
def test_draws_are_bit_for_bit_those_of_the_model(seed: int, word: int, episode: int) -> None:
    state = draws.key(seed, 7, episode)
    assert int(engine.key(np.uint64(seed), 7, episode)) == state
    assert int(engine.extend(np.uint64(state), word)) == draws.extend(state, word)
    assert engine.to_unit(np.uint64(state)) == draws.to_unit(state)


@given(st.floats(0, 10), st.floats(1e-12, 1, exclude_max=True))
def test_failure_instants_are_those_of_the_model(rate: float, u: float) -> None:
    assert engine.failure_after(rate, u) == draws.failure_after(rate, u)
    assert engine.failure_after(0.0, u) == NEVER


@given(st.integers(0, 10**12), st.integers(1, 10**12))
def test_durations_are_those_of_the_model(amount: int, per_second: int) -> None:
    assert engine.duration(amount, per_second) == duration(amount, per_second)


def test_rows_of_one_batch_do_not_touch_one_another() -> None:
    plans = [random_plan(seed, size=4, slots=20) for seed in range(16)]
    alone = [run(plan, "rda", 5) for plan in plans]
    batch = pack(plans)
    for row in reversed(range(16)):
        run_heuristic(batch.episodes[row], METHODS["rda"], 5)
    assert [by_engine(batch, row) for row in range(16)] == alone


def test_scores_are_the_success_rates_of_the_simulator() -> None:
    plan = random_plan(8, size=6, slots=20)
    rates = evaluate(plan, ["ratc", "central", "local"], 3)
    for method, found in rates.items():
        expected = [simulate_episode(plan, n, method).success_rate for n in range(3)]
        assert found.tolist() == expected


def test_delays_that_differ_from_link_to_link_are_left_to_the_simulator() -> None:
    plan = random_plan(1, size=3, slots=60)
    delays = ((0, 1, 5000), (7000, 0, 2), (3, 4, 0))
    rules = replace(plan.rules, control_delay=7000, link_delays=delays)
    slow = replace(plan, rules=rules, episodes=1000)
    assert [each.path for each in problems_of(slow)] == ["rules.link_delays"]
    with pytest.raises(UsageError, match=r"rules\.link_delays.*the same for all links"):
        check(slow)
    assert type(tasks_simulation(replace(slow, rules=plan.rules), "ratc")) is CompiledSimulation
    assert type(tasks_simulation(slow, "ratc")) is Simulation
    assert evaluate(slow, ["ratc"], 2)["ratc"].tolist() == [
        simulate_episode(slow, number, "ratc").success_rate for number in range(2)
    ]
    free = without_control_delay(slow)
    assert free.rules == replace(plan.rules, control_delay=0)
    assert bounds(slow, range(3)).tolist() == bounds(free, range(3)).tolist()


def test_refused_plans_are_refused_with_every_reason() -> None:
    plan = random_plan(1, size=3)
    workload = replace(plan.workload, size_bytes=Constant(1e13), deadline=Constant(0))
    refused = replace(plan, workload=workload)
    with pytest.raises(UsageError) as error:
        check(refused)
    paths = [problem.path for problem in error.value.problems]
    assert paths == ["workload", "workload.deadline"]
    # As many bytes overflow also where each takes next to no work.
    light = replace(workload, complexity=Constant(1e-6), deadline=plan.workload.deadline)
    assert [each.path for each in problems_of(replace(plan, workload=light))] == ["workload"]
    assert problems_of(plan) == []


def test_plans_of_different_sizes_are_not_run_side_by_side() -> None:
    with pytest.raises(UsageError, match="as many nodes"):
        pack([random_plan(1, size=3), random_plan(1, size=4)])
