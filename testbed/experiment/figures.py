"""Figures of runs. Each function draws one figure and returns it; ``report`` writes the files.

Nothing here touches matplotlib's global state, so figures can be drawn from any thread and without
a display.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.ticker import MaxNLocator

from testbed.experiment.colours import FAULT, OUTCOME_COLOURS, colour
from testbed.experiment.frames import flows
from testbed.experiment.measured import Measured, Summary, names_of
from testbed.experiment.metrics import SUCCESS_RATE
from testbed.experiment.task_summary import RunSummary
from testbed.model.topology import Topology

TIME_COLOURS: Final[Mapping[str, str]] = {
    "deciding": "#009E73",
    "transmission_waiting": "#B3CDE3",
    "transmission": "#0072B2",
    "execution_waiting": "#FDD9A0",
    "execution": "#E69F00",
}
WIDTH: Final = 5.6
"""Inches of most figures; at that width texts can still be read on a telephone."""
_TITLE_WIDTH: Final = 22
"""Letters of a name on one line beside its row."""
_LONGEST_TITLE: Final = 60
"""Letters of a title that are drawn: to lay out many thousands takes minutes."""
_LETTER: Final = 0.072
"""Inches of a letter of the names of rows, on average a little less."""
NUMBERS: Final = 0.66
"""Inches of numbers and a label beside the y axis."""
_TICKS: Final = 5
"""Intervals between the numbers of an axis, at most."""
_DOTS: Final = 0.22
"""Half of the part of a row over which the dots of episodes are spread."""


class Formats(NamedTuple):
    """A figure as files."""

    png: bytes
    svg: bytes


def as_files(figure: Figure) -> Formats:
    """Return a figure in both formats, laid out once; it is not laid out anew afterwards."""
    png, svg = io.BytesIO(), io.BytesIO()
    canvas, dpi = figure.canvas, figure.dpi
    try:
        # Not by ``savefig``, which draws twice: first to find out where the edges are.
        FigureCanvasAgg(figure).print_png(png)  # type: ignore[no-untyped-call]
        # To find room for all texts takes as long as drawing them.
        figure.set_layout_engine("none")
        FigureCanvasSVG(figure).print_svg(svg)  # type: ignore[no-untyped-call]
    finally:
        figure.set_canvas(canvas)
        figure.set_dpi(dpi)
    return Formats(png.getvalue(), svg.getvalue())


class Drawing(Figure):
    """A figure that a notebook shows without a plotting backend."""

    def _repr_png_(self) -> bytes:
        target = io.BytesIO()
        self.savefig(target, format="png")
        return target.getvalue()


def new_figure(width: float = WIDTH, height: float = 4.0) -> tuple[Figure, Axes]:
    """Return an empty figure (inches) with one set of axes in the style of all figures."""
    figure = Drawing(figsize=(width, height), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    plain(axes)
    axes.locator_params(nbins=_TICKS)
    return figure, axes


def plain(axes: Axes) -> None:
    """Remove the parts of ``axes`` that carry no information."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)


def name_rows(axes: Axes, names: Sequence[str]) -> float:
    """Write the names of rows on the y axis, the first on top, long ones on several lines.

    Returns: the inches that they need, for ``settle``.
    """
    short = [_shortened(name, 2 * _LONGEST_TITLE) for name in names]
    wrapped = [textwrap.wrap(name, _TITLE_WIDTH) for name in short]
    axes.set_yticks(range(len(names)), ["\n".join(lines) for lines in wrapped], fontsize=9)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    return 0.15 + _LETTER * max((len(line) for lines in wrapped for line in lines), default=0)


def settle(
    figure: Figure,
    axes: Axes,
    left: float = NUMBERS,
    *,
    right: float = 0.2,
    lines: int = 1,
    title: int = 0,
    legend: bool = False,
) -> None:
    """Place the axes in their figure by the sizes of texts, and the legend above them.

    matplotlib's own layout measures every text several times, which takes as long as all drawing.

    Args:
        figure: the figure.
        axes: its only axes.
        left: inches left of the axes.
        right: inches right of them.
        lines: lines of the label of the x axis.
        title: lines of the title of the axes.
        legend: draw a legend of what is in the axes.
    """
    width, height = figure.get_size_inches()
    top = 0.12 + 0.19 * title
    if legend:
        handles, labels = axes.get_legend_handles_labels()
        entry = 0.5 + 0.9 * _LETTER * max(map(len, labels), default=0)
        columns = max(1, min(len(labels), int(width / entry)))
        figure.legend(
            handles,
            labels,
            loc="upper center",
            ncols=columns,
            fontsize=8,
            frameon=False,
            borderaxespad=0.1,
            columnspacing=1.2,
        )
        top += 0.1 + 0.17 * math.ceil(len(labels) / columns)
    figure.set_layout_engine("none")
    bottom = 0.3 + 0.18 * lines
    across, up = width - left - right, height - bottom - top
    axes.set_position((left / width, bottom / height, across / width, up / height))


