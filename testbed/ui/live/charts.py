"""Charts of the live page: a snapshot and colours in, options of ECharts out."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from testbed.experiment.statistics import rate_interval
from testbed.model.units import SECOND
from testbed.rpc.operator import NodeNow
from testbed.ui.live.network import MANY, Network, full_text, positions
from testbed.ui.live.snapshot import Flow, Sample, Snapshot, flows
from testbed.ui.options import Options, axis, base, readable_on, shade
from testbed.ui.outcomes import COLOURS, colour
from testbed.ui.palette import Palette

GONE: Final = frozenset({"dead", "unreachable"})
"""Conditions of nodes that take no part."""

BINS: Final = 60
"""Columns that outcomes are counted in."""

HEAT_COLUMNS: Final = 90
"""Columns of the heat map of queues."""

MOST_LINKS: Final = 150
"""Links that are drawn, those with the largest flow."""

BUSIEST: Final = 10
"""Links whose use is drawn as bars."""

_FAINT_LINKS: Final = 110
"""Networks with no more links than these show those without a flow too."""

_GRID: Final[Options] = {"left": 12, "right": 24, "top": 14, "bottom": 26, "containLabel": True}
_GRID_BELOW_LEGEND: Final[Options] = {**_GRID, "top": 36}

_CELL: Final = "cell => `${cell.name}, node ${cell.value[1]}: ${cell.value[2]}`"
"""Function of JavaScript that tells of a cell of the heat map."""

_RADIUS: Final = 300.0
"""Radius of the circle of nodes, in units of the picture."""

_CORNERS: Final[list[Options]] = [
    {"name": name, "x": at, "y": at, "symbol": "none", "tooltip": {"show": False}}
    for name, at in (("first corner", -_RADIUS), ("last corner", _RADIUS))
]
"""Nothing to see. The chart stretches what it has to its place, and two nodes would be a line."""

_SYMBOLS: Final = ("circle", "rect", "triangle")


# --- the network -----------------------------------------------------------------------------


def network(snapshot: Snapshot, palette: Palette) -> Options:
    """Draw nodes, sized by capacity and coloured by how full they are, and what flows."""
    known = snapshot.network
    nodes: list[Options] = []
    links: list[Options] = []
    if known is not None and snapshot.state is not None:
        flowing = flows(snapshot.samples)
        out = out_of_the_run(snapshot)
        for number, node in enumerate(snapshot.nodes):
            nodes.append(_node(known, number, node, palette, out=number in out))
        links = list(_links(known, flowing, palette))
    return base(
        palette,
        tooltip={
            "confine": True,
            "backgroundColor": palette.card,
            "borderColor": palette.line,
            "textStyle": {"color": palette.text, "fontSize": 13},
        },
        series=[
            {
                "type": "graph",
                "layout": "none",
                "left": 44,
                "right": 44,
                "top": 40,
                "bottom": 40,
                "data": [*nodes, *_CORNERS],
                "links": links,
                "edgeSymbol": ["none", "arrow"],
                "edgeSymbolSize": 7,
                "emphasis": {"disabled": True},
                "cursor": "pointer",
            }
        ],
    )


def out_of_the_run(snapshot: Snapshot) -> frozenset[int]:
    """Return the nodes that take no part in the run, for whatever cause."""
    state = snapshot.state
    run = None if state is None else state.run
    if run is None or run.progress.state != "running":
        return frozenset()
    return frozenset(run.progress.dead_nodes)


def status_of(known: Network, number: int, node: NodeNow, *, out: bool) -> str:
    """Return the state of a node in a word, for people."""
    if node.condition in GONE:
        return node.condition
    if out:
        return "out of the run"
    if node.condition != "healthy":
        return node.condition
    return "overloaded" if known.overloaded(number, node.load, node.backlog) else "healthy"


def _node(known: Network, number: int, node: NodeNow, palette: Palette, *, out: bool) -> Options:
    x, y = positions(known.size)[number]
    status = status_of(known, number, node, out=out)
    gone = node.condition in GONE or out
    fill = known.fill(number, node.load, node.backlog)
    colour = palette.line if gone else shade(palette, fill)
    ring = status == "overloaded"
    many = known.size > MANY
    label = (
        str(number) if many else f"{number} ✕" if gone else f"{number} ▲" if ring else str(number)
    )
    shape = "rect" if gone else "triangle" if ring else "circle"
    return {
        "name": str(number),
        "x": _RADIUS * x,
        "y": _RADIUS * y,
        "symbol": shape if many else "circle",
        "symbolSize": round(_diameter(known, number)),
        "itemStyle": {
            "color": colour,
            "borderColor": palette.bad if ring else palette.muted,
            "borderWidth": (2 if many else 4) if ring else 1,
            "borderType": "dashed" if gone else "solid",
        },
        "label": {
            "show": True,
            "formatter": label,
            "color": palette.muted if gone else readable_on(colour),
            "fontWeight": "bold" if ring else "normal",
            "fontSize": 9 if many else 13,
        },
        "tooltip": {"formatter": _node_tip(known, number, node, status)},
    }


def _diameter(known: Network, number: int) -> float:
    """Return the diameter of a node in pixels: its area goes with its capacity."""
    largest = max(known.capacities, default=0.0) or 1.0
    most = min(58.0, max(18.0, 700.0 / max(1, known.size)))
    return most * (0.5 + 0.5 * math.sqrt(known.capacities[number] / largest))


def _node_tip(known: Network, number: int, node: NodeNow, status: str) -> str:
    lines = [f"<b>node {number}</b>: {html.escape(status)}"]
    if node.reason and node.condition != "healthy":
        lines.append(html.escape(node.reason))
    lines += [
        f"{html.escape(name)}: {html.escape(told)}" for name, told in facts(known, number, node)
    ]
    return "<br>".join(lines)


def facts(known: Network, number: int, node: NodeNow) -> list[tuple[str, str]]:
    """Return what is known of a node, as names and texts."""
    found = [
        ("scheduler", node.scheduler or "-"),
        (known.load_name, "-" if node.load is None else str(node.load)),
    ]
    if node.backlog is not None:
        found.append(("backlog", milliseconds(node.backlog)))
    found += [
        ("node", known.descriptions[number]),
        ("memory", f"{node.resident_bytes / 1e6:.0f} MB"),
        ("processor time", f"{node.cpu / SECOND:.1f} s"),
        ("timers late", milliseconds(node.lag)),
    ]
    return found


def _links(known: Network, flowing: Sequence[Flow], palette: Palette) -> Iterator[Options]:
    drawn: set[tuple[int, int]] = set()
    most = max((flow.work_rate for flow in flowing), default=0.0)
    widest = 5 if known.size <= 8 else 3
    for flow in flowing[:MOST_LINKS]:
        drawn.add((flow.source, flow.destination))
        share = flow.work_rate / most if most else 0.0
        active = flow.work_rate > 0
        yield {
            "source": str(flow.source),
            "target": str(flow.destination),
            "value": flow.total.work,
            "lineStyle": {
                "color": palette.accent if active else palette.line,
                "width": round(1 + widest * share, 1),
                "opacity": 0.8 if active else 0.6,
                "curveness": 0.16,
            },
            "tooltip": {"formatter": _link_tip(known, flow)},
        }
    if len(known.links) > _FAINT_LINKS:
        return
    for source, destination in known.links:
        if (source, destination) not in drawn and (source < destination):
            yield {
                "source": str(source),
                "target": str(destination),
                "symbol": ["none", "none"],
                "lineStyle": {"color": palette.line, "width": 1, "opacity": 0.4},
                "tooltip": {"formatter": f"{source} - {destination}: nothing so far"},
            }


def _link_tip(known: Network, flow: Flow) -> str:
    link = (flow.source, flow.destination)
    lines = [
        f"<b>link {flow.source} → {flow.destination}</b>",
        html.escape(known.links.get(link, "")),
        f"now: {flow.work_rate:.1f} {known.work}/s{_bytes(flow.byte_rate)}",
        f"in the run: {flow.total.work} {known.work}",
    ]
    if (use := link_use(known, flow)) is not None:
        lines.append(f"in use: {100 * use:.0f} %")
    return "<br>".join(line for line in lines if line)


def _bytes(rate: float) -> str:
    return f", {rate / 1e6:.2f} MB/s" if rate else ""


def link_use(known: Network, flow: Flow) -> float | None:
    """Return the share of a link's rate that is in use now; None where bytes are not counted."""
    rate = known.link_rates.get((flow.source, flow.destination))
    return flow.byte_rate * known.time_scale / rate if rate else None


