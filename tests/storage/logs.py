"""Hand-made logs for tests of data sets: small enough to know every number in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from testbed.model.decision import Answer, Observation
from testbed.model.distributions import Constant, Uniform
from testbed.model.events import DecisionRecord
from testbed.model.history import TaskRow, fold
from testbed.model.task import Outcome, Task
from testbed.model.topology import Overload, OverloadMeasure, Rules, Topology
from testbed.model.units import SECOND
from testbed.model.workload import Workload
from testbed.scenario.plan import Plan, SchedulerSpec, Seeds, identity
from testbed.storage.tasklog import RunInfo, RunState, TaskLog

NODES = 2
SLOTS = 4
SLOT = SECOND // 2


def tiny_plan(**changes: Any) -> Plan:
    """Two nodes, four slots of half a second, deadline two seconds; ``changes`` replace fields."""
    topology = Topology(
        cores=(4, 8),
        capacity_hz=(12_000_000_000, 24_000_000_000),
        arrival_probability=(1.0, 0.5),
        execution_failure_rate=(0.1, 0.0),
        link_rate=((0, 10_000_000), (20_000_000, 0)),
        link_failure_rate=((0.0, 0.01), (0.01, 0.0)),
    )
    workload = Workload(SLOTS, SLOT, Uniform(1e6, 8e6), Uniform(800, 2400), Constant(2 * SECOND))
    rules = Rules(Overload(OverloadMeasure.QUEUE_LENGTH, 2))
    seeds = Seeds(1, 2, 3, 4)
    plan = Plan(
        name="tiny",
        scenario_hash=identity(topology, workload, rules, seeds),
        topology=topology,
        workload=workload,
        rules=rules,
        seeds=seeds,
        scheduler=SchedulerSpec("random"),
        episodes=1,
    )
    return dataclasses.replace(plan, **changes)


def tiny_task(slot: int, node: int, episode: int = 0) -> Task:
    return Task(
        (episode * SLOTS + slot) * NODES + node,
        episode,
        slot,
        node,
        4_000_000,
        38_400_000_000,
        2 * SECOND,
    )


def tiny_decision(
    slot: int,
    node: int,
    destination: int | None,
    *,
    arrived: bool = True,
    episode: int = 0,
    probabilities: tuple[float, ...] | None = None,
    mask: tuple[bool, ...] | None = None,
    bits: Mapping[int, bool] | None = None,
    queue_length: int | None = None,
) -> DecisionRecord:
    """A decision; its queue length tells its slot: ``slot + 1`` unless given."""
    task = tiny_task(slot, node, episode) if arrived else None
    zeros = (0,) * NODES
    answers = tuple(Answer(peer, bit, None, 0, 1) for peer, bit in (bits or {}).items())
    length = slot + 1 if queue_length is None else queue_length
    observation = Observation(
        node,
        slot * SLOT,
        episode,
        slot,
        task,
        length,
        0,
        zeros,
        zeros,
        zeros,
        answers,
        (None,) * NODES,
        0,
        0,
        zeros,
    )
    return DecisionRecord(
        None if task is None else task.id,
        node,
        episode,
        slot,
        slot * SLOT,
        "random",
        observation,
        destination,
        probabilities,
        mask,
    )


def idle(slot: int, node: int, episode: int = 0) -> DecisionRecord:
    return tiny_decision(slot, node, None, arrived=False, episode=episode)


def tiny_row(task: Task, outcome: Outcome, elapsed: int | None) -> TaskRow:
    return fold(task, ())._replace(outcome=outcome, elapsed=elapsed)


def log_run(
    log: TaskLog,
    decisions: Iterable[DecisionRecord],
    rows: Iterable[TaskRow],
    *,
    id: str = "tiny-run",
    plan: Plan | None = None,
    state: RunState = RunState.COMPLETED,
    certificate: Mapping[str, Any] | None = None,
) -> str:
    log.begin_run(RunInfo.of(plan or tiny_plan(), "simulator", id=id))
    log.append(id, [], list(decisions))
    log.write_tasks(id, list(rows))
    if state is not RunState.RUNNING:
        log.end_run(id, state, certificate)
    return id


def full_episode(episode: int = 0) -> tuple[list[DecisionRecord], list[TaskRow]]:
    """Node 0 gets a task in every slot, node 1 in slots 1 and 3; all four fates of a reward.

    Ends by slot: 0: one in time; 1: none; 2: two in time, one failed; 3: one failed, and one in
    time after the last slot.
    """
    decisions = [
        tiny_decision(0, 0, 0, probabilities=(0.25, 0.75), mask=(True, True), episode=episode),
        tiny_decision(1, 0, 1, probabilities=(0.0, 1.0), mask=(False, True), episode=episode),
        tiny_decision(2, 0, 1, bits={1: True}, episode=episode),
        tiny_decision(3, 0, None, episode=episode),
        idle(0, 1, episode),
        tiny_decision(1, 1, 1, bits={0: True}, episode=episode),
        idle(2, 1, episode),
        tiny_decision(3, 1, 0, probabilities=(1.0, 0.0), episode=episode),
    ]
    rows = [
        tiny_row(tiny_task(0, 0, episode), Outcome.SUCCEEDED, SLOT - 1),
        tiny_row(tiny_task(1, 0, episode), Outcome.SUCCEEDED, SLOT),
        tiny_row(tiny_task(1, 1, episode), Outcome.EXECUTION_FAILED, 2 * SLOT - 1),
        tiny_row(tiny_task(2, 0, episode), Outcome.SUCCEEDED, 7),
        tiny_row(tiny_task(3, 0, episode), Outcome.DROPPED, 9),
        tiny_row(tiny_task(3, 1, episode), Outcome.SUCCEEDED, 2 * SECOND),
    ]
    return decisions, rows


TEAM_REWARDS = [1.0, 0.0, 1.0, 0.0]
"""The team reward of ``full_episode`` by slot."""
