"""Plans against a calibration, and the file that keeps one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.experiment.calibration.drawing import draw
from testbed.experiment.calibration.estimate import (
    Load,
    capacity,
    forecast,
    nodes_carried,
    rounded_up,
)
from testbed.experiment.calibration.values import (
    FILE,
    Calibration,
    Knee,
    MachineFacts,
    Trial,
    load,
    store,
)
from testbed.scenario.load import load as load_scenario
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan as resolve

MACHINE = MachineFacts("here", 2, 16_000_000_000)


def knee(question: str, level: int, tasks_per_s: float) -> Knee:
    trials = (
        Trial(
            level,
            True,
            (),
            {"transmission": 0.8, "arrivals": 0.4},
            tasks_per_s=tasks_per_s,
            tasks_per_slot=tasks_per_s / 10,
            task_mb=1.5,
        ),
        Trial(2 * level, False, ("late",), {"transmission": 3.0, "arrivals": 0.9}),
    )
    return Knee(question, level, 2 * level, "late", trials)


CALIBRATION = Calibration(
    MACHINE,
    "2026-11-29T09:00:00Z",
    False,
    {
        "nodes-metadata": knee("nodes-metadata", 40, 200.0),
        "nodes-bytes": knee("nodes-bytes", 20, 100.0),
        "time-scale": knee("time-scale", 4, 80.0),
    },
)


def plan(nodes: int, *settings: str) -> Plan:
    """A network whose nodes get five tasks a second each."""
    own = (f"nodes.count={nodes}", "nodes.arrivalProbability=0.5", *settings)
    return resolve(load_scenario("paper-testbed", own))


def used(drawn: Plan, calibration: Calibration | None = CALIBRATION) -> float:
    return forecast(drawn, calibration, MACHINE, shared=False).used


def test_a_network_at_the_knee_uses_all_of_the_machine() -> None:
    assert used(plan(20)) == pytest.approx(1.0)
    assert used(plan(40, "payload=metadata")) == pytest.approx(1.0)


def test_half_the_tasks_or_half_the_speed_need_half_of_it() -> None:
    assert used(plan(10)) == pytest.approx(0.5)
    assert used(plan(20, "timeScale=2")) == pytest.approx(0.5)
    assert used(plan(20, "nodes.arrivalProbability=0.25")) == pytest.approx(0.5)


def test_smaller_tasks_cost_less_but_no_less_than_without_bytes() -> None:
    small, none = plan(20, "tasks.size=1B"), plan(20, "payload=metadata")

    assert used(small) == pytest.approx(used(none), rel=1e-3)
    assert used(plan(20, "tasks.size=3MB")) > used(plan(20))


def test_a_burst_counts_even_if_slots_are_long() -> None:
    assert used(plan(20, "slots.length=1s")) == pytest.approx(1.0)


def test_the_time_scale_that_is_proposed_carries_the_plan() -> None:
    for nodes in (3, 20, 50, 200):
        drawn = plan(nodes)
        scale = forecast(drawn, CALIBRATION, MACHINE, shared=False).time_scale

        assert used(replace(drawn, time_scale=scale)) <= 1.0 + 1e-9


def test_no_time_scale_below_the_smallest_that_was_measured() -> None:
    assert forecast(plan(1), CALIBRATION, MACHINE, shared=False).time_scale == 0.25
    assert forecast(plan(1), None, MACHINE, shared=False).time_scale == 1.0


def test_a_warning_says_what_is_expected_and_what_would_be_carried() -> None:
    expected = forecast(plan(40), CALIBRATION, MACHINE, shared=False)

    assert expected.doubtful
    said = expected.warning()
    assert "about 200 tasks/s" in said
    assert "carry 100" in said
    assert "--time-scale 2" in said
    assert "--set payload=metadata" in said
    assert "calibrate" not in said


def test_shared_processes_are_proposed_where_they_carry_it() -> None:
    shared = replace(
        CALIBRATION,
        knees={**CALIBRATION.knees, "nodes-bytes-shared": knee("nodes-bytes-shared", 60, 300.0)},
    )

    apart = forecast(plan(40), shared, MACHINE, shared=False)
    together = forecast(plan(40), shared, MACHINE, shared=True)

    assert apart.sharing == 20
    assert "--nodes-per-process 20" in apart.warning()
    assert not together.doubtful
    assert together.sharing is None
    assert forecast(plan(80), shared, MACHINE, shared=False).sharing is None


def test_metadata_is_proposed_only_where_it_helps() -> None:
    said = forecast(plan(80), CALIBRATION, MACHINE, shared=False).warning()

    assert "--time-scale 4" in said
    assert "payload=metadata" not in said


def test_without_a_calibration_only_large_networks_are_warned_about() -> None:
    assert not forecast(plan(10), None, MACHINE, shared=False).doubtful
    large = forecast(plan(100), None, MACHINE, shared=False)

    assert large.doubtful
    assert "`testbed calibrate` measures this machine" in large.warning()


def test_the_most_nodes_are_those_without_bytes_in_the_better_kind_of_processes() -> None:
    shared = replace(
        CALIBRATION,
        knees={
            **CALIBRATION.knees,
            "nodes-metadata-shared": knee("nodes-metadata-shared", 180, 900.0),
        },
    )

    assert nodes_carried(shared, MACHINE) == 180
    assert nodes_carried(None, MACHINE) == 80


def test_tighter_limits_of_fidelity_need_more() -> None:
    tight = plan(20, "fidelity.generatorLateness=1ms")

    assert Load.of(tight).tightness == pytest.approx(10.0)
    assert used(tight) == pytest.approx(10.0)


def test_a_knee_that_was_not_found_is_guessed() -> None:
    none = Calibration(
        MACHINE,
        "2026-11-29T09:00:00Z",
        True,
        {"nodes-bytes": Knee("nodes-bytes", None, 1, "late", ())},
    )

    assert not capacity(none, MACHINE, bytes_move=True, shared=False).measured


@pytest.mark.parametrize(
    ("scale", "rounded"),
    [(0.99, 1.0), (1.0, 1.0), (1.01, 1.25), (2.2, 2.5), (7.0, 8.0), (9.0, 10.0), (0.13, 0.15)],
)
def test_time_scales_are_rounded_up_to_round_numbers(scale: float, rounded: float) -> None:
    assert rounded_up(scale) == rounded


def test_time_scales_stay_within_those_of_a_scenario() -> None:
    assert rounded_up(1e-9) == 0.001
    assert rounded_up(1e9) == 1000.0


def test_the_file_of_a_home_gives_the_calibration_back(tmp_path: Path) -> None:
    store(tmp_path, CALIBRATION)
    again = replace(CALIBRATION, when="2026-11-30T09:00:00Z")
    other = replace(CALIBRATION, machine=MachineFacts("there", 64, 10**12))
    store(tmp_path, other)
    store(tmp_path, again)

    assert load(tmp_path, MACHINE) == again
    assert load(tmp_path, other.machine) == other
    assert len(json.loads((tmp_path / FILE).read_text())["calibrations"]) == 2
    assert load(tmp_path, replace(MACHINE, host="container-7")) == again
    assert load(tmp_path, replace(MACHINE, cores=4)) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"calibrations": [1, {"version": 9}]}'])
def test_a_damaged_file_is_no_calibration(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)

    assert load(tmp_path, MACHINE) is None
    store(tmp_path, CALIBRATION)
    assert load(tmp_path, MACHINE) == CALIBRATION


def test_answers_that_were_not_asked_for_anew_are_kept() -> None:
    only = replace(CALIBRATION, knees={"link": knee("link", 100, 20.0)})

    assert set(only.with_knees_of(CALIBRATION).knees) == {"link", *CALIBRATION.knees}


def test_the_figure_shows_both_kinds_and_their_knees(tmp_path: Path) -> None:
    figure = draw(CALIBRATION)
    figure.savefig(tmp_path / "figure.png")

    errors, cores = figure.axes
    _, labels = errors.get_legend_handles_labels()
    assert labels == [
        "metadata, one process each: 40 nodes",
        "real bytes, one process each: 20 nodes",
    ]
    assert cores.get_xlabel() == "nodes"
