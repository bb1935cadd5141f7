"""Feedback of every task of a *log*, and the credit of its decisions from its queues.

The simulator gets the same from its own arrays (``trainer.o2o.simulated``); both use
``trainer.credit``, and tests hold them equal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from testbed.model.history import TaskRow
from testbed.model.task import Outcome
from testbed.scenario.plan import Plan
from testbed.storage.dataset import DataSet
from testbed.storage.tasklog import TaskLog
from trainer.credit.gains import gains_of_log
from trainer.credit.weight import BY_LOAD, LaterWeight
from trainer.o2o.logged import LoggedSequences, of_data_set


def logged_of(
    log: TaskLog, data: DataSet, plan: Plan, later_weight: LaterWeight = BY_LOAD
) -> LoggedSequences:
    """Return a data set with the feedback and the credit of its decisions.

    Feedback is +1 or -1 by the outcome of the task, NaN of a task that was lost: then the
    testbed had a failure, whatever the decision. Episodes whose log is not complete are
    in ``LoggedSequences.incomplete`` with the reason; their credit is their outcome alone.
    """
    size = plan.topology.size
    places = plan.workload.slots * size
    own = np.full(len(data), np.nan, np.float32)
    credit = np.full(len(data), np.nan, np.float32)
    rates: list[float] = []
    incomplete: dict[tuple[str, int], str] = {}
    lengths = np.diff(data.offsets)
    row_run = np.repeat(np.array(data.run), lengths)
    row_episode, row_node = np.repeat(data.episode, lengths), np.repeat(data.node, lengths)
    place = data.slot * size + row_node
    for run in dict.fromkeys(data.run):
        info = log.run(run).info
        numbers = range(info.first_episode, info.first_episode + info.episodes)
        with_task = (row_run == run) & (data.action < size)
        for found in gains_of_log(log, run, plan, numbers, later_weight):
            number, tasks = found.episode.number, found.episode.tasks
            feedback = np.full(places, np.nan, np.float32)
            for row in tasks:
                if row.outcome is not Outcome.LOST:
                    succeeded = row.outcome is Outcome.SUCCEEDED
                    feedback[row.task_id % places] = 1.0 if succeeded else -1.0
            here = np.flatnonzero(with_task & (row_episode == number))
            own[here] = feedback[place[here]]
            credit[here] = found.gain[place[here]]
            rates += rates_of(tasks).values()
            if found.reason is not None:
                incomplete[run, number] = found.reason
    return of_data_set(data, own, credit, np.array(rates), incomplete)


def rates_of(rows: Iterable[TaskRow]) -> Mapping[int, float]:
    """Return the success rate by episode, in order."""
    ended: defaultdict[int, list[bool]] = defaultdict(list)
    for row in rows:
        ended[row.episode].append(row.outcome is Outcome.SUCCEEDED)
    return {episode: float(np.mean(ended[episode])) for episode in sorted(ended)}
