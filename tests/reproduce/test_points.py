"""Points are found again by whoever needs them, and never taken for others."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.errors import UsageError
from testbed.experiment.reproduce.definitions import FIGURES, figures
from testbed.experiment.reproduce.methods import LEARNED
from testbed.experiment.reproduce.points import (
    Learning,
    LearningMoment,
    Network,
    Point,
    PointResult,
    PointStore,
)
from testbed.experiment.reproduce.study import Study, all_points

NETWORK = Network("quickstart", (), 3)
RATC = Point(NETWORK, "ratc", 2)


def test_a_point_is_read_as_it_was_stored(tmp_path: Path) -> None:
    store = PointStore(tmp_path / "points")
    measured = PointResult(
        (0.5, 1.0),
        (LearningMoment(0, None, 0.25), LearningMoment(20, 0.5, None)),
        {"ratc": 0.5},
        1.5,
        ("a",),
    )

    store.put(RATC, measured)

    assert store.get(RATC) == measured


def test_an_episode_without_a_task_has_no_rate(tmp_path: Path) -> None:
    store = PointStore(tmp_path)
    store.put(RATC, PointResult((math.nan, 1.0)))

    found = store.get(RATC)

    assert found is not None
    assert math.isnan(found.rates[0])


_STORED = {
    "d7883829e9198acdaa67cd76": RATC,
    "64fc5b29934773f5de748dc3": Point(
        Network("paper-simulation", ("nodes.count=5",), 500), "bound", 40
    ),
    "1525b5f016732871783b6933": Point(
        Network("quickstart", (), None, delayed=True), "per-destination", 40
    ),
    "cad2251d8d563d4f18d235f7": Point(
        Network("paper-testbed", ("timeScale=2.0",), 500, "network", include_invalid=True), "rda", 3
    ),
    "b9344a8fe678b7ae4d58cc71": Point(
        Network("paper-simulation", (), 500), "o2o", 40, Learning("paper", "ratc", 10, 20, 30)
    ),
}
"""Points by the keys that they had before they could have another objective than the success rate,
for a toolkit of version 1.0."""


@pytest.mark.parametrize("key", _STORED)
def test_points_of_earlier_releases_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr("testbed.experiment.reproduce.points.__version__", "1.0")
    point = _STORED[key]
    # As the store wrote it then.
    written = {
        "format": 1,
        "rates": [0.5, None, *[1.0] * (point.episodes - 2)],
        "curve": [],
        "references": {"ratc": 0.5},
        "seconds": 1.5,
        "notes": [],
    }
    (tmp_path / f"{key}.json").write_text(json.dumps(written))

    found = PointStore(tmp_path).get(point)

    assert found is not None
    assert (found.rates[0], found.references) == (0.5, {"ratc": 0.5})
    assert math.isnan(found.rates[1])


def test_points_differ_by_their_objective_and_options() -> None:
    def point(objective: str, options: tuple[tuple[str, str], ...] = ()) -> Point:
        network = Network("dfaas", (f"objective={objective}",), None, delayed=True)
        return Point(network, "slack", 1, options=options)

    points = [
        point("refused-rate"),
        point("served-rate"),
        point("refused-rate", (("advertise", "split"),)),
    ]
    assert len({each.key for each in points}) == 3
    assert points[0].title == "Slack"
    assert points[2].title == "Slack (advertise=split)"
    with pytest.raises(UsageError, match="needed: a scenario with model: tasks"):
        points[0].network.plan()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 0, "rates": [1, 1]}'])
def test_a_damaged_file_is_computed_again(tmp_path: Path, text: str) -> None:
    store = PointStore(tmp_path)
    store.put(RATC, PointResult((0.5, 1.0)))
    store.path(RATC).write_text(text)

    assert store.get(RATC) is None


def test_everything_that_decides_the_value_is_in_the_key() -> None:
    learning = Learning("paper", "ratc", 10, 20, 30)
    learned = Point(NETWORK, "o2o", 2, learning)
    points = [
        RATC,
        replace(RATC, method="rda"),
        replace(RATC, episodes=3),
        replace(RATC, network=replace(NETWORK, seed=4)),
        replace(RATC, network=replace(NETWORK, driver="network")),
        replace(RATC, network=replace(NETWORK, overrides=("nodes.count=4",))),
        learned,
        replace(learned, learning=replace(learning, recipe="default")),
        replace(learned, learning=replace(learning, source="rda")),
        replace(learned, learning=replace(learning, log_episodes=11)),
        replace(learned, learning=replace(learning, offline_steps=21)),
        replace(learned, learning=replace(learning, online_episodes=31)),
        replace(learned, learning=replace(learning, seed=1)),
    ]

    assert len({point.key for point in points}) == len(points)


def test_figures_share_the_points_of_the_paper_s_default_setting() -> None:
    study = Study(networks=1)
    shared = {"fig3": "default", "fig5a": "8000", "fig5b": "1.0", "fig5c": "0.1", "fig6": "20"}
    keys = [
        {
            point.key
            for setting, point in study.points(FIGURES[name])
            if setting.x == x and point.method in {"ratc", *LEARNED}
        }
        for name, x in shared.items()
    ]

    assert all(each == keys[0] for each in keys)
    assert len(keys[0]) == 1 + len(LEARNED)


def test_online_only_does_not_depend_on_whose_logs_others_learn_from() -> None:
    study = Study(networks=1)
    keys = [p.key for _, p in study.points(FIGURES["fig4"]) if p.method == "online-only"]

    assert len(keys) == 3
    assert len(set(keys)) == 1


@pytest.mark.parametrize("figure", FIGURES.values(), ids=list(FIGURES))
def test_every_setting_makes_a_network_of_its_own(figure: object) -> None:
    chosen = figures((figure.name,))[0]  # type: ignore[attr-defined]
    plans = [Network(chosen.scenario, setting.overrides, 500).plan() for setting in chosen.settings]

    assert all(plan.rules.control_delay == 0 for plan in plans)
    if chosen.kind == "sweep":
        assert len({plan.scenario_hash for plan in plans}) == len(plans)
        assert chosen.light[0] == chosen.settings[0].x
        assert chosen.light[-1] == chosen.settings[-1].x
    assert set(chosen.light) <= {setting.x for setting in chosen.settings}


def test_figures_are_named_once_in_the_order_of_the_paper() -> None:
    assert [each.name for each in figures(("fig6", "fig3", "fig6"))] == ["fig3", "fig6"]
    assert figures(("all",)) == tuple(FIGURES.values())


def test_all_wrong_names_are_refused_at_once() -> None:
    with pytest.raises(UsageError, match=r"(?s)'fig7'.*'fig9'.*") as refused:
        figures(("fig7", "fig3", "fig9"))

    assert len(refused.value.problems) == 2


def test_impossible_settings_are_refused_at_once() -> None:
    with pytest.raises(UsageError) as refused:
        Study(networks=0, episodes=1, online_episodes=9, methods=("ratc", "magic"))

    assert [each.path for each in refused.value.problems] == [
        "--topologies",
        "--episodes",
        "--online-episodes",
        "--method",
    ]


def test_a_quick_study_needs_a_fraction_of_the_points() -> None:
    every = tuple(FIGURES.values())

    assert len(all_points(Study(networks=2, quick=True), every)) < 0.7 * len(
        all_points(Study(networks=2), every)
    )
