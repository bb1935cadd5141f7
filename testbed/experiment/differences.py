"""Paired differences of methods with their intervals: the main figure of every comparison.

All comparisons of one figure were made at once: their p values are adjusted for their number.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Final, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from testbed.experiment import figures
from testbed.experiment.measured import none_if_nan
from testbed.experiment.metrics import Metric
from testbed.experiment.statistics import CONFIDENCE, POWER, Interval, PairedComparison

MOST: Final = 15
"""Pairs that are drawn; of more, those with the method that the first two have in common."""

_REAL: Final = "#0072B2"
_UNDECIDED: Final = "#7F7F7F"


class Difference(NamedTuple):
    """Two methods by name; ``comparison`` is of the first less the second."""

    first: str
    second: str
    comparison: PairedComparison

    @property
    def name(self) -> str:
        """Return it as one would write it: ``ratc − local``."""
        return f"{self.first} − {self.second}"


def shown(differences: Sequence[Difference]) -> list[Difference]:
    """Return the differences that are drawn and listed on a page."""
    if len(differences) <= MOST:
        return list(differences)
    first, second = ({each.first, each.second} for each in differences[:2])
    return [each for each in differences if first & second & {each.first, each.second}]


def drawn(differences: Sequence[Difference], metric: Metric) -> Figure:
    """Draw differences as dots with their intervals, around zero.

    Behind each is a band of what so many episodes could not show.
    """
    figure, axes = figures.new_figure(height=1.25 + 0.42 * len(differences))
    axes.grid(visible=False)
    # Bands may not end at the edge of the axes.
    axes.use_sticky_edges = False
    scale = metric.scale
    for y, each in enumerate(differences):
        found, wide = each.comparison.difference, each.comparison.simultaneous
        shade = _REAL if each.comparison.real else _UNDECIDED
        hidden = each.comparison.detectable
        if math.isfinite(hidden):
            axes.barh(y, 2 * scale * hidden, left=-scale * hidden, height=0.7, color="#EEEEEE")
        if math.isfinite(found.low):
            axes.plot(
                [scale * wide.low, scale * wide.high], [y, y], color=shade, linewidth=1, zorder=3
            )
            axes.plot(
                [scale * found.low, scale * found.high],
                [y, y],
                color=shade,
                linewidth=3.5,
                zorder=3,
            )
        axes.plot(
            scale * found.mean,
            y,
            "o",
            color=shade,
            markerfacecolor=shade if each.comparison.real else "#FEFEFE",
            markersize=8,
            zorder=4,
        )
    axes.axvline(0, color="#555555", linewidth=1, zorder=2)
    left = figures.name_rows(axes, [each.name for each in differences])
    label = textwrap.wrap(f"difference of {metric.title[:80]}, {unit(metric)}", 45)
    axes.set_xlabel("\n".join(label))
    figures.settle(figure, axes, left, lines=len(label))
    return figure


def unit(metric: Metric) -> str:
    """Return the unit of differences."""
    return "points" if metric.is_share else metric.unit or "as it is"


def data(differences: Sequence[Difference]) -> pd.DataFrame:
    """Return a row per difference, in the metric's own unit (shares from 0 to 1)."""
    return pd.DataFrame(
        [
            {
                "first": each.first,
                "second": each.second,
                "episodes": len(each.comparison.episodes),
                "difference": each.comparison.difference.mean,
                "low": each.comparison.difference.low,
                "high": each.comparison.difference.high,
                "simultaneous_low": each.comparison.simultaneous.low,
                "simultaneous_high": each.comparison.simultaneous.high,
                "p_value": each.comparison.p_value,
                "p_adjusted": each.comparison.p_adjusted,
                "detectable": each.comparison.detectable,
                "real": each.comparison.real,
            }
            for each in differences
        ]
    )


def table(differences: Sequence[Difference], metric: Metric) -> pd.DataFrame:
    """Return the same for a page, as texts: sizes in the unit of ``metric``, with verdicts."""
    digits = 1 if metric.is_share else metric.digits
    of = f", {unit(metric)}"
    adjusted = any(each.comparison.tests > 1 for each in differences)

    def size(value: float) -> str:
        return "" if math.isnan(value) else f"{metric.scale * value:.{digits}f}"

    def ends(interval: Interval) -> str:
        known = not math.isnan(interval.low)
        return f"{size(interval.low)} to {size(interval.high)}" if known else ""

    return pd.DataFrame(
        [
            {
                "difference": each.name,
                f"mean{of}": size(each.comparison.difference.mean),
                "95 % interval": ends(each.comparison.difference),
                "episodes": len(each.comparison.episodes),
                "p": _p(each.comparison.p_value),
                **({"adjusted p": _p(each.comparison.p_adjusted)} if adjusted else {}),
                f"could show{of}": size(each.comparison.detectable),
                "verdict": _VERDICTS[each.comparison.real],
            }
            for each in differences
        ]
    )


_VERDICTS: Final = {
    True: "significant",
    False: "not significant",
    None: "too few episodes for a test",
}


def _p(value: float) -> str:
    return "" if none_if_nan(value) is None else f"{value:.2g}"


def caption(differences: Sequence[Difference], work: str) -> str:
    """Return what the figure shows; ``work`` names what the compared methods have in common."""
    tests = max((each.comparison.tests for each in differences), default=1)
    thin = ""
    if tests > 1:
        level = 100 * (1 - (1 - CONFIDENCE) / tests)
        thin = (
            f"; thin line: {level:.1f} % interval, so wide that all {tests} together hold with 95 %"
        )
    return (
        f"Paired differences, episode by episode on the same {work}. Dot: mean, filled where it is "
        f"significant; thick line: 95 % interval{thin}. Grey band: differences that so many "
        f"episodes show with a probability of less than {100 * POWER:.0f} %."
    )


def correction(differences: Sequence[Difference]) -> str:
    """Return how p values are adjusted, and what ``could show`` means."""
    tests = max((each.comparison.tests for each in differences), default=1)
    adjusted = (
        f"The {tests} p values of the paired t tests are adjusted together by the method of Holm; "
        "a difference is called significant where the adjusted value is below 0.05, so that the "
        "probability of any wrong one among them is below 5 %."
        if tests > 1
        else "The p value is that of the paired t test; one comparison needs no correction."
    )
    return (
        f'{adjusted} "Could show" is the smallest true difference that a test over so many '
        f"episodes finds with a probability of {100 * POWER:.0f} % (t approximation"
        f"{', at 5 % divided by ' + str(tests) if tests > 1 else ''}): more episodes show less."
    )
