"""Several runs beside each other, with the figures of ``testbed compare``, to be drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from testbed.errors import UsageError
from testbed.experiment import metrics
from testbed.experiment.comparison import RunComparison, compare_summaries, metric_of
from testbed.experiment.measured import Measured, Summary
from testbed.experiment.metrics import Metric
from testbed.experiment.summary import summary_of
from testbed.storage.tasklog import Run, RunState, TaskLog


@dataclass(frozen=True, slots=True)
class ComparisonView:
    """Runs by one metric, best first where they can be compared, else in the order asked for.

    ``titles`` name the runs by their ids, each differently. ``metrics`` are the names of those
    that they can be compared by. ``problem`` says why there is no ``comparison``.
    """

    titles: Mapping[str, str]
    measured: Sequence[tuple[str, Measured]]
    metric: Metric
    metrics: tuple[str, ...]
    comparison: RunComparison | None = None
    problem: str = ""


def read(log: TaskLog, run_ids: Sequence[str], by: str | None) -> ComparisonView:
    """Return runs of the log by a metric; None: by the objective of their scenario.

    Raises: UsageError: an unknown run or metric, a run without work that ended, or runs of
    different families.
    """
    return view_of([summary_of(log, run) for run in run_ids], by)


def view_of(runs: Sequence[Summary], by: str | None = None) -> ComparisonView:
    """Return the same of runs that were read."""
    metric = metric_of(runs, by)
    comparison, problem = None, ""
    if len(runs) > 1:
        try:
            comparison = compare_summaries(runs, metric)
        except UsageError as error:
            problem = str(error)
    ordered = runs if comparison is None else comparison.runs
    titles = titles_of(ordered)
    return ComparisonView(
        titles=titles,
        measured=[(titles[run.run.id], run.measured(metric)) for run in ordered],
        metric=metric,
        metrics=metrics.names(runs[0].run.model),
        comparison=comparison,
        problem=problem,
    )


def titles_of(runs: Sequence[Summary]) -> dict[str, str]:
    """Return the titles of runs by their ids; those that are alike get their ids too."""
    counts = Counter(run.title for run in runs)
    return {
        run.run.id: run.title if counts[run.title] == 1 else f"{run.title} [{run.run.id}]"
        for run in runs
    }


def comparable(runs: Sequence[Run], run_id: str) -> list[Run]:
    """Return the runs that have ended and met the same work as one of them, with it, in order."""
    reference = next((run for run in runs if run.id == run_id), None)
    if reference is None:
        return []
    return [
        run
        for run in runs
        if run.id == run_id
        or (
            run.info.scenario_hash == reference.info.scenario_hash
            and run.info.seeds == reference.info.seeds
            and run.state is not RunState.RUNNING
        )
    ]


def like(runs: Sequence[Run], run_id: str) -> tuple[str, ...]:
    """Return a run and the latest comparable one of each other scheduler, label and driver."""
    found: dict[tuple[str, str, str], str] = {}
    for run in comparable(runs, run_id):
        key = (run.info.scheduler, run.info.label, run.info.driver)
        if found.get(key) != run_id:
            found[key] = run.id
    return tuple(sorted(found.values()))
