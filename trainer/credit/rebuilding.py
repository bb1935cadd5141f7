"""Finished episodes of a log as the compiled engine would hold them, so that `queues` can judge.

What a queue served when comes from the records of the node it belongs to, on that node's clock
alone. When a task would have failed that was never executed is drawn as the nodes draw it, from the
seeds in the run's plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from testbed.model.events import Record, RecordKind
from testbed.model.history import TaskRow
from testbed.model.task import Outcome
from testbed.scenario.plan import Plan
from testbed.sim.engine.arrays import pack, problems_of, without_control_delay
from testbed.sim.engine.compiled import ABSENT, ENDED, OUTCOMES, Batch
from testbed.sim.engine.threads import Threads
from trainer.credit.queues import Credit, credit_of

LARGEST_DISAGREEMENT: Final = 0.05
"""Share of the tasks of an episode that may have ended differently from their rebuilt queues."""

_CODES: Final = {outcome: code for code, outcome in enumerate(OUTCOMES) if outcome}
_IN_QUEUE: Final = frozenset({"waiting", "execution"})


class LoggedEpisode(NamedTuple):
    """One episode in a task log: rows and records of all its tasks."""

    number: int
    tasks: Sequence[TaskRow]
    records: Sequence[Record]


class Rebuilt(NamedTuple):
    """E episodes with complete logs. ``row`` gives the place of an episode in ``batch``."""

    batch: Batch
    credit: Credit
    row: dict[int, int]


def why_not(plan: Plan, episode: LoggedEpisode) -> str | None:
    """Return why the queues of an episode cannot be served again; None if they can."""
    if problems := problems_of(without_control_delay(plan)):
        return f"the compiled engine does not cover {problems[0].path}"
    if plan.rules.execution_queue_limit is not None:
        return "the plan limits execution queues"
    if lost := sum(row.outcome is Outcome.LOST for row in episode.tasks):
        return f"{lost} tasks were lost"
    batch = _opened(plan, [episode.number])
    drawn = batch.tasks[0]
    expected = np.flatnonzero(drawn["stage"] != ABSENT)
    found = {_place(plan, row.task_id): row for row in episode.tasks}
    if missing := len(set(expected.tolist()) - found.keys()):
        return f"{missing} tasks are missing"
    for place, row in found.items():
        task = drawn[place]
        same = (task["size"], task["cycles"], task["deadline"])
        if task["stage"] == ABSENT or same != (row.size_bytes, row.cycles, row.deadline):
            return f"task {row.task_id} is not that of the plan"
    steps: dict[int, set[RecordKind]] = {}
    for record in episode.records:
        steps.setdefault(record.task.id, set()).add(record.kind)
    for row in episode.tasks:
        came = RecordKind.GENERATED if row.destination == row.source else RecordKind.RECEIVED
        seen = steps.get(row.task_id, set())
        entered = row.stage in _IN_QUEUE or RecordKind.ADMITTED in seen
        if entered and not {came, RecordKind.ADMITTED} <= seen:
            return f"records of task {row.task_id} are missing"
    return None


def rebuild(plan: Plan, episodes: Sequence[LoggedEpisode]) -> Rebuilt:
    """Return the episodes, for which ``why_not`` is None, with the credit of all their tasks."""
    batch = _opened(plan, [episode.number for episode in episodes])
    for row, episode in enumerate(episodes):
        _fill(plan, batch, row, episode)
    credit = credit_of(batch, Threads(len(episodes), 1))
    return Rebuilt(batch, credit, {each.number: row for row, each in enumerate(episodes)})


def disagreement(rebuilt: Rebuilt, row: int) -> float:
    """Share of the tasks of an episode that were in time in the log and not in its queue served
    again, or the other way round.

    0 in the simulator. On real nodes what comes within moments of its deadline may differ.
    """
    tasks, own = rebuilt.batch.tasks[row], rebuilt.credit.own[row]
    in_time = tasks["outcome"] == _CODES[Outcome.SUCCEEDED]
    late = tasks["outcome"] == _CODES[Outcome.DROPPED]
    wrong = (in_time & (own == 0.0)) | (late & (own > 0.0))
    return float(wrong.sum() / max(1, (tasks["stage"] != ABSENT).sum()))


def _opened(plan: Plan, numbers: Sequence[int]) -> Batch:
    batch = pack([without_control_delay(plan)] * len(numbers))
    Threads(len(numbers), 1).open(batch, numbers)
    return batch


def _place(plan: Plan, task_id: int) -> int:
    return task_id % (plan.workload.slots * plan.topology.size)


def _fill(plan: Plan, batch: Batch, row: int, episode: LoggedEpisode) -> None:
    tasks = batch.tasks[row]
    for ended in episode.tasks:
        task = tasks[_place(plan, ended.task_id)]
        task["stage"] = ENDED
        task["outcome"] = _CODES[ended.outcome]
        task["destination"] = -1 if ended.destination is None else ended.destination
    came: dict[int, Record] = {}
    queued: list[tuple[int, int, bool, int, int]] = []
    for record in sorted(episode.records, key=lambda record: (record.task.id, record.seq)):
        where, task = record.task.id, record.task
        if record.kind in (RecordKind.GENERATED, RecordKind.RECEIVED):
            came[where] = record
        elif record.kind is RecordKind.ADMITTED:
            arrived = came[where]
            elapsed = int(arrived.data.get("elapsed", 0))
            entry = tasks[_place(plan, where)]
            entry["ready_at"] = max(0, record.at)
            entry["deadline_at"] = arrived.at - elapsed + task.deadline
            # What comes over a link at the same instant is there before what was decided here.
            own = task.source == record.node
            queued.append((record.at, record.clock, own, task.source, where))
    for order, (*_, where) in enumerate(sorted(queued)):
        tasks[_place(plan, where)]["admission"] = order
