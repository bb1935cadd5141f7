"""Results of runs: rates, tables and figures, with views for notebooks."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from testbed.api import html, notices
from testbed.errors import Problem, UsageError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from testbed.api.store import Store
    from testbed.experiment.comparison import RunComparison
    from testbed.experiment.measured import Summary
    from testbed.experiment.metrics import Metric
    from testbed.experiment.replay import Replay
    from testbed.experiment.task_summary import RunSummary
    from testbed.scenario.plan import Plan
    from testbed.storage.tasklog import LogTable, TaskLog

FigureName: TypeAlias = Literal[
    "success",
    "outcomes",
    "latency",
    "queues",
    "load",
    "nodes",
    "topology",
    "differences",
    "metric",
    "refused",
    "servers",
    "functions",
    "messages",
]
"""Figures: success rates with intervals, outcomes of tasks, where succeeded tasks spent
their time, queue lengths over an episode, success by offered load and by node, the network with
where tasks went, the paired differences of a comparison, the metric of a comparison (of a run:
success rates).

Of serving runs: the share refused (``refused``), requests over time by outcome (``outcomes``) and
by server (``servers``), the share refused by offered load, by node and by function (``load``,
``nodes``, ``functions``), percentiles of times (``latency``), ``messages``, and ``metric``. Without
a name, the first one of the family."""


class RunResult:
    """One run, simulated or on a network, as rates and tables.

    All times are emulated microseconds unless a name says otherwise. The tables are read from the
    run's task log when they are first asked for. A run of tasks has ``tasks``, ``events``,
    ``decisions`` and a success rate; a serving run has ``requests``, ``windows``, ``routings``.
    What a run has not raises ``UsageError``.
    """

    def __init__(self, summary: Summary, store: Store) -> None:
        self.summary = summary
        self.store = store

    @property
    def of_tasks(self) -> RunSummary:
        """The summary of a run of tasks. Raises: UsageError: it is a serving run."""
        from testbed.experiment.summary import with_tasks

        return with_tasks(self.summary)

    @property
    def id(self) -> str:
        """The id of the run in its task log."""
        return self.summary.run.id

    @property
    def scheduler(self) -> str:
        """The scheduler's name."""
        return self.summary.run.info.scheduler

    @property
    def state(self) -> str:
        """``completed``, ``degraded``, ``invalid``, ``stopped``, ``failed`` or ``interrupted``."""
        return self.summary.run.state.value

    @property
    def plan(self) -> Plan:
        """The plan as it was used, of a run of tasks."""
        return self.of_tasks.run.plan

    @property
    def success_rate(self) -> float:
        """Mean over episodes of the share of tasks that succeeded, from 0 to 1 (paper eq. 9)."""
        return self.of_tasks.success_rate.mean

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of ``success_rate`` over episodes; NaN with one episode."""
        rate = self.of_tasks.success_rate
        return rate.low, rate.high

    @property
    def by_episode(self) -> dict[int, float]:
        """Success rate of each episode by its number."""
        return self.of_tasks.by_episode

    @property
    def score(self) -> float:
        """Mean over episodes of the scenario's objective; shares are from 0 to 1."""
        return self.summary.score.interval.mean

    @property
    def outcomes(self) -> dict[str, int]:
        """Number of tasks or requests by outcome; every outcome is in it."""
        return self.summary.outcomes

    @property
    def tasks(self) -> pd.DataFrame:
        """A row per task, columns as in the task log (docs/task-log.md); times in microseconds."""
        return self.of_tasks.tasks

    @property
    def times(self) -> pd.DataFrame:
        """``mean_ms``, ``p50_ms``, ``p95_ms`` of succeeded tasks by stage."""
        return self.of_tasks.times

    @property
    def metrics(self) -> pd.DataFrame:
        """A row per metric, indexed by name: its mean over episodes.

        Columns: ``mean``, ``low``, ``high`` (95 %), ``unit`` (shares are from 0 to 1, unit ``%``),
        ``better`` (``higher``, ``lower`` or None), ``episodes`` that have a value, ``title``.

        Raises: UsageError: the metric of another package cannot be loaded or computed.
        """
        import pandas as pd

        from testbed.experiment import metrics

        rows = {}
        model = self.summary.run.model
        for name in metrics.names(model):
            found = self.summary.measured(metrics.find(name, model))
            rows[name] = {
                "mean": found.interval.mean,
                "low": found.interval.low,
                "high": found.interval.high,
                "unit": found.metric.unit,
                "better": found.metric.better,
                "episodes": found.interval.count,
                "title": found.metric.title,
            }
        table = pd.DataFrame([*rows.values()], index=pd.Index(rows, name="metric"))
        # Text columns of pandas have NaN for None.
        better = [row["better"] for row in rows.values()]
        return table.assign(better=pd.Series(better, index=table.index, dtype=object))

    @property
    def events(self) -> pd.DataFrame:
        """A row per event of a task, columns as in the task log."""
        return self._table("events")

    @property
    def decisions(self) -> pd.DataFrame:
        """A row per decision with its inputs, columns as in the task log."""
        return self._table("decisions")

    @property
    def messages(self) -> pd.DataFrame:
        """A row per node and slot with its questions to peers and its answers, counted from the
        decisions of a run of tasks (docs/metrics.md).

        Raises: UsageError: the run has no tasks.
        """
        import pandas as pd

        from testbed.experiment.messages import MessageWindow
        from testbed.experiment.summary import with_tasks

        windows = with_tasks(self.summary).windows
        return pd.DataFrame(windows, columns=list(MessageWindow._fields))

    @property
    def requests(self) -> pd.DataFrame:
        """A row per request of a serving run, columns as in the task log."""
        return self._table("requests")

    @property
    def windows(self) -> pd.DataFrame:
        """A row per node and window of a serving run, columns as in the task log."""
        return self._table("windows")

    @property
    def routings(self) -> pd.DataFrame:
        """A row per call of a router of a serving run, columns as in the task log."""
        return self._table("routings")

    @property
    def document(self) -> dict[str, Any]:
        """The summary as plain values, as ``testbed runs show --json`` prints them."""
        return self.summary.document

    def figure(self, name: FigureName | None = None) -> Figure:
        """Draw one figure of the run; see ``FigureName``.

        Raises: UsageError: there is no such figure.
        """
        return figure([self], name)

    def _table(self, name: LogTable) -> pd.DataFrame:
        from testbed.experiment.frames import read_table
        from testbed.storage.tasklog import TABLES_OF

        known = TABLES_OF.of(self.summary.run)
        if name not in known:
            raise UsageError(
                f"run {self.id} has no {name}",
                [Problem("table", name, f"one of {', '.join(known)}")],
            )
        return read_table(self.store.task_log, name, self.id)

    def __repr__(self) -> str:
        return f"RunResult({self.id}, {self.summary.title}, {self.summary.headline})"

    def _repr_html_(self) -> str:
        summary = self.summary
        info = summary.run.info
        return html.facts(
            f"{summary.title} on {info.name}",
            [
                ("run", self.id),
                ("driver", info.driver),
                ("state", self.state),
                ("episodes", len(summary.episodes)),
                *summary.facts(lambda metric, interval: metric.shown(interval)),
            ],
        )


