"""The part of a report that is for runs of tasks."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd
from matplotlib.figure import Figure

from testbed.experiment import figures, timeline
from testbed.experiment.frames import queue_lengths
from testbed.experiment.metrics import SUCCESS_RATE
from testbed.experiment.reporting import (
    Drawn,
    FamilyReport,
    Tables,
    html_table,
    image,
    numbered,
)
from testbed.experiment.task_summary import RunSummary
from testbed.storage.tasklog import TaskLog


def _draw(log: TaskLog, runs: Sequence[RunSummary]) -> dict[str, Figure]:
    drawn = {
        SUCCESS_RATE.name: figures.success_rates(runs),
        "outcomes": figures.outcome_shares(runs),
        "latency": figures.latency_breakdown(runs),
    }
    lengths = [(run, queue_lengths(log, run.run.id)) for run in runs]
    lengths = [(run, frame) for run, frame in lengths if not frame.empty]
    if lengths:
        drawn["queues"] = figures.queues_over_time(lengths)
    for number, run in enumerate(runs):
        drawn[numbered("topology", number)] = figures.topology(run.run.plan.topology, run)
    return drawn


def _tables(runs: Sequence[RunSummary]) -> dict[str, pd.DataFrame]:
    summary = pd.DataFrame(
        [
            {
                "run": run.run.id,
                "scheduler": run.title,
                "driver": run.run.info.driver,
                "state": run.run.state.value,
                "episodes": run.success_rate.count,
                "tasks": run.task_count,
                "success rate": run.success_rate.mean,
                "low": run.success_rate.low,
                "high": run.success_rate.high,
                "offloaded": run.offloaded,
                **run.outcomes,
            }
            for run in runs
        ]
    )
    episodes = pd.DataFrame({run.run.id: run.by_episode for run in runs}).sort_index()
    episodes.index.name = "episode"
    times = pd.concat({run.run.id: run.times for run in runs}, names=["run", "time"])
    return {
        "summary": summary,
        "episodes": episodes.reset_index(),
        "times": times.reset_index(),
    }


def _row(run: RunSummary) -> dict[str, object]:
    return {
        "run": run.run.id,
        "scheduler": run.title,
        "driver": run.run.info.driver,
        "state": run.run.state.value,
        "episodes": run.success_rate.count,
        "tasks": run.task_count,
        "success rate, %": f"{100 * run.success_rate.mean:.1f}",
        "95 % interval": (
            ""
            if run.success_rate.count < 2
            else f"{100 * run.success_rate.low:.1f} to {100 * run.success_rate.high:.1f}"
        ),
        "sent to peers, %": f"{100 * run.offloaded:.0f}",
    }


def _sections(log: TaskLog, runs: Sequence[RunSummary], drawn: Drawn, tables: Tables) -> list[str]:
    parts = ["<h2>How tasks ended</h2>", image(drawn["outcomes"], "shares of outcomes")]
    parts += [
        "<h2>Where time went</h2>",
        image(drawn["latency"], "times by stage"),
        html_table(tables["times"]),
    ]
    if "queues" in drawn:
        parts += ["<h2>Queues</h2>", image(drawn["queues"], "queue lengths")]
    return [*parts, timeline.section(log, runs)]


def _network(runs: Sequence[RunSummary], drawn: Drawn) -> list[str]:
    parts = ["<h2>Network</h2>"]
    for number, run in enumerate(runs):
        parts += [
            f"<p>{html.escape(run.title)}</p>",
            image(drawn[numbered("topology", number)], f"network under {run.title}"),
        ]
    return parts


def _timings(certificate: Mapping[str, Any]) -> pd.DataFrame:
    rows = []
    for what in ("transmission", "execution"):
        timing = certificate[what]
        error = timing["error"]
        rows.append(
            {
                "measured against configured": what,
                "count": error["count"],
                "p50, ms": error["p50"] / 1000,
                "p95, ms": error["p95"] / 1000,
                "p99, ms": error["p99"] / 1000,
                "max, ms": error["max"] / 1000,
            }
        )
    return pd.DataFrame(rows)


def _queues(runs: Sequence[RunSummary], logs: Sequence[TaskLog]) -> Figure:
    read = zip(runs, logs, strict=True)
    return figures.queues_over_time([(run, queue_lengths(log, run.run.id)) for run, log in read])


REPORT: Final = FamilyReport(
    standard=SUCCESS_RATE,
    heading="Success rate",
    draw=_draw,
    tables=_tables,
    row=_row,
    sections=_sections,
    network=_network,
    timings=_timings,
    figures={
        "success": lambda runs, logs: figures.success_rates(runs),
        "outcomes": lambda runs, logs: figures.outcome_shares(runs),
        "latency": lambda runs, logs: figures.latency_breakdown(runs),
        "queues": _queues,
        "topology": lambda runs, logs: figures.topology(runs[0].run.plan.topology, runs[0]),
        "metric": lambda runs, logs: figures.success_rates(runs),
    },
)
