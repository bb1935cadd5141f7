"""The file that says which run is under way: written before the log, right on a full disk too."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from controller.marker import RunMarker
from testbed.errors import PermanentError
from testbed.storage.tasklog import RunInfo, RunState, TaskLog, open_task_log
from testbed.testing.runtime import small_plan


@pytest.fixture
def log(tmp_path: Path) -> TaskLog:
    opened = open_task_log(tmp_path / "tasks.db")
    opened.begin_run(RunInfo.of(small_plan(2), "network", id="run"))
    return opened


def _no_more_files(folder: Path) -> Path:
    """Make it impossible to write a file of this process beside the marker, as a full disk does."""
    blocked = folder / f".active-run.json.{os.getpid()}"
    blocked.mkdir()
    return blocked


def test_a_run_cut_short_is_interrupted(tmp_path: Path, log: TaskLog) -> None:
    RunMarker(tmp_path).begin("run")
    stale = tmp_path / ".active-run.json.1"
    stale.write_text("{")
    left = RunMarker(tmp_path)
    assert left.exists
    assert left.settle(log) == ("run", RunState.INTERRUPTED)
    assert log.run("run").state is RunState.INTERRUPTED
    assert not left.exists
    assert not stale.exists()
    assert left.settle(log) is None


def test_what_was_told_last_holds_on_a_full_disk_too(tmp_path: Path, log: TaskLog) -> None:
    def fail(marker: RunMarker) -> None:
        marker.failed("run", "the disk is full " * 200)

    def end(marker: RunMarker) -> None:
        marker.ending("run")

    for change, state in ((fail, RunState.FAILED), (end, RunState.STOPPED)):
        marker = RunMarker(tmp_path)
        marker.begin("run")
        blocked = _no_more_files(tmp_path)
        change(marker)
        blocked.rmdir()
        log.begin_run(RunInfo.of(small_plan(2), "network", id="run"))
        assert RunMarker(tmp_path).settle(log) == ("run", state)
        assert log.run("run").state is state


def test_no_run_begins_where_no_marker_can_be_written(tmp_path: Path) -> None:
    marker = RunMarker(tmp_path / "gone")
    with pytest.raises(PermanentError, match=r"the run cannot begin: .*gone cannot be written"):
        marker.begin("run")


def test_a_log_that_cannot_be_told_is_told_later(tmp_path: Path, log: TaskLog) -> None:
    marker = RunMarker(tmp_path)
    marker.begin("run")
    marker.failed("run", "no space left")
    with closing(sqlite3.connect(tmp_path / "tasks.db")) as database:
        database.execute("ALTER TABLE runs RENAME TO away")
        with pytest.raises(PermanentError, match="no such table"):
            marker.settle(log)
        assert marker.exists
        database.execute("ALTER TABLE away RENAME TO runs")
    assert marker.settle(log) == ("run", RunState.FAILED)
    assert not marker.exists


def test_a_marker_that_was_damaged_or_removed_is_known_to_who_wrote_it(
    tmp_path: Path, log: TaskLog
) -> None:
    marker = RunMarker(tmp_path)
    marker.begin("run")
    (tmp_path / "active-run.json").write_bytes(b"\x00\xff" * 700)
    marker.failed("run", "no space left")
    (tmp_path / "active-run.json").unlink()
    assert marker.settle(log) == ("run", RunState.FAILED)


def test_a_run_that_was_never_entered_is_forgotten(tmp_path: Path, log: TaskLog) -> None:
    marker = RunMarker(tmp_path)
    marker.begin("another")
    assert marker.settle(log) is None
    assert not marker.exists
    (tmp_path / "active-run.json").write_text("[1]")
    assert RunMarker(tmp_path).settle(log) is None
    assert not marker.exists


def test_a_log_whose_rows_are_damaged_is_told_the_state_at_least(
    tmp_path: Path, log: TaskLog
) -> None:
    marker = RunMarker(tmp_path)
    marker.begin("run")
    with closing(sqlite3.connect(tmp_path / "tasks.db")) as database:
        database.execute("DROP TABLE histories")
    assert marker.settle(log) == ("run", RunState.INTERRUPTED)
    assert log.run("run").state is RunState.INTERRUPTED
    assert not marker.exists
