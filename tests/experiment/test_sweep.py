"""Sweeps: what is played, what is compared, and what is not played again."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from testbed.errors import UsageError
from testbed.experiment.reproduce.points import Network, Point, PointStore
from testbed.experiment.reproduce.runner import ComputationStatus, complete
from testbed.experiment.statistics import compare
from testbed.experiment.sweep import Sweep, cells, workplace, write
from testbed.scenario.load import load
from testbed.scenario.resolve import plan
from testbed.sim.play import evaluate

SET = ("slots.count=12",)
SWEEP = Sweep("quickstart", SET, {"nodes.count": ("3", "5")}, ("ratc", "local", "drl"), 4)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PointStore:
    found = PointStore(tmp_path_factory.mktemp("points"))
    complete(SWEEP.points(), found)
    return found


def test_points_are_what_the_scenario_gives_as_it_is_written(store: PointStore) -> None:
    """With the time that control messages take, and the shipped policy for drl."""
    found = {(cell.place, cell.scheduler): cell for cell in cells(SWEEP, store)}
    assert len(found) == 2 * 3
    for (count,), scheduler in found:
        written = plan(load("quickstart", [*SET, f"nodes.count={count}"]))
        assert written.rules.control_delay > 0
        method = "per-destination" if scheduler == "drl" else scheduler
        rates = evaluate(written, [method, "ratc"], SWEEP.episodes)
        cell = found[(count,), scheduler]
        assert cell.rate.mean == pytest.approx(rates[method].mean())
        if scheduler == "ratc":
            assert cell.gain is None
            continue
        expected = compare(dict(enumerate(rates[method])), dict(enumerate(rates["ratc"])))
        assert cell.gain is not None
        assert cell.gain.differences == pytest.approx(expected.differences)


def test_only_what_is_missing_is_computed(store: PointStore) -> None:
    more = Sweep("quickstart", SET, {"nodes.count": ("3", "5", "4")}, ("ratc", "local"), 4)
    seen: list[ComputationStatus] = []

    complete(more.points(), store, report=seen.append)

    assert (seen[0].stored, seen[0].total) == (4, 2)
    assert len(cells(more, store)) == 6


def test_points_differ_by_the_time_that_control_messages_take() -> None:
    def key(delay: str, delayed: bool) -> str:
        network = Network("quickstart", (f"links.controlDelay={delay}",), None, delayed=delayed)
        return Point(network, "ratc", 1).key

    assert key("1ms", True) != key("2ms", True)
    assert key("1ms", True) != key("1ms", False)


def test_two_keys_give_every_combination() -> None:
    sweep = Sweep("x", (), {"a": ("1", "2"), "b": ("3", "4")}, ("ratc",), 1)
    assert sweep.places == [("1", "3"), ("1", "4"), ("2", "3"), ("2", "4")]


@pytest.mark.parametrize(
    ("over", "problem"),
    [({}, "nothing"), ({"nodes.count": ("0",)}, "nodes.count"), ({"nodes.x": ("1",)}, "nodes.x")],
)
def test_what_cannot_be_varied_is_refused(over: dict[str, tuple[str, ...]], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        Sweep("quickstart", SET, over, ("ratc",), 1).points()


def test_the_files(store: PointStore, tmp_path: Path) -> None:
    place = workplace(tmp_path / "sweep")
    place.claim()
    (tmp_path / "sweep" / "points").symlink_to(store.folder)

    found, document = write(SWEEP, place)

    with (tmp_path / "sweep" / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["scheduler"] for row in rows] == [cell.scheduler for cell in found]
    assert float(rows[1]["success rate"]) == pytest.approx(found[1].rate.mean)
    assert rows[0]["above ratc"] == ""
    assert json.loads((tmp_path / "sweep" / "sweep.json").read_text()) == document
    assert (tmp_path / "sweep" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "sweep" / "sweep.svg").stat().st_size > 1000
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(UsageError, match="not of a sweep"):
        workplace(tmp_path / "other").claim()
