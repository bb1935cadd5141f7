"""The HTTP front of a node on one core, beside a bare aiohttp server, and under bad clients.

The server has one core and the generator another. Both servers answer after 5 ms with about the
same bytes; ``forwarded`` is a node that forwards all requests to another one in the same process.
Bad clients are 1,000 connections at a time that send and do not read, or send half of a body.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
from aiohttp import web

from edgenode.host import Host
from edgenode.links import PeerAt
from edgenode.node import EdgeNode
from testbed.model.units import SECOND, Micros
from testbed.rpc import front
from testbed.rpc.credentials import shared
from testbed.rpc.identity import node_identity
from testbed.rpc.loop import new_event_loop
from testbed.scenario.plan import SchedulerSpec
from tests.sim.serving_plans import federation

Row = dict[str, Any]

RATE: Final = 400
"""Requests per second that one front is asked to serve."""

SECONDS: Final = 8.0
CONNECTIONS: Final = 64
"""Connections of the generator when it sends as fast as it is answered."""

BAD: Final = 1_000
"""Clients that misbehave at a time."""

SERVICE_S: Final = 0.005

UNANSWERED_S: Final = 30.0
"""Time that a request counts for whose connection was closed instead of an answer."""

_REQUEST: Final = b"GET /f HTTP/1.1\r\nHost: node\r\n\r\n"
_SLOW: Final = b"POST /f HTTP/1.1\r\nHost: node\r\nContent-Length: 65536\r\n\r\n" + b"x" * 60_000


def rows(seconds: float = SECONDS) -> list[Row]:
    """Run all benchmarks; one row per figure, with what is asked and whether it is met."""
    table: list[Row] = []
    for role, name in (("bare", "bare aiohttp"), ("local", "front"), ("forwarded", "forwarded")):
        with (
            _serving(role) as (address, server),
            asyncio.Runner(loop_factory=new_event_loop) as runner,
        ):
            runner.run(_send(address, RATE, 1.0))
            times = runner.run(_send(address, RATE, seconds))
            rate, busy = runner.run(_as_fast_as_answered(address, server, seconds / 2))
            asked = None if role == "bare" else 50.0
            percentiles = statistics.quantiles(times, n=100)
            p50, p99 = percentiles[49] / 1000, percentiles[98] / 1000
            table += [
                {"benchmark": f"{name}, {RATE} requests/s: p50", "value": p50, "unit": "ms"},
                {
                    "benchmark": f"{name}, {RATE} requests/s: p99",
                    "value": p99,
                    "unit": "ms",
                    "at_most": asked,
                    "met": asked is None or p99 <= asked,
                },
                {
                    "benchmark": f"{name}, {CONNECTIONS} connections: served",
                    "value": rate,
                    "unit": "requests/s",
                    "at_least": None if role == "bare" else RATE,
                    "met": role == "bare" or rate >= RATE,
                },
                {
                    "benchmark": f"{name}: processor time of a request",
                    "value": 1e6 * busy / rate,
                    "unit": "us",
                },
            ]
            if role == "local":
                table.append(_memory("front: memory after that", server.memory_info().rss))
                peak = runner.run(_misbehave(address, server))
                table.append(_memory(f"front: most memory under {BAD} bad clients", peak))
    return table


def _memory(what: str, size: int) -> Row:
    value = size / 1e6
    return {"benchmark": what, "value": value, "unit": "MB", "at_most": 100.0, "met": value <= 100}


@contextmanager
def _serving(role: str) -> Iterator[tuple[tuple[str, int], psutil.Process]]:
    """Start a server with a core of its own, if there are two; its address and process."""
    cores = sorted(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "benchmarks.bench_http", role]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        server = psutil.Process(child.pid)
        os.sched_setaffinity(child.pid, cores[-1:])
        os.sched_setaffinity(0, cores[:1])
        try:
            host, _, port = child.stdout.readline().strip().rpartition(":")
            yield (host, int(port)), server
        finally:
            os.sched_setaffinity(0, cores)
            child.stdin.close()


# --- the generator ------------------------------------------------------------------------------


class _Client(asyncio.Protocol):
    """A connection that sends one request at a time.

    ``done`` is called with it and the time of each answer, with None if it was closed before.
    """

    def __init__(self, done: Any) -> None:
        self._done = done
        self._buffer = b""
        self._sent: float | None = None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def send(self, since: float | None = None) -> None:
        """Send a request, which should have been sent at ``since``."""
        self._sent = time.monotonic() if since is None else since
        self.transport.write(_REQUEST)

    def drop(self) -> None:
        """Close the connection; nobody waits for an answer."""
        self._sent = None
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) >= length:
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"answered {head[:40]!r}")
            assert self._sent is not None
            took = time.monotonic() - self._sent
            self._buffer, self._sent = b"", None
            self._done(self, took)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._sent is not None:
            self._sent = None
            self._done(None, UNANSWERED_S)


async def _send(address: tuple[str, int], rate: float, seconds: float) -> list[Micros]:
    """Send requests on an absolute schedule; return the times until they were answered."""
    loop = asyncio.get_running_loop()
    times: list[Micros] = []
    idle: deque[_Client] = deque()
    everyone: list[_Client] = []

    def done(client: _Client | None, took: float) -> None:
        times.append(round(took * SECOND))
        if client is not None:
            idle.append(client)
        if len(times) == count:
            all_done.set()

    count = int(rate * seconds)
    all_done = asyncio.Event()
    begin = time.monotonic()
    for number in range(count):
        due = begin + number / rate
        if (left := due - time.monotonic()) > 0:
            await asyncio.sleep(left)
        if not idle:
            _, made = await loop.create_connection(lambda: _Client(done), *address)
            everyone.append(made)
            idle.append(made)
        idle.popleft().send(due)
    async with asyncio.timeout(UNANSWERED_S):
        await all_done.wait()
    for client in everyone:
        client.drop()
    return sorted(times)


async def _as_fast_as_answered(
    address: tuple[str, int], server: psutil.Process, seconds: float
) -> tuple[float, float]:
    """Return requests per second, and the share of a core that the server used meanwhile."""
    loop = asyncio.get_running_loop()
    count = 0

    def done(client: _Client | None, _took: float) -> None:
        nonlocal count
        if client is not None:
            count += 1
            client.send()

    clients = []
    for _ in range(CONNECTIONS):
        _, client = await loop.create_connection(lambda: _Client(done), *address)
        clients.append(client)
    began, before = time.monotonic(), sum(server.cpu_times()[:2])
    for client in clients:
        client.send()
    await asyncio.sleep(seconds)
    took, used = time.monotonic() - began, sum(server.cpu_times()[:2]) - before
    found = count / took
    for client in clients:
        client.drop()
    return found, used / took


async def _misbehave(address: tuple[str, int], server: psutil.Process) -> int:
    """Return the most memory of the server while clients misbehave."""
    peak = 0

    async def bad(number: int) -> None:
        nonlocal peak
        try:
            _, writer = await asyncio.open_connection(*address)
            if number % 2:
                writer.write(_SLOW)
            else:
                writer.write(_REQUEST * 500)
            async with asyncio.timeout(3.0):
                await writer.drain()
                await asyncio.sleep(3.0)
        except (OSError, TimeoutError):
            pass
        peak = max(peak, server.memory_info().rss)
        writer.transport.abort()

    for _ in range(3):
        await asyncio.gather(*(bad(number) for number in range(BAD)))
    return peak


# --- servers ------------------------------------------------------------------------------------


async def _serve(role: str) -> None:
    """Serve until the input ends."""
    loop = asyncio.get_running_loop()
    ended = loop.run_in_executor(None, sys.stdin.read)
    if role == "bare":
        server = await loop.create_server(web.Server(_answer, access_log=None), "127.0.0.1", 0)
        print(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await ended
        return
    cap = 0 if role == "forwarded" else 1_000_000_000
    scheduler = SchedulerSpec("fixed-shares", {"shares": [0, 1]})
    plan = federation((), (cap, cap), scheduler=scheduler, offset=0)
    with tempfile.TemporaryDirectory(prefix="bh-") as folder:
        host = Host(1 if role == "local" else 2)
        nodes = [
            EdgeNode(i, Path(folder) / str(i), shared("secret", node_identity(i)), host=host)
            for i in range(host.size)
        ]
        for node in nodes:
            await node.start(f"unix:{folder}/{node.index}.sock", http="127.0.0.1:0")
        for node in nodes:
            await node.configure(
                "standby",
                plan,
                {each.index: PeerAt(each.address, "", each.http) for each in nodes},
                scheduler,
                tokens=[front.token_for(n.http_key, node_identity(node.index)) for n in nodes],
                standby=True,
            )
        print(nodes[0].http, flush=True)
        await ended
        for node in nodes:
            await node.close()


async def _answer(request: web.BaseRequest) -> web.StreamResponse:
    await asyncio.sleep(SERVICE_S)
    return web.Response(
        body=b'{"function":"f","node":0,"server":0,"elapsed_ms":5.123}\n',
        headers={front.NODE: "0", front.OUTCOME: "served", front.REQUEST: "0-1", front.SERVER: "0"},
        content_type="application/json",
    )


def main(arguments: Sequence[str]) -> None:
    """Be a server of the benchmark."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(arguments[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
