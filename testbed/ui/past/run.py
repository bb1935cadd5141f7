"""One run as values to be drawn, whatever its family of work."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from testbed.errors import UsageError
from testbed.experiment import history, timeline
from testbed.experiment.facts import Fact, facts_of
from testbed.experiment.measured import Measured, Summary, Table
from testbed.experiment.serving.metrics import REQUESTS
from testbed.experiment.serving.summary import ServingSummary
from testbed.experiment.summary import every_metric, summary_of
from testbed.experiment.task_summary import RunSummary
from testbed.model.serving.record import RequestOutcome
from testbed.model.task import Outcome
from testbed.scenario.families import ByModel
from testbed.scenario.plan import SERVING, TASKS
from testbed.storage.tasklog import Run, TaskLog

MOST_TASKS: Final = 20
"""Tasks of an episode that are listed."""


@dataclass(frozen=True, slots=True)
class Family:
    """How a run of a family is drawn.

    ``by_node`` returns the outcomes of what arrived at each node, ``flows`` how much that arrived
    at a node was to be done at which, ``times`` the milliseconds that good work took, ``stages``
    the mean milliseconds of each stage of it; ``size`` the number of nodes. Where ``timed``, single
    tasks are logged with all their events, and have time lines.
    """

    by_node: Callable[[Any], dict[int, dict[str, int]]]
    flows: Callable[[Any], Mapping[tuple[int, int], int]]
    times: Callable[[Any], list[float]]
    stages: Callable[[Any], dict[str, float]]
    size: Callable[[Any], int]
    timed: bool


@dataclass(frozen=True, slots=True)
class RunView:
    """All that the page of a run shows but its time line.

    ``score`` is the objective, measured; ``metrics`` all metrics, or why there is none. Without
    work that ended there are only facts, and ``nothing`` says why.
    """

    run: Run
    facts: Sequence[Fact]
    nothing: str = ""
    work: str = ""
    score: Measured | None = None
    outcomes: Mapping[str, int] = field(default_factory=dict)
    by_node: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    flows: Mapping[tuple[int, int], int] = field(default_factory=dict)
    times: Sequence[float] = ()
    stages: Mapping[str, float] = field(default_factory=dict)
    size: int = 0
    timed: bool = False
    episodes: Sequence[int] = ()
    worst: int | None = None
    tables: Sequence[Table] = ()
    metrics: Sequence[tuple[str, Measured | str]] = ()


def read(log: TaskLog, run_id: str) -> RunView:
    """Return a run of the log. Raises: UsageError: there is none."""
    run = log.run(run_id)
    try:
        summary = summary_of(log, run.id)
    except (UsageError, ValueError) as error:
        return RunView(run, facts_of(run), nothing=str(error))
    return view_of(summary)


def view_of(summary: Summary) -> RunView:
    """Return what the page shows of a run that was read."""
    run = summary.run
    family = FAMILIES.of(run)
    score = None
    with suppress(UsageError):
        score = summary.score
    return RunView(
        run=run,
        facts=[*facts_of(run), *(Fact(*each) for each in summary.facts(_shown))],
        work=summary.work,
        score=score,
        outcomes=summary.outcomes,
        by_node=family.by_node(summary),
        flows=family.flows(summary),
        times=family.times(summary),
        stages=family.stages(summary),
        size=family.size(summary),
        timed=family.timed,
        episodes=summary.episodes,
        worst=None if score is None else _worst(score),
        tables=summary.tables(),
        metrics=every_metric(summary),
    )


def _shown(metric: Any, interval: Any) -> str:
    return str(metric.shown(interval))


def _worst(score: Measured) -> int | None:
    """Return the first of the episodes in which a metric was worst."""
    sign = -1 if score.metric.better == "lower" else 1
    return min(
        score.by_episode, key=lambda each: (sign * score.by_episode[each], each), default=None
    )


@dataclass(frozen=True, slots=True)
class TaskLine:
    """A task in a list: how it ended, and why."""

    task: int
    slot: int
    source: int
    destination: int | None
    outcome: str
    after: str
    why: str


@dataclass(frozen=True, slots=True)
class EpisodeView:
    """One episode of a run of tasks: its time line as HTML, and tasks that did not succeed.

    ``drawn`` is the number of tasks in the time line, ``lacking`` that of all tasks that did not
    succeed; ``drawing`` is empty where no events are logged.
    """

    number: int
    drawing: str
    drawn: int
    tasks: Sequence[TaskLine]
    lacking: int


def read_episode(log: TaskLog, run_id: str, number: int) -> EpisodeView:
    """Return an episode of a run of tasks.

    Raises: UsageError: there is no such run, or it is none of tasks.
    """
    run = log.run(run_id)
    plan = history.plan_of(run)
    found = timeline.first_courses(log, run.id, number)
    length = max((course.end for course in found), default=0)
    drawing = timeline.drawing(found, plan.topology.size, length) if length else ""
    unlucky = [
        row for row in log.tasks(run.id, episode=number) if row.outcome is not Outcome.SUCCEEDED
    ]
    lines = [
        TaskLine(
            task=row.task_id,
            slot=row.slot,
            source=row.source,
            destination=row.destination,
            outcome=row.outcome.value.replace("_", " "),
            after="-" if row.elapsed is None else history.ms(row.elapsed),
            why=history.reason(row, plan.topology, _failure(log, run.id, row.task_id, row.outcome)),
        )
        for row in islice(unlucky, MOST_TASKS)
    ]
    return EpisodeView(number, drawing, len(found), lines, len(unlucky))


def _failure(log: TaskLog, run_id: str, task: int, outcome: Outcome) -> str:
    if outcome is not Outcome.LOST:
        return ""
    return history.failure_of(log.records(run_id, task_id=task))


# --- families -------------------------------------------------------------------------------


def _task_nodes(summary: RunSummary) -> dict[int, dict[str, int]]:
    counts = Counter(zip(summary.columns["source"], summary.columns["outcome"], strict=True))
    return {
        node: {outcome.value: counts[node, outcome.value] for outcome in Outcome}
        for node in range(_task_size(summary))
    }


def _task_flows(summary: RunSummary) -> Mapping[tuple[int, int], int]:
    return Counter((source, to) for source, to in summary.decided if to is not None)


def _task_times(summary: RunSummary) -> list[float]:
    columns = summary.columns
    return [
        elapsed / 1000
        for elapsed, outcome in zip(columns["elapsed"], columns["outcome"], strict=True)
        if elapsed is not None and outcome == Outcome.SUCCEEDED.value
    ]


def _task_stages(summary: RunSummary) -> dict[str, float]:
    means = summary.times["mean_ms"]
    return {str(name): float(mean) for name, mean in means.items() if name != "total"}


def _task_size(summary: RunSummary) -> int:
    return summary.run.plan.topology.size


def _serving_nodes(summary: ServingSummary) -> dict[int, dict[str, int]]:
    return {node: summary.outcomes_at(node) for node in range(summary.plan.size)}


def _serving_flows(summary: ServingSummary) -> Mapping[tuple[int, int], int]:
    return {
        (node, server): count
        for node in range(summary.plan.size)
        for server, count in summary.servers_of(node).items()
    }


def _serving_times(summary: ServingSummary) -> list[float]:
    frame = summary.frame(REQUESTS)
    served = frame[frame["outcome"] == RequestOutcome.SERVED.value]["latency"].dropna()
    return [float(each) / 1000 for each in served if not math.isnan(float(each))]


FAMILIES: Final[ByModel[Family]] = ByModel(
    "the page of a run",
    {
        TASKS: Family(_task_nodes, _task_flows, _task_times, _task_stages, _task_size, True),
        SERVING: Family(
            _serving_nodes,
            _serving_flows,
            _serving_times,
            lambda summary: {},
            lambda summary: int(summary.plan.size),
            False,
        ),
    },
)
"""How runs are drawn, by model."""
