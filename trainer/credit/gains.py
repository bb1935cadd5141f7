"""The gain of every decision of finished episodes, from the engine's arrays or from a task log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from testbed.model.task import Outcome
from testbed.scenario.plan import Plan
from testbed.sim.engine.compiled import Batch
from testbed.sim.engine.threads import Threads
from testbed.storage.tasklog import TaskLog
from trainer.credit.queues import credit_of
from trainer.credit.rebuilding import (
    LARGEST_DISAGREEMENT,
    LoggedEpisode,
    disagreement,
    rebuild,
    why_not,
)
from trainer.credit.weight import BY_LOAD, LaterWeight, later_weight

AT_ONCE: Final = 32
"""Logged episodes that are rebuilt side by side."""


class LoggedGains(NamedTuple):
    """The gains of one logged episode.

    ``gain`` is in tasks, by place of the task in its episode [slots * N], NaN where it cannot be
    told. Where the log is not complete, ``reason`` says what is missing, and the gain of a decision
    is the outcome of its task alone: 1 if it succeeded, else 0.
    """

    episode: LoggedEpisode
    gain: NDArray[np.float64]
    reason: str | None


def gains_of(
    plans: Sequence[Plan], batch: Batch, rows: Threads, setting: LaterWeight = BY_LOAD
) -> NDArray[np.float64]:
    """Return g = own + same + w * later of all tasks of finished episodes [E, T * N], in tasks.

    ``plans`` are those of the E episodes; w is the weight of each. NaN of tasks that failed in
    transit, which have no place in a queue.
    """
    weight = np.array([later_weight(plan, setting) for plan in plans])
    credit = credit_of(batch, rows)
    gain: NDArray[np.float64] = credit.own + credit.same + weight[:, None] * credit.later
    return gain


def gains_of_log(
    task_log: TaskLog,
    run: str,
    plan: Plan,
    numbers: Sequence[int],
    setting: LaterWeight = BY_LOAD,
) -> Iterator[LoggedGains]:
    """Yield the gains of the logged episodes among ``numbers`` of a run, in order."""
    weight = later_weight(plan, setting)
    for start in range(0, len(numbers), AT_ONCE):
        episodes = [
            LoggedEpisode(
                number,
                list(task_log.tasks(run, episode=number)),
                list(task_log.records(run, episode=number)),
            )
            for number in numbers[start : start + AT_ONCE]
        ]
        yield from _gains(plan, [each for each in episodes if each.tasks], weight)


def _gains(plan: Plan, episodes: Sequence[LoggedEpisode], weight: float) -> Iterator[LoggedGains]:
    reasons = {episode.number: why_not(plan, episode) for episode in episodes}
    complete = [episode for episode in episodes if reasons[episode.number] is None]
    rebuilt = rebuild(plan, complete) if complete else None
    for episode in episodes:
        reason = reasons[episode.number]
        if rebuilt is not None and reason is None:
            row = rebuilt.row[episode.number]
            wrong = disagreement(rebuilt, row)
            if wrong <= LARGEST_DISAGREEMENT:
                own, same, later = (part[row] for part in rebuilt.credit)
                yield LoggedGains(episode, own + same + weight * later, None)
                continue
            reason = f"{wrong:.0%} of its tasks ended differently from their rebuilt queues"
        yield LoggedGains(episode, _by_outcome(plan, episode), reason)


def _by_outcome(plan: Plan, episode: LoggedEpisode) -> NDArray[np.float64]:
    places = plan.workload.slots * plan.topology.size
    gain = np.full(places, np.nan)
    for row in episode.tasks:
        if row.outcome is not Outcome.LOST:
            gain[row.task_id % places] = float(row.outcome is Outcome.SUCCEEDED)
    return gain
