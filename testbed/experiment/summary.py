"""Summary of one run, from its task log alone: success rate, outcomes, times, where tasks went."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from typing import TYPE_CHECKING, Any, Final

from testbed.errors import UsageError
from testbed.experiment.metrics import SUCCESS_RATE, Metric, objective
from testbed.experiment.statistics import Interval
from testbed.model.task import Outcome
from testbed.scenario.families import ByModel
from testbed.scenario.plan import TASKS
from testbed.storage.tasklog import Run, TaskLog

if TYPE_CHECKING:
    import pandas as pd

STAGES: Final = (
    "transmission_waiting",
    "transmission",
    "execution_waiting",
    "execution",
)
"""The four times of a task, in the order in which they pass (model section 3)."""


@dataclass(frozen=True)
class Measured:
    """A metric of one run: ``by_episode`` where it has a value, and the episodes ``without``."""

    metric: Metric
    by_episode: Mapping[int, float]
    without: tuple[int, ...]
    interval: Interval

    @property
    def document(self) -> dict[str, Any]:
        """The values as plain ones for JSON."""
        return _interval_document(self.interval, self.by_episode)


@dataclass(frozen=True)
class RunSummary:
    """One run with its tasks.

    ``columns`` has the values of each column of the log's table of tasks, in order of the tasks;
    times in microseconds. One more, ``deciding``, is from a task's arrival to the decision about
    it, NaN where there is none.
    """

    run: Run
    columns: Mapping[str, Sequence[Any]]

    @property
    def task_count(self) -> int:
        """Number of tasks."""
        return len(self.columns["task"])

    @cached_property
    def tasks(self) -> pd.DataFrame:
        """A row per task, with ``columns``."""
        # Loading it takes longer than all that most commands do.
        import pandas as pd

        return pd.DataFrame(self.columns)

    def only(self, episodes: Sequence[int]) -> RunSummary:
        """Return the same of these episodes alone."""
        wanted = set(episodes)
        kept = [number in wanted for number in self.columns["episode"]]
        columns = {name: list(compress(values, kept)) for name, values in self.columns.items()}
        return RunSummary(self.run, columns)

    @property
    def title(self) -> str:
        """Return what figures call the run: its schedulers one after another, and its label if any.

        Of a replay, only that it is one: which run it replays stands in its label.
        """
        info = self.run.info
        deciding = dict.fromkeys([info.scheduler, *(c["scheduler"] for c in self.run.changes)])
        name = " then ".join(deciding)
        more = [each for each in (info.own_label, "replay" if info.replay_of else "") if each]
        return f"{name} ({'; '.join(more)})" if more else name

    @cached_property
    def objective(self) -> Metric:
        """The metric that the scenario is scored by.

        Raises: UsageError: it is of another package, and unknown here.
        """
        return objective(self.run.head)

    @property
    def score(self) -> Measured:
        """The objective, measured. Raises: UsageError: it cannot be computed."""
        return self.measured(self.objective)

    @cached_property
    def by_episode(self) -> dict[int, float]:
        """Success rate of each episode, in order."""
        episodes, outcomes = self.columns["episode"], self.columns["outcome"]
        tasks = Counter(episodes)
        good = Counter(
            episode
            for episode, outcome in zip(episodes, outcomes, strict=True)
            if outcome == Outcome.SUCCEEDED.value
        )
        return {episode: good[episode] / tasks[episode] for episode in sorted(tasks)}

    @cached_property
    def success_rate(self) -> Interval:
        """Mean success rate over episodes (paper eq. 9 per episode)."""
        return SUCCESS_RATE.interval(list(self.by_episode.values()))

    def measured(self, metric: Metric) -> Measured:
        """Compute a metric. Raises: UsageError: it cannot be computed."""
        found = self.by_episode if metric is SUCCESS_RATE else metric.by_episode(self.tasks)
        by_episode = {number: each for number, each in found.items() if math.isfinite(each)}
        without = tuple(number for number in found if number not in by_episode)
        return Measured(metric, by_episode, without, metric.interval(list(by_episode.values())))

    @cached_property
    def outcomes(self) -> dict[str, int]:
        """Tasks by outcome, all outcomes in it."""
        counts = Counter(self.columns["outcome"])
        return {outcome.value: counts[outcome.value] for outcome in Outcome}

    @property
    def decided(self) -> zip[tuple[int, int | None]]:
        """The node at which each task arrived, and the one chosen for it; None if none was."""
        return zip(self.columns["source"], self.columns["destination"], strict=True)

    @cached_property
    def offloaded(self) -> float:
        """Share of the decided tasks that were sent to a peer."""
        decided = [each for each in self.decided if each[1] is not None]
        return sum(source != chosen for source, chosen in decided) / max(1, len(decided))

    @cached_property
    def times(self) -> pd.DataFrame:
        """Mean, p50, p95 of the times of succeeded tasks, in milliseconds.

        Rows: ``deciding`` (probing included), the four of ``STAGES``, ``total``. A time that does
        not apply (transmission of a local task) counts as 0. No time is a difference of two clocks:
        the stages are measured by the node where they pass; deciding and the total, which the
        deadline is compared with, are by the instants of the model. So on a network, where a stage
        takes a little longer than it should, the means add up to a little more than the total.
        """
        import pandas as pd

        succeeded = self.tasks[self.tasks["outcome"] == Outcome.SUCCEEDED.value]
        times = succeeded[list(STAGES)].fillna(0).astype(float) / 1000
        times.insert(0, "deciding", succeeded["deciding"].astype(float) / 1000)
        times["total"] = succeeded["elapsed"].astype(float) / 1000
        return pd.DataFrame(
            {
                "mean_ms": times.mean(),
                "p50_ms": times.quantile(0.5),
                "p95_ms": times.quantile(0.95),
            }
        ).fillna(0.0)

    @property
    def scored(self) -> dict[str, Any]:
        """The objective and the score as plain values; only its name where it is unknown here."""
        try:
            return {"objective": self.objective.name, "score": self.score.document}
        except UsageError:
            return {"objective": self.run.head.objective, "score": None}

    @property
    def document(self) -> dict[str, Any]:
        """The summary as plain values for JSON."""
        info = self.run.info
        rate = self.success_rate
        valid = (self.run.certificate or {}).get("valid")
        return {
            "run": info.id,
            "scenario": info.name,
            "scenario_hash": info.scenario_hash,
            "scheduler": info.scheduler,
            "driver": info.driver,
            "label": info.label,
            "state": self.run.state.value,
            "started": info.started,
            "ended": self.run.ended,
            "seeds": dict(info.seeds),
            "tasks": self.task_count,
            "episodes": rate.count,
            "success_rate": _interval_document(rate, self.by_episode),
            **self.scored,
            "outcomes": self.outcomes,
            "offloaded": self.offloaded,
            "times_ms": {
                str(name): {str(k): float(v) for k, v in row.items()}
                for name, row in self.times.to_dict("index").items()
            },
            "faithful": None if valid is None else bool(valid),
            "code_failures": list(self.run.code_failures),
        }


def _interval_document(interval: Interval, by_episode: Mapping[int, float]) -> dict[str, Any]:
    return {
        "mean": none_if_nan(interval.mean),
        "low": none_if_nan(interval.low),
        "high": none_if_nan(interval.high),
        "standard_deviation": none_if_nan(interval.deviation),
        "by_episode": {str(k): v for k, v in by_episode.items()},
    }


def none_if_nan(value: float) -> float | None:
    """NaN has no JSON form."""
    return None if math.isnan(value) else value


def summarise(log: TaskLog, run_id: str) -> RunSummary:
    """Read what a run did.

    Raises: UsageError: no such run, or it has no task that ended.
    """
    run = log.run(run_id)
    return SUMMARIES.of(run.head)(log, run)


def _of_tasks(log: TaskLog, run: Run) -> RunSummary:
    names = log.columns("tasks")
    rows = [row for chunk in log.rows("tasks", run.id) for row in chunk]
    if not rows:
        raise UsageError(
            f"run {run.id} ({run.state.value}) has no finished task, so there is nothing to report"
        )
    columns: dict[str, Sequence[Any]] = dict(zip(names, zip(*rows, strict=True), strict=True))
    decided: dict[int, int] = {}
    for chunk in log.rows("decisions", run.id, only=("task", "at")):
        decided |= {row[-2]: row[-1] for row in chunk if row[-2] is not None}
    # Tasks arrive with the slots, by the clock that the decision was entered by.
    slot = run.plan.workload.slot
    columns["deciding"] = [
        decided[task] - number * slot if task in decided else math.nan
        for task, number in zip(columns["task"], columns["slot"], strict=True)
    ]
    return RunSummary(run, columns)


SUMMARIES: Final = ByModel("a summary", {TASKS: _of_tasks})
"""Summaries of runs by model, each of a task log and a run of it."""
