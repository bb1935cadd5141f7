"""Success and use of runs of tasks in parts: by load, node, task size, processor and link.

Every share is one of an episode, and every mean is over episodes, as the success rate of a run is;
so parts and whole have the same denominators.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from testbed.experiment import dots, figures
from testbed.experiment.colours import colour
from testbed.experiment.measured import names_of
from testbed.experiment.metrics import SUCCESS_RATE
from testbed.experiment.statistics import Interval, mean_interval
from testbed.experiment.task_summary import RunSummary
from testbed.model.task import Outcome
from testbed.model.units import SECOND, Micros

GROUPS: Final = 3
"""Groups of episodes by load whose means are drawn."""
_ENOUGH: Final = 3 * GROUPS
"""Episodes of a run from which on they are."""
_QUARTERS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
_VALUES: Final = ("mean", "low", "high")


def arrival_time(run: RunSummary) -> Micros:
    """Return the time of an episode in which tasks arrive, which shares of time refer to."""
    workload = run.run.plan.workload
    return workload.slots * workload.slot


def by_load(runs: Sequence[RunSummary]) -> pd.DataFrame:
    """Return a row per run and episode: ``offered_load`` and ``success_rate``, as shares.

    The offered load is the work of the tasks that arrived, as a share of what all processors
    together could execute in the time of the arrivals.
    """
    rows = []
    for name, run in zip(names_of(runs), runs, strict=True):
        capacity = sum(run.run.plan.topology.capacity_hz) * arrival_time(run) / SECOND
        work = run.tasks["cycles"].astype(float).groupby(run.tasks["episode"]).sum() / capacity
        rows += [
            (name, run.run.id, episode, float(work[episode]), rate)
            for episode, rate in run.by_episode.items()
        ]
    columns = ["scheduler", "run", "episode", "offered_load", "success_rate"]
    return pd.DataFrame(rows, columns=columns)


def by_node(runs: Sequence[RunSummary]) -> pd.DataFrame:
    """Return a row per run and node: success of the tasks that arrived there.

    ``mean``, ``low`` and ``high`` are over the episodes in which any arrived.
    """
    return _successes(runs, "node", lambda run: run.tasks["source"])


def size_edges(runs: Sequence[RunSummary]) -> list[float]:
    """Return the bounds, in bytes, that divide the tasks of runs into quarters by size.

    Fewer where sizes are alike; only one where all are equal.
    """
    sizes = np.concatenate([run.tasks["size_bytes"].to_numpy(dtype=float) for run in runs])
    return [float(each) for each in np.unique(np.quantile(sizes, _QUARTERS))]


def by_size(runs: Sequence[RunSummary]) -> pd.DataFrame:
    """Return a row per run and quarter of the tasks by size: their success.

    ``from_bytes`` and ``to_bytes`` are the bounds. Empty where all tasks have the same size.
    """
    edges = size_edges(runs)
    if len(edges) < 2:
        return pd.DataFrame()

    def quarter(run: RunSummary) -> Any:
        sizes = run.tasks["size_bytes"].astype(float)
        return pd.cut(sizes, edges, include_lowest=True, labels=False)

    found = _successes(runs, "part", quarter)
    found.insert(2, "from_bytes", [edges[part] for part in found["part"]])
    found.insert(3, "to_bytes", [edges[part + 1] for part in found["part"]])
    return found.drop(columns="part")


def processors(runs: Sequence[RunSummary]) -> pd.DataFrame:
    """Return a row per run and node: the share of time in which its processor executed tasks."""
    rows = []
    for name, run in zip(names_of(runs), runs, strict=True):
        executed = run.tasks[run.tasks["execution"].notna()]
        busy = _shares_of_time(run, executed, ["destination"], "execution")
        for node in range(run.run.plan.topology.size):
            values = busy.get(node, [0.0] * len(run.by_episode))
            rows.append((name, run.run.id, node, *_ends(mean_interval(values))))
    return pd.DataFrame(rows, columns=["scheduler", "run", "node", *_VALUES])


def links(runs: Sequence[RunSummary]) -> pd.DataFrame:
    """Return a row per run and link that carried a task: the share of time in which it did.

    ``tasks`` and ``mb`` (megabytes) are those of all episodes that were sent, completely or not.
    """
    rows = []
    for name, run in zip(names_of(runs), runs, strict=True):
        sent = run.tasks[run.tasks["transmission"].notna()]
        sent = sent[sent["source"] != sent["destination"]]
        ends = ["source", "destination"]
        counted = sent.groupby(ends)["size_bytes"].agg(["size", "sum"])
        for link, busy in _shares_of_time(run, sent, ends, "transmission").items():
            count, size = counted.loc[link]
            source, destination = (int(each) for each in link)
            values = _ends(mean_interval(busy))
            rows.append(
                (name, run.run.id, source, destination, int(count), float(size) / 1e6, *values)
            )
    columns = ["scheduler", "run", "source", "destination", "tasks", "mb", *_VALUES]
    return pd.DataFrame(rows, columns=columns)


def _successes(runs: Sequence[RunSummary], what: str, group: Any) -> pd.DataFrame:
    rows = []
    for name, run in zip(names_of(runs), runs, strict=True):
        good = run.tasks["outcome"] == Outcome.SUCCEEDED.value
        by_episode = good.groupby([group(run), run.tasks["episode"]]).agg(["mean", "size"])
        for key, found in by_episode.groupby(level=0):
            interval = SUCCESS_RATE.interval(found["mean"].tolist())
            counts = (interval.count, int(found["size"].sum()))
            rows.append((name, run.run.id, int(float(str(key))), *counts, *_ends(interval)))
    columns = ["scheduler", "run", what, "episodes", "tasks", *_VALUES]
    return pd.DataFrame(rows, columns=columns)


def _shares_of_time(
    run: RunSummary, tasks: pd.DataFrame, ends: list[str], stage: str
) -> dict[Any, list[float]]:
    """Return by ``ends`` which share of each episode's time tasks spent in a stage there."""
    time = arrival_time(run)
    spent = tasks[stage].astype(float).groupby([*(tasks[end] for end in ends), tasks["episode"]])
    found: dict[Any, dict[int, float]] = {}
    totals = spent.sum().reset_index()
    for *place, episode, micros in totals.itertuples(index=False, name=None):
        key = tuple(map(int, place)) if len(place) > 1 else int(place[0])
        found.setdefault(key, {})[int(episode)] = float(micros) / time
    return {
        key: [by_episode.get(episode, 0.0) for episode in run.by_episode]
        for key, by_episode in found.items()
    }