class Comparison:
    """Runs that met the same tasks and failures, best first, and every pair of them."""

    def __init__(self, compared: RunComparison, results: Mapping[str, RunResult]) -> None:
        self.compared = compared
        self._results = [results[summary.run.id] for summary in compared.runs]

    @property
    def results(self) -> list[RunResult]:
        """The runs, best first."""
        return list(self._results)

    def __getitem__(self, scheduler: str) -> RunResult:
        """Return the best run of a scheduler. Raises: KeyError: there is none."""
        for result in self._results:
            if scheduler in (result.scheduler, result.summary.title):
                return result
        raise KeyError(scheduler)

    def __iter__(self) -> Iterator[RunResult]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    @property
    def table(self) -> pd.DataFrame:
        """A row per run, best first.

        Columns: ``scheduler``, ``driver``, ``run``, ``episodes``, ``tasks``, ``success_rate``,
        ``low``, ``high`` (from 0 to 1), ``verdict`` (against the best). By another metric, its
        mean stands under its name before ``success_rate``, and ``low`` and ``high`` are its. Of
        serving runs, ``requests`` and ``refused_rate`` stand for tasks and success rate.
        """
        import pandas as pd

        name = self.compared.metric.name
        measured = {run: found.interval for run, found in self.compared.measured.items()}
        default = name.replace("-", "_") in self._results[0].summary.rates

        verdicts = {row[0]: row[-1] for row in self.compared.table()}
        return pd.DataFrame(
            [
                {
                    "scheduler": result.summary.title,
                    "driver": result.summary.run.info.driver,
                    "run": result.id,
                    "episodes": measured[result.id].count,
                    result.summary.work: result.summary.count,
                    **({} if default else {name: measured[result.id].mean}),
                    **result.summary.rates,
                    "low": measured[result.id].low,
                    "high": measured[result.id].high,
                    "verdict": verdicts[result.id],
                }
                for result in self._results
            ]
        )

    @property
    def pairs(self) -> pd.DataFrame:
        """A row per pair of runs: the paired difference over the episodes that both have.

        Columns: ``better``, ``worse``, ``difference``, ``low``, ``high`` (shares, or the unit of
        the metric; 95 %), ``p_value``, ``p_adjusted`` (for the number of pairs, by Holm),
        ``detectable`` (the smallest difference that these episodes show with 80 % probability),
        ``real`` (by the adjusted p value; None where there are too few episodes to tell).
        By a metric without a direction ``better`` and ``worse`` are None, and ``higher`` and
        ``lower`` name the runs.
        """
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    **pair.named(pair.first.title, pair.second.title),
                    "difference": pair.comparison.difference.mean,
                    "low": pair.comparison.difference.low,
                    "high": pair.comparison.difference.high,
                    "p_value": pair.comparison.p_value,
                    "p_adjusted": pair.comparison.p_adjusted,
                    "detectable": pair.comparison.detectable,
                    "real": pair.comparison.real,
                }
                for pair in self.compared.pairs
            ]
        )

    def by(self, metric: str | Metric) -> Comparison:
        """Compare the same runs by another metric, the best by it first.

        Args:
            metric: Name of a metric (docs/metrics.md), or a ``Metric`` of your own.

        Raises: UsageError: the metric is unknown or cannot be computed, or no two of the runs have
        a value in the same episode.
        """
        results = {result.id: result for result in self._results}
        return _compared(results, metric)

    def paired(
        self,
        metric: str | Metric | Callable[[RunResult], Mapping[int, float] | pd.Series[float]],
    ) -> pd.DataFrame:
        """Compare the runs by any metric, episode by episode.

        Args:
            metric: Name of a metric, a ``Metric``, or a function that returns the values of a run
                by episode number; NaN where there is none.

        Returns:
            A row per pair over the episodes that both have: ``first``, ``second``, ``difference``
            (first less second, in the metric's unit), ``low``, ``high`` (95 %), ``p_value``,
            ``p_adjusted`` (for the number of pairs, by Holm) and ``real`` (None where there are
            fewer than four episodes).

        Raises: UsageError: two runs share no episode that has a value.
        """
        import pandas as pd

        from testbed.experiment.comparison import metric_of
        from testbed.experiment.metrics import Metric
        from testbed.experiment.statistics import compare, corrected

        values: dict[str, Mapping[int, float]]
        if isinstance(metric, str | Metric):
            named = metric_of([each.summary for each in self._results], metric)
            values = {e.id: e.summary.measured(named).by_episode for e in self._results}
        else:
            values = {each.id: _numbers(metric(each)) for each in self._results}
        pairs = [*combinations(self._results, 2)]
        comparisons = []
        for first, second in pairs:
            if not values[first.id].keys() & values[second.id].keys():
                names = f"{first.summary.title} and {second.summary.title}"
                raise UsageError(f"{names} share no episode that has a value of this metric")
            comparisons.append(compare(values[first.id], values[second.id]))
        return pd.DataFrame(
            [
                {
                    "first": first.summary.title,
                    "second": second.summary.title,
                    "difference": found.difference.mean,
                    "low": found.difference.low,
                    "high": found.difference.high,
                    "p_value": found.p_value,
                    "p_adjusted": found.p_adjusted,
                    "real": found.real,
                }
                for (first, second), found in zip(pairs, corrected(comparisons), strict=True)
            ]
        )

    @property
    def verdicts(self) -> list[str]:
        """A sentence per pair, as ``testbed compare`` prints them."""
        return [pair.verdict for pair in self.compared.pairs]

    @property
    def document(self) -> dict[str, Any]:
        """The comparison as plain values, as ``testbed compare --json`` prints them."""
        return self.compared.document

    def figure(self, name: FigureName | None = None) -> Figure:
        """Draw one figure of all runs (``topology``: of the best); see ``FigureName``.

        Raises: UsageError: there is no such figure.
        """
        if name == "metric":
            from testbed.experiment import figures

            runs = self.compared.runs
            return figures.by_metric(runs, [self.compared.measured[run.run.id] for run in runs])
        if name == "differences":
            from testbed.experiment import differences
            from testbed.experiment.report_page import differences_of

            return differences.drawn(differences_of(self.compared), self.compared.metric)
        return figure(self._results, name)

    def __repr__(self) -> str:
        told = ", ".join(
            f"{summary.title} {self.compared.metric.shown(found.interval)}"
            for summary in self.compared.runs
            for found in [self.compared.measured[summary.run.id]]
        )
        return f"Comparison({told})"

    def _repr_html_(self) -> str:
        rows = [
            (title, driver, episodes, rate, interval, verdict)
            for _, title, driver, episodes, rate, interval, verdict in self.compared.table()
        ]
        name = self.compared.metric.name
        name = "success" if name == "success-rate" else name
        columns = ("scheduler", "driver", "episodes", name, "95 % interval", "verdict")
        return html.table(columns, rows) + html.paragraphs(self.verdicts)


