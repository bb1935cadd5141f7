"""Summaries of runs, each from its task log alone, by the family of work of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from testbed.errors import TestbedError
from testbed.experiment import metrics, task_summary
from testbed.experiment.measured import (
    Heard,
    Measured,
    NothingToReport,
    Summary,
    no_tasks,
    none_if_nan,
)
from testbed.experiment.serving import summary as serving_summary
from testbed.experiment.serving.summary import ServingSummary
from testbed.experiment.task_summary import STAGES, RunSummary
from testbed.model.serving.record import RequestOutcome
from testbed.model.task import Outcome
from testbed.scenario.families import ByModel
from testbed.scenario.plan import SERVING, TASKS
from testbed.storage.tasklog import Run, TaskLog, outcomes_of

__all__ = [
    "STAGES",
    "SUMMARIES",
    "Family",
    "Measured",
    "RunSummary",
    "ServingSummary",
    "Summary",
    "counted",
    "every_metric",
    "none_if_nan",
    "summarise",
    "summary_of",
    "with_tasks",
]


@dataclass(frozen=True, slots=True)
class Family:
    """How runs of a family are summarised.

    ``read`` returns the summary of a run; its last argument hears how much of the work it has read
    so far. ``work`` is what is counted, ``share`` names the share
    with the outcome ``good`` in documents.
    """

    read: Callable[[TaskLog, Run, Heard], Summary]
    work: str
    good: str
    share: str

    def rate(self, outcomes: Mapping[str, int]) -> tuple[int, float | None]:
        """Return how many pieces of work there are, and the share that is good; None of none."""
        count = sum(outcomes.values())
        return count, outcomes.get(self.good, 0) / count if count else None


SUMMARIES: Final[ByModel[Family]] = ByModel(
    "a summary",
    {
        TASKS: Family(
            task_summary.read,
            RunSummary.work,
            Outcome.SUCCEEDED,
            "success_rate",
        ),
        SERVING: Family(
            serving_summary.read,
            ServingSummary.work,
            RequestOutcome.SERVED,
            "served_rate",
        ),
    },
)
"""Summaries of runs by model."""


def _unheard(done: int) -> None:
    """Report nothing."""


def summary_of(log: TaskLog, run_id: str, heard: Heard = _unheard) -> Summary:
    """Read what a run did; ``heard`` is told how many tasks or requests have been read so far.

    Raises: UsageError: no such run, or it has no work that ended.
    """
    run = log.run(run_id)
    return SUMMARIES.of(run).read(log, run, heard)


def counted(log: TaskLog, runs: Sequence[Run]) -> dict[str, Mapping[str, int]]:
    """Return the tasks or requests of runs by outcome, by the ids of the runs.

    Where a log has no outcomes of single ones, as where it has windows only, those of the summary.
    """
    found = outcomes_of(log, runs)
    for run in runs:
        if not any(found[run.id].values()):
            with suppress(NothingToReport):
                found[run.id] = SUMMARIES.of(run).read(log, run, _unheard).outcomes
    return found


def every_metric(summary: Summary) -> list[tuple[str, Measured | str]]:
    """Return all metrics of a run by name; of one that cannot be computed, the reason."""
    found: list[tuple[str, Measured | str]] = []
    model = summary.run.model
    for name in metrics.names(model):
        try:
            found.append((name, summary.measured(metrics.find(name, model))))
        except TestbedError as error:
            found.append((name, " ".join(str(error).split())))
    return found


def summarise(log: TaskLog, run_id: str) -> RunSummary:
    """Read what a run of tasks did. Raises: UsageError: as ``summary_of`` and ``with_tasks``."""
    return with_tasks(summary_of(log, run_id))


def with_tasks(summary: Summary) -> RunSummary:
    """Return the summary of a run of tasks. Raises: UsageError: it is one of another family."""
    if not isinstance(summary, RunSummary):
        raise no_tasks(summary.run)
    return summary
