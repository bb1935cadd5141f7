"""Physical limits of this machine that the figures of docs/performance.md are held against.

Each is the median of several short measurements with nothing of this project in them: memory,
sockets, the interpreter's event loop, wake-ups between processes, SQLite.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

Row = dict[str, Any]

REPEAT: Final = 7
MB: Final = 1_000_000


def rows(repeat: int = REPEAT) -> list[Row]:
    """Measure all limits; ``repeat`` times each."""
    found: list[Row] = []
    for name, (unit, measure) in _limits().items():
        value = statistics.median(measure() for _ in range(repeat))
        found.append({"benchmark": name, "value": value, "unit": unit})
    return found


def _limits() -> dict[str, tuple[str, Callable[[], float]]]:
    """Return each limit by its name: its unit, and what measures it once."""
    return {
        "memory: copy of 64 MB": ("MB/s", copy_rate),
        "memory: comparison of 64 MB, equal": ("MB/s", comparison_rate),
        "Unix socket: bytes in chunks of 250 KB, one way": ("MB/s", unix_rate),
        "TCP over loopback: bytes in chunks of 250 KB, one way": ("MB/s", tcp_rate),
        "Unix socket: round trip of 64 bytes, one core": ("us", round_trip_one_core),
        "Unix socket: round trip of 64 bytes, across two cores": ("us", round_trip_two_cores),
        "wake-up of a process on another core": ("us", wake_up),
        "asyncio: turn of the loop with one callback": ("us", loop_turn),
        "asyncio: round trip of 64 bytes over a Unix socket, one process": ("us", asyncio_trip),
        "asyncio: lateness of a timer of 5 ms, p95": ("us", timer_lateness),
        "interpreter: call of a function with two arguments": ("ns", call_time),
        "interpreter: frozen dataclass with slots, made": ("ns", instance_time),
        "SQLite: executemany of rows of 200 bytes, one transaction": ("us", sqlite_row),
        "file: append of 4 KB and fdatasync": ("us", synced_append),
    }


def copy_rate() -> float:
    """Return MB per second of copying a block that no cache holds."""
    source, target = bytearray(64 * MB), bytearray(64 * MB)
    target[:] = source
    return 64 / _seconds(lambda: target.__setitem__(slice(None), source), 4)


def comparison_rate() -> float:
    """Return MB per second of comparing two equal blocks."""
    one, other = bytes(64 * MB), bytes(64 * MB)
    return 64 / _seconds(lambda: one == other, 4)


def unix_rate() -> float:
    """Return MB per second through a pair of Unix sockets between two processes."""
    return _socket_rate(*socket.socketpair())


def tcp_rate() -> float:
    """Return MB per second through a TCP connection of this machine between two processes."""
    return _socket_rate(*_tcp_pair())


def _socket_rate(here: socket.socket, there: socket.socket) -> float:
    chunk, chunks = bytes(250_000), 400
    with here, _child(there, lambda peer: _send_all(peer, chunk, chunks)):
        there.close()
        room = memoryview(bytearray(1 << 20))
        began, got = time.perf_counter(), 0
        while got < len(chunk) * chunks:
            got += here.recv_into(room)
        return got / MB / (time.perf_counter() - began)


def _send_all(peer: socket.socket, chunk: bytes, count: int) -> None:
    for _ in range(count):
        peer.sendall(chunk)


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = socket.create_connection(server.getsockname())
        there, _ = server.accept()
    for each in (here, there):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return here, there


def round_trip_one_core() -> float:
    """Return microseconds of a round trip between two processes on one core."""
    return _round_trip(apart=False)


def round_trip_two_cores() -> float:
    """Return microseconds of a round trip between two processes on two cores."""
    return _round_trip(apart=True)


def wake_up() -> float:
    """Return microseconds from the write of a byte to the return of the read on another core."""
    return round_trip_two_cores() / 2


def _round_trip(apart: bool, times: int = 2000) -> float:
    here, there = socket.socketpair()
    message = bytes(64)

    def echo(peer: socket.socket) -> None:
        _stay_on(1 if apart else 0)
        while data := peer.recv(64):
            peer.sendall(data)

    with _staying_on(0), here, _child(there, echo):
        there.close()

        def trip() -> None:
            here.sendall(message)
            here.recv(64)

        return 1e6 * _seconds(trip, times)


def _stay_on(index: int) -> None:
    """Keep this process on one of the cores that it may use, if the system lets it choose."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {_ALL[index % len(_ALL)]})


_ALL: Final = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
"""The cores that this process may use."""


