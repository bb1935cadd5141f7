"""Options of charts and texts of tiles, made from snapshots without a browser."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from testbed.model.certificate import TermSoFar
from testbed.model.run_state import RunState
from testbed.rpc.operator import EpisodeCount, LinkNow, LiveState, RunStatus
from testbed.ui.live import charts, figures
from testbed.ui.live.network import network_of, positions
from testbed.ui.live.snapshot import Snapshot, sample_of, with_sample
from testbed.ui.options import mixed, readable_on, shade
from testbed.ui.palette import DARK, LIGHT, Palette
from tests.sim.serving_plans import federation
from tests.ui.states import BUSY, NODES, network, progress, state

ALL = (
    charts.network,
    charts.success,
    charts.outcomes,
    charts.queues,
    charts.latencies,
    charts.busiest,
    charts.processors,
)


def snapshot(*states: LiveState, **values: Any) -> Snapshot:
    """Return the snapshot after these states."""
    found = Snapshot(network=network(len(states[-1].nodes)))
    for each in states:
        samples = with_sample(found.samples, sample_of(each, found.state))
        found = replace(found, state=each, samples=samples)
    return replace(found, **values)


def nodes_of(found: Snapshot, palette: Palette = LIGHT) -> list[dict[str, Any]]:
    drawn = charts.network(found, palette)["series"][0]["data"]
    return [each for each in drawn if each["symbol"] != "none"]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_picture_of_a_network_is_as_wide_as_high(size: int) -> None:
    found = replace(snapshot(state(1.0, nodes=(BUSY,) * size)), network=network(size))

    drawn = charts.network(found, LIGHT)["series"][0]["data"]

    widths = {
        max(each[axis] for each in drawn) - min(each[axis] for each in drawn) for axis in "xy"
    }
    assert len(widths) == 1


@pytest.mark.parametrize(
    "chart", [charts.success, charts.outcomes, charts.latencies, charts.busiest]
)
def test_a_chart_without_anything_says_so_instead_of_empty_axes(chart: Any) -> None:
    drawn = chart(snapshot(state(1.0, idle=True, links=(), latencies=None)), LIGHT)

    assert drawn["title"]["text"]
    assert not drawn["xAxis"]["show"]


@pytest.mark.parametrize("chart", ALL, ids=lambda chart: chart.__name__)
@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(
    "found",
    [
        Snapshot(),
        Snapshot(problem="away"),
        snapshot(state(1.0)),
        snapshot(state(1.0), state(2.0), episodes=(EpisodeCount(0, 20, 10),)),
        snapshot(state(1.0, idle=True, links=(), latencies=None)),
    ],
    ids=["nothing", "away", "one", "two", "idle"],
)
def test_every_chart_can_be_drawn_of_everything(
    chart: Any, palette: Palette, found: Snapshot
) -> None:
    # What a browser gets: no NaN, no tuples as keys.
    json.dumps(chart(found, palette), allow_nan=False)


def test_nodes_are_told_apart_without_their_colours() -> None:
    dead = BUSY._replace(condition="dead", reason="<gone>")
    full = BUSY._replace(load=7, backlog=10_000_000)
    found = nodes_of(snapshot(state(nodes=(BUSY, full, dead))))

    assert [node["label"]["formatter"] for node in found] == ["0", "1 ▲", "2 ✕"]
    assert [node["itemStyle"]["borderWidth"] for node in found] == [1, 4, 1]
    assert found[2]["itemStyle"]["color"] == LIGHT.line
    assert found[1]["itemStyle"]["color"] == LIGHT.ramp[-1]
    assert "&lt;gone&gt;" in found[2]["tooltip"]["formatter"]


def test_a_node_that_is_out_of_the_run_is_grey_though_it_lives() -> None:
    found = nodes_of(snapshot(state(run=progress(dead_nodes=(0,)))))

    assert found[0]["label"]["formatter"] == "0 ✕"
    assert "out of the run" in found[0]["tooltip"]["formatter"]
    over = snapshot(state(run=progress(dead_nodes=(0,), state=RunState.DEGRADED)))
    assert nodes_of(over)[0]["label"]["formatter"] == "0"


def test_nothing_is_overloaded_when_the_run_is_over() -> None:
    full = BUSY._replace(load=7, backlog=10_000_000)
    found = nodes_of(snapshot(state(nodes=(full,) * NODES, run=progress(state=RunState.COMPLETED))))

    assert [node["label"]["formatter"] for node in found] == ["0", "1", "2"]
    assert {node["itemStyle"]["color"] for node in found} == {LIGHT.ramp[0]}


def test_nodes_are_sized_by_capacity() -> None:
    found = snapshot(state())
    assert found.network is not None
    found = replace(found, network=replace(found.network, capacities=(1e9, 4e9, 2e9)))

    sizes = [node["symbolSize"] for node in nodes_of(found)]
    assert sizes[0] < sizes[2] < sizes[1]


def test_a_hundred_nodes_do_not_overlap() -> None:
    size = 100
    found = snapshot(state(nodes=(BUSY,) * size))
    places = [(node["x"], node["y"], node["symbolSize"]) for node in nodes_of(found)]

    # Drawn in 500 pixels, of the 600 that the places are given in.
    gaps = [
        ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) ** 0.5 * 500 / 600
        for a, b in combinations(places, 2)
    ]
    assert min(gaps) >= max(place[2] for place in places)


def test_in_a_large_network_shapes_tell_nodes_apart() -> None:
    dead, full = BUSY._replace(condition="dead"), BUSY._replace(load=7)
    found = nodes_of(snapshot(state(nodes=(BUSY, dead, full) * 20)))

    assert [node["symbol"] for node in found[:3]] == ["circle", "rect", "triangle"]
    assert [node["label"]["formatter"] for node in found[:3]] == ["0", "1", "2"]


def test_what_flows_is_drawn_the_thicker_the_more() -> None:
    first = state(1.0, links=(LinkNow(0, 1, 0, 0), LinkNow(1, 2, 0, 0), LinkNow(2, 0, 3, 3)))
    later = state(2.0, links=(LinkNow(0, 1, 9, 9), LinkNow(1, 2, 3, 3), LinkNow(2, 0, 3, 3)))
    found = charts.network(snapshot(first, later), LIGHT)["series"][0]["links"]
    width = {(each["source"], each["target"]): each["lineStyle"]["width"] for each in found}

    assert width["0", "1"] > width["1", "2"] > width["2", "0"]


def test_links_of_large_networks_are_those_with_the_largest_flow() -> None:
    size = 40
    pairs = [(a, b) for a in range(size) for b in range(size) if a != b]
    later = tuple(LinkNow(a, b, a + b, 0) for a, b in pairs)
    idle = tuple(LinkNow(a, b, 0, 0) for a, b in pairs)
    nodes = (BUSY,) * size
    found = snapshot(state(1.0, links=idle, nodes=nodes), state(2.0, links=later, nodes=nodes))

    drawn = charts.network(found, LIGHT)["series"][0]["links"]
    assert len(drawn) == charts.MOST_LINKS
    assert {"38", "39"} == {drawn[0]["source"], drawn[0]["target"]}


def test_the_interval_comes_with_the_second_episode() -> None:
    episodes = (EpisodeCount(3, 20, 10), EpisodeCount(4, 20, 20), EpisodeCount(5, 0, 0))
    found = charts.success(snapshot(state(), episodes=episodes), LIGHT)
    low, width, points, mean = (each["data"] for each in found["series"])

    assert found["xAxis"]["data"] == ["3", "4"]
    assert points == [50.0, 100.0]
    assert mean == [50.0, 75.0]
    assert low[0] is None
    assert width[0] is None
    assert low[1] == 0.0
    assert width[1] == 100.0


def test_outcomes_are_those_between_two_looks() -> None:
    first = state(1.0, run=progress(slot=2, outcomes={"succeeded": 3, "dropped": 1, "lost": 0}))
    second = state(2.0, run=progress(slot=6, outcomes={"succeeded": 7, "dropped": 1, "lost": 0}))
    found = charts.outcomes(snapshot(first, second), LIGHT)

    assert found["xAxis"]["data"] == ["1:6"]
    assert [(each["name"], each["data"]) for each in found["series"]] == [("succeeded", [4])]


def test_many_looks_make_few_columns() -> None:
    found = snapshot(*(state(float(at)) for at in range(1, 400)))

    assert len(charts.outcomes(found, LIGHT)["xAxis"]["data"]) <= charts.BINS
    assert len(charts.queues(found, LIGHT)["xAxis"]["data"]) <= charts.HEAT_COLUMNS


def test_the_heat_map_has_no_cell_where_nothing_is_known() -> None:
    found = snapshot(state(nodes=(BUSY, BUSY._replace(load=None), BUSY._replace(load=4))))

    assert charts.queues(found, LIGHT)["series"][0]["data"] == [[0, 0, 1], [0, 2, 4]]


def test_the_use_of_a_link_is_a_share_of_its_rate() -> None:
    # 10 MB/s each: 5 MB in a second are a half.
    first = state(1.0, links=(LinkNow(0, 1, 0, 0),))
    later = state(2.0, links=(LinkNow(0, 1, 50, 5_000_000),))
    found = charts.busiest(snapshot(first, later), LIGHT)

    assert found["yAxis"]["data"] == ["0 → 1"]
    assert found["series"][0]["data"] == [50.0]


def test_requests_have_a_network_too() -> None:
    plan = federation()
    known = network_of(plan)
    found = Snapshot(network=known, state=state(nodes=(BUSY,) * known.size))

    assert known.work == "requests"
    assert not known.link_rates
    assert set(known.links) == {
        (node, peer) for node in range(plan.size) for peer in plan.network.neighbours[node]
    }
    for chart in ALL:
        json.dumps(chart(found, DARK), allow_nan=False)


def test_tiles_say_what_there_is() -> None:
    episodes = (EpisodeCount(0, 20, 10), EpisodeCount(1, 20, 12))
    found = figures.tiles(snapshot(state(1.0), state(2.0), episodes=episodes))
    by_name = {tile.name: tile for tile in found}

    assert by_name["success"].value == "55.0 (0.0 .. 100.0) %"
    assert by_name["run"].value == "episode 2"
    assert "slot 6 of 20" in by_name["run"].detail
    assert by_name["latency"].value == "100 ms"
    assert by_name["healthy nodes"].value == f"{NODES} of {NODES}"


def test_tiles_keep_their_places() -> None:
    first, *others = (
        len(figures.tiles(each)) for each in (Snapshot(), snapshot(state()), Snapshot(problem="x"))
    )

    assert others == [first, first]


@pytest.mark.parametrize(
    ("term", "tone"),
    [
        (TermSoFar("transmission", 0, 0), "muted"),
        (TermSoFar("transmission", 100, 5), "good"),
        (TermSoFar("transmission", 100, 6), "bad"),
        (TermSoFar("execution", 3, 1), "bad"),
        (TermSoFar("transmission_failures", 1000, 100, 100.0), "good"),
        (TermSoFar("transmission_failures", 1000, 300, 100.0), "bad"),
    ],
)
def test_the_fidelity_so_far_is_judged_as_at_the_end(term: TermSoFar, tone: str) -> None:
    (judged,) = figures.fidelity(snapshot(state(fidelity=(term,))))

    assert judged.tone == tone


def test_the_headline() -> None:
    labelled = state()
    labelled = LiveState(
        at=1.0,
        nodes=labelled.nodes,
        machine=labelled.machine,
        run=RunStatus(progress(), "my label"),
    )

    assert list(figures.headline(snapshot(labelled), "lab")) == [
        "lab",
        "scenario small",
        "run r1",
        "my label",
        "ratc",
    ]


def test_places_are_on_a_circle() -> None:
    for x, y in positions(7):
        assert x * x + y * y == pytest.approx(1.0)
    assert positions(1) == [(0.0, -1.0)]


def test_colours() -> None:
    assert mixed("#000000", "#ffffff", 0.5) == "#808080"
    assert shade(LIGHT, 0.0) == LIGHT.ramp[0]
    assert shade(LIGHT, 1.0) == LIGHT.ramp[-1]
    assert shade(LIGHT, 7.0) == LIGHT.ramp[-1]
    assert readable_on("#ffffff") == "#000000"
    assert readable_on("#101010") == "#ffffff"


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["text", "muted", "accent", "good", "warning", "bad"])
@pytest.mark.parametrize("ground", ["page", "card"])
def test_texts_can_be_read(palette: Palette, name: str, ground: str) -> None:
    """At least 4.5 to 1, as WCAG 2.2 asks for in success criterion 1.4.3."""
    assert contrast(getattr(palette, name), getattr(palette, ground)) >= 4.5


def contrast(first: str, second: str) -> float:
    def luminance(colour: str) -> float:
        channels = [value / 255 for value in bytes.fromhex(colour[1:])]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