def network_legend(known: Network) -> str:
    """Return what the colours and sizes of the network say, in words."""
    gone = "Squares" if known.size > MANY else "✕"
    over = "Triangles" if known.size > MANY else "▲ and a thick ring"
    return (
        f"Size: capacity. Colour: {full_text(known)}. {over}: overloaded. {gone}: dead, or out of "
        "the run. Arrows: what goes over a link now; the grey ones carried something before."
    )


# --- the run ---------------------------------------------------------------------------------


def success(snapshot: Snapshot, palette: Palette) -> Options:
    """Draw the share of good outcomes by episode, their running mean, and its interval."""
    episodes = [each for each in snapshot.episodes if each.ended]
    rates = [each.good / each.ended for each in episodes]
    names = [str(each.episode) for each in episodes]
    means: list[float | None] = []
    lows: list[float | None] = []
    spans: list[float | None] = []
    for count in range(1, len(rates) + 1):
        found = rate_interval(rates[:count]) if count > len(rates) - 100 else None
        means.append(None if found is None else _percent(found.mean))
        known = found is not None and not math.isnan(found.low)
        lows.append(_percent(found.low) if known and found else None)
        spans.append(_percent(found.high - found.low) if known and found else None)
    band: Options = {
        "type": "line",
        "stack": "interval",
        "symbol": "none",
        "lineStyle": {"opacity": 0},
        "tooltip": {"show": False},
        "silent": True,
    }
    return base(
        palette,
        empty="" if rates else "no episode is over yet",
        xAxis=axis(palette, "category", "episode", data=names),
        yAxis=axis(
            palette, "value", min=_least(rates, lows), max=100, axisLabel=_per_cent_label(palette)
        ),
        grid=_GRID,
        series=[
            {**band, "name": "low", "data": lows},
            {
                **band,
                "name": "interval",
                "data": spans,
                "areaStyle": {"color": palette.shade(0), "opacity": 0.25},
            },
            {
                "type": "scatter",
                "name": "episode",
                "data": [_percent(rate) for rate in rates],
                "symbolSize": 7,
                "itemStyle": {"color": palette.muted},
            },
            {
                "type": "line",
                "name": "mean so far",
                "data": means,
                "symbol": "none",
                "lineStyle": {"color": palette.shade(0), "width": 2},
                "itemStyle": {"color": palette.shade(0)},
            },
        ],
    )


