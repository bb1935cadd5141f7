"""What becomes of a run whose task log, or run directory, is taken away or damaged under it."""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from testbed.errors import PermanentError, TestbedError
from testbed.runtime.directory import RunDirectory
from testbed.scenario.plan import Plan
from testbed.storage.tasklog import RunState, open_task_log
from testbed.testing.runtime import small_plan
from tests.controller.conftest import Bench, each_ends_once

BringUp = Callable[[Plan], Bench]

LONG = 400
"""Slots of 50 ms: longer than any test lets it run."""

PATIENCE_S = 60.0


def begun(bench: Bench) -> str:
    """A run that is well under way."""
    run = bench.operator.start_run(scheduler="random")
    bench.until(run, lambda progress: progress.ended >= 4)
    return run


def remove(log: Path) -> None:
    log.unlink()


def remove_all(log: Path) -> None:
    for file in log.parent.glob(f"{log.name}*"):
        file.unlink()


def remove_wal(log: Path) -> None:
    log.with_name(f"{log.name}-wal").unlink()


def replace_by_a_copy(log: Path) -> None:
    copy = log.with_name("copy")
    shutil.copy(log, copy)
    copy.replace(log)


def empty(log: Path) -> None:
    os.truncate(log, 0)


def scribble(log: Path) -> None:
    with log.open("r+b") as file:
        file.write(b"\xaa" * log.stat().st_size)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (remove, "removed while it was in use"),
        (remove_all, "removed while it was in use"),
        (remove_wal, "was removed or replaced while it was in use"),
        (replace_by_a_copy, "replaced by another one"),
        (empty, "emptied while it was in use"),
        (scribble, "written over by another program"),
    ],
)
def test_a_log_that_is_gone_or_damaged_fails_the_run(
    bring_up: BringUp, damage: Callable[[Path], None], said: str
) -> None:
    bench = bring_up(small_plan(2, slots=LONG))
    run = begun(bench)
    damage(Path(bench.up.store))
    last = bench.end(run)
    assert last.state == "failed"
    assert said in last.reason
    # Nothing that the nodes have seen is gone.
    assert all(node.unacknowledged for node in bench.operator.status().nodes)


def test_pages_that_are_written_over_are_found_at_the_end(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(2, slots=30))
    run = begun(bench)
    log = Path(bench.up.store)
    # Behind the head, in the pages that an earlier checkpoint has written.
    with open_task_log(log, create=False) as reader:
        reader.engine.connect().exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")  # type: ignore[attr-defined]
    with log.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(log.stat().st_size - 4096))
    last = bench.end(run)
    assert last.state == "failed"
    assert "task log" in last.reason


def test_what_a_removed_log_had_is_not_asked_of_the_next_one(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(2, slots=LONG))
    run = begun(bench)
    Path(bench.up.store).unlink()
    assert bench.end(run).state == "failed"
    with pytest.raises(PermanentError, match="cannot be opened"):
        bench.operator.start_run()
    assert not Path(bench.up.store).exists(), "no empty file is made in its place"
    bench.runtime.down("bench")
    again = bring_up(small_plan(2))
    following = again.operator.start_run()
    assert again.end(following).state in {"completed", "invalid"}
    assert [each.id for each in again.log.runs()] == [following]
    each_ends_once(again, following)


def test_a_full_disk_fails_the_run_and_the_log_says_so_when_it_can(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(2, slots=LONG))
    run = begun(bench)
    place = RunDirectory(bench.runtime.home, "bench")
    controller = psutil.Process(place.processes()["controller"][0])
    # No file may grow any more: to the controller that is a full disk.
    controller.rlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    last = bench.end(run)
    assert last.state == "failed"
    assert "task log" in last.reason
    controller.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    # There is room again: the next run begins, and the log is told of this one first.
    following = bench.operator.start_run()
    logged = bench.log.run(run)
    assert logged.state is RunState.FAILED
    assert "task log" in (logged.certificate or {})["failure"]
    each_ends_once(bench, run)
    bench.operator.stop_run(following)
    assert bench.log.run(following).state is RunState.STOPPED
    assert not list(place.path.glob(".*.json.*"))


def test_a_disk_that_stays_full_is_settled_by_the_next_controller(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(2, slots=LONG))
    run = begun(bench)
    place = RunDirectory(bench.runtime.home, "bench")
    controller = psutil.Process(place.processes()["controller"][0])
    controller.rlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    assert bench.end(run).state == "failed"
    controller.kill()
    bench.runtime.down("bench")
    assert not list(place.path.glob(".*.json.*"))
    again = bring_up(small_plan(2))
    assert again.log.run(run).state is RunState.FAILED
    give_up = time.monotonic() + PATIENCE_S
    while any(node.unacknowledged for node in again.operator.status().nodes):
        assert time.monotonic() < give_up
    each_ends_once(again, run)


def test_a_run_directory_that_is_gone_fails_no_run_and_begins_none(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(2, slots=20))
    run = begun(bench)
    place = RunDirectory(bench.runtime.home, "bench")
    kept = place.path.with_name("kept")
    place.path.rename(kept)
    try:
        assert bench.end(run).state in {"completed", "invalid"}
        each_ends_once(bench, run)
        with pytest.raises(TestbedError, match=r"(?s)the run cannot begin.*cannot be written"):
            bench.operator.start_run()
        assert [each.id for each in bench.log.runs()] == [run]
    finally:
        kept.rename(place.path)
    following = bench.operator.start_run()
    assert bench.end(following).state in {"completed", "invalid"}