def success_rates(runs: Sequence[RunSummary]) -> Figure:
    """Draw the success rate of each run with its 95 % interval, and every episode as a dot."""
    measured = [run.measured(SUCCESS_RATE) for run in runs]
    figure = by_metric(runs, measured)
    lowest = min(min(each.by_episode.values()) for each in measured)
    figure.axes[0].set_xlim(max(0.0, 100 * lowest - 4), 101)
    return figure


def by_metric(runs: Sequence[Summary], measured: Sequence[Measured]) -> Figure:
    """Draw a metric of each run: its mean with the 95 % interval, and every episode as a dot.

    ``measured`` has that metric of every run; one without a value gets an empty row.
    """
    figure, axes = new_figure(height=1.1 + 0.5 * len(runs))
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.8)
    metric = measured[0].metric
    scale = metric.scale
    for y, found in enumerate(measured):
        interval = found.interval
        if not interval.count:
            continue
        values = np.array(list(found.by_episode.values()))
        spread = np.linspace(-_DOTS, _DOTS, len(values)) if len(values) > 1 else np.zeros(1)
        axes.scatter(scale * values, y + spread, s=12, color=colour(y), alpha=0.35, linewidths=0)
        if interval.count > 1:
            axes.errorbar(
                scale * interval.mean,
                y,
                xerr=scale * np.transpose([interval.arms]),
                color=colour(y),
                capsize=5,
                linewidth=2,
            )
        axes.plot(scale * interval.mean, y, "o", color=colour(y), markersize=7)
        # Beside the axes, where no dots of episodes are.
        axes.text(
            1.015,
            y,
            metric.mean(interval),
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=9,
        )
    left = name_rows(axes, titles_of(runs))
    title = f"{metric.title[:1].upper()}{_shortened(metric.title[1:], 2 * _LONGEST_TITLE)}"
    label = textwrap.wrap(f"{title}, {metric.unit}".rstrip(", "), 45)
    axes.set_xlabel("\n".join(label))
    settle(figure, axes, left, lines=len(label), right=0.55)
    return figure


def titles_of(runs: Sequence[Summary]) -> list[str]:
    """Return the names of runs as they are drawn; tables have all of them."""
    return [_shortened(name, _LONGEST_TITLE) for name in names_of(runs)]


def _title(run: Summary) -> str:
    """Return the title of a run as it is drawn; tables have all of it."""
    return _shortened(run.title, _LONGEST_TITLE)


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1].rstrip()}…"


def outcome_shares(runs: Sequence[RunSummary]) -> Figure:
    """Draw the outcomes of the tasks of each run: shares of an episode, mean over episodes."""
    figure, axes = new_figure(height=1.4 + 0.5 * len(runs))
    axes.grid(visible=False)
    left = np.zeros(len(runs))
    for outcome, shade in OUTCOME_COLOURS.items():
        shares = 100 * np.array([run.outcome_shares[outcome] for run in runs])
        if not shares.any():
            continue
        bars = axes.barh(
            range(len(runs)), shares, left=left, color=shade, label=outcome.replace("_", " ")
        )
        labels = [f"{share:.1f}" if share >= 4 else "" for share in shares]
        # Not quite white: what is white becomes transparent on a page.
        axes.bar_label(bars, labels, label_type="center", fontsize=8, color="#FEFEFE")
        left += shares
    left_of = name_rows(axes, titles_of(runs))
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the tasks of an episode, %")
    settle(figure, axes, left_of, legend=True)
    return figure


def latency_breakdown(runs: Sequence[RunSummary]) -> Figure:
    """Draw the mean time of succeeded tasks by stage; the whisker is the p95 of the total."""
    figure, axes = new_figure(height=1.6 + 0.5 * len(runs))
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.8)
    left = np.zeros(len(runs))
    for stage, shade in TIME_COLOURS.items():
        means = np.array([float(run.times.loc[stage, "mean_ms"]) for run in runs])  # type: ignore[arg-type]
        axes.barh(
            range(len(runs)),
            means,
            left=left,
            color=shade,
            label=stage.replace("_", " "),
            height=0.6,
        )
        left += means
    for y, run in enumerate(runs):
        p95 = float(run.times.loc["total", "p95_ms"])  # type: ignore[arg-type]
        axes.plot([left[y], p95], [y, y], color="#555555", linewidth=1)
        axes.plot([p95], [y], "|", color="#555555", markersize=10)
        axes.annotate(
            f"p95 {p95:.0f}",
            (p95, y),
            textcoords="offset points",
            xytext=(5, -3),
            fontsize=8,
            color="#555555",
        )
    left_of = name_rows(axes, titles_of(runs))
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.set_xlabel("time of a succeeded task, ms (mean by stage)")
    settle(figure, axes, left_of, legend=True)
    return figure


