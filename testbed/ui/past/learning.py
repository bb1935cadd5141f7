"""Charts of learning experiments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from testbed.experiment.learning import Curve, Experiment
from testbed.ui.options import Options, axis, base
from testbed.ui.palette import Palette
from testbed.ui.past.charts import SYMBOLS

EVALUATION: Final = "evaluation"
_EPISODES: Final = "episodes"
_95: Final = 1.96
"""Standard errors on each side of a mean that are a 95 % interval."""


def learning_curves(experiment: Experiment, palette: Palette) -> Options:
    """Draw the success rate over the episodes learned from, with 95 % intervals.

    A cross is a policy that was taken back; dashed lines are what learning starts from.
    """
    series: list[Options] = []
    tuned = {
        name: curve
        for name, curve in experiment.curves.items()
        if curve.points(EVALUATION, _EPISODES)
    }
    for place, (name, curve) in enumerate(tuned.items()):
        series += _with_band(name, curve, place, palette)
    return base(
        palette,
        legend=True,
        grid={"left": 34, "right": 24, "top": 40, "bottom": 30, "containLabel": True},
        xAxis=axis(palette, "value", "episodes learned from", min=0),
        yAxis=axis(palette, "value", "success rate, %", scale=True, nameGap=38),
        series=series + _references(experiment.references, len(tuned), palette),
    )


def column(curves: Mapping[str, Curve], policy: str, name: str, palette: Palette) -> Options:
    """Draw one number of a phase over its steps."""
    found = curves.get(policy, Curve()).points(name)
    return base(
        palette,
        grid={"left": 34, "right": 24, "top": 16, "bottom": 30, "containLabel": True},
        xAxis=axis(palette, "value", "step"),
        yAxis=axis(palette, "value", name.replace("_", " "), scale=True, nameGap=42),
        series=[
            {
                "name": name,
                "type": "line",
                "symbolSize": 5,
                "data": [list(point) for point in found],
                "itemStyle": {"color": palette.shade(list(curves).index(policy))}
                if policy in curves
                else {},
            }
        ],
    )


def _with_band(name: str, curve: Curve, place: int, palette: Palette) -> list[Options]:
    rows = [row for row in curve.rows if EVALUATION in row and _EPISODES in row]
    colour = palette.shade(place)
    middle = [[row[_EPISODES], round(100 * row[EVALUATION], 3)] for row in rows]
    arms = [100 * _95 * row.get("standard_error", 0.0) for row in rows]
    lower = [[x, round(y - arm, 3)] for (x, y), arm in zip(middle, arms, strict=True)]
    widths = [[x, round(2 * arm, 3)] for (x, _), arm in zip(middle, arms, strict=True)]
    band = {
        "type": "line",
        "stack": f"band of {name}",
        "stackStrategy": "all",
        "symbol": "none",
        "silent": True,
        "lineStyle": {"opacity": 0},
        "tooltip": {"show": False},
    }
    back = [xy for xy, row in zip(middle, rows, strict=True) if row.get("rolled_back")]
    return [
        # No names: the legend and the tooltip are for the curve alone.
        {**band, "data": lower},
        {**band, "data": widths, "areaStyle": {"color": colour, "opacity": 0.18}},
        {
            "name": name,
            "type": "line",
            "symbol": SYMBOLS[place % len(SYMBOLS)],
            "symbolSize": 7,
            "itemStyle": {"color": colour},
            "lineStyle": {"color": colour, "width": 2},
            "data": middle,
        },
        *(
            [
                {
                    "name": f"{name}, taken back",
                    "type": "scatter",
                    "symbol": "path://M0,0L10,10M10,0L0,10",
                    "symbolSize": 12,
                    "itemStyle": {"borderColor": palette.bad, "borderWidth": 2.5},
                    "data": back,
                }
            ]
            if back
            else []
        ),
    ]


def _references(rates: Mapping[str, float], first: int, palette: Palette) -> list[Options]:
    """Return a dashed line for each rate, with its name at its end."""
    return [
        {
            "name": name,
            "type": "line",
            "data": [],
            "itemStyle": {"color": palette.shade(first + place)},
            "lineStyle": {"type": "dashed", "color": palette.shade(first + place)},
            "markLine": {
                "silent": True,
                "symbol": "none",
                "lineStyle": {
                    "type": "dashed",
                    "width": 1.5,
                    "color": palette.shade(first + place),
                },
                "label": {
                    "formatter": f"{name} {100 * rate:.1f} %",
                    "position": "insideEndTop" if place % 2 else "insideStartTop",
                    "color": palette.text,
                    "textBorderColor": palette.card,
                    "textBorderWidth": 3,
                },
                "data": [{"yAxis": round(100 * rate, 3)}],
            },
        }
        for place, (name, rate) in enumerate(rates.items())
    ]
