"""Charts of past runs: values and colours in, options of ECharts out. Nothing here reads anything.

No chart tells by colour alone: bars stand at the names of what they count or have a pattern,
curves have symbols of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from testbed.experiment.comparison import PairOfRuns
from testbed.experiment.measured import Measured
from testbed.experiment.metrics import Metric
from testbed.ui.options import Options, axis, base, readable_on, shade
from testbed.ui.outcomes import colour
from testbed.ui.palette import Palette

SYMBOLS: Final = ("circle", "rect", "triangle", "diamond", "pin", "arrow")
"""Marks of curves, in their order."""

_MANY: Final = 60
"""Points from which on they are drawn small; categories from which on only a part is shown."""
_BINS: Final = 40
_NAMED: Final = {"left": 34, "right": 24, "bottom": 30, "containLabel": True}
"""Room for the names of both axes, which charts do not leave by themselves."""
_ROW: Final = 28
"""Pixels of a bar that stands at its name, with the space around it."""


def height(rows: int) -> int:
    """Return the pixels of a chart whose bars stand at their names."""
    return 70 + _ROW * max(1, rows)


def scaled(metric: Metric, value: float) -> float:
    """Return a value as it is shown: shares in per cent."""
    return round(metric.scale * value, 4)


def by_episode(found: Measured, palette: Palette) -> Options:
    """Draw a metric over the episodes of a run, with its mean and the 95 % interval of the mean."""
    metric, interval = found.metric, found.interval
    values = [[str(number), scaled(metric, each)] for number, each in found.by_episode.items()]
    series: Options = {
        "name": metric.name,
        "type": "line",
        "data": values,
        "symbol": "circle",
        "symbolSize": 7 if len(values) < _MANY else 3,
        "lineStyle": {"width": 1},
    }
    if interval.count:
        mean = scaled(metric, interval.mean)
        series["markLine"] = {
            "silent": True,
            "symbol": "none",
            "lineStyle": {"color": palette.text, "type": "dashed"},
            "label": {
                "formatter": metric.shown(interval),
                "position": "insideEndTop",
                "color": palette.text,
                "textBorderColor": palette.card,
                "textBorderWidth": 3,
            },
            "data": [{"yAxis": mean}],
        }
    if interval.count > 1:
        low, high = scaled(metric, interval.low), scaled(metric, interval.high)
        series["markArea"] = {
            "silent": True,
            "itemStyle": {"color": palette.accent, "opacity": 0.18},
            "data": [[{"yAxis": low}, {"yAxis": high}]],
        }
    return base(
        palette,
        grid={**_NAMED, "top": 16, "bottom": _below(len(values))},
        xAxis=axis(palette, "category", "episode", data=[each[0] for each in values]),
        yAxis=_value_axis(metric, palette),
        dataZoom=_zoom(len(values)),
        series=[series],
    )


def outcomes(counts: Mapping[str, int], palette: Palette) -> Options:
    """Draw how many pieces of work ended in which way, a bar for each that there was."""
    found = {name: count for name, count in counts.items() if count}
    total = sum(found.values())
    bars = {
        name: {
            "value": count,
            "itemStyle": {"color": colour(name, palette)},
            "label": {"formatter": f"{count:,} ({100 * count / total:.1f} %)"},
        }
        for name, count in found.items()
    }
    return _bars(bars, axis(palette, "value", minInterval=1), palette, {"right": 110, "bottom": 12})


def by_node(counts: Mapping[int, Mapping[str, int]], palette: Palette) -> Options:
    """Draw the outcomes of what arrived at each node, stacked, with a pattern for each outcome."""
    names = list(dict.fromkeys(name for each in counts.values() for name in each))
    shown = [name for name in names if any(each.get(name) for each in counts.values())]
    return base(
        palette,
        legend=True,
        aria={"enabled": True, "decal": {"show": True}},
        grid={
            "left": 12,
            "right": 24,
            "top": 40,
            "bottom": _below(len(counts)),
            "containLabel": True,
        },
        xAxis=axis(palette, "category", "node", data=[str(node) for node in counts]),
        yAxis=axis(palette, "value", minInterval=1),
        dataZoom=_zoom(len(counts)),
        series=[
            {
                "name": _words(name),
                "type": "bar",
                "stack": "all",
                "barMaxWidth": 40,
                "itemStyle": {"color": colour(name, palette)},
                "data": [each.get(name, 0) for each in counts.values()],
            }
            for name in shown
        ],
    )


def flows(counts: Mapping[tuple[int, int], int], size: int, palette: Palette) -> Options:
    """Draw where the work of each node was done: a square for each pair, the share of the row."""
    totals: dict[int, int] = {}
    for (source, _), count in counts.items():
        totals[source] = totals.get(source, 0) + count
    cells = []
    for (source, target), count in sorted(counts.items()):
        share = count / totals[source]
        label = {"color": readable_on(shade(palette, share))}
        cells.append({"value": [target, source, round(100 * share, 1)], "label": label})
    nodes = [str(node) for node in range(size)]
    few = size <= 12
    return base(
        palette,
        xAxis=axis(palette, "category", "done at node", data=nodes),
        yAxis=axis(palette, "category", "arrived at node", data=nodes, inverse=True),
        tooltip={"show": False},
        visualMap={
            "min": 0,
            "max": 100,
            "calculable": True,
            "orient": "vertical",
            "right": 0,
            "top": "middle",
            "text": ["100 %", "0"],
            "textStyle": {"color": palette.muted},
            "inRange": {"color": list(palette.ramp)},
        },
        grid={**_NAMED, "top": 12, "right": 80},
        series=[
            {
                "type": "heatmap",
                "data": cells,
                "label": {"show": few, "fontSize": 11},
                "itemStyle": {"borderColor": palette.card, "borderWidth": 1},
            }
        ],
    )


class Bin(NamedTuple):
    """Values from ``begin`` up to ``end``, and how many there are."""

    begin: float
    end: float
    number: int


def histogram(values: Sequence[float], bins: int = _BINS) -> list[Bin]:
    """Return at most ``bins`` bins of one width, from 0 to a round number above all values.

    The width is 1, 2 or 5 times a power of ten. No values give no bins.
    """
    if not values:
        return []
    top = max(values)
    if top <= 0:
        return [Bin(0.0, 1.0, len(values))]
    width = 10.0 ** math.floor(math.log10(top / bins))
    width *= next(step for step in (1, 2, 5, 10, 20) if top / (width * step) < bins)
    counts = [0] * (int(top / width) + 1)
    for value in values:
        counts[max(0, int(value / width))] += 1
    return [Bin(width * i, width * (i + 1), count) for i, count in enumerate(counts)]


def latency(values: Sequence[float], palette: Palette) -> Options:
    """Draw how often which time was needed, in milliseconds, with three percentiles."""
    bins = histogram(values)
    ordered = sorted(values)
    marks = (
        [
            {
                "xAxis": min(len(bins) - 1, int(value / bins[0].end)),
                "label": {"formatter": f"p{percent}: {value:.0f} ms", "distance": [0, lift]},
            }
            for percent, value, lift in (
                (percent, ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))], lift)
                for percent, lift in ((50, 4), (95, 18), (99, 32))
            )
        ]
        if bins
        else []
    )
    return base(
        palette,
        grid={"left": 12, "right": 40, "top": 52, "bottom": 30, "containLabel": True},
        xAxis=axis(
            palette,
            "category",
            "ms",
            data=[f"{each.begin:g}" for each in bins],
            axisTick={"alignWithLabel": False},
        ),
        yAxis=axis(palette, "value", minInterval=1),
        series=[
            {
                "type": "bar",
                "barCategoryGap": "8%",
                "itemStyle": {"color": palette.shade(0)},
                "data": [each.number for each in bins],
                "markLine": {
                    "silent": True,
                    "symbol": "none",
                    "lineStyle": {"color": palette.text},
                    "label": {"color": palette.text, "position": "end"},
                    "data": marks,
                },
            }
        ],
    )


def stages(means: Mapping[str, float], palette: Palette) -> Options:
    """Draw the mean times of the stages of succeeded work, in milliseconds, a bar for each."""
    bars = {
        name: {
            "value": round(mean, 3),
            "itemStyle": {"color": palette.shade(0)},
            "label": {"formatter": f"{mean:.1f} ms"},
        }
        for name, mean in means.items()
    }
    return _bars(bars, axis(palette, "value", "ms"), palette, {"right": 80, "bottom": 30})


def runs_by_metric(
    runs: Sequence[tuple[str, Measured]], metric: Metric, palette: Palette
) -> Options:
    """Draw the mean of each run with its interval, and every episode as a dot beside it.

    ``runs`` are titles and what was measured, in the order in which they are drawn.
    """
    series: list[Options] = []
    for place, (title, found) in enumerate(runs):
        colour = palette.shade(place)
        interval = found.interval
        if not interval.count:
            continue
        mean = scaled(metric, interval.mean)
        series.append(
            {
                "name": title,
                "type": "scatter",
                "symbolSize": 6,
                "itemStyle": {"color": colour, "opacity": 0.4},
                "data": [[scaled(metric, each), place] for each in found.by_episode.values()],
            }
        )
        if interval.count > 1:
            ends = [scaled(metric, interval.low), scaled(metric, interval.high)]
            series.append(_whisker(title, ends, place, colour))
        series.append(
            {
                "name": title,
                "type": "scatter",
                "symbol": "diamond",
                "symbolSize": 15,
                "itemStyle": {"color": colour, "borderColor": palette.card, "borderWidth": 1},
                "label": {
                    "show": True,
                    "position": "top",
                    "formatter": metric.shown(interval),
                    "color": palette.text,
                    "textBorderColor": palette.card,
                    "textBorderWidth": 3,
                },
                "z": 5,
                "data": [[mean, place]],
            }
        )
    return base(
        palette,
        tooltip={"show": False},
        xAxis={**_value_axis(metric, palette), "nameGap": 26},
        yAxis=_names_axis([title for title, _ in runs], palette),
        grid={"left": 12, "right": 40, "top": 28, "bottom": 34, "containLabel": True},
        series=series,
    )


def differences(
    pairs: Sequence[PairOfRuns], titles: Mapping[str, str], palette: Palette
) -> Options:
    """Draw the paired difference of each pair of runs with its 95 % interval, and a line at 0.

    ``titles`` name the runs by their ids.
    A filled mark is a difference that is real, an empty one a difference that may be chance.
    """
    series: list[Options] = []
    names = []
    for place, pair in enumerate(pairs):
        found = pair.comparison.difference
        names.append(f"{titles[pair.first.run.id]} - {titles[pair.second.run.id]}")
        colour = palette.accent if pair.comparison.real else palette.muted
        if found.count > 1:
            ends = [scaled(pair.metric, found.low), scaled(pair.metric, found.high)]
            series.append(_whisker(names[-1], ends, place, colour))
        fill = colour if pair.comparison.real else palette.card
        series.append(
            {
                "name": names[-1],
                "type": "scatter",
                "symbol": "circle",
                "symbolSize": 13,
                "itemStyle": {"color": fill, "borderColor": colour, "borderWidth": 2},
                "label": {
                    "show": True,
                    "position": "top",
                    "formatter": _signed(pair.metric, found.mean),
                    "color": palette.text,
                    "textBorderColor": palette.card,
                    "textBorderWidth": 3,
                },
                "z": 5,
                "data": [[scaled(pair.metric, found.mean), place]],
            }
        )
    if series:
        series[0]["markLine"] = {
            "silent": True,
            "symbol": "none",
            "label": {"show": False},
            "lineStyle": {"color": palette.text, "type": "dashed", "width": 1.5},
            "data": [{"xAxis": 0}],
        }
    unit = _difference_unit(pairs[0].metric) if pairs else ""
    return base(
        palette,
        tooltip={"show": False},
        xAxis=axis(palette, "value", f"difference, {unit}".rstrip(", "), scale=False),
        yAxis=_names_axis(names, palette),
        grid={"left": 12, "right": 40, "top": 28, "bottom": 34, "containLabel": True},
        series=series,
    )


def episodes_of_runs(
    runs: Sequence[tuple[str, Measured]], metric: Metric, palette: Palette
) -> Options:
    """Draw the metric of several runs over their episodes, a curve with its own mark for each."""
    numbers = sorted({number for _, found in runs for number in found.by_episode})
    return base(
        palette,
        legend=len(runs) > 1,
        grid={**_NAMED, "top": 40, "bottom": _below(len(numbers))},
        xAxis=axis(palette, "category", "episode", data=[str(number) for number in numbers]),
        yAxis=_value_axis(metric, palette),
        dataZoom=_zoom(len(numbers)),
        series=[
            {
                "name": title,
                "type": "line",
                "symbol": SYMBOLS[place % len(SYMBOLS)],
                "symbolSize": 8 if len(numbers) < _MANY else 4,
                "itemStyle": {"color": palette.shade(place)},
                "lineStyle": {"width": 1.5, "color": palette.shade(place)},
                "data": [
                    None
                    if number not in found.by_episode
                    else scaled(metric, found.by_episode[number])
                    for number in numbers
                ],
            }
            for place, (title, found) in enumerate(runs)
        ],
    )


def _whisker(name: str, ends: Sequence[float], place: int, colour: str) -> Options:
    """Return an interval that lies along the first axis, at a name of the second."""
    return {
        "name": name,
        "type": "line",
        "symbol": "rect",
        "symbolSize": [2, 12],
        "silent": True,
        "itemStyle": {"color": colour},
        "lineStyle": {"width": 3, "color": colour},
        "data": [[end, place] for end in ends],
    }


def _bars(bars: Mapping[str, Options], values: Options, palette: Palette, room: Options) -> Options:
    """Draw lying bars, each at its name and with its label behind it.

    ``values`` is the axis of their lengths, ``room`` what is left free for labels and its name.
    """
    return base(
        palette,
        xAxis=values,
        yAxis=axis(
            palette,
            "category",
            data=[_words(name) for name in bars],
            inverse=True,
            axisLabel={"color": palette.text},
        ),
        tooltip={"show": False},
        grid={"left": 12, "top": 8, "containLabel": True, **room},
        series=[
            {
                "type": "bar",
                "barWidth": 16,
                "data": list(bars.values()),
                "label": {"show": True, "position": "right", "color": palette.text},
            }
        ],
    )


def _names_axis(names: Sequence[str], palette: Palette) -> Options:
    """Return an axis of long names, the first one at the top."""
    return axis(
        palette,
        "category",
        data=list(names),
        inverse=True,
        axisLabel={
            "color": palette.text,
            "width": 110,
            "overflow": "break",
            "lineHeight": 14,
            "interval": 0,
        },
    )


def _value_axis(metric: Metric, palette: Palette) -> Options:
    name = f"{metric.name.replace('-', ' ')}, {metric.unit}".rstrip(", ")
    return axis(palette, "value", name, scale=True, nameGap=38)


def _signed(metric: Metric, difference: float) -> str:
    return f"{'-' if difference < 0 else '+'}{metric.difference(difference)}"


def _difference_unit(metric: Metric) -> str:
    return "points" if metric.is_share else metric.unit


def _below(count: int) -> int:
    """Return the pixels below a chart of categories: its name, and what ``_zoom`` adds."""
    return 30 if count < _MANY else 56


def _zoom(count: int) -> list[Options]:
    """Return what shows a part of many categories; nothing of few."""
    if count < _MANY:
        return []
    return [
        {"type": "inside", "zoomOnMouseWheel": "ctrl"},
        {"type": "slider", "height": 18, "bottom": 4},
    ]


def _words(name: str) -> str:
    return name.replace("_", " ")