def queues_over_time(runs: Sequence[tuple[RunSummary, pd.DataFrame]]) -> Figure:
    """Draw execution queue lengths over the slots of an episode: mean and longest."""
    figure, axes = new_figure(height=3.4)
    titles = titles_of([run for run, _ in runs])
    for x, (title, (_, lengths)) in enumerate(zip(titles, runs, strict=True)):
        mean = queues_by_slot(lengths)
        axes.plot(mean.index, mean["mean"], color=colour(x), linewidth=2, label=title)
        axes.plot(mean.index, mean["max"], color=colour(x), linewidth=1, linestyle=":")
    axes.set_ylim(bottom=0)
    shaded = mark_faults(axes, [run for run, _ in runs])
    axes.set_xlabel("slot")
    axes.set_ylabel("tasks in the execution queue")
    axes.set_title(
        "mean over nodes (solid), longest queue (dotted)" + ("; faults shaded" if shaded else ""),
        fontsize=9,
        loc="left",
    )
    settle(figure, axes, title=1, legend=True)
    return figure


def queues_by_slot(lengths: pd.DataFrame) -> pd.DataFrame:
    """Return mean and longest (``max``) queue of the nodes by slot, mean over episodes."""
    by_slot = lengths.groupby(["episode", "slot"])["queue_length"].agg(["mean", "max"])
    return by_slot.groupby("slot").mean()


def mark_faults(axes: Axes, runs: Sequence[RunSummary]) -> bool:
    """Shade the slots in which faults held, the darker the more episodes; whether there are any.

    ``axes`` have slots as x. Runs that can be compared met the same faults but for those by hand.
    """
    marked: dict[tuple[object, ...], tuple[float, float]] = {}
    episodes: set[int] = set()
    for summary in runs:
        slot = summary.run.plan.workload.slot
        episodes.update(summary.by_episode)
        for fault in summary.run.faults:
            if fault["episode"] in summary.by_episode:
                place = (fault["episode"], fault["id"], fault["begin"])
                marked[place] = (fault["begin"] / slot, fault["end"] / slot)
    last = max((summary.run.plan.workload.slots for summary in runs), default=1)
    shade = [0.0] * last
    for begin, end in marked.values():
        for at in range(int(begin), min(last, math.ceil(end))):
            shade[at] += 1 / max(1, len(episodes))
    for at, share in enumerate(shade):
        if share:
            axes.axvspan(at, at + 1, color=FAULT, alpha=min(0.35, 0.35 * share), linewidth=0)
    return bool(marked)


def topology(network: Topology, run: RunSummary | None = None) -> Figure:
    """Draw the network: nodes on a ring, area by capacity, colour by arrival probability.

    With a run, arrows show the five per cent or more of a node's tasks that went to a peer.
    """
    size = network.size
    # Placed by hand, as in ``settle``: parts of the figure's width and height.
    figure = Drawing(figsize=(9.6, 4.6), dpi=120)
    ring = figure.add_axes((0.01, 0.03, 0.4, 0.83))
    rates = figure.add_axes((0.56, 0.13, 0.35, 0.75))
    probabilities = figure.add_axes((0.43, 0.2, 0.013, 0.55))
    megabytes = figure.add_axes((0.925, 0.2, 0.013, 0.6))
    angles = np.pi / 2 - 2 * np.pi * np.arange(size) / size
    x, y = np.cos(angles), np.sin(angles)
    if run is not None:
        _draw_flows(ring, flows(run, size), x, y)
    capacity = np.array(network.capacity_hz) / 1e9
    points = ring.scatter(
        x,
        y,
        s=60 + 500 * capacity / capacity.max(),
        c=network.arrival_probability,
        cmap="YlOrRd",
        vmin=0,
        vmax=1,
        edgecolors="#444444",
        zorder=3,
    )
    for node in range(size):
        ring.annotate(
            f"{node}\n{capacity[node]:.0f} GHz",
            (1.32 * x[node], 1.28 * y[node]),
            ha="center",
            va="center",
            fontsize=7,
        )
    ring.set_xlim(-1.5, 1.5)
    ring.set_ylim(-1.45, 1.45)
    ring.set_aspect("equal")
    ring.axis("off")
    arrows = "" if run is None else f"\nArrows: where tasks went under {_title(run)}"
    ring.set_title(f"Nodes by capacity{arrows}", fontsize=10, loc="left")
    figure.colorbar(points, cax=probabilities, label="arrival probability")
    links = np.array(network.link_rate, dtype=float) / 1e6
    np.fill_diagonal(links, np.nan)
    image = rates.imshow(links, cmap="viridis")
    for axis in (rates.xaxis, rates.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    rates.set_xlabel("to node")
    rates.set_ylabel("from node")
    rates.set_title("Link rates", fontsize=10, loc="left")
    figure.colorbar(image, cax=megabytes, label="MB/s")
    return figure


def _draw_flows(
    axes: Axes,
    flows: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    x: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    y: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> None:
    size = len(flows)
    shades = colormaps["Blues"]
    for source in range(size):
        for destination in range(size):
            share = flows[source, destination]
            if source == destination or share < 0.05:
                continue
            axes.add_patch(
                FancyArrowPatch(
                    (x[source], y[source]),
                    (x[destination], y[destination]),
                    connectionstyle="arc3,rad=0.15",
                    arrowstyle="-|>",
                    mutation_scale=8,
                    shrinkA=9,
                    shrinkB=9,
                    linewidth=0.5 + 5 * share,
                    color=shades(0.3 + 0.6 * min(1.0, 2 * share)),
                    zorder=1,
                )
            )
