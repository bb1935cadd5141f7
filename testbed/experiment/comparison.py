"""Paired comparisons of runs: the better scheduler, and whether the difference is real."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from testbed.errors import Problem, UsageError
from testbed.experiment import by_hand
from testbed.experiment.statistics import Comparison, compare
from testbed.experiment.summary import RunSummary, none_if_nan, summarise
from testbed.scenario.plan import Plan
from testbed.storage.tasklog import Run, TaskLog


@dataclass(frozen=True)
class PairOfRuns:
    """Two runs that share seeds, the better one first."""

    better: RunSummary
    worse: RunSummary
    comparison: Comparison

    @property
    def verdict(self) -> str:
        """The result as a sentence."""
        first, second = self.better.title, self.worse.title
        if not self.comparison.real:
            return f"{first} and {second}: {self.comparison.verdict}"
        points = 100 * self.comparison.difference.mean
        p_value = f"p = {self.comparison.p_value:.2g}"
        return f"{first} is better than {second} by {points:.1f} points ({p_value})"

    @property
    def document(self) -> dict[str, Any]:
        """The comparison as plain values for JSON."""
        difference = self.comparison.difference
        return {
            "better": self.better.run.id,
            "worse": self.worse.run.id,
            "episodes": list(self.comparison.episodes),
            "difference": difference.mean,
            "low": none_if_nan(difference.low),
            "high": none_if_nan(difference.high),
            "p_value": none_if_nan(self.comparison.p_value),
            "real": self.comparison.real,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class RunComparison:
    """Several runs of one scenario, best first, and every pair of them."""

    runs: tuple[RunSummary, ...]
    pairs: tuple[PairOfRuns, ...]

    def table(self) -> Iterator[tuple[str, ...]]:
        """Return a row per run: run, scheduler, driver, episodes, success rate, interval, verdict.

        The verdict compares with the best run.
        """
        best = self.runs[0]
        verdicts = {p.worse.run.id: p.comparison for p in self.pairs if p.better is best}
        for summary in self.runs:
            rate = summary.success_rate
            comparison = verdicts.get(summary.run.id)
            if comparison is None:
                verdict = "best"
            elif comparison.real is None:
                verdict = "too few shared episodes to tell"
            elif comparison.real:
                verdict = f"worse by {100 * comparison.difference.mean:.1f} points"
            else:
                verdict = "no real difference from the best"
            interval = "" if rate.count < 2 else f"{100 * rate.low:.1f} .. {100 * rate.high:.1f}"
            yield (
                summary.run.id,
                summary.title,
                summary.run.info.driver,
                str(rate.count),
                f"{100 * rate.mean:.1f} %",
                interval,
                verdict,
            )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return the faults by hand that not all of these runs met."""
        return tuple(told for summary in self.runs if (told := self._alone(summary)))

    def _alone(self, summary: RunSummary) -> str:
        """Return the faults by hand of a run in episodes of another that had none; or empty."""
        lacking = []
        for other in self.runs:
            shared = summary.by_episode.keys() & other.by_episode.keys()
            if by_hand.met(summary.run, shared) - by_hand.met(other.run, shared):
                lacking.append(other.run.id)
        if not lacking:
            return ""
        rest = len(self.runs) - 1
        who = "the others" if len(lacking) == rest > 1 else f"run {', '.join(lacking)}"
        what = by_hand.described(summary.run, summary.by_episode)
        return f"run {summary.run.id} had faults that {who} had not, injected by hand: {what}"

    @property
    def document(self) -> dict[str, Any]:
        """The comparison as plain values for JSON."""
        return {
            "warnings": list(self.warnings),
            "runs": [summary.document for summary in self.runs],
            "pairs": [pair.document for pair in self.pairs],
        }


def compare_runs(log: TaskLog, run_ids: Sequence[str]) -> RunComparison:
    """Compare runs episode by episode.

    Raises: UsageError: fewer than two runs, runs of different scenarios or seeds, or runs that
    share no episode: they met different tasks, so a difference would say nothing.
    """
    if len(set(run_ids)) < 2:
        raise UsageError("a comparison needs two different runs; `testbed runs list` shows them")
    runs = [summarise(log, run_id) for run_id in dict.fromkeys(run_ids)]
    return compare_summaries(runs)


def compare_summaries(runs: Sequence[RunSummary]) -> RunComparison:
    """Compare runs that were read already; see ``compare_runs``."""
    check_comparable(runs)
    ordered = sorted(runs, key=lambda summary: -summary.success_rate.mean)
    pairs = []
    for first, second in combinations(ordered, 2):
        comparison = compare(first.by_episode, second.by_episode)
        if comparison.difference.mean < 0:
            # The order over all episodes may differ from that over the shared ones.
            first, second = second, first
            comparison = compare(first.by_episode, second.by_episode)
        pairs.append(PairOfRuns(first, second, comparison))
    return RunComparison(tuple(ordered), tuple(pairs))


def check_comparable(runs: Sequence[RunSummary]) -> None:
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
        elif not summary.by_episode.keys() & reference.by_episode.keys():
            problems.append(
                Problem(
                    info.id,
                    f"episodes {sorted(summary.by_episode)}",
                    f"run {expected.id} has {sorted(reference.by_episode)}; "
                    "use the same --first-episode",
                )
            )
    if problems:
        raise UsageError("these runs met different tasks and cannot be compared", problems)


def _other_faults(run: Run, reference: Run) -> tuple[str, str] | None:
    """Return the faults of two runs whose scenarios differ in nothing else.

    None where they differ otherwise, or nobody can say.
    """
    with suppress(ValueError):
        mine, expected = run.plan, reference.plan
        if mine.faults != expected.faults and all(
            getattr(mine, name) == getattr(expected, name)
            for name in ("topology", "workload", "rules", "seeds")
        ):
            return (
                f"another list of faults: {_kinds(mine)}",
                f"run {reference.id} has {_kinds(expected)}",
            )
    return None


def _kinds(plan: Plan) -> str:
    return ", ".join(fault.kind for fault in plan.faults) or "none"
