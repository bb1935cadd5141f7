"""What single decisions of a *log* were worth: feedback of every task, and credit from its queues.

The simulator gets the same from its own arrays (``trainer.o2o.simulated``). A log does not tell
what would have happened to a task that was never executed, so there the full execution time stands
for the unknown; everything else is equal, and the tests hold it to it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from testbed.model.story import TaskRow
from testbed.model.task import Outcome
from testbed.model.units import SECOND, Micros, duration
from testbed.scenario.plan import Plan
from testbed.sim.arrays import offered_load
from testbed.storage.dataset import DataSet
from testbed.storage.tasklog import TaskLog
from trainer.o2o.logged import Logged, of_data_set

_NO_FEEDBACK: Final = frozenset({Outcome.LOST})
"""Says that the testbed had a failure, nothing about the decision."""


class Worth(NamedTuple):
    """Feedback (+1, -1) and credit of one decision; NaN where the log does not tell."""

    own: float
    credit: float


class _Queued(NamedTuple):
    """A task in an execution queue; instants in microseconds of the episode."""

    task_id: int
    slot: int
    ready_at: Micros
    deadline_at: Micros
    work: Micros
    busy: Micros
    reach: float
    survives: float


def worth_of(
    rows: Iterable[TaskRow], plan: Plan, later_weight: tuple[float, float] = (0.3, 3.5)
) -> dict[int, Worth]:
    """By task id, what the decision about every task of a run was worth."""
    lowest, slope = later_weight
    weight = float(np.clip(lowest + slope * (offered_load(plan) - 1.0), lowest, 1.0))
    own: dict[int, float] = {}
    credit: dict[int, float] = {}
    queues: defaultdict[tuple[int, int], list[_Queued]] = defaultdict(list)
    for row in rows:
        lost = row.outcome in _NO_FEEDBACK
        own[row.task_id] = math.nan if lost else 1.0 if row.outcome is Outcome.SUCCEEDED else -1.0
        queued = _queued(row, plan)
        if queued is not None and row.destination is not None:
            queues[row.episode, row.destination].append(queued)
        elif not lost and row.outcome is Outcome.DROPPED:
            credit[row.task_id] = 0.0
    for queue in queues.values():
        queue.sort(key=lambda each: each.ready_at)
        credit |= _credit_of_queue(queue, weight, plan.rules.drop_hopeless)
    return {task: Worth(feedback, credit.get(task, math.nan)) for task, feedback in own.items()}


def logged_of(
    log: TaskLog,
    data: DataSet,
    plan: Plan,
    later_weight: tuple[float, float] = (0.3, 3.5),
) -> Logged:
    """A data set with the feedback and the credit of its decisions, from the tasks of its runs."""
    slots, size = plan.workload.slots, plan.topology.size
    own = np.full(len(data), np.nan, np.float32)
    credit = np.full(len(data), np.nan, np.float32)
    rates: list[float] = []
    lengths = np.diff(data.offsets)
    row_run = np.repeat(np.array([data.run.index(name) for name in data.run]), lengths)
    row_episode, row_node = np.repeat(data.episode, lengths), np.repeat(data.node, lengths)
    task_id = (row_episode * slots + data.slot) * size + row_node
    for run in dict.fromkeys(data.run):
        rows = list(log.tasks(run))
        rates += rates_of(rows).values()
        worth = worth_of(rows, plan, later_weight)
        here = np.flatnonzero((row_run == data.run.index(run)) & (data.action < size))
        found = [worth.get(int(task), _UNKNOWN) for task in task_id[here]]
        own[here] = [each.own for each in found]
        credit[here] = [each.credit for each in found]
    return of_data_set(data, own, credit, np.array(rates))


_UNKNOWN: Final = Worth(math.nan, math.nan)


def rates_of(rows: Iterable[TaskRow]) -> Mapping[int, float]:
    """Success rate by episode, in order."""
    ended: defaultdict[int, list[bool]] = defaultdict(list)
    for row in rows:
        ended[row.episode].append(row.outcome is Outcome.SUCCEEDED)
    return {episode: float(np.mean(ended[episode])) for episode in sorted(ended)}


def _queued(row: TaskRow, plan: Plan) -> _Queued | None:
    """The task in its execution queue; None if it never came there, or the log lacks its times."""
    if row.destination is None or row.elapsed is None:
        return None
    generated = row.slot * plan.workload.slot
    # Every duration is of one host; the way of a task through them is one after the other.
    if row.execution_waiting is not None:
        ready_at = generated + row.elapsed - (row.execution or 0) - row.execution_waiting
    elif row.stage == "waiting":
        # Dropped in the queue: nobody measured for how long it had waited there.
        ready_at = generated + (row.transmission_waiting or 0) + (row.transmission or 0)
    else:
        return None
    topology = plan.topology
    work = duration(row.cycles, topology.capacity_hz[row.destination])
    failed = row.outcome is Outcome.EXECUTION_FAILED and row.execution is not None
    alpha = topology.execution_failure_rate[row.destination]
    beta = topology.link_failure_rate[row.source][row.destination]
    return _Queued(
        row.task_id,
        row.slot,
        ready_at,
        generated + row.deadline,
        work,
        min(work, row.execution or 0) if failed else work,
        math.exp(-beta * (row.nominal_transmission or 0) / SECOND),
        math.exp(-alpha * work / SECOND),
    )


def _credit_of_queue(
    queue: Sequence[_Queued], weight: float, drop_hopeless: bool
) -> dict[int, float]:
    """g = own + same + weight * later of every task of one queue, in order of admission."""
    found = {}
    free: Micros = 0
    for k, task in enumerate(queue):
        in_time, after = _serve(task, free, drop_hopeless)
        gain = task.survives * task.reach if in_time else 0.0
        with_it, without_it = after, free
        for behind in queue[k + 1 :]:
            if with_it == without_it:
                break
            now_in_time, with_it = _serve(behind, with_it, drop_hopeless)
            then_in_time, without_it = _serve(behind, without_it, drop_hopeless)
            if now_in_time != then_in_time:
                change = behind.survives if now_in_time else -behind.survives
                gain += change if behind.slot <= task.slot else weight * change
        found[task.task_id] = gain
        free = after
    return found


def _serve(task: _Queued, free: Micros, drop_hopeless: bool) -> tuple[bool, Micros]:
    """Whether a task would end in time on a server free at ``free``, and when it is free again."""
    start = max(task.ready_at, free)
    if start + task.work <= task.deadline_at:
        return True, start + task.busy
    if drop_hopeless or start >= task.deadline_at:
        return False, free
    return False, min(start + task.busy, task.deadline_at)