class ReplayResult:
    """A run and its replay, over the episodes that both have."""

    def __init__(self, compared: Replay, original: RunResult, replay: RunResult) -> None:
        self.compared = compared
        self.original = original
        self.replay = replay

    @property
    def verdict(self) -> str:
        """The difference in success as a sentence, and whether it is real."""
        return self.compared.verdict

    @property
    def changes(self) -> list[str]:
        """Differences in the outcomes of single tasks, a sentence each."""
        return list(self.compared.changes.lines())

    @property
    def document(self) -> dict[str, Any]:
        """The replay as plain values, as ``testbed replay --json`` prints it."""
        return self.compared.document

    def __repr__(self) -> str:
        return f"ReplayResult({self.verdict})"

    def _repr_html_(self) -> str:
        return html.paragraphs([self.verdict, *self.changes])


def _numbers(values: Mapping[int, float] | pd.Series[float]) -> dict[int, float]:
    """Return the values by episode, without those that are NaN."""
    found = {int(str(episode)): float(value) for episode, value in values.items()}
    return {episode: value for episode, value in found.items() if not math.isnan(value)}


def figure(results: Sequence[RunResult], name: str | None) -> Figure:
    """Draw the figure ``name`` of ``results``. Raises: UsageError: there is none such."""
    from testbed.experiment.comparison import check_family
    from testbed.experiment.report import REPORTS

    summaries = [result.summary for result in results]
    check_family(summaries)
    known = REPORTS.of(summaries[0].run).figures
    if name is None:
        name = next(iter(known))
    if name not in known:
        raise UsageError(
            "unknown figure", [Problem("name", repr(name), f"one of {', '.join(known)}")]
        )
    return known[name](summaries, [each.store.task_log for each in results])


def compared(results: Sequence[RunResult]) -> Comparison:
    """Compare runs that share their seeds, episode by episode.

    Raises: UsageError: fewer than two, or they did not meet the same tasks.
    """
    by_id = {result.id: result for result in results}
    if len(by_id) < 2:
        raise UsageError("a comparison needs two different runs or more")
    return _compared(by_id)


def _compared(results: Mapping[str, RunResult], metric: str | Metric | None = None) -> Comparison:
    from testbed.experiment.comparison import compare_summaries

    summaries = [result.summary for result in results.values()]
    found = compare_summaries(summaries, metric)
    for warning in (*found.warnings, *found.left_out):
        notices.warn(warning)
    return Comparison(found, results)


def written_report(
    log: TaskLog, ids: Sequence[str], out: str | os.PathLike[str], by: str | Metric | None
) -> Path:
    """Write the report of runs into the folder ``out`` and return its page."""
    from testbed.experiment.report import write_report

    page = write_report(log, ids, Path(out), metric=by).path
    notices.note(f"report: {page}")
    return page
