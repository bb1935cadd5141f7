"""The learning curve: a row for every policy that was evaluated, and its figure."""

from __future__ import annotations

import csv
import io
import math
from typing import TYPE_CHECKING, Any, Final

from testbed.experiment.live.state import CURVE, LiveState, Point
from testbed.experiment.statistics import mean_interval, rate_interval
from testbed.files import ORDINARY, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS: Final = (
    "update",
    "episodes",
    "policy",
    "success_rate",
    "low",
    "high",
    "above_start",
    "above_start_low",
    "above_start_high",
    "gate_episodes",
    "verdict",
    "best",
    "collected",
    "decisions",
    "incomplete_logs",
    "learning_rate",
    "divergence",
)
"""Columns of the file, in order; rates are shares from 0 to 1, with 95 % intervals."""


def rows(state: LiveState) -> list[dict[str, Any]]:
    """Return a row per policy; what is not known is left empty."""
    start, best = (state.points[0], state.best) if state.points else (None, None)
    return [_row(point, start, best) for point in state.points]


def write_curve(state: LiveState) -> None:
    """Write the rows as CSV to the folder."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(state))
    write_atomically(state.folder / CURVE, text.getvalue(), ORDINARY)


def drawn(state: LiveState, start: str) -> Figure:
    """Return the figure: success over episodes that were run, ``start`` as a line to compare with.

    Dots are policies that were accepted, crosses those that were rolled back.
    """
    from testbed.experiment import figures
    from testbed.experiment.colours import colour

    figure, axes = figures.new_figure(height=3.6)
    found = [(point, rate_interval(list(point.rates.values()))) for point in state.points]
    kept = [(point, interval) for point, interval in found if point.accepted]
    back = [(point, interval) for point, interval in found if not point.accepted]
    for points, shade, form, label in (
        (kept, colour(0), "o-", "accepted"),
        (back, colour(5), "x", "rolled back"),
    ):
        if points:
            axes.errorbar(
                [point.episodes for point, _ in points],
                [100 * interval.mean for _, interval in points],
                yerr=[[100 * interval.arms[side] for _, interval in points] for side in (0, 1)],
                fmt=form,
                color=shade,
                capsize=3,
                markersize=5,
                label=label,
            )
    best = state.best
    axes.plot(
        best.episodes,
        100 * best.mean,
        "*",
        color=colour(0),
        markersize=14,
        markeredgecolor="#222222",
        label="best, deployed",
        zorder=5,
    )
    first = state.points[0]
    axes.axhline(100 * first.mean, color=colour(1), linestyle="--", linewidth=1.2, label=start)
    axes.set_xlabel("episodes run on the network, those of the gates included")
    axes.set_ylabel("success rate, %")
    axes.set_xlim(left=0)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    return figure


def _row(point: Point, start: Point | None, best: Point | None) -> dict[str, Any]:
    rate = rate_interval(list(point.rates.values())) if point.rates else None
    row: dict[str, Any] = {
        "update": point.number,
        "episodes": point.episodes,
        "policy": point.policy,
        "gate_episodes": len(point.rates),
        "verdict": "start"
        if point.verdict is None
        else "accepted"
        if point.accepted
        else "rolled back",
        "best": int(point is best),
        "collected": _known(point.collected),
        "decisions": point.learned.get("decisions", ""),
        "incomplete_logs": point.learned.get("incomplete", ""),
        "learning_rate": point.learned.get("learning_rate", ""),
        "divergence": point.learned.get("divergence", ""),
    }
    if rate is not None:
        row |= {"success_rate": _known(rate.mean), "low": _known(rate.low)}
        row["high"] = _known(rate.high)
    shared = [] if start is None else sorted(point.rates.keys() & start.rates.keys())
    if start is not None and point is not start and shared:
        above = mean_interval([point.rates[each] - start.rates[each] for each in shared])
        row |= {"above_start": _known(above.mean), "above_start_low": _known(above.low)}
        row["above_start_high"] = _known(above.high)
    return row


def _known(value: float | None) -> float | str:
    return "" if value is None or not math.isfinite(value) else round(value, 6)
