"""``testbed calibrate`` and the warnings before runs, with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from testbed.api.calibrating import LocalRunner
from testbed.experiment.calibration.questions import QUESTIONS
from testbed.experiment.calibration.values import (
    FILE,
    Calibration,
    Knee,
    MachineFacts,
    Trial,
    store,
)
from testbed.rpc.operator import Progress
from tests.cli.conftest import Command, environment, home, program, testbed

__all__ = ["home", "testbed"]


def running(home: Path) -> list[int]:
    """Ids of all processes of testbeds below ``home``."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TESTBED_PROCESS_FOLDER", "").startswith(str(home)):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_a_real_run_is_measured_and_leaves_nothing(tmp_path: Path) -> None:
    question = replace(
        QUESTIONS["nodes-bytes"],
        settings=lambda level, cores: (
            f"nodes.count={level}",
            "nodes.arrivalProbability=1",
            "slots.count=10",
            "nodes.failureRate=0",
            "links.failureRate=0",
        ),
    )

    seen: list[Progress] = []
    trial = LocalRunner(tmp_path, MachineFacts.here(), seen.append)(question, 3, 1)

    assert [each.completed for each in (seen[0], seen[-1])] == [0, 1]
    assert set(trial.terms) == {"transmission", "execution", "arrivals"}
    assert trial.valid == (trial.worst <= 1), trial.reasons
    assert trial.tasks_per_s == 30.0
    assert trial.tasks_per_slot == 3.0
    assert trial.mb_per_s > 0
    assert trial.task_mb == 1.5
    assert trial.nodes > 0
    assert trial.controller > 0
    assert 0 < trial.busy <= 1
    assert trial.memory > 10_000_000
    assert running(tmp_path) == []
    assert not list(tmp_path.glob("tasklog*"))


def test_a_network_that_does_not_fit_into_memory_is_not_started(tmp_path: Path) -> None:
    runner = LocalRunner(tmp_path, MachineFacts.here())
    runner._per_node[False] = psutil.virtual_memory().total

    trial = runner(QUESTIONS["nodes-metadata"], 5, 1)

    assert not trial.ran
    assert "of memory" in trial.reasons[0]
    assert running(tmp_path) == []


def test_an_interrupt_leaves_nothing_behind(home: Path) -> None:
    process = subprocess.Popen(
        program("calibrate", "--quick", "--only", "nodes-metadata"),
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        # The first network was brought up and run.
        if "valid" in line or "not faithful" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=90)

    assert process.returncode == 130, err
    assert out == ""
    assert running(home) == []
    assert not (home / FILE).exists()
    assert not (home / ".calibrating").exists()


def test_unknown_questions_are_refused(testbed: Command, home: Path) -> None:
    said = testbed("calibrate", "--only", "nodes")

    assert said.code == 2
    assert "nodes-metadata" in said.err
    assert not home.exists()


def slow_machine(home: Path) -> None:
    """Let the home say that this machine carries one task a second."""
    machine = MachineFacts.here()
    trial = Trial(1, True, (), {"arrivals": 0.5}, tasks_per_s=1.0, tasks_per_slot=0.1, task_mb=1.5)
    knees = {
        name: Knee(name, 1, 2, "late", (trial,)) for name in QUESTIONS if name.startswith("nodes-")
    }
    home.mkdir(mode=0o700, exist_ok=True)
    store(home, Calibration(machine, "2026-11-29T09:00:00Z", False, knees))


SHORT = ("--set", "slots.count=4", "--set", "slots.length=50ms")


def test_up_and_run_warn_before_what_cannot_be_faithful(testbed: Command, home: Path) -> None:
    slow_machine(home)
    small = ("--set", "nodes.count=2", "--set", "slots.count=2", "--set", "timeScale=0.5")
    try:
        up = testbed("up", "quickstart", *small)
        assert up.code == 0, up.err
        run = testbed("run", "--episodes", "1")
        assert run.code == 0, run.err
    finally:
        testbed("teardown")

    assert "will probably not be faithful" in up.err
    assert "--time-scale" in up.err
    assert "; use --time-scale" in run.err


def test_a_run_may_have_a_time_scale_of_its_own(testbed: Command, home: Path) -> None:
    slow_machine(home)
    try:
        assert testbed("up", "quickstart", "--set", "nodes.count=1", *SHORT).code == 0
        own = testbed("run", "--episodes", "1", "--time-scale", "2", "--json")
        assert own.code == 0, own.err
        shown = json.loads(testbed("runs", "show", "latest", "--json").out)
        found = testbed("run", "--episodes", "1", "--time-scale", "auto")
        wrong = testbed("run", "--time-scale", "0")
        scenario = (home / "default" / "scenario.yaml").read_text()
    finally:
        testbed("teardown")

    assert shown["certificate"]["time_scale"] == 2
    assert "(as calibrated)" in found.err
    assert wrong.code == 2
    assert "from 0.001 to 1000" in wrong.err
    assert "timeScale: 2" not in scenario


def test_a_time_scale_is_found_by_the_calibration(testbed: Command, home: Path) -> None:
    slow_machine(home)
    known = json.loads((home / FILE).read_text())["calibrations"][0]
    assert known["machine"]["cores"] == len(os.sched_getaffinity(0))
    try:
        up = testbed(
            "up", "quickstart", "--set", "nodes.count=1", "--set", "nodes.arrivalProbability=0.4",
            "--set", "slots.length=100ms", "--time-scale", "auto",
        )  # fmt: skip
        assert up.code == 0, up.err
        scenario = (home / "default" / "scenario.yaml").read_text()
    finally:
        testbed("teardown")

    assert "time scale 4: 4 times slower than real time (as calibrated)" in up.err
    assert "not be faithful" not in up.err
    assert "timeScale: 4" in scenario


def test_a_time_scale_is_refused_where_it_makes_no_sense(testbed: Command) -> None:
    said = testbed("up", "quickstart", "--time-scale", "fast")

    assert said.code == 2
    assert "timeScale" in said.err


@pytest.mark.long
def test_answers_are_stored_drawn_and_kept(testbed: Command, home: Path, tmp_path: Path) -> None:
    nodes = testbed(
        "calibrate", "--quick", "--only", "nodes-metadata", "--json", "--out", tmp_path / "figure"
    )
    assert nodes.code == 0, nodes.err
    scale = testbed("calibrate", "--quick", "--only", "time-scale")
    assert scale.code == 0, scale.err

    document = nodes.document
    assert document["machine"]["cores"] == len(os.sched_getaffinity(0))
    knee = document["knees"]["nodes-metadata"]
    assert knee["trials"][0]["level"] == 5
    assert (knee["best"] or {"level": None})["level"] == knee["level"]
    assert [Path(each).name for each in document["figures"]] == [
        "calibration.png",
        "calibration.svg",
    ]
    assert all(Path(each).stat().st_size > 1000 for each in document["figures"])
    assert "[1/1] nodes with metadata, one process each: 5 nodes" in nodes.err
    assert "CARRIES" in scale.out
    [stored] = json.loads((home / FILE).read_text())["calibrations"]
    assert set(stored["knees"]) == {"nodes-metadata", "time-scale"}
    assert running(home) == []