def _least(rates: Sequence[float], lows: Sequence[float | None]) -> int:
    """Return where an axis of per cent begins, so that differences can be seen."""
    least = min(
        (*(100 * rate for rate in rates), *(low for low in lows if low is not None)), default=0
    )
    return max(0, 10 * math.floor(least / 10) - 10)


def outcomes(snapshot: Snapshot, palette: Palette) -> Options:
    """Draw how work ended over the slots that have been seen, stacked."""
    bins = _binned(snapshot.played)
    seen: dict[str, None] = {}
    for _, counts in bins:
        seen.update(dict.fromkeys(name for name, count in counts.items() if count))
    names = [name for name in COLOURS if name in seen]
    names += [name for name in seen if name not in COLOURS]
    return base(
        palette,
        legend=True,
        empty="" if names else "nothing has ended since this page was opened",
        grid=_GRID_BELOW_LEGEND,
        xAxis=axis(palette, "category", _slot_axis(snapshot), data=[place for place, _ in bins]),
        yAxis=axis(palette, "value", minInterval=1),
        series=[
            {
                "type": "bar",
                "id": name,
                "name": name.replace("_", " "),
                "stack": "outcomes",
                "barCategoryGap": "8%",
                "data": [counts.get(name, 0) for _, counts in bins],
                "itemStyle": {
                    "color": colour(name, palette),
                    "decal": decal(name),
                },
            }
            for name in names
        ],
    )


