"""Options of charts: the values that are drawn, in the order and unit in which they are drawn."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from testbed.experiment.measured import Measured
from testbed.experiment.metrics import LATENCY, SUCCESS_RATE, Metric
from testbed.model.serving.record import RequestOutcome
from testbed.model.task import Outcome
from testbed.ui import outcomes
from testbed.ui.palette import DARK, LIGHT
from testbed.ui.past import charts


def measured(metric: Metric, *values: float) -> Measured:
    return Measured(metric, dict(enumerate(values)), (), metric.interval(list(values)))


def named(options: dict[str, Any], name: str) -> dict[str, Any]:
    """The first series of a name."""
    found: dict[str, Any] = next(each for each in options["series"] if each["name"] == name)
    return found


def test_a_rate_is_drawn_in_per_cent_with_mean_and_interval() -> None:
    options = charts.by_episode(measured(SUCCESS_RATE, 0.5, 0.75, 1.0), LIGHT)

    (series,) = options["series"]
    assert series["data"] == [["0", 50.0], ["1", 75.0], ["2", 100.0]]
    assert series["markLine"]["data"] == [{"yAxis": 75.0}]
    low, high = (each["yAxis"] for each in series["markArea"]["data"][0])
    assert 0 <= low < 75 < high <= 100
    assert series["markLine"]["label"]["formatter"] == SUCCESS_RATE.shown(
        measured(SUCCESS_RATE, 0.5, 0.75, 1.0).interval
    )


def test_one_episode_has_no_interval_and_none_has_no_mean() -> None:
    (one,) = charts.by_episode(measured(LATENCY, 12.5), LIGHT)["series"]
    assert one["data"] == [["0", 12.5]]
    assert "markLine" in one
    assert "markArea" not in one
    (none,) = charts.by_episode(measured(LATENCY), LIGHT)["series"]
    assert none["data"] == []
    assert "markLine" not in none


@pytest.mark.parametrize(("count", "parts"), [(59, 0), (60, 2)])
def test_many_episodes_can_be_zoomed(count: int, parts: int) -> None:
    options = charts.by_episode(measured(SUCCESS_RATE, *[0.5] * count), LIGHT)

    assert len(options["dataZoom"]) == parts


def test_outcomes_that_there_were_are_drawn_with_their_shares() -> None:
    options = charts.outcomes({"succeeded": 3, "dropped": 1, "lost": 0}, LIGHT)

    assert options["yAxis"]["data"] == ["succeeded", "dropped"]
    shown = [each["label"]["formatter"] for each in options["series"][0]["data"]]
    assert shown == ["3 (75.0 %)", "1 (25.0 %)"]


def test_nodes_have_stacks_of_their_outcomes() -> None:
    counts = {0: {"succeeded": 2, "dropped": 0}, 1: {"succeeded": 1, "dropped": 4}}

    options = charts.by_node(counts, LIGHT)

    assert options["xAxis"]["data"] == ["0", "1"]
    assert named(options, "succeeded")["data"] == [2, 1]
    assert named(options, "dropped")["data"] == [0, 4]
    # Not by colour alone.
    assert options["aria"]["decal"]["show"]


def test_flows_are_shares_of_the_row() -> None:
    options = charts.flows({(0, 0): 1, (0, 1): 3, (1, 1): 5}, 2, LIGHT)

    cells = [each["value"] for each in options["series"][0]["data"]]
    assert cells == [[0, 0, 25.0], [1, 0, 75.0], [1, 1, 100.0]]


@pytest.mark.parametrize(
    ("values", "width"),
    [([3.9], 0.1), ([40.0], 2.0), ([0.1, 399.0], 10.0), ([1e6], 5e4), ([0.004], 2e-4)],
)
def test_bins_have_round_widths_and_hold_all_values(values: list[float], width: float) -> None:
    bins = charts.histogram(values)

    assert bins[0].begin == 0
    assert bins[0].end == pytest.approx(width)
    assert len(bins) <= 41
    assert sum(each.number for each in bins) == len(values)
    for value in values:
        near = value * (1 + 1e-9)
        assert any(each.begin <= near and value <= each.end and each.number for each in bins)
    assert all(a.end == pytest.approx(b.begin) for a, b in pairwise(bins))


def test_bins_of_nothing() -> None:
    assert charts.histogram([]) == []
    assert charts.histogram([0.0, 0.0])[0].number == 2
    assert charts.latency([], LIGHT)["series"][0]["data"] == []


def test_percentiles_are_marked_in_their_bins() -> None:
    options = charts.latency([float(value) for value in range(1, 101)], LIGHT)

    marks = options["series"][0]["markLine"]["data"]
    names = options["xAxis"]["data"]
    assert [mark["label"]["formatter"] for mark in marks] == [
        "p50: 51 ms",
        "p95: 96 ms",
        "p99: 100 ms",
    ]
    assert [float(names[mark["xAxis"]]) for mark in marks] == [50.0, 95.0, 100.0]


def test_runs_are_drawn_in_the_order_given_with_their_intervals() -> None:
    runs = [("a", measured(SUCCESS_RATE, 0.9, 0.8)), ("b", measured(SUCCESS_RATE, 0.5, 0.5))]

    options = charts.runs_by_metric(runs, SUCCESS_RATE, LIGHT)

    assert options["yAxis"]["data"] == ["a", "b"]
    of_b = [each for each in options["series"] if each["name"] == "b"]
    assert all(point[1] == 1 for each in of_b for point in each["data"])
    assert of_b[-1]["data"] == [[50.0, 1]]


def test_runs_that_lack_an_episode_have_a_gap() -> None:
    runs = [("a", measured(LATENCY, 1.0, 2.0, 3.0)), ("b", measured(LATENCY, 4.0))]

    options = charts.episodes_of_runs(runs, LATENCY, LIGHT)

    assert named(options, "a")["data"] == [1.0, 2.0, 3.0]
    assert named(options, "b")["data"] == [4.0, None, None]
    assert named(options, "a")["symbol"] != named(options, "b")["symbol"]


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_all_outcomes_have_colours_of_their_own(palette: Any) -> None:
    for kind in (Outcome, RequestOutcome):
        found = [outcomes.colour(each.value, palette) for each in kind]
        assert len(set(found)) == len(found)


def test_options_are_plain_json() -> None:
    options = charts.by_episode(measured(SUCCESS_RATE, 0.5), DARK)

    assert json.loads(json.dumps(options, allow_nan=False)) == options
