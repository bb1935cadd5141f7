"""What is missing is computed, once, and nothing finished is lost."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.errors import PermanentError
from testbed.experiment.reproduce.points import Learning, Network, Point, PointStore
from testbed.experiment.reproduce.runner import ComputationStatus, complete
from testbed.experiment.reproduce.work import work_of
from testbed.sim.play import evaluate

NETWORKS = [Network("quickstart", (), seed) for seed in (1, 2, 3)]
POINTS = [Point(network, method, 2) for network in NETWORKS for method in ("ratc", "bound")]


def after(parts: int) -> Callable[[ComputationStatus], None]:
    """Ctrl-C when so many parts are finished."""
    seen = 0

    def report(status: ComputationStatus) -> None:
        nonlocal seen
        seen += status.finished is not None
        if seen == parts:
            raise KeyboardInterrupt

    return report


def test_points_are_what_the_simulator_says(tmp_path: Path) -> None:
    store = PointStore(tmp_path)

    complete(POINTS, store)

    found = store.get(POINTS[0])
    assert found is not None
    assert list(found.rates) == evaluate(NETWORKS[0].plan(), ["ratc"], 2)["ratc"].tolist()
    limit = store.get(POINTS[1])
    assert limit is not None
    assert all(high >= rate for high, rate in zip(limit.rates, found.rates, strict=True))


def test_what_is_stored_is_not_computed_again(tmp_path: Path) -> None:
    store = PointStore(tmp_path)
    complete(POINTS[:2], store)
    before = store.path(POINTS[0]).stat().st_mtime_ns
    heard: list[ComputationStatus] = []

    complete(POINTS, store, report=heard.append)

    assert (heard[0].stored, heard[0].total) == (2, 4)
    assert heard[-1].done == 4
    assert store.path(POINTS[0]).stat().st_mtime_ns == before
    heard.clear()
    complete(POINTS, store, report=heard.append)
    assert (heard[-1].stored, heard[-1].total) == (6, 0)


def test_interrupted_work_goes_on_where_it_stopped(tmp_path: Path) -> None:
    store = PointStore(tmp_path)

    with pytest.raises(KeyboardInterrupt):
        complete(POINTS, store, report=after(2))

    assert [store.get(point) is not None for point in POINTS] == [True] * 4 + [False] * 2
    complete(POINTS, store)
    assert all(store.get(point) for point in POINTS)


def test_processes_find_the_same_and_end_with_an_interrupt(tmp_path: Path) -> None:
    alone, store = PointStore(tmp_path / "alone"), PointStore(tmp_path / "together")

    with pytest.raises(KeyboardInterrupt):
        complete(POINTS, store, jobs=2, report=after(2))

    assert not multiprocessing.active_children()
    found = {point: store.get(point) for point in POINTS}
    assert sum(each is not None for each in found.values()) >= 4
    complete(POINTS, alone)
    for point, each in found.items():
        if each is not None:
            assert (measured := alone.get(point)) is not None
            assert measured.rates == each.rates


def test_a_point_that_cannot_be_computed_does_not_stop_the_others(tmp_path: Path) -> None:
    store = PointStore(tmp_path)
    wrong = Point(NETWORKS[1], "no-such-scheduler", 2)

    with pytest.raises(PermanentError, match=r"(?s)1 of 2 parts.*no-such-scheduler"):
        complete([wrong, *POINTS[:2]], store)

    assert store.get(POINTS[0]) is not None
    assert store.get(wrong) is None


def test_one_training_serves_both_phases_and_all_figures() -> None:
    learning = Learning("paper", "ratc", 10, 20, 30)
    points = [
        Point(network, method, 2, learning)
        for network in (NETWORKS[0], Network("quickstart", ("nodes.count=5",), 1))
        for method in ("o2o", "offline", "o2o")
    ]

    # The scenario has five nodes anyway, so both networks are one.
    works = work_of([*points, *POINTS])

    assert [len(work.points) for work in works] == [2, 2, 2, 2]
    assert [point.method for point in works[-1].points] == ["o2o", "offline"]


def test_what_is_left_is_told_by_what_it_costs(tmp_path: Path) -> None:
    network = NETWORKS[0]
    learning = Learning("paper", None, 0, 0, 10, per_update=10, evaluate_every=1)
    points = [Point(network, "ratc", 2), Point(network, "online-only", 2, learning)]
    heard: list[ComputationStatus] = []

    complete(points, PointStore(tmp_path), report=heard.append)

    # Half of the points are there after the baseline, but by far the most is left.
    (half,) = [each for each in heard if each.finished is not None and each.done == 1]
    assert 0.0 < half.share < 0.1
    assert [heard[0].share, heard[-1].share] == [0.0, 1.0]
    # A longer training, more nodes and more points cost more.
    longer = replace(learning, online_episodes=20)
    larger = replace(network, overrides=("nodes.count=8",))
    costs = [
        work.cost
        for points in (
            [Point(network, "online-only", 2, learning)],
            [Point(network, "online-only", 2, longer)],
            [Point(larger, "online-only", 2, longer)],
        )
        for work in work_of(points)
    ]
    assert costs == sorted(set(costs))


def test_a_part_is_named_by_what_is_changed_in_its_scenario() -> None:
    network = Network("quickstart", ("timeScale=0.5", "nodes.count=4"), 7)
    (work,) = work_of([Point(network, "ratc", 2)])
    assert work.title == "quickstart timeScale=0.5, nodes.count=4, network 7: 1 baselines"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_everything_is_also_found_on_the_real_network(tmp_path: Path) -> None:
    # A machine that runs other tests beside is not faithful; that is not what is tested here.
    network = Network("quickstart", (), 1, driver="network", include_invalid=True)
    learning = Learning("default", "ratc", 2, 20, 10, per_update=10, evaluate_every=1)
    methods = ("ratc", "offline", "o2o", "bound")
    points = [Point(network, method, 2, learning) for method in methods]
    store = PointStore(tmp_path / "points")

    complete(points, store, jobs=1)

    found = {point.method: store.get(point) for point in points}
    assert all(each is not None and len(each.rates) == 2 for each in found.values())
    for method in ("ratc", "o2o"):
        each, limit = found[method], found["bound"]
        assert each is not None
        assert limit is not None
        assert all(0.3 < rate <= most for rate, most in zip(each.rates, limit.rates, strict=True))
    tuned = found["o2o"]
    assert tuned is not None
    assert [moment.episodes for moment in tuned.curve] == [0, 10]
    assert not list((tmp_path / "points" / "unfinished").iterdir())