_DECALS: Final[Mapping[str, Options]] = {
    "dropped": {"symbol": "rect", "dashArrayX": [1, 0], "dashArrayY": [2, 5], "rotation": 0.785},
    "refused": {"symbol": "rect", "dashArrayX": [1, 0], "dashArrayY": [2, 5], "rotation": -0.785},
    "transmission_failed": {"symbol": "circle", "dashArrayX": [[4, 4]], "dashArrayY": [4, 4]},
    "execution_failed": {"symbol": "rect", "dashArrayX": [1, 0], "dashArrayY": [2, 5]},
    "no_peer": {"symbol": "rect", "dashArrayX": [1, 0], "dashArrayY": [2, 5], "rotation": 0.785},
    "over_limit": {"symbol": "circle", "dashArrayX": [[4, 4]], "dashArrayY": [4, 4]},
    "unreachable": {"symbol": "rect", "dashArrayX": [1, 0], "dashArrayY": [2, 5]},
}


def decal(outcome: str) -> Options:
    """Return the pattern of an outcome, so that outcomes differ without their colours too."""
    return {"color": "rgba(0, 0, 0, 0.35)", **_DECALS.get(outcome, {"symbol": "none"})}


def _binned(samples: Sequence[Sample]) -> list[tuple[str, dict[str, int]]]:
    """Return what ended between samples, in at most ``BINS`` columns, each with its place."""
    step = max(1, math.ceil((len(samples) - 1) / BINS))
    found = []
    for start in range(0, len(samples) - 1, step):
        first, last = samples[start], samples[min(start + step, len(samples) - 1)]
        counts = {
            name: count - first.outcomes.get(name, 0) for name, count in last.outcomes.items()
        }
        found.append((_place(last), counts))
    return found


def _place(sample: Sample) -> str:
    return f"{sample.episode}:{sample.slot}"


def _slot_axis(snapshot: Snapshot) -> str:
    name = "slot" if snapshot.network is None else snapshot.network.slot_name
    return f"episode:{name}"


