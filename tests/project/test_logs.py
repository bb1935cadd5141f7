"""Logs of processes are bounded, whatever is sent to them and however often."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from testbed.logs import (
    LINE_LIMIT,
    MOST_ALIKE,
    MOST_KNOWN,
    WINDOW_S,
    BoundedFile,
    BoundedHandler,
    Repeats,
)
from testbed.rpc.authorization import ALLOWED, COMMAND_KEY
from testbed.rpc.channels import connect_blocking
from testbed.rpc.credentials import of_operator, read
from testbed.rpc.identity import CONTROLLER, Identity, Role, node_identity
from testbed.rpc.operator import OperatorClient
from testbed.runtime.base import Testbed
from testbed.runtime.local import LocalRuntime
from testbed.testing.runtime import small_plan


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    found = logging.getLogger("tests.project.test_logs")
    found.setLevel(logging.INFO)
    found.propagate = False
    yield found
    for handler in [each for each in found.handlers if isinstance(each, BoundedHandler)]:
        found.removeHandler(handler)
        handler.stream.close()


def a_log(path: Path, logger: logging.Logger, clock: Clock) -> BoundedHandler:
    handler = BoundedHandler(path.open("a"), Repeats(clock))
    logger.addHandler(handler)
    return handler


def fail(logger: logging.Logger, value: object) -> None:
    try:
        raise ValueError(value)
    except ValueError as error:
        logger.error("Unexpected [%s] raised", value, exc_info=error)


def test_a_traceback_is_written_once_and_then_counted(
    tmp_path: Path, logger: logging.Logger
) -> None:
    clock = Clock()
    with a_log(tmp_path / "log", logger, clock):
        for value in range(413):
            fail(logger, value)
        assert (tmp_path / "log").read_text().count("Traceback") == 1
        clock.now += WINDOW_S + 1
        fail(logger, "again")
        clock.now += 600
        logger.info("something else")
        clock.now += 600
        fail(logger, "later")

    text = (tmp_path / "log").read_text()
    assert text.count("Traceback") == 1
    assert text.splitlines()[-4:] == [
        "412 more times in 61 s: Unexpected [0] raised: ValueError: 0",
        "once more in 600 s: Unexpected [0] raised: ValueError: 0",
        "something else",
        "Unexpected [later] raised: ValueError: later (traceback above)",
    ]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise SystemExit("no words")


@pytest.mark.parametrize(
    "error", [Unspeakable(), ValueError("\ud800" * 10**6), type("N\n" * 10**6, (Exception,), {})()]
)
def test_an_error_that_cannot_be_shown_stops_nobody_who_logs(
    tmp_path: Path, logger: logging.Logger, error: Exception
) -> None:
    # As the standard error of a process is.
    stream = (tmp_path / "log").open("a", errors="backslashreplace")
    with stream, BoundedHandler(BoundedFile(stream), Repeats(Clock())) as handler:  # type: ignore[arg-type]
        logger.addHandler(handler)
        for _ in range(3):
            logger.error("a scheduler failed", exc_info=error)
    logger.removeHandler(handler)
    text = (tmp_path / "log").read_text()
    assert text.startswith("a scheduler failed\n")
    assert "2 more times in 1 s: a scheduler failed: " in text
    assert len(text) < 7 * LINE_LIMIT


def test_counts_that_are_left_are_told_at_the_end(tmp_path: Path, logger: logging.Logger) -> None:
    clock = Clock()
    with a_log(tmp_path / "log", logger, clock):
        for _ in range(3):
            logger.warning("no answer from %s", "node 3")
        logger.warning("no answer from %s", "node 4")
        clock.now += 2 * WINDOW_S

    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[:2] == ["no answer from node 3", "no answer from node 4"]
    assert lines[2:] == ["2 more times in 120 s: no answer from node 3"]


def test_what_is_no_warning_is_always_written(tmp_path: Path, logger: logging.Logger) -> None:
    with a_log(tmp_path / "log", logger, Clock()):
        for _ in range(5):
            logger.info("episode over")

    assert (tmp_path / "log").read_text() == "episode over\n" * 5


def test_a_flood_of_different_warnings_is_bounded_in_log_and_memory(
    tmp_path: Path, logger: logging.Logger
) -> None:
    clock = Clock()
    repeats = Repeats(clock)
    handler = BoundedHandler((tmp_path / "log").open("a"), repeats)
    logger.addHandler(handler)
    for minute in range(20):
        for number in range(1000):
            logger.warning("garbage %d %d", minute, number)
        clock.now += WINDOW_S + 1

    handler.close()
    assert len((tmp_path / "log").read_text().splitlines()) <= 20 * (MOST_ALIKE + 2)
    assert "800 more times in 61 s: entries like: garbage 0 0" in (tmp_path / "log").read_text()
    assert len(repeats._seen) <= MOST_KNOWN


def test_a_file_that_is_too_large_keeps_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("a") as stream:
        file = BoundedFile(stream, limit=10_000, kept=1000)
        for number in range(5000):
            print(f"line {number}", file=file)
            assert path.stat().st_size <= 10_100

    lines = path.read_text().splitlines()
    assert "bytes left out" in lines[0]
    assert lines[-1] == "line 4999"
    first = int(lines[1].split()[1])
    assert lines[1:] == [f"line {number}" for number in range(first, 5000)]


def test_an_entry_that_is_too_long_loses_its_middle(tmp_path: Path) -> None:
    with (tmp_path / "log").open("a") as stream:
        BoundedFile(stream).write("a" * 1_000_000 + "end\n")

    text = (tmp_path / "log").read_text()
    assert len(text) < LINE_LIMIT + 100
    assert "characters left out" in text
    assert text.endswith("end\n")


def test_what_a_process_prints_is_bounded_too(tmp_path: Path) -> None:
    program = (
        "import logging\n"
        "from testbed import logs\n"
        "logs.configure(logging.Formatter())\n"
        "for number in range(90_000): print('x' * 200)\n"
        "logging.getLogger('a').warning('the end')\n"
    )
    with (tmp_path / "log").open("a") as log:
        subprocess.run(
            [sys.executable, "-c", program], stdout=log, stderr=log, check=True, timeout=100
        )

    assert (tmp_path / "log").stat().st_size <= 8 * 1024 * 1024 + 1000
    assert (tmp_path / "log").read_text().endswith("the end\n")


def test_a_full_disk_stops_nobody_who_logs() -> None:
    with open("/dev/full", "w") as stream:
        BoundedFile(stream).write("lost\n")
        BoundedFile(stream).flush()
        # Python would try once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    runtime = LocalRuntime(tmp_path_factory.mktemp("fuzzed") / "home")
    yield runtime.up(small_plan(slots=100), "fuzzed")
    runtime.down("fuzzed")


GARBAGE = (b"\xff" * 20, b"\x0a\xff\xff\xff\xff\x0f", b"{}", b"\x08\x96\x01" * 9, os.urandom(99))


def test_malformed_calls_write_a_traceback_once(fuzzed: Testbed) -> None:
    """Every method of every service, each with those credentials that let the call through."""
    with OperatorClient(fuzzed.address, fuzzed.token) as operator:
        status = operator.status()
    nodes = {node_identity(node.node): str(node.address) for node in status.nodes}
    servers = {CONTROLLER: fuzzed.address, **nodes}
    for server, address in servers.items():
        for service, methods in ALLOWED.items():
            for method, roles in methods.items():
                if method == "Shutdown" or "health" in service:
                    continue
                for role in roles:
                    _send_garbage(fuzzed, role, server, address, f"/{service}/{method}")

    with OperatorClient(fuzzed.address, fuzzed.token) as operator:
        assert operator.status().healthy
    for log in (fuzzed.directory / "logs").glob("*.log"):
        text = log.read_text()
        assert log.stat().st_size < 200_000, log
        tracebacks = text.split("Traceback (most recent call last):")[1:]
        places = [tuple(re_frames(traceback)) for traceback in tracebacks]
        assert len(places) == len(set(places)), text


def re_frames(traceback: str) -> list[str]:
    return [line.strip() for line in traceback.splitlines() if line.startswith("  File ")]


def _send_garbage(
    testbed: Testbed, role: Role, server: Identity, address: str, method: str
) -> None:
    who = {
        Role.OPERATOR: "operator",
        Role.CONTROLLER: "controller",
        Role.NODE: "node-0" if server != node_identity(0) else "node-1",
    }[role]
    if who == "operator":
        me = of_operator(testbed.token)
    else:
        me = read(testbed.directory / "credentials" / f"{who}.json")
    with connect_blocking(address, me, server) as channel:
        make: Any = channel.stream_stream
        for number in range(30):
            call = make(method)(
                iter([GARBAGE[number % len(GARBAGE)]]),
                timeout=20,
                metadata=((COMMAND_KEY, f"x:{number}"),),
            )
            try:
                for _ in call:
                    call.cancel()
                    break
            except grpc.RpcError:
                pass
