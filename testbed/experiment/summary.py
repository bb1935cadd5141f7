"""Summary of one run, from its task log alone: success rate, outcomes, times, where tasks went."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from testbed.errors import UsageError
from testbed.experiment.metrics import SUCCESS_RATE, Metric
from testbed.experiment.statistics import Interval
from testbed.model.task import Outcome
from testbed.scenario.families import ByModel
from testbed.scenario.plan import TASKS
from testbed.storage.tasklog import LogTable, Run, TaskLog

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
    """One run as tables.

    ``tasks`` has one row per task, as in the log; times in microseconds. One column more,
    ``deciding``, is from a task's arrival to the decision about it, NaN where there is none.
    """

    run: Run
    tasks: pd.DataFrame

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
    def by_episode(self) -> dict[int, float]:
        """Success rate of each episode."""
        return SUCCESS_RATE.by_episode(self.tasks)

    @cached_property
    def success_rate(self) -> Interval:
        """Mean success rate over episodes (paper eq. 9 per episode)."""
        return SUCCESS_RATE.interval(list(self.by_episode.values()))

    def measured(self, metric: Metric) -> Measured:
        """Compute a metric. Raises: UsageError: it cannot be computed."""
        found = metric.by_episode(self.tasks)
        by_episode = {number: each for number, each in found.items() if math.isfinite(each)}
        without = tuple(number for number in found if number not in by_episode)
        return Measured(metric, by_episode, without, metric.interval(list(by_episode.values())))

    @cached_property
    def outcomes(self) -> dict[str, int]:
        """Tasks by outcome, all outcomes in it."""
        counts = self.tasks["outcome"].value_counts()
        return {outcome.value: int(counts.get(outcome.value, 0)) for outcome in Outcome}

    @cached_property
    def offloaded(self) -> float:
        """Share of the decided tasks that were sent to a peer."""
        decided = self.tasks[self.tasks["destination"].notna()]
        return float((decided["destination"] != decided["source"]).mean()) if len(decided) else 0.0

    @cached_property
    def times(self) -> pd.DataFrame:
        """Mean, p50, p95 of the times of succeeded tasks, in milliseconds.

        Rows: ``deciding`` (probing included), the four of ``STAGES``, ``total``. A time that does
        not apply (transmission of a local task) counts as 0. No time is a difference of two clocks:
        the stages are measured by the node where they pass; deciding and the total, which the
        deadline is compared with, are by the instants of the model. So on a network, where a stage
        takes a little longer than it should, the means add up to a little more than the total.
        """
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

    def flows(self, nodes: int) -> npt.NDArray[np.float64]:
        """[N, N]: share of the tasks of node i that were decided to be executed at node j."""
        counts = np.zeros((nodes, nodes))
        decided = self.tasks[self.tasks["destination"].notna()]
        np.add.at(
            counts, (decided["source"].to_numpy(int), decided["destination"].to_numpy(int)), 1
        )
        total = counts.sum(axis=1, keepdims=True)
        shares: npt.NDArray[np.float64] = counts / np.maximum(total, 1)
        return shares

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
            "tasks": len(self.tasks),
            "episodes": rate.count,
            "success_rate": _interval_document(rate, self.by_episode),
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
    return None if np.isnan(value) else value


def summarise(log: TaskLog, run_id: str) -> RunSummary:
    """Read what a run did.

    Raises: UsageError: no such run, or it has no task that ended.
    """
    run = log.run(run_id)
    return SUMMARIES.of(run.head)(log, run)


def _of_tasks(log: TaskLog, run: Run) -> RunSummary:
    tasks = read_table(log, "tasks", run.id)
    if tasks.empty:
        raise UsageError(
            f"run {run.id} ({run.state.value}) has no finished task, so there is nothing to report"
        )
    decided: dict[int, int] = {}
    columns = ("task", "at")
    for chunk in log.rows("decisions", run.id, only=columns):
        decided |= {row[-2]: row[-1] for row in chunk if row[-2] is not None}
    # Tasks arrive with the slots, by the clock that the decision was entered by.
    arrived = tasks["slot"] * run.plan.workload.slot
    tasks["deciding"] = tasks["task"].map(decided) - arrived
    return RunSummary(run, tasks)


SUMMARIES: Final = ByModel("a summary", {TASKS: _of_tasks})
"""Summaries of runs by model, each of a task log and a run of it."""


def read_table(log: TaskLog, table: LogTable, run_id: str) -> pd.DataFrame:
    """Return a table of the log of one run as a data frame, columns as stored."""
    columns = list(log.columns(table))
    rows: list[Sequence[Any]] = [row for chunk in log.rows(table, run_id) for row in chunk]
    return pd.DataFrame(rows, columns=columns)


def queue_lengths(log: TaskLog, run_id: str) -> pd.DataFrame:
    """Execution queue length of every node at every decision and idle slot it logged.

    Columns: episode, node, slot, time_s (in the episode), queue_length, sending, receiving.
    """
    columns = list(log.columns("decisions"))
    index = {name: columns.index(name) for name in ("episode", "node", "slot", "at", "observation")}
    rows = []
    for chunk in log.rows("decisions", run_id):
        for row in chunk:
            seen: Mapping[str, Any] = json.loads(row[index["observation"]])
            rows.append(
                (
                    row[index["episode"]],
                    row[index["node"]],
                    row[index["slot"]],
                    row[index["at"]] / 1e6,
                    seen["queue_length"],
                    sum(seen["sending"]),
                    sum(seen["receiving"]),
                )
            )
    return pd.DataFrame(
        rows,
        columns=["episode", "node", "slot", "time_s", "queue_length", "sending", "receiving"],
    )
