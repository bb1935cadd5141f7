"""Figures of serving runs. They have one column, so that they can be read on a narrow page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from testbed.experiment.colours import FAULT, colour
from testbed.experiment.figures import (
    WIDTH,
    Drawing,
    by_metric,
    new_figure,
    plain,
    titles_of,
)
from testbed.experiment.serving.colours import COLOURS, HERE, PEERS
from testbed.experiment.serving.metrics import REFUSED_RATE
from testbed.experiment.serving.summary import ServingSummary, Traffic
from testbed.model.serving.record import RequestOutcome
from testbed.model.units import SECOND

MOST_NODES: Final = 6
"""Nodes that are drawn, those that most requests came to."""
MOST_ROWS: Final = 24
"""Rows of the figure of times."""
_HEIGHT: Final = 1.55
"""Inches of the axes of a node."""
_SMALL: Final = 9

NAMES: Final[Mapping[str, str]] = {
    RequestOutcome.NO_PEER.value: "no peer (503)",
    RequestOutcome.OVER_LIMIT.value: "over limit (429)",
    RequestOutcome.FORBIDDEN.value: "forbidden (403)",
    RequestOutcome.UNREACHABLE.value: "unreachable (502)",
    RequestOutcome.OVERLOAD.value: "overload (503)",
}
_REFUSED: Final = "refused"
_REFUSED_COLOUR: Final = "#B00000"

Series = npt.NDArray[np.float64]


def refused_rates(runs: Sequence[ServingSummary]) -> Figure:
    """Draw the share refused in each run with its 95 % interval, and every episode as a dot."""
    figure = by_metric(runs, [run.measured(REFUSED_RATE) for run in runs])
    axes = figure.axes[0]
    axes.set_xlim(0, 1.1 * max(axes.get_xlim()[1], 1))
    return figure


def drawn_nodes(run: ServingSummary) -> list[int]:
    """Return the nodes whose requests are drawn, in order."""
    came: Counter[int] = Counter()
    for kind, number in run.traffic.items():
        came[kind.node] += number
    return sorted(node for node, _ in came.most_common(MOST_NODES))


def outcomes_over_time(run: ServingSummary) -> Figure:
    """Draw requests per second at each node they came to, stacked by what became of them."""

    def what(kind: Traffic) -> str:
        if kind.outcome != RequestOutcome.SERVED:
            return kind.outcome
        return HERE if kind.server == kind.node else PEERS

    def draw(axes: Axes, node: int, seconds: Series) -> None:
        series = _series(run, node, what)
        found = [each for each in COLOURS if each in series]
        stacked = [np.append(series[each], series[each][-1:]) for each in found]
        axes.stackplot(
            seconds,
            stacked,
            colors=[COLOURS[each] for each in found],
            labels=[_name(each) for each in found],
            step="post",
            linewidth=0,
        )

    return _over_time(run, draw)


def servers_over_time(run: ServingSummary) -> Figure:
    """Draw requests per second at each node they came to: a line for each server, and the refused.

    As figure 3 of the DFaaS paper has it.
    """

    def what(kind: Traffic) -> str:
        return _REFUSED if kind.server is None else str(kind.server)

    def draw(axes: Axes, node: int, seconds: Series) -> None:
        series = _series(run, node, what)
        servers = sorted((each for each in series if each != _REFUSED), key=int)
        for each in [*servers, *([_REFUSED] if _REFUSED in series else [])]:
            refused = each == _REFUSED
            axes.step(
                seconds,
                np.append(series[each], series[each][-1:]),
                where="post",
                color=_REFUSED_COLOUR if refused else colour(int(each)),
                linewidth=1.8,
                linestyle=":" if refused else "-",
                label="refused" if refused else f"at node {each}",
            )

    return _over_time(run, draw)


def _over_time(run: ServingSummary, draw: Callable[[Axes, int, Series], None]) -> Figure:
    nodes = drawn_nodes(run)
    window = run.plan.network.window / SECOND
    seconds: Series = (np.arange(run.plan.windows + 1) * window).astype(np.float64)
    figure = Drawing(figsize=(WIDTH, 0.95 + _HEIGHT * len(nodes)), layout="constrained", dpi=120)
    found = figure.subplots(len(nodes), 1, sharex=True, squeeze=False)[:, 0]
    handles: dict[str, Artist] = {}
    for axes, node in zip(found, nodes, strict=True):
        plain(axes)
        draw(axes, node, seconds)
        axes.set_title(f"users of node {node}", fontsize=10, loc="left")
        axes.set_xlim(0, seconds[-1])
        # Room for the marks of faults.
        axes.set_ylim(0, 1.12 * axes.get_ylim()[1])
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        _mark_faults(axes, run)
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
        axes.tick_params(labelsize=_SMALL)
    figure.supylabel("requests per second", fontsize=10)
    found[-1].set_xlabel("seconds", fontsize=10)
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside upper left",
        ncols=3,
        fontsize=_SMALL,
        frameon=False,
    )
    return figure


def _series(run: ServingSummary, node: int, what: Callable[[Traffic], str]) -> dict[str, Series]:
    """Return requests per second by window, mean over episodes, for each kind ``what`` names."""
    found: dict[str, Series] = {}
    scale = len(run.episodes) * run.plan.network.window / SECOND
    for (window, kind), number in run.over_time.items():
        if kind.node == node and window < run.plan.windows:
            name = what(kind)
            found.setdefault(name, np.zeros(run.plan.windows))[window] += number / scale
    return found


def _name(outcome: str) -> str:
    return NAMES.get(outcome, outcome)


def _mark_faults(axes: Axes, run: ServingSummary) -> None:
    """Mark the times in which faults held by a bar at the top, the darker the more episodes."""
    for fault in run.run.faults:
        if fault["episode"] in run.episodes:
            begin, end = (
                min(fault[each], run.plan.horizon.length) / SECOND for each in ("begin", "end")
            )
            axes.axvspan(
                begin,
                end,
                ymin=0.95,
                color=FAULT,
                alpha=1 / len(run.episodes),
                linewidth=0,
                label="fault",
            )


def latencies(runs: Sequence[ServingSummary]) -> Figure | None:
    """Draw percentiles of the times of served requests, of each run and node they came to.

    None if no time of a request is logged.
    """
    rows = []
    for title, run in zip(titles_of(runs), runs, strict=True):
        for node in drawn_nodes(run):
            found = run.latency(node)
            if found.served:
                name = f"node {node}" if len(runs) == 1 else f"{title}, node {node}"
                rows.append((name, found))
    rows = rows[:MOST_ROWS]
    if not rows:
        return None
    figure, axes = new_figure(WIDTH, 1.2 + 0.34 * len(rows))
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.8)
    for y, (_, found) in enumerate(rows):
        axes.plot([found.p50, found.p99], [y, y], color="#999999", linewidth=1.5, zorder=1)
    for name, shade in (("p50", "#009E73"), ("p95", "#E69F00"), ("p99", "#D55E00")):
        values = [getattr(found, name) for _, found in rows]
        axes.plot(values, range(len(rows)), "o", color=shade, label=name, markersize=7)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=_SMALL)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.margins(x=0.08)
    axes.set_xlim(left=0)
    axes.tick_params(labelsize=_SMALL)
    axes.set_xlabel("time of a served request, ms", fontsize=10)
    figure.legend(loc="outside upper left", ncols=3, fontsize=_SMALL, frameon=False)
    return figure


def messages_over_time(runs: Sequence[ServingSummary]) -> Figure:
    """Draw how many messages nodes have said in each run so far, mean over episodes."""
    figure, axes = new_figure(WIDTH, 2.8)
    for number, (title, run) in enumerate(zip(titles_of(runs), runs, strict=True)):
        said = np.zeros(run.plan.windows + 1)
        for window in run.windows:
            said[min(window.window + 1, run.plan.windows)] += window.said
        seconds = np.arange(run.plan.windows + 1) * run.plan.network.window / SECOND
        axes.step(
            seconds,
            said.cumsum() / len(run.episodes),
            where="post",
            color=colour(number),
            linewidth=1.8,
            label=title,
        )
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=_SMALL)
    axes.set_xlabel("seconds", fontsize=10)
    axes.set_ylabel("messages so far", fontsize=10)
    figure.legend(loc="outside upper left", ncols=2, fontsize=_SMALL, frameon=False)
    return figure