def queues(snapshot: Snapshot, palette: Palette) -> Options:
    """Draw the load of every node over time, as a heat map."""
    known = snapshot.network
    columns = _thinned(snapshot.played, HEAT_COLUMNS)
    size = 0 if known is None else known.size
    cells = [
        [column, node, load]
        for column, sample in enumerate(columns)
        for node, load in enumerate(sample.loads)
        if load is not None
    ]
    most = max((cell[2] for cell in cells), default=0)
    limit = max(known.limits) if known is not None and known.limit_unit == "load" else 0
    top = max(4, most, math.ceil(limit))
    return base(
        palette,
        grid={**_GRID, "right": 64, "left": 30},
        tooltip={
            "confine": True,
            "backgroundColor": palette.card,
            "borderColor": palette.line,
            "textStyle": {"color": palette.text},
            ":formatter": _CELL,
        },
        xAxis=axis(
            palette, "category", _slot_axis(snapshot), data=[_place(each) for each in columns]
        ),
        yAxis=axis(
            palette,
            "category",
            "node",
            data=[str(node) for node in range(size)],
            axisLabel={"color": palette.muted, "interval": size // 12},
            inverse=True,
            nameGap=26,
        ),
        visualMap={
            "min": 0,
            "max": top,
            "calculable": False,
            "orient": "vertical",
            "right": 0,
            "top": "center",
            "itemWidth": 12,
            "itemHeight": 110,
            "text": [str(top), "0"],
            "textStyle": {"color": palette.text},
            "inRange": {"color": list(palette.ramp)},
        },
        series=[{"type": "heatmap", "data": cells, "progressive": 4000}],
    )


def latencies(snapshot: Snapshot, palette: Palette) -> Options:
    """Draw the percentiles of the times of good outcomes, over the run so far."""
    columns = _thinned([each for each in snapshot.played if each.latencies], HEAT_COLUMNS * 2)
    return base(
        palette,
        legend=bool(columns),
        empty="" if columns else "nothing has ended well yet",
        grid={**_GRID_BELOW_LEGEND, "left": 24},
        xAxis=axis(
            palette, "category", _slot_axis(snapshot), data=[_place(each) for each in columns]
        ),
        yAxis=axis(palette, "value", "ms", nameGap=44),
        series=[
            {
                "type": "line",
                "name": name,
                "data": [each.latencies[index] / 1000 for each in columns if each.latencies],
                "symbol": _SYMBOLS[index],
                "showSymbol": len(columns) < 30,
                "symbolSize": 6,
                "lineStyle": {"width": 2, "type": ("solid", "dashed", "dotted")[index]},
                "color": palette.shade((2, 1, 5)[index]),
            }
            for index, name in enumerate(("p50", "p95", "p99"))
        ],
    )


def busiest(snapshot: Snapshot, palette: Palette) -> Options:
    """Draw the links over which most goes now, as bars: their use, or else work per second."""
    known = snapshot.network
    found = [] if known is None else [f for f in flows(snapshot.samples) if f.work_rate > 0]
    in_use = known is not None and bool(known.link_rates)
    values = {
        f"{flow.source} → {flow.destination}": (
            100 * (link_use(known, flow) or 0.0) if in_use and known else flow.work_rate
        )
        for flow in found
    }
    shown = sorted(values.items(), key=lambda each: -each[1])[:BUSIEST]
    name = "% of the link's rate" if in_use else f"{'work' if known is None else known.work}/s"
    return base(
        palette,
        empty="" if shown else "nothing goes over a link now",
        xAxis=axis(palette, "value", name, min=0),
        yAxis=axis(palette, "category", data=[name for name, _ in shown], inverse=True),
        grid={**_GRID, "right": 48},
        series=[
            {
                "type": "bar",
                "name": name,
                "data": [round(value, 1) for _, value in shown],
                "itemStyle": {"color": palette.shade(0)},
                "label": {"show": True, "position": "right", "color": palette.text},
                "barMaxWidth": 16,
            }
        ],
    )


def processors(snapshot: Snapshot, palette: Palette) -> Options:
    """Draw how busy the controller's machine is, and how late timers of nodes are."""
    columns = _thinned(snapshot.samples, HEAT_COLUMNS * 2)
    shares = {
        "working": [each.processors for each in columns],
        "something waits": [each.pressure for each in columns],
    }
    series: list[dict[str, Any]] = [
        {
            "type": "line",
            "name": name,
            "data": [None if share is None else _percent(share) for share in values],
            "symbol": "none",
            "lineStyle": {"width": 2, "type": ("solid", "dashed")[index]},
            "color": palette.shade((0, 1)[index]),
        }
        for index, (name, values) in enumerate(shares.items())
    ]
    return base(
        palette,
        legend=True,
        grid=_GRID_BELOW_LEGEND,
        xAxis=axis(palette, "category", "seconds ago", data=_seconds_ago(columns)),
        yAxis=axis(palette, "value", min=0, max=100, axisLabel=_per_cent_label(palette)),
        series=series,
    )


def _seconds_ago(samples: Sequence[Sample]) -> list[str]:
    last = samples[-1].at if samples else 0.0
    return [f"{last - each.at:.0f}" for each in samples]


def _thinned(samples: Sequence[Sample], most: int) -> list[Sample]:
    """Return at most ``most`` of the samples, evenly, the last one among them."""
    step = max(1, math.ceil(len(samples) / most))
    return list(samples[(len(samples) - 1) % step :: step]) if samples else []


def _per_cent_label(palette: Palette) -> Options:
    return {"color": palette.muted, "hideOverlap": True, "formatter": "{value} %"}


def _percent(share: float) -> float:
    return round(100 * share, 2)


def milliseconds(time: float) -> str:
    """Return microseconds as ``6.1 ms`` or ``340 ms``."""
    value = time / 1000
    return f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"
