"""Runs whose task log is on a real server, which is killed in the middle of them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from testbed.errors import PermanentError, TemporaryError
from testbed.model.history import FIRST_OF_CONTROLLER
from testbed.rpc.operator import Progress
from testbed.runtime.directory import RunDirectory
from testbed.runtime.local import LocalRuntime
from testbed.scenario.plan import Plan
from testbed.storage.tasklog import RunState
from testbed.testing.runtime import small_plan
from tests.controller.conftest import Bench, each_ends_once
from tests.controller.processes import process, until_said
from tests.services.mariadb import MariaDb
from tests.services.ports import free_ports

pytestmark = pytest.mark.mysql

BringUp = Callable[[Plan], Bench]
PATIENCE_S = 20.0
START_S = 60.0
"""A controller imports a lot before it looks at its log."""


def secret_plan(server: MariaDb, **changes: int) -> Plan:
    return replace(small_plan(2, **changes), storage_url=server.open_url)


def histories(bench: Bench, run: str) -> dict[int, list[int]]:
    """The numbers of the records of each task, as they are in the log."""
    found: dict[int, list[int]] = {}
    for record in bench.log.records(run):
        found.setdefault(record.task.id, []).append(record.seq)
    return found


def more_ended(than: int) -> Callable[[Progress], bool]:
    return lambda progress: progress.ended > than


def test_a_run_goes_on_while_its_server_restarts(
    bring_up: BringUp, mariadb: MariaDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTBED_MYSQL_PASSWORD", mariadb.password)
    bench = bring_up(secret_plan(mariadb, slots=60))
    run = bench.operator.start_run()
    before = bench.until(run, more_ended(2)).ended
    mariadb.kill()
    try:
        # Nodes go on, and what they say waits.
        bench.until(run, more_ended(before + 20))
    finally:
        mariadb.start()
    last = bench.end(run)
    assert last.state in {"completed", "invalid"}, last.reason
    assert last.lost == 0
    assert bench.log.run(run).state == last.state
    assert sum(bench.log.outcomes(run).values()) == last.generated == last.ended
    found = histories(bench, run)
    assert len(found) == last.generated
    assert all(numbers == list(range(len(numbers))) for numbers in found.values())
    assert not any(node.unacknowledged for node in bench.operator.status().nodes)


def test_what_a_dead_server_did_not_take_is_handed_in_by_the_next_testbed(
    bring_up: BringUp, mariadb: MariaDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTBED_MYSQL_PASSWORD", mariadb.password)
    bench = bring_up(secret_plan(mariadb, slots=400))
    run = bench.operator.start_run()
    before = bench.until(run, more_ended(2)).ended
    mariadb.kill()
    try:
        bench.until(run, more_ended(before + 5))
        place = RunDirectory(bench.runtime.home, "bench")
        psutil.Process(place.processes()["controller"][0]).kill()
        bench.runtime.down("bench")
    finally:
        mariadb.start()
    again = bring_up(secret_plan(mariadb))
    give_up = time.monotonic() + PATIENCE_S
    while any(node.unacknowledged for node in again.operator.status().nodes):
        assert time.monotonic() < give_up
    assert again.log.run(run).state is RunState.INTERRUPTED
    found = histories(again, run)
    assert len(found) >= before + 5
    for numbers in found.values():
        # A task that no node has ended was given an end, lost, when the run was settled.
        own = [number for number in numbers if number < FIRST_OF_CONTROLLER]
        assert own == list(range(len(own)))
    each_ends_once(again, run)


def test_the_password_is_in_no_file_and_no_list_of_processes(
    bring_up: BringUp, mariadb: MariaDb, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TESTBED_MYSQL_PASSWORD", mariadb.password)
    bench = bring_up(secret_plan(mariadb))
    run = bench.operator.start_run()
    bench.end(run)
    secret = mariadb.password
    assert secret not in bench.up.store
    assert secret not in bench.log.run(run).info.plan
    assert secret not in str(bench.operator.status())
    processes = RunDirectory(bench.runtime.home, "bench").processes()
    for name, (pid, _) in processes.items():
        process = psutil.Process(pid)
        assert secret not in " ".join(process.cmdline())
        # Nodes, which run what users bring, are not told at all.
        assert (secret in process.environ().values()) is (name == "controller")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def test_a_server_that_is_down_or_says_no_brings_nothing_up(
    tmp_path: Path, mariadb: MariaDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = LocalRuntime(tmp_path / "home")
    (port,) = free_ports(1)
    monkeypatch.setenv("TESTBED_MYSQL_PASSWORD", "wr0ng")
    absent = f"mysql+pymysql://edge@127.0.0.1:{port}/testbed"
    with pytest.raises(TemporaryError, match="cannot be reached"):
        runtime.up(small_plan(2), "bench", store=absent)
    with pytest.raises(PermanentError, match=r"wrong.*TESTBED_MYSQL_PASSWORD"):
        runtime.up(small_plan(2), "bench", store=mariadb.url)
    assert runtime.names() == ()


def waiting_controller(
    folder: Path, server: MariaDb, patience_s: float
) -> AbstractContextManager[subprocess.Popen[str]]:
    """A controller that is told to wait for its log."""
    return process(
        *("controller", "--scenario", "quickstart", "--run-dir", str(folder)),
        *("--store", server.url, "--store-patience", str(patience_s)),
        TESTBED_MYSQL_PASSWORD=server.password,
    )


def test_a_controller_waits_for_a_server_that_is_started_with_it(
    tmp_path: Path, mariadb: MariaDb
) -> None:
    mariadb.stop()
    with waiting_controller(tmp_path, mariadb, 60) as controller:
        try:
            until_said(controller, "waiting for the task log")
        finally:
            mariadb.start()
        until_said(controller, "serving")
        controller.terminate()
        assert controller.wait(PATIENCE_S) == 0


def test_a_controller_that_waits_can_be_stopped_and_gives_up_in_the_end(
    tmp_path: Path, mariadb: MariaDb
) -> None:
    mariadb.stop()
    try:
        with waiting_controller(tmp_path / "stopped", mariadb, 60) as stopped:
            until_said(stopped, "waiting for the task log")
            stopped.terminate()
            assert stopped.wait(PATIENCE_S) == 0
        with waiting_controller(tmp_path / "tired", mariadb, 0.1) as tired:
            assert tired.wait(START_S) == TemporaryError.exit_code
    finally:
        mariadb.start()