def _ends(interval: Interval) -> tuple[float, float, float]:
    """Return mean, low and high of a share of time, which is not below 0."""
    low = interval.low if math.isnan(interval.low) else max(0.0, interval.low)
    return interval.mean, low, interval.high


def load_drawn(found: pd.DataFrame) -> Figure:
    """Draw ``by_load``: a dot per episode, and where there are enough the means of groups."""
    figure, axes = figures.new_figure(height=3.4)
    for number, (name, rows) in enumerate(found.groupby("scheduler", sort=False)):
        shade = colour(number)
        axes.scatter(
            100 * rows["offered_load"],
            100 * rows["success_rate"],
            s=14,
            color=shade,
            alpha=0.45,
            linewidths=0,
            label=None if len(rows) >= _ENOUGH else str(name)[:60],
        )
        if len(rows) < _ENOUGH:
            continue
        ordered = rows.sort_values("offered_load")
        parts = [ordered.iloc[each] for each in np.array_split(np.arange(len(rows)), GROUPS)]
        means = [SUCCESS_RATE.interval(part["success_rate"].tolist()) for part in parts]
        axes.errorbar(
            [100 * float(part["offered_load"].mean()) for part in parts],
            [100 * each.mean for each in means],
            yerr=100 * np.transpose([each.arms for each in means]),
            color=shade,
            marker="o",
            markersize=5,
            capsize=3,
            linewidth=1.8,
            label=str(name)[:60],
        )
    axes.set_xlabel("offered load of the episode, % of all processors")
    axes.set_ylabel("success rate, %")
    figures.settle(figure, axes, legend=True)
    return figure


def nodes_drawn(found: pd.DataFrame, label: str) -> Figure:
    """Draw ``by_node`` or ``processors``, of the nodes with most tasks or the busiest ones."""
    shown = dots.first(found, ["node"], "tasks" if "tasks" in found else "mean")
    names = [f"node {node}" for node in shown.drop_duplicates("node")["node"]]
    return dots.drawn(shown, ["node"], names, label)


def sizes_drawn(found: pd.DataFrame) -> Figure:
    """Draw ``by_size``."""
    largest = found["to_bytes"].max()
    unit, size = ("MB", 1e6) if largest >= 1e6 else ("KB", 1e3)
    parts = found[["from_bytes", "to_bytes"]].drop_duplicates().to_numpy() / size
    names = [f"{low:.3g} to {high:.3g} {unit}" for low, high in parts]
    return dots.drawn(found, ["from_bytes"], names, "success rate, %")


def links_drawn(found: pd.DataFrame, all_runs: Sequence[str] = ()) -> Figure:
    """Draw ``links``, the busiest ones.

    ``all_runs`` names the runs of all figures, also those that sent nothing: so each run has its
    colour of the other figures.
    """
    ends = ["source", "destination"]
    shown = dots.first(found, ends, "mean")
    names = [f"{source} → {end}" for source, end in shown[ends].drop_duplicates().to_numpy()]
    return dots.drawn(shown, ends, names, "link in use, % of time", all_runs)