@contextmanager
def _staying_on(index: int) -> Iterator[None]:
    _stay_on(index)
    try:
        yield
    finally:
        if _ALL:
            os.sched_setaffinity(0, set(_ALL))


@contextmanager
def _child(peer: socket.socket, run: Callable[[socket.socket], None]) -> Iterator[None]:
    """Run a function in a forked process, which ends with the block."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            _close_others(peer)
            run(peer)
        except OSError:
            pass
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def _close_others(peer: socket.socket) -> None:
    # Else the child holds the other end open itself.
    limit = max(peer.fileno() + 1, 256)
    os.closerange(3, peer.fileno())
    os.closerange(peer.fileno() + 1, limit)


def loop_turn() -> float:
    """Return microseconds of a turn of the event loop that runs one callback."""

    async def turns(count: int) -> float:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        left = count

        def turn() -> None:
            nonlocal left
            left -= 1
            if left:
                loop.call_soon(turn)
            else:
                done.set()

        began = time.perf_counter()
        loop.call_soon(turn)
        await done.wait()
        return 1e6 * (time.perf_counter() - began) / count

    return asyncio.run(turns(20_000))


def asyncio_trip() -> float:
    """Return microseconds of a round trip between two ends in one event loop."""

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    class Trips(Echo):
        def __init__(self, count: int, done: asyncio.Event) -> None:
            self.left, self.done = count, done

        def data_received(self, data: bytes) -> None:
            self.left -= 1
            if self.left:
                self.transport.write(data)
            else:
                self.done.set()

    async def trips(count: int) -> float:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/socket"
            server = await loop.create_unix_server(Echo, path)
            made, _ = await loop.create_unix_connection(lambda: Trips(count, done), path)
            began = time.perf_counter()
            made.write(bytes(64))
            await done.wait()
            spent = time.perf_counter() - began
            made.close()
            server.close()
            await asyncio.sleep(0)
        return 1e6 * spent / count

    return asyncio.run(trips(3000))


def timer_lateness() -> float:
    """Return microseconds by which timers of an idle loop fire too late, p95 of sixty."""

    async def late() -> float:
        loop, found = asyncio.get_running_loop(), []
        for _ in range(60):
            due = loop.time() + 0.005
            fired = loop.create_future()
            loop.call_at(due, fired.set_result, None)
            await fired
            found.append(loop.time() - due)
        return 1e6 * sorted(found)[int(0.95 * len(found))]

    return asyncio.run(late())


def call_time() -> float:
    """Return nanoseconds of a call, the loop around it included."""

    def function(one: int, two: int) -> int:
        return one

    def many() -> None:
        for _ in range(10_000):
            function(1, 2)

    return 1e9 * _seconds(many, 10) / 10_000


def instance_time() -> float:
    """Return nanoseconds of making a value of three fields."""

    @dataclass(frozen=True, slots=True)
    class Record:
        one: int
        two: float
        three: str

    def many() -> None:
        for _ in range(10_000):
            Record(1, 2.0, "three")

    return 1e9 * _seconds(many, 5) / 10_000


def sqlite_row() -> float:
    """Return microseconds per row of an insert into a table with a key, journal as the log's."""
    count = 20_000
    with tempfile.TemporaryDirectory() as folder:
        base = sqlite3.connect(Path(folder) / "limit.sqlite")
        base.execute("PRAGMA journal_mode=WAL")
        base.execute("CREATE TABLE t (run TEXT, task INTEGER, seq INTEGER, body TEXT,"
                     " PRIMARY KEY (run, task, seq)) WITHOUT ROWID")  # fmt: skip
        given = [("run", task, 0, "x" * 200) for task in range(count)]

        def insert() -> None:
            with base:
                base.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", given)

        spent = _seconds(insert, 1)
        base.close()
    return 1e6 * spent / count


def synced_append() -> float:
    """Return microseconds of an append that outlives a crash of the machine."""
    with tempfile.NamedTemporaryFile() as file:

        def append() -> None:
            os.write(file.fileno(), bytes(4096))
            os.fdatasync(file.fileno())

        return 1e6 * _seconds(append, 20)


def _seconds(run: Callable[[], object], times: int) -> float:
    """Return seconds per call."""
    began = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - began) / times


UNITS: Final = {name: unit for name, (unit, _) in _limits().items()}
"""Unit of each limit by its name."""

if __name__ == "__main__":
    for measured in rows():
        print(f"{measured['benchmark']:70} {measured['value']:12,.3f} {measured['unit']}")
