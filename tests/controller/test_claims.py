"""A run of a controller that is gone is ended in the log, also where its marker is gone too."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.claims import Claims
from controller.marker import RunMarker
from testbed.storage.tasklog import RunInfo, RunState, TaskLog, open_task_log
from testbed.testing.runtime import small_plan

_HOLD = """
import sys
from pathlib import Path
from controller.claims import Claims
from controller.marker import RunMarker
folder, directory, store = sys.argv[1:]
RunMarker(Path(directory), None, Claims(Path(folder), store)).begin("run")
print("holds", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def log(tmp_path: Path) -> Iterator[TaskLog]:
    with open_task_log(tmp_path / "tasks.db") as opened:
        opened.begin_run(RunInfo.of(small_plan(2), "network", id="run"))
        yield opened


@contextmanager
def _controller(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that carries a run on."""
    directory = tmp_path / "testbed"
    directory.mkdir(exist_ok=True)
    places = [str(tmp_path / "claims"), str(directory), str(tmp_path / "tasks.db")]
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", _HOLD, *places]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "holds\n"
        try:
            yield started
        finally:
            started.kill()


def _claims(tmp_path: Path) -> Claims:
    return Claims(tmp_path / "claims", f"sqlite:///{tmp_path / 'tasks.db'}")


def test_a_killed_controllers_run_is_ended_without_its_marker(tmp_path: Path, log: TaskLog) -> None:
    with _controller(tmp_path):
        (tmp_path / "testbed/active-run.json").unlink()
        assert _claims(tmp_path).settle(log) == []
        assert log.run("run").state is RunState.RUNNING
    assert list(_claims(tmp_path).abandoned()) == ["run"]
    assert Claims(tmp_path / "claims", "elsewhere.db").settle(log) == []
    assert _claims(tmp_path).settle(log) == [("run", RunState.INTERRUPTED)]
    assert log.run("run").state is RunState.INTERRUPTED
    assert _claims(tmp_path).abandoned() == {}


def test_a_marker_that_is_there_says_how_the_run_ended(tmp_path: Path, log: TaskLog) -> None:
    with _controller(tmp_path):
        RunMarker(tmp_path / "testbed").failed("run", "the disk was full")
    assert _claims(tmp_path).settle(log) == [("run", RunState.FAILED)]
    assert not RunMarker(tmp_path / "testbed").exists


def test_a_marker_of_a_later_run_is_left_alone(tmp_path: Path, log: TaskLog) -> None:
    with _controller(tmp_path):
        pass
    RunMarker(tmp_path / "testbed").begin("later")
    assert _claims(tmp_path).settle(log) == [("run", RunState.INTERRUPTED)]
    assert RunMarker(tmp_path / "testbed").run == "later"


def test_what_is_no_claim_is_nobodys_run(tmp_path: Path, log: TaskLog) -> None:
    folder = tmp_path / "claims"
    folder.mkdir()
    (folder / "run.json").write_bytes(b"\xff" * 99)
    (folder / "list.json").write_text("[]")
    (folder / "link.json").symlink_to(tmp_path / "tasks.db")
    (folder / "folder.json").mkdir()
    assert _claims(tmp_path).settle(log) == []
    assert log.run("run").state is RunState.RUNNING


def test_a_claim_that_cannot_be_written_keeps_no_run_from_beginning(tmp_path: Path) -> None:
    (tmp_path / "claims").write_text("")
    marker = RunMarker(tmp_path, None, Claims(tmp_path / "claims"))
    marker.begin("run")
    assert marker.exists
    marker.end()
    assert not marker.exists
