"""Sweeps: what is played, what is compared, and what is not played again."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.errors import UsageError
from testbed.experiment.reproduce.points import Network, Point, PointStore
from testbed.experiment.reproduce.runner import ComputationStatus, complete
from testbed.experiment.statistics import compare, holm
from testbed.experiment.summary import summary_of
from testbed.experiment.sweep import Cell, Sweep, cells, drawn, table, usual, workplace, write
from testbed.scenario.load import draw, load
from testbed.scenario.plan import SchedulerSpec
from testbed.scenario.resolve import plan
from testbed.sim.play import evaluate
from testbed.sim.record import record_run
from testbed.storage.tasklog import open_task_log

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


def test_the_p_values_of_a_sweep_are_adjusted_together(store: PointStore) -> None:
    found = cells(SWEEP, store)
    rows = table(SWEEP, found).dropna(subset=["p"])
    assert len(rows) == 4
    assert rows["adjusted p"].tolist() == holm(rows["p"].tolist())
    assert (rows["above, simultaneous low"] <= rows["above, low"]).all()
    assert (rows["significant"] == (rows["adjusted p"] < 0.05)).all()
    # Of one comparison there is nothing to adjust.
    one = replace(SWEEP, over={"nodes.count": ("3",)}, schedulers=("ratc", "local"))
    (alone,) = (cell.gain for cell in cells(one, store) if cell.gain is not None)
    assert alone.p_adjusted == alone.p_value


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


SERVING_SET = ("horizon.length=40s", "routing.offset=5s", "overlay.loss=20%")
SPLIT = "slack,advertise=split"
SERVING = Sweep(
    "dfaas",
    SERVING_SET,
    {"routing.period": ("5s", "20s")},
    ("slack", "all-local", SPLIT),
    2,
    {SPLIT: SchedulerSpec("slack", {"advertise": "split"})},
)


@pytest.fixture(scope="module")
def serving_store(tmp_path_factory: pytest.TempPathFactory) -> PointStore:
    found = PointStore(tmp_path_factory.mktemp("points"))
    complete(SERVING.points(), found)
    return found


def score_of_a_run(
    folder: Path, scenario: str, settings: list[str], spec: SchedulerSpec, episodes: int
) -> dict[int, float]:
    """Return what the summary of a logged run gives."""
    with open_task_log(folder / "log.sqlite") as log:
        drawn = draw(load(scenario, settings))
        run = record_run(drawn, log, scheduler=spec, episodes=episodes)
        return dict(summary_of(log, run).score.by_episode)


def test_requests_are_scored_as_their_summary_is(serving_store: PointStore, tmp_path: Path) -> None:
    found = {(cell.place, cell.scheduler): cell for cell in cells(SERVING, serving_store)}
    settings = [*SERVING_SET, "routing.period=20s"]
    slack = score_of_a_run(tmp_path, "dfaas", settings, SchedulerSpec("slack"), 2)
    split = score_of_a_run(tmp_path, "dfaas", settings, SERVING.specs[SPLIT], 2)

    assert SERVING.objective.name == "refused-rate"
    assert found[("20s",), "slack"].rate.mean == pytest.approx(sum(slack.values()) / 2)
    gain = found[("20s",), SPLIT].gain
    assert gain is not None
    assert gain.differences == pytest.approx([split[n] - slack[n] for n in (0, 1)])
    assert found[("5s",), "slack"].rate.mean < found[("20s",), "slack"].rate.mean


def test_the_objective_names_the_column_and_its_direction(
    serving_store: PointStore, tmp_path: Path
) -> None:
    place = workplace(tmp_path / "sweep")
    place.claim()
    (place.out / "points").symlink_to(serving_store.folder)

    found, document = write(SERVING, place)

    assert list(table(SERVING, found).columns[:4]) == [
        *("routing.period", "scheduler", "episodes", "refused rate")
    ]
    assert document["objective"]["better"] == "lower"
    assert "refused rate, % (lower is better)" in figure_texts(found)


def figure_texts(found: list[Cell]) -> list[str]:
    return [axes.get_ylabel() for axes in drawn(SERVING, found).axes]


def test_tasks_are_scored_by_the_objective_that_the_scenario_names(tmp_path: Path) -> None:
    settings = (*SET, "objective=latency")
    sweep = Sweep("quickstart", settings, {"nodes.count": ("3",)}, ("ratc", "drl", "central"), 2)
    store = PointStore(tmp_path / "points")
    complete(sweep.points(), store)

    found = {cell.scheduler: cell for cell in cells(sweep, store)}
    written = [*settings, "nodes.count=3"]
    expected = score_of_a_run(tmp_path, "quickstart", written, SchedulerSpec("ratc"), 2)

    assert found["ratc"].rate.mean == pytest.approx(sum(expected.values()) / 2)
    assert found["ratc"].rate.mean > 1.0
    assert len({cell.rate.mean for cell in found.values()}) == 3


@pytest.mark.parametrize(
    ("sweep", "problem"),
    [
        (Sweep("dfaas", (), {"seeds": ("1",)}, ("ratc",), 1), "serves the hook 'place'"),
        (Sweep("quickstart", (), {"seeds": ("1",)}, ("slack",), 1), "serves the hook 'route'"),
        (Sweep("dfaas", (), {"seeds": ("1",)}, ("central",), 1), "unknown router 'central'"),
        (
            Sweep(
                *("dfaas", (), {"seeds": ("1",)}, ("slack",), 1),
                {"slack": SchedulerSpec("slack", {"adverts": 1})},
            ),
            "adverts: unknown option",
        ),
        (
            Sweep(
                *("quickstart", (), {"seeds": ("1",)}, ("drl",), 1),
                {"drl": SchedulerSpec("drl", {"deterministic": True})},
            ),
            "in a sweep, drl has no options",
        ),
        (
            Sweep("dfaas", (), {"objective": ("refused-rate", "served-rate")}, ("slack",), 1),
            "objective: refused-rate, served-rate; one for the whole sweep",
        ),
        (
            Sweep("dfaas", ("objective=success-rate",), {"seeds": ("1",)}, ("slack",), 1),
            "unknown metric 'success-rate'",
        ),
    ],
)
def test_what_does_not_fit_the_scenario_is_refused_before_anything_is_played(
    sweep: Sweep, problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        sweep.points()


def test_what_is_played_by_itself_fits_the_scenario() -> None:
    assert usual("quickstart", ()) == (("ratc", "drl"), 40)
    assert usual("dfaas", ["episodes=3"]) == (("slack", "all-local"), 3)
