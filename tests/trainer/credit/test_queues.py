"""The credit of decisions: by hand on small queues, and against serving the queue again."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from testbed.model.distributions import Constant
from testbed.model.draws import extend, failure_after, to_unit
from testbed.model.units import SECOND, duration
from testbed.scenario.plan import Plan
from testbed.sim.engine.arrays import pack
from testbed.sim.engine.compiled import (
    ABSENT,
    DROPPED,
    SUCCEEDED,
    TRANSMISSION_FAILED,
    Batch,
)
from testbed.sim.engine.heuristics import METHODS, run_heuristic
from testbed.sim.engine.threads import Threads
from testbed.sim.engine.vector import UniformPolicy, VectorEnv, choose
from tests.sim.networks import tiny_plan
from tests.sim.plans import OVERLOADS, random_plan
from trainer.credit.queues import credit_of


def played(plan: Plan, *destinations: list[int]) -> Batch:
    """An episode with these actions by slot."""
    env = VectorEnv([plan], threads=1)
    env.reset([0])
    for actions in destinations:
        env.step(np.array([actions]))
    return env.batch


def test_two_tasks_that_do_not_fit_one_after_the_other() -> None:
    # Each takes 1 s, deadline 1.9 s, both at node 0 in the same slot: the second comes 0.1 s later
    # over the link, is in vain, and would be in time were it not for the first.
    plan = tiny_plan([1.0, 1.0], slots=1, deadline=1_900_000)
    batch = played(plan, [0, 0])
    credit = credit_of(batch, Threads(1))
    assert credit.own[0].tolist() == [1.0, 0.0]
    assert credit.same[0].tolist() == [-1.0, 0.0]
    assert credit.later[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("stagger", [0, 1])
def test_harm_within_a_slot_is_to_later_decisions_where_nodes_take_turns(stagger: int) -> None:
    # Node 1 is so slow that both tasks go to node 0, where the second cannot be in time.
    capacity = [8_000_000_000, 1_000_000_000]
    plan = tiny_plan([1.0, 1.0], deadline=1_900_000, capacity_hz=capacity)
    plan = replace(plan, rules=replace(plan.rules, stagger=stagger))
    batch = pack([plan])
    run_heuristic(batch.episodes[0], METHODS["least-completion"], 0)
    credit = credit_of(batch, Threads(1))
    assert credit.own[0].tolist() == [1.0, 0.0]
    harm = [credit.same[0, 0], credit.later[0, 0]]
    assert harm == ([0.0, -1.0] if stagger else [-1.0, 0.0])


def test_harm_to_a_later_slot_is_told_apart_and_weighed_by_reliability() -> None:
    # Slot 1 s: the task of the second slot waits for the first, which takes 2 s of its 2.5 s.
    plan = tiny_plan([1.0], slots=3, deadline=2_500_000, capacity_hz=[4_000_000_000], alpha=1e-9)
    batch = played(plan, [0], [0], [0])
    credit = credit_of(batch, Threads(1))
    survives = math.exp(-2e-9)
    # 0 to 2 s; the second could begin at 2 and end at 4 > 3.5: dropped; the third runs 2 to 4.
    assert credit.own[0].tolist() == pytest.approx([survives, 0.0, survives])
    # Without the first: the second runs 1 to 3, the third would end at 5 > 4.5.
    assert credit.later[0].tolist() == pytest.approx([-survives + survives, 0.0, 0.0])
    assert (credit.same == 0.0).all()


def test_a_task_dropped_on_its_way_has_no_worth_and_does_no_harm() -> None:
    plan = tiny_plan([1.0, 0.0], slots=1, deadline=50_000)
    credit = credit_of(played(plan, [1, 2]), Threads(1))
    assert credit.own[0, 0] == 0.0
    assert np.isnan(credit.own[0, 1])


@pytest.mark.parametrize("queue_limit", [None, 1])
@pytest.mark.parametrize("drop_hopeless", [True, False])
def test_credit_is_the_difference_of_serving_every_queue_with_and_without(
    drop_hopeless: bool, queue_limit: int | None
) -> None:
    plan = random_plan(
        9,
        size=5,
        slots=25,
        drop_hopeless=drop_hopeless,
        failures=2.0,
        overload=OVERLOADS[0],
        queue_limit=queue_limit,
    )
    plan = replace(plan, workload=replace(plan.workload, deadline=Constant(2 * SECOND)))
    env = VectorEnv([plan] * 4)
    env.reset([0, 1, 2, 3])
    for _ in range(plan.workload.slots):
        env.step(choose(env.observe(), UniformPolicy())[0])
    credit = credit_of(env.batch, Threads(4))
    harmful = 0
    for row in range(4):
        for m in np.flatnonzero(env.batch.tasks[row]["stage"] != ABSENT):
            task = env.batch.tasks[row, m]
            if task["ready_at"] < 0:
                failed = task["outcome"] == TRANSMISSION_FAILED
                assert np.isnan(credit.own[row, m]) if failed else credit.own[row, m] == 0.0
                continue
            if task["outcome"] in (SUCCEEDED, DROPPED):
                assert (credit.own[row, m] > 0) == (task["outcome"] == SUCCEEDED)
            own, others = difference(env.batch, row, int(m))
            assert credit.own[row, m] == pytest.approx(own)
            found = credit.same[row, m] + credit.later[row, m]
            assert found == pytest.approx(others)
            harmful += others < 0
    assert harmful >= 20


def difference(batch: Batch, row: int, m: int) -> tuple[float, float]:
    """Worth of task ``m``, and what it changes for all others of its node, by brute force."""
    episode, tasks = batch.episodes[row], batch.tasks[row]
    j = int(tasks[m]["destination"])
    queue = [int(k) for k in np.flatnonzero((tasks["destination"] == j) & (tasks["ready_at"] >= 0))]
    queue.sort(key=lambda k: int(tasks[k]["admission"]))
    with_it, without_it = (serve(batch, row, j, q) for q in (queue, [k for k in queue if k != m]))
    source = m % int(episode["nodes"])
    reach = 1.0
    if source != j:
        link = batch.links[episode["network"], source, j]
        reach = math.exp(
            -link["failure"] * duration(int(tasks[m]["size"]), int(link["rate"])) / 1e6
        )
    return with_it.pop(m) * reach, sum(with_it.values()) - sum(without_it.values())


def serve(batch: Batch, row: int, j: int, queue: list[int]) -> dict[int, float]:
    """Chance of success of every task of ``queue``, served in this order by node ``j``."""
    episode, node, tasks = batch.episodes[row], batch.nodes[row, j], batch.tasks[row]
    free = 0
    worth: dict[int, float] = {}
    for k in queue:
        task = tasks[k]
        work = duration(int(task["cycles"]), int(node["capacity"]))
        state = extend(int(episode["execution_fates"]), int(episode["episode"]) * len(tasks) + k, j)
        busy = min(work, failure_after(float(node["failure"]), to_unit(state)))
        start, deadline = max(int(task["ready_at"]), free), int(task["deadline_at"])
        in_time = start + work <= deadline
        worth[k] = math.exp(-node["failure"] * work / 1e6) if in_time else 0.0
        if in_time:
            free = start + busy
        elif not episode["drop_hopeless"] and start < deadline:
            free = min(start + busy, deadline)
    return worth
