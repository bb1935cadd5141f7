"""What the summaries of runs of all families have in common: a score, and metrics by episode."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Self, TypeAlias

from testbed.errors import Problem, UsageError
from testbed.experiment import metrics
from testbed.experiment.metrics import Metric
from testbed.experiment.statistics import Interval
from testbed.scenario.families import ByModel
from testbed.scenario.plan import SERVING
from testbed.storage.tasklog import Run

if TYPE_CHECKING:
    import pandas as pd

Shown: TypeAlias = Callable[[Metric, Interval], str]
"""Writes a mean with its unit and, where there are episodes enough, its interval."""

Heard: TypeAlias = Callable[[int], None]
"""Hears how many tasks or requests of a run have been read so far."""


class NothingToReport(UsageError):
    """A run of which nothing is logged that could be summarised."""


_INSTEAD: Final[ByModel[str]] = ByModel(
    "what is said of runs without tasks",
    {
        SERVING: "this needs one of the model tasks. `testbed runs show {run}` and `testbed report "
        "{run} --out report` show its requests, `testbed export {run} --format trace` each of them "
        "on time lines; `testbed sim SCENARIO -s ROUTER` plays them again",
    },
)
"""What to use instead of commands about single tasks, by the model of the run."""


def no_tasks(run: Run) -> UsageError:
    """Return the error for a run that is not of tasks where only those will do."""
    return UsageError(
        f"run {run.id} has no tasks, but {run.head.work}",
        [Problem("run", f"model {run.model}", _INSTEAD.of(run).format(run=run.id))],
    )


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
        return interval_document(self.interval, self.by_episode)


class Column(NamedTuple):
    """A column of a table of runs: its head, and a cell for each run in order."""

    head: str
    cells: Sequence[str]
    bold: bool = False


class Table(NamedTuple):
    """A small table about one run; heads that begin with ``>`` are of columns of numbers."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Summary(ABC):
    """One run with its pieces of work, which ``work`` names in the plural.

    ``frames`` are the names of the tables that metrics of its family are computed from.
    """

    work: ClassVar[str]
    frames: ClassVar[tuple[str, ...]]

    run: Run

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of pieces of work."""

    @property
    @abstractmethod
    def episodes(self) -> tuple[int, ...]:
        """Numbers of the episodes that have any, in order."""

    @property
    @abstractmethod
    def outcomes(self) -> dict[str, int]:
        """Pieces of work by outcome, all outcomes in it."""

    @abstractmethod
    def only(self, episodes: Sequence[int]) -> Self:
        """Return the same of these episodes alone."""

    @abstractmethod
    def frame(self, name: str) -> pd.DataFrame:
        """Return the table ``name`` of ``frames``."""

    @property
    @abstractmethod
    def rates(self) -> dict[str, float]:
        """The shares that tables of runs always have, by the name of their column."""

    @staticmethod
    @abstractmethod
    def columns_of(runs: Sequence[Any], shown: Shown) -> list[Column]:
        """Return the columns of a table of runs of this family; the first counts the work."""

    @property
    def headline(self) -> str:
        """Return the result in a few words: ``success 93.7 ± 3.0 %``."""
        columns = self.columns_of([self], lambda metric, interval: metric.shown(interval))
        return next(f"{each.head.lower()} {each.cells[0]}" for each in columns if each.bold)

    @abstractmethod
    def facts(self, shown: Shown) -> list[tuple[str, str]]:
        """Return what is to be known of the results, as names and values."""

    @abstractmethod
    def tables(self) -> list[Table]:
        """Return the tables that follow the facts."""

    def in_short(self) -> list[Table]:
        """Return the tables that are shown at once when a single run is over."""
        return []

    @property
    @abstractmethod
    def document(self) -> dict[str, Any]:
        """The summary as plain values for JSON."""

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
        return metrics.objective(self.run.head)

    @property
    def score(self) -> Measured:
        """The objective, measured. Raises: UsageError: it cannot be computed."""
        return self.measured(self.objective)

    def measured(self, metric: Metric) -> Measured:
        """Compute a metric. Raises: UsageError: it cannot be computed, or not for this family."""
        found = self._values(metric)
        by_episode = {number: each for number, each in found.items() if math.isfinite(each)}
        without = tuple(number for number in found if number not in by_episode)
        return Measured(metric, by_episode, without, metric.interval(list(by_episode.values())))

    def _values(self, metric: Metric) -> Mapping[int, float]:
        """Return the value of a metric for every episode, NaN where it has none."""
        if metric.frame not in self.frames:
            known = ", ".join(metrics.names(self.run.model))
            problem = Problem("metric", metric.name, f"for runs with {self.work}: {known}")
            raise UsageError(f"run {self.run.id} has {self.work}", [problem])
        return metric.by_episode(self.frame(metric.frame))

    @property
    def scored(self) -> dict[str, Any]:
        """The objective and the score as plain values; only its name where it is unknown here."""
        try:
            return {"objective": self.objective.name, "score": self.score.document}
        except UsageError:
            return {"objective": self.run.head.objective, "score": None}

    @property
    def head(self) -> dict[str, Any]:
        """The settings of the run as plain values for JSON."""
        info = self.run.info
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
        }

    @property
    def trust(self) -> dict[str, Any]:
        """Whether it kept within its limits, and failures of a user's own code, for JSON."""
        valid = (self.run.certificate or {}).get("valid")
        return {
            "faithful": None if valid is None else bool(valid),
            "code_failures": list(self.run.code_failures),
        }


def names_of(runs: Sequence[Summary]) -> list[str]:
    """Return a name for each run: its title, and its id where others have the same title."""
    titles = [run.title for run in runs]
    return [
        f"{title} [{run.run.id}]" if titles.count(title) > 1 else title
        for run, title in zip(runs, titles, strict=True)
    ]


def interval_document(interval: Interval, by_episode: Mapping[int, float]) -> dict[str, Any]:
    """Return an interval and the values that it was made of as plain values for JSON."""
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
