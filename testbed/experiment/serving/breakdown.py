"""Outcomes of requests in parts: by offered load, by the node they came to, and by function.

The offered load of a part of a serving run is the number of requests of users that came, as a share
of those that the nodes are meant to serve of their own users in that time (``maxRate``). Every
refused share is one of an episode, and every mean of it is over episodes, as that of a run is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from testbed.experiment import dots, figures
from testbed.experiment.colours import colour
from testbed.experiment.measured import names_of
from testbed.experiment.serving.metrics import REFUSED_RATE
from testbed.experiment.serving.summary import ServingSummary
from testbed.experiment.statistics import Interval, mean_interval
from testbed.model.serving.record import RequestOutcome
from testbed.model.units import MILLISECOND, SECOND

PARTS: Final = 30
"""Intervals of an episode that are told apart, at most."""
BAND: Final = 0.25
"""Width of a band of offered loads whose mean is drawn."""
_PLACE: Final = ["episode", "node", "function", "interval"]


def interval(run: ServingSummary) -> int:
    """Return the number of windows that are taken together as one interval of an episode."""
    return max(1, -(-run.plan.windows // PARTS))


def by_load(runs: Sequence[ServingSummary]) -> pd.DataFrame:
    """Return a row per run, episode, node, function and interval in which requests came.

    ``offered_load`` and ``refused_rate`` are shares; ``mean_ms`` and ``p95_ms`` are of the times of
    requests that were served, ``beyond_ms`` is the mean less the time that the service itself
    takes; NaN where none is known. Where a node is meant to serve nothing of a function, the load
    is NaN.
    """
    parts = []
    for name, run in zip(names_of(runs), runs, strict=True):
        found = _intervals(run)
        served = _served(run)
        times = served.groupby(_PLACE)["ms"]
        found["mean_ms"] = times.mean()
        found["p95_ms"] = times.quantile(0.95)
        found = found.reset_index()
        found["beyond_ms"] = found["mean_ms"] - found["function"].map(_service_ms(run))
        window, every = run.plan.network.window / SECOND, interval(run)
        begin = found.pop("interval") * every
        found.insert(3, "begin_s", begin * window)
        found.insert(4, "end_s", np.minimum(begin + every, run.plan.windows) * window)
        found["refused_rate"] = found.pop("refused") / found["requests"]
        found.insert(0, "scheduler", name)
        found.insert(1, "run", run.run.id)
        parts.append(found)
    columns = ["requests", "offered_load", "refused_rate", "mean_ms", "p95_ms", "beyond_ms"]
    place = ["scheduler", "run", "episode", "node", "function", "begin_s", "end_s"]
    return pd.concat(parts)[[*place, *columns]].reset_index(drop=True)


def by_node(runs: Sequence[ServingSummary]) -> pd.DataFrame:
    """Return a row per run and node that requests came to: their load, and the share refused.

    ``mean``, ``low`` and ``high`` are over the episodes in which any came.
    """
    return _refused(runs, "node")


def by_function(runs: Sequence[ServingSummary]) -> pd.DataFrame:
    """Return a row per run and function that was asked for: the load, and the share refused.

    ``service_ms`` is the time that the service takes; ``mean_ms``, ``p50_ms``, ``p95_ms`` and
    ``p99_ms`` are of the times of all requests that were served, NaN where none is known.
    """
    found = _refused(runs, "function")
    rows = []
    for run in runs:
        took = _service_ms(run)
        times = _served(run).groupby("function")["ms"]
        for function in found.loc[found["run"] == run.run.id, "function"]:
            known = function in times.groups
            own = times.get_group(function) if known else pd.Series(dtype=float)
            rows.append((took[function], own.mean(), *own.quantile([0.5, 0.95, 0.99])))
    columns = ["service_ms", "mean_ms", "p50_ms", "p95_ms", "p99_ms"]
    return pd.concat([found, pd.DataFrame(rows, columns=columns)], axis=1)


def _intervals(run: ServingSummary) -> pd.DataFrame:
    """Return ``requests``, ``refused`` and ``offered_load``, indexed by ``_PLACE``."""
    every = interval(run)
    rows = [
        (kind.episode, kind.node, function, window // every, number, kind.outcome)
        for (window, function, kind), number in run.by_function.items()
        if window < run.plan.windows
    ]
    came = pd.DataFrame(rows, columns=[*_PLACE, "requests", "outcome"])
    came["refused"] = came["requests"].where(came["outcome"] != RequestOutcome.SERVED.value, 0)
    found = came.groupby(_PLACE)[["requests", "refused"]].sum()
    meant = _meant(run)
    windows = [
        min(every, run.plan.windows - number * every)
        for number in found.index.get_level_values("interval")
    ]
    places = zip(
        *(found.index.get_level_values(each) for each in ("node", "function")), strict=True
    )
    found["offered_load"] = [
        _load(requests, meant[place] * each)
        for requests, place, each in zip(found["requests"], places, windows, strict=True)
    ]
    return found


def _meant(run: ServingSummary) -> dict[tuple[int, str], int]:
    """Return the requests in one window that a node is meant to serve, by node and function."""
    return {
        (node, function.name): function.max_rate[node]
        for function in run.plan.network.functions
        for node in range(run.plan.size)
    }


def _service_ms(run: ServingSummary) -> dict[str, float]:
    """Return the time that the service of each function takes."""
    return {each.name: each.time / MILLISECOND for each in run.plan.network.functions}


def _load(requests: float, meant: float) -> float:
    return requests / meant if meant else math.nan


def _served(run: ServingSummary) -> pd.DataFrame:
    """Return a row per served request whose time is known: ``_PLACE`` and ``ms``."""
    columns = run.columns
    frame = pd.DataFrame(
        {
            "episode": columns["episode"],
            "node": columns["source"],
            "function": columns["function"],
            "interval": np.array(columns["at"], dtype=np.int64)
            // (run.plan.network.window * interval(run)),
            "ms": np.array(run.times, dtype=float) / MILLISECOND,
        }
    )
    served = np.array(columns["outcome"], dtype=object) == RequestOutcome.SERVED.value
    known: pd.DataFrame = frame[served & frame["ms"].notna().to_numpy()]
    return known


def _refused(runs: Sequence[ServingSummary], what: Literal["node", "function"]) -> pd.DataFrame:
    rows = []
    for name, run in zip(names_of(runs), runs, strict=True):
        found = _intervals(run).groupby(["episode", what])[["requests", "refused"]].sum()
        shares = found["refused"] / found["requests"]
        meant = pd.Series(_meant(run)).groupby(level=0 if what == "node" else 1).sum()
        for key, own in shares.groupby(level=what):
            of_all = REFUSED_RATE.interval(own.tolist())
            count = int(found["requests"].xs(key, level=what).sum())
            could = int(meant[key]) * run.plan.windows * len(own)
            rows.append(
                (name, run.run.id, key, of_all.count, count, _load(count, could), *_ends(of_all))
            )
    columns = ["scheduler", "run", what, "episodes", "requests", "offered_load"]
    return pd.DataFrame(rows, columns=[*columns, "mean", "low", "high"])


def _ends(found: Interval) -> tuple[float, float, float]:
    return found.mean, found.low, found.high


def load_drawn(found: pd.DataFrame, value: Literal["refused_rate", "beyond_ms"]) -> Figure | None:
    """Draw ``by_load``: a dot per node, function and interval, and the means of bands of loads.

    Dots are means over episodes. None where nothing is known of ``value``.
    """
    known = found.dropna(subset=["offered_load", value])
    if known.empty:
        return None
    share = value == "refused_rate"
    scale = 100.0 if share else 1.0
    figure, axes = figures.new_figure(height=3.4)
    shades = {name: number for number, name in enumerate(found["scheduler"].unique())}
    for name, own in known.groupby("scheduler", sort=False):
        shade = colour(shades[name])
        place = ["node", "function", "begin_s"]
        each = own.groupby(place)[["offered_load", value]].mean()
        axes.scatter(
            100 * each["offered_load"],
            scale * each[value],
            s=12,
            color=shade,
            alpha=0.35,
            linewidths=0,
        )
        loads, means = _bands(own, value)
        axes.errorbar(
            [100 * load for load in loads],
            [scale * mean.mean for mean in means],
            yerr=scale * np.transpose([mean.arms for mean in means]),
            color=shade,
            marker="o",
            markersize=5,
            capsize=3,
            linewidth=1.8,
            label=str(name)[:60],
        )
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("offered load of a node, % of what it is meant to serve")
    axes.set_ylabel("requests refused, %" if share else "time beyond the service's own, ms")
    figures.settle(figure, axes, legend=True)
    return figure


def _bands(own: pd.DataFrame, value: str) -> tuple[list[float], list[Interval]]:
    """Return the mean loads of the bands of a run, and the mean of a value in each over episodes.

    Within an episode an interval counts as often as it has requests.
    """
    weighed = pd.DataFrame(
        {
            "band": (own["offered_load"] / BAND).astype(int),
            "episode": own["episode"],
            "requests": own["requests"],
            "load": own["offered_load"] * own["requests"],
            "value": own[value] * own["requests"],
        }
    )
    sums = weighed.groupby(["band", "episode"]).sum()
    loads, means = [], []
    for _, each in sums.groupby(level="band"):
        values = (each["value"] / each["requests"]).tolist()
        share = value == "refused_rate"
        means.append(REFUSED_RATE.interval(values) if share else mean_interval(values))
        loads.append(float(each["load"].sum() / each["requests"].sum()))
    return loads, means


def nodes_drawn(found: pd.DataFrame) -> Figure:
    """Draw ``by_node``, of the nodes that most requests came to."""
    shown = dots.first(found, ["node"], "requests")
    names = [f"node {node}" for node in shown.drop_duplicates("node")["node"]]
    return dots.drawn(shown, ["node"], names, "requests refused, %")


def functions_drawn(found: pd.DataFrame) -> Figure:
    """Draw ``by_function``, of the functions that most requests were for."""
    shown = dots.first(found, ["function"], "requests")
    return dots.drawn(shown, ["function"], _functions(shown), "requests refused, %")


def times_drawn(found: pd.DataFrame, all_runs: Sequence[str]) -> Figure | None:
    """Draw the times of ``by_function``: the median, and the 99th percentile where the line ends.

    None where no time is known.
    """
    known = found.dropna(subset=["p50_ms"])
    if known.empty:
        return None
    shown = dots.first(known, ["function"], "requests")
    times: dict[str, Any] = {"mean": shown["p50_ms"], "low": shown["p50_ms"]}
    return dots.drawn(
        shown.assign(**times, high=shown["p99_ms"]),
        ["function"],
        _functions(shown),
        "time of a served request, ms (median to p99)",
        all_runs,
        scale=1.0,
    )


def _functions(shown: pd.DataFrame) -> list[str]:
    return [str(name) for name in shown.drop_duplicates("function")["function"]]
