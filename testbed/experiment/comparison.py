"""Paired comparisons of runs: the better scheduler, and whether the difference is real."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, TypeAlias

from testbed.errors import Problem, UsageError
from testbed.experiment import by_hand, metrics
from testbed.experiment.measured import Measured, Summary, none_if_nan
from testbed.experiment.metrics import SUCCESS_RATE, Metric
from testbed.experiment.statistics import PairedComparison, compare, corrected
from testbed.experiment.summary import summary_of
from testbed.model.faults import FaultSpec
from testbed.scenario.plan import Plan, PlanHead, ServingPlan
from testbed.storage.tasklog import Run, TaskLog

Faults: TypeAlias = tuple[FaultSpec, ...]


@dataclass(frozen=True)
class PairOfRuns:
    """Two runs that share seeds, the better one first.

    By a metric without a direction, the higher one first.
    """

    first: Summary
    second: Summary
    comparison: PairedComparison
    metric: Metric = SUCCESS_RATE

    @property
    def verdict(self) -> str:
        """The result as a sentence."""
        first, second = self.first.title, self.second.title
        difference = self.comparison.difference.mean
        apart = self.metric.difference(difference)
        if not self.comparison.real:
            shown = self.metric.difference(self.comparison.detectable)
            return f"{first} and {second}: {self.comparison.undecided(apart, shown)}"
        p_value = self.comparison.p_text
        if self.metric is SUCCESS_RATE:
            return f"{first} is better than {second} by {apart} ({p_value})"
        pair = f"{first} is better than {second}" if self.metric.better else f"{first} and {second}"
        return f"{pair}: {self.metric.title} {_way(difference)} by {apart} ({p_value})"

    def named(self, first: str, second: str) -> dict[str, str | None]:
        """Return the names of both runs as ``better`` and ``worse``.

        By a metric without a direction these are None, and they are ``higher`` and ``lower``.
        """
        if self.metric.better:
            return {"better": first, "worse": second}
        return {"better": None, "worse": None, "higher": first, "lower": second}

    @property
    def document(self) -> dict[str, Any]:
        """The comparison as plain values for JSON; ``difference`` in the metric's unit."""
        difference = self.comparison.difference
        return {
            **self.named(self.first.run.id, self.second.run.id),
            "episodes": list(self.comparison.episodes),
            "difference": difference.mean,
            "low": none_if_nan(difference.low),
            "high": none_if_nan(difference.high),
            "p_value": none_if_nan(self.comparison.p_value),
            "p_adjusted": none_if_nan(self.comparison.p_adjusted),
            "detectable": none_if_nan(self.comparison.detectable),
            "real": self.comparison.real,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class RunComparison:
    """Several runs of one scenario by one metric, best first, and every pair of them.

    Whether a difference is real is decided by p values adjusted for the number of pairs (Holm).
    ``measured`` has the metric of each run by its id. Pairs without an episode in which both have
    a value are left out.
    """

    runs: tuple[Summary, ...]
    pairs: tuple[PairOfRuns, ...]
    measured: Mapping[str, Measured]
    metric: Metric = SUCCESS_RATE

    def table(self) -> Iterator[tuple[str, ...]]:
        """Return a row per run: run, scheduler, driver, episodes, value, interval, verdict.

        The verdict compares with the best run.
        """
        best = self.runs[0]
        verdicts = {p.second.run.id: p.comparison for p in self.pairs if p.first is best}
        met = {
            run.run.id
            for p in self.pairs
            if best in (p.first, p.second)
            for run in (p.first, p.second)
        }
        top = "best" if self.metric.better else "highest"
        for summary in self.runs:
            found = self.measured[summary.run.id].interval
            comparison = verdicts.get(summary.run.id)
            if comparison is None:
                known = summary is best or summary.run.id in met
                verdict = top if known else "no value in an episode of the " + top
            elif comparison.real is None:
                verdict = "too few shared episodes to tell"
            elif comparison.real:
                verdict = self._behind(comparison.difference.mean)
            else:
                verdict = f"no real difference from the {top}"
            yield (
                summary.run.id,
                summary.title,
                summary.run.info.driver,
                str(found.count),
                self.metric.shown(found, spread=False),
                self.metric.ends(found),
                verdict,
            )

    def _behind(self, difference: float) -> str:
        """Return how a run differs from the best one, which is ahead by ``difference``."""
        apart = self.metric.difference(difference)
        if self.metric is SUCCESS_RATE:
            return f"worse by {apart}"
        worse = "worse, " if self.metric.better else ""
        return f"{worse}{_way(-difference)} by {apart}"

    @property
    def left_out(self) -> tuple[str, ...]:
        """Return the episodes of runs that have no value of the metric, a sentence per run."""
        told = []
        for summary in self.runs:
            if without := self.measured[summary.run.id].without:
                numbers = ", ".join(map(str, without))
                told.append(
                    f"run {summary.run.id} ({summary.title}) has no value of "
                    f"'{self.metric.name}' in episode{'s' * (len(without) > 1)} {numbers}; "
                    f"{'they are' if len(without) > 1 else 'it is'} left out"
                )
        return tuple(told)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return the faults by hand that not all of these runs met."""
        return tuple(told for summary in self.runs if (told := self._alone(summary)))

    def _alone(self, summary: Summary) -> str:
        """Return the faults by hand of a run in episodes of another that had none; or empty."""
        lacking = []
        for other in self.runs:
            shared = set(summary.episodes) & set(other.episodes)
            if by_hand.met(summary.run, shared) - by_hand.met(other.run, shared):
                lacking.append(other.run.id)
        if not lacking:
            return ""
        rest = len(self.runs) - 1
        who = "the others" if len(lacking) == rest > 1 else f"run {', '.join(lacking)}"
        what = by_hand.described(summary.run, summary.episodes)
        return f"run {summary.run.id} had faults that {who} had not, injected by hand: {what}"

    @property
    def document(self) -> dict[str, Any]:
        """The comparison as plain values for JSON."""
        return {
            "warnings": [*self.warnings, *self.left_out],
            "metric": self.metric.document,
            "runs": [
                {**summary.document, "measured": self.measured[summary.run.id].document}
                for summary in self.runs
            ],
            "pairs": [pair.document for pair in self.pairs],
        }


def _way(difference: float) -> str:
    return "higher" if difference > 0 else "lower"


def compare_runs(
    log: TaskLog, run_ids: Sequence[str], metric: Metric | str | None = None
) -> RunComparison:
    """Compare runs by a metric, episode by episode; None: by the objective of their scenario.

    ``metric`` may be the name of one for the family of the runs.

    Raises: UsageError: fewer than two runs, runs of different scenarios or seeds, or runs that
    share no episode: they met different tasks, so a difference would say nothing; a metric that
    cannot be computed, or of which no two runs have a value in the same episode.
    """
    if len(set(run_ids)) < 2:
        raise UsageError("a comparison needs two different runs; `testbed runs list` shows them")
    runs = [summary_of(log, run_id) for run_id in dict.fromkeys(run_ids)]
    return compare_summaries(runs, metric)


def objective_of(runs: Sequence[Summary]) -> Metric:
    """Return the objective that runs have in common.

    Raises: UsageError: they have different ones, or one that is unknown here.
    """
    objectives = {run.objective.name: run.objective for run in runs}
    if len(objectives) > 1:
        raise UsageError(
            f"the scenarios of these runs have different objectives: {', '.join(objectives)}; "
            "name the metric to compare them by"
        )
    return next(iter(objectives.values()))


def metric_of(runs: Sequence[Summary], metric: Metric | str | None) -> Metric:
    """Return the metric that runs of one family are compared by, given it, its name, or nothing.

    Raises: UsageError: as ``compare_runs``, or runs of different families.
    """
    check_family(runs)
    if metric is None:
        return objective_of(runs)
    return metrics.find(metric, runs[0].run.model) if isinstance(metric, str) else metric


def check_family(runs: Sequence[Summary]) -> None:
    """See that runs are of one family of work. Raises: UsageError: they are not."""
    reference = runs[0]
    problems = [
        Problem(
            each.run.id, f"a run of {each.work}", f"run {reference.run.id} has {reference.work}"
        )
        for each in runs[1:]
        if each.run.model != reference.run.model
    ]
    if problems:
        raise UsageError("runs of tasks and serving runs have no metric in common", problems)


def compare_summaries(runs: Sequence[Summary], metric: Metric | str | None = None) -> RunComparison:
    """Compare runs that were read already; see ``compare_runs``."""
    check_family(runs)
    check_comparable(runs)
    metric = metric_of(runs, metric)
    measured = {summary.run.id: summary.measured(metric) for summary in runs}
    sign = 1 if metric.better == "lower" else -1

    def place(summary: Summary) -> tuple[bool, float]:
        found = measured[summary.run.id].interval
        return not found.count, sign * found.mean if found.count else 0.0

    ordered = sorted(runs, key=place)
    pairs = []
    for first, second in combinations(ordered, 2):
        mine, other = (measured[each.run.id].by_episode for each in (first, second))
        if not mine.keys() & other.keys():
            continue
        comparison = compare(mine, other)
        if sign * comparison.difference.mean > 0:
            # The order over all episodes may differ from that over the shared ones.
            first, second = second, first
            comparison = compare(other, mine)
        pairs.append(PairOfRuns(first, second, comparison, metric))
    if not pairs:
        raise UsageError(
            f"no two of these runs have a value of '{metric.name}' ({metric.title}) in the same "
            "episode, so they cannot be compared by it; `testbed runs show RUN` lists all metrics"
        )
    adjusted = corrected([pair.comparison for pair in pairs])
    told = [replace(pair, comparison=each) for pair, each in zip(pairs, adjusted, strict=True)]
    return RunComparison(tuple(ordered), tuple(told), measured, metric)


def check_comparable(runs: Sequence[Summary]) -> None:
    reference = runs[0]
    problems = []
    for summary in runs[1:]:
        info, expected = summary.run.info, reference.run.info
        if info.scenario_hash != expected.scenario_hash:
            if told := _other_faults(summary.run, reference.run):
                problems.append(Problem(info.id, *told))
                continue
            problems.append(
                Problem(
                    info.id,
                    f"scenario {info.name} [{info.scenario_hash[:8]}]",
                    f"run {expected.id} has {expected.name} [{expected.scenario_hash[:8]}]",
                )
            )
        elif any(info.seeds[k] != expected.seeds[k] for k in ("topology", "workload", "faults")):
            problems.append(
                Problem(info.id, f"seeds {dict(info.seeds)}", f"expected {dict(expected.seeds)}")
            )
        elif not set(summary.episodes) & set(reference.episodes):
            problems.append(
                Problem(
                    info.id,
                    f"episodes {sorted(summary.episodes)}",
                    f"run {expected.id} has {sorted(reference.episodes)}; "
                    "use the same --first-episode",
                )
            )
    if problems:
        raise UsageError(
            f"these runs met different {reference.work} and cannot be compared", problems
        )


def _other_faults(run: Run, reference: Run) -> tuple[str, str] | None:
    """Return the faults of two runs whose scenarios differ in nothing else.

    None where they differ otherwise, or nobody can say.
    """
    with suppress(ValueError):
        mine, expected = run.head, reference.head
        found = _faults(mine, expected)
        if found is not None and found[0] != found[1] and mine.seeds == expected.seeds:
            return (
                f"another list of faults: {_kinds(found[0])}",
                f"run {reference.id} has {_kinds(found[1])}",
            )
    return None


def _faults(mine: PlanHead, other: PlanHead) -> tuple[Faults, Faults] | None:
    """Return the faults of two plans that differ in nothing else; None if they do."""
    if isinstance(mine, Plan) and isinstance(other, Plan):
        return None if mine.differences(other) else (mine.faults, other.faults)
    if isinstance(mine, ServingPlan) and isinstance(other, ServingPlan):
        return None if mine.differences(other) else (mine.faults, other.faults)
    return None


def _kinds(faults: Faults) -> str:
    return ", ".join(fault.kind for fault in faults) or "none"
