"""Metrics that runs are compared by, by name: the built-in ones, and those of other packages.

Another package adds one by an entry point in the group ``edge_testbed.metrics`` that names a
``Metric``. ``testbed compare --by NAME`` then takes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from testbed.errors import Problem, UsageError
from testbed.experiment.statistics import Interval, mean_interval, rate_interval
from testbed.model.own_code import described, interrupted
from testbed.model.task import Outcome
from testbed.plugins import Plugins
from testbed.scenario.families import ByModel
from testbed.scenario.plan import SERVING, TASKS, PlanHead

if TYPE_CHECKING:
    import pandas as pd

    ByEpisode: TypeAlias = "Mapping[int, float] | pd.Series[float]"
    """Values by episode number; NaN, or no entry, where an episode has none."""

GROUP: Final = "edge_testbed.metrics"
"""The entry point group in which other packages name their metrics of tasks."""

SERVING_GROUP: Final = "edge_testbed.serving_metrics"
"""The same for metrics of serving runs."""

PER_CENT: Final = "%"

MESSAGES_FRAME: Final = "messages"
"""Frame of runs of tasks with a row for each node and slot: its questions and answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number per episode that runs are compared by.

    Args:
        name: what commands call it, as in ``--by latency``.
        title: what it measures, for sentences and figures.
        values: computes it from the tasks of a run (docs/task-log.md; times in microseconds), by
            episode. An episode that it gives no value, or NaN, has none. For serving runs it gets
            another ``frame``.
        unit: unit of the values. ``%``: they are shares from 0 to 1 and shown in per cent, their
            intervals end at 0 and 1, and differences are called points.
        better: whether higher or lower values are better; None: neither.
        digits: digits shown after the point; of shares it is one.
        frame: the table that ``values`` gets: ``tasks`` or ``messages``, or of serving runs
            ``traffic``, ``requests`` or ``windows`` (docs/metrics.md).
    """

    name: str
    title: str
    values: Callable[[pd.DataFrame], ByEpisode]
    unit: str = PER_CENT
    better: Literal["higher", "lower"] | None
    digits: int = 1
    frame: str = "tasks"

    @property
    def is_share(self) -> bool:
        """Return whether values are shares from 0 to 1."""
        return self.unit == PER_CENT

    @property
    def scale(self) -> float:
        """Return what a value is multiplied by to be shown."""
        return 100.0 if self.is_share else 1.0

    def by_episode(self, tasks: pd.DataFrame) -> dict[int, float]:
        """Return the value of every episode that has a task, in order; NaN where it has none.

        Raises: UsageError: ``values`` raises, or returns something else than numbers by episode.
        """
        try:
            found = {int(str(key)): float(each) for key, each in self.values(tasks).items()}
        except BaseException as error:
            # It may be code of other people.
            if interrupted(error):
                raise
            raise UsageError(
                f"metric '{self.name}' cannot be computed: {described(error)}; it returns numbers "
                "by episode"
            ) from error
        episodes = sorted(int(episode) for episode in tasks["episode"].unique())
        if unknown := found.keys() - set(episodes):
            raise UsageError(
                f"metric '{self.name}' has values for episodes {sorted(unknown)}, which have no "
                "task; it returns numbers by episode"
            )
        return {episode: found.get(episode, math.nan) for episode in episodes}

    def interval(self, values: Sequence[float]) -> Interval:
        """Return the mean over episodes with its interval; all NaN for no values."""
        if not values:
            return Interval(0, math.nan, math.nan, math.nan, math.nan)
        return rate_interval(values) if self.is_share else mean_interval(values)

    def shown(self, interval: Interval, *, spread: bool = True) -> str:
        """Return a mean with unit and, if ``spread``, its interval: ``93.7 ± 3.0 %``."""
        if not interval.count:
            return "none"
        text = self.mean(interval)
        if spread and not math.isnan(interval.low):
            if self.is_share:
                text = interval.in_percent
            else:
                text += f" ± {(interval.high - interval.low) / 2:.{self.digits}f}"
        return f"{text} {self.unit}".rstrip()

    def mean(self, interval: Interval) -> str:
        """Return a mean as shown, without the unit."""
        return f"{self.scale * interval.mean:.{1 if self.is_share else self.digits}f}"

    def ends(self, interval: Interval, between: str = " .. ") -> str:
        """Return the ends of an interval as shown, without the unit; empty where there is none."""
        if interval.count < 2:
            return ""
        digits = 1 if self.is_share else self.digits
        low, high = self.scale * interval.low, self.scale * interval.high
        return f"{low:.{digits}f}{between}{high:.{digits}f}"

    def difference(self, value: float) -> str:
        """Return the size of a difference with its unit: ``3.2 points``, ``12.3 ms``."""
        if self.is_share:
            return f"{100 * abs(value):.1f} points"
        return f"{abs(value):.{self.digits}f} {self.unit}".rstrip()

    @property
    def document(self) -> dict[str, Any]:
        """The metric as plain values for JSON."""
        return {"name": self.name, "title": self.title, "unit": self.unit, "better": self.better}


def _ended(*outcomes: Outcome) -> Callable[[pd.DataFrame], ByEpisode]:
    """Return a function for the share of tasks that ended with one of ``outcomes``."""
    names = [outcome.value for outcome in outcomes]

    def share(tasks: pd.DataFrame) -> ByEpisode:
        return tasks["outcome"].isin(names).groupby(tasks["episode"]).mean().astype(float)

    return share


def _times(tasks: pd.DataFrame) -> Any:
    """Return the times of succeeded tasks from arrival to end, in ms, grouped by episode."""
    succeeded = tasks[tasks["outcome"] == Outcome.SUCCEEDED.value]
    return (succeeded["elapsed"].astype(float) / 1000).groupby(succeeded["episode"])


def _mean_time(tasks: pd.DataFrame) -> ByEpisode:
    found: ByEpisode = _times(tasks).mean()
    return found


def _late_time(tasks: pd.DataFrame) -> ByEpisode:
    found: ByEpisode = _times(tasks).quantile(0.95)
    return found


def _sent(tasks: pd.DataFrame) -> ByEpisode:
    decided = tasks[tasks["destination"].notna()]
    away = decided["destination"] != decided["source"]
    return away.groupby(decided["episode"]).mean().astype(float)


def _messages(*columns: str) -> Callable[[pd.DataFrame], ByEpisode]:
    """Return a function for the sum of these columns of the frame of messages."""

    def values(windows: pd.DataFrame) -> ByEpisode:
        # Of an episode whose decisions are not logged all are NaN, and so is the sum.
        each = windows[list(columns)].sum(axis=1, min_count=1)
        found: ByEpisode = each.groupby(windows["episode"]).sum(min_count=1)
        return found

    return values


SUCCESS_RATE: Final = Metric(
    name="success-rate",
    title="success rate",
    values=_ended(Outcome.SUCCEEDED),
    better="higher",
)
"""Share of the tasks of an episode that succeeded (paper eq. 9)."""

LATENCY: Final = Metric(
    name="latency",
    title="mean time of succeeded tasks",
    values=_mean_time,
    unit="ms",
    better="lower",
)

LATENCY_P95: Final = Metric(
    name="latency-p95",
    title="95th percentile of the times of succeeded tasks",
    values=_late_time,
    unit="ms",
    better="lower",
)

DROPPED: Final = Metric(
    name="dropped",
    title="share of tasks dropped",
    values=_ended(Outcome.DROPPED),
    better="lower",
)

REFUSED: Final = Metric(
    name="refused",
    title="share of tasks refused",
    values=_ended(Outcome.REFUSED),
    better=None,
)

FAILED: Final = Metric(
    name="failed",
    title="share of tasks that failed in transmission or execution",
    values=_ended(Outcome.TRANSMISSION_FAILED, Outcome.EXECUTION_FAILED),
    better="lower",
)

OFFLOADED: Final = Metric(
    name="offloaded",
    title="share of decided tasks sent to peers",
    values=_sent,
    better=None,
)

MESSAGES: Final = Metric(
    name="messages",
    title="questions and answers between nodes",
    values=_messages("asked", "heard"),
    unit="messages",
    better="lower",
    digits=0,
    frame=MESSAGES_FRAME,
)

MESSAGE_BYTES: Final = Metric(
    name="message-bytes",
    title="bytes of questions and answers between nodes",
    values=_messages("asked_bytes", "heard_bytes"),
    unit="bytes",
    better="lower",
    digits=0,
    frame=MESSAGES_FRAME,
)

METRICS: Final = Plugins(
    GROUP,
    "metric",
    {
        "success-rate": f"{__name__}:SUCCESS_RATE",
        "latency": f"{__name__}:LATENCY",
        "latency-p95": f"{__name__}:LATENCY_P95",
        "dropped": f"{__name__}:DROPPED",
        "refused": f"{__name__}:REFUSED",
        "failed": f"{__name__}:FAILED",
        "offloaded": f"{__name__}:OFFLOADED",
        "messages": f"{__name__}:MESSAGES",
        "message-bytes": f"{__name__}:MESSAGE_BYTES",
    },
)


_SERVING: Final = "testbed.experiment.serving.metrics"

SERVING_METRICS: Final = Plugins(
    SERVING_GROUP,
    "metric",
    {
        "refused-rate": f"{_SERVING}:REFUSED_RATE",
        "served-rate": f"{_SERVING}:SERVED_RATE",
        "no-peer-rate": f"{_SERVING}:NO_PEER_RATE",
        "over-limit-rate": f"{_SERVING}:OVER_LIMIT_RATE",
        "unreachable-rate": f"{_SERVING}:UNREACHABLE_RATE",
        "forwarded": f"{_SERVING}:FORWARDED",
        "latency-p50": f"{_SERVING}:LATENCY_P50",
        "latency-p95": f"{_SERVING}:LATENCY_P95",
        "latency-p99": f"{_SERVING}:LATENCY_P99",
        "messages": f"{_SERVING}:MESSAGES",
        "message-bytes": f"{_SERVING}:MESSAGE_BYTES",
    },
)

METRICS_OF: Final[ByModel[Plugins]] = ByModel("metrics", {TASKS: METRICS, SERVING: SERVING_METRICS})
"""The metrics of runs of each model."""


def names(model: str = TASKS) -> tuple[str, ...]:
    """Return the names of all metrics of a model: the built-in ones, then those of others."""
    return METRICS_OF.named(model).names()


def find(name: str, model: str = TASKS) -> Metric:
    """Return the metric ``name`` of runs of a model.

    Raises: UsageError: the name is unknown, or what it names cannot be loaded or is no metric.
    """
    plugins = METRICS_OF.named(model)
    found = plugins.find(name)
    if not isinstance(found, Metric) or found.name != name:
        raise UsageError(
            f"metric '{name}': {plugins.target(name)} is no metric of that name",
            [Problem("", type(found).__name__, f"a testbed.Metric with the name '{name}'")],
        )
    return found


def check(name: str) -> None:
    """See that some model has a metric ``name``. Raises: UsageError: none has."""
    tables = [METRICS_OF.named(model) for model in METRICS_OF]
    if not any(table.target(name) for table in tables):
        known = dict.fromkeys(each for table in tables for each in table.names())
        raise UsageError(f"unknown metric '{name}'; known: {', '.join(known)}")


def objective(plan: PlanHead) -> Metric:
    """Return the metric that runs of ``plan`` are scored by.

    Raises: UsageError: the scenario names one that is unknown or cannot be loaded.
    """
    try:
        return find(plan.objective, plan.model)
    except UsageError as error:
        raise UsageError(
            f"the objective of scenario {plan.name} cannot be used",
            [Problem("objective", str(error), "")],
        ) from None
