"""A node and its controller: found, lost, found again, gone."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from edgenode.node import EdgeNode
from edgenode.registration import stay_registered
from testbed.errors import PermanentError, TemporaryError
from testbed.rpc.credentials import shared
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import node_identity
from testbed.rpc.pulse import Pulse
from tests.edgenode.network import SECRET

PATIENCE = 15.0


class Registry(pb_grpc.RegistryServicer):
    """The controller's side, with a memory."""

    def __init__(self, refuses: bool = False) -> None:
        self.refuses = refuses
        self.registered: list[pb.RegisterRequest] = []
        self.beats: list[pb.Heartbeat] = []
        self._news = asyncio.Condition()

    async def Register(self, request: pb.RegisterRequest, context: Any) -> pb.RegisterReply:
        if self.refuses:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong token")
        self.registered.append(request)
        await self._tell()
        return pb.RegisterReply(testbed="test", heartbeat_interval=20_000)

    async def Beat(self, requests: AsyncIterator[pb.Heartbeat], context: Any) -> pb.Empty:
        async for beat in requests:
            self.beats.append(beat)
            await self._tell()
        return pb.Empty()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE), self._news:
            await self._news.wait_for(condition)

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()


@asynccontextmanager
async def serving(registry: Registry, bind: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """The registry at an address, until it is gone without a word."""
    server = grpc.aio.server()
    pb_grpc.add_RegistryServicer_to_server(registry, server)
    port = server.add_insecure_port(bind)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def started_node(folder: Path) -> AsyncIterator[EdgeNode]:
    node = EdgeNode(0, folder, shared(SECRET, node_identity(0)))
    await node.start(f"unix:{folder}/node.sock")
    try:
        yield node
    finally:
        await node.close()


async def test_a_node_registers_and_beats(tmp_path: Path) -> None:
    registry = Registry()
    async with started_node(tmp_path) as node, serving(registry) as address:
        registration = asyncio.create_task(stay_registered(node, address, 5.0))
        await registry.until(lambda: len(registry.beats) >= 3)
        registration.cancel()
        assert [r.address for r in registry.registered] == [node.address]
        assert all(beat.resident_bytes > 0 for beat in registry.beats)
        assert registry.beats[-1].cpu > 0


async def test_a_heartbeat_belongs_to_a_registration(tmp_path: Path) -> None:
    registry = Registry()
    async with started_node(tmp_path) as node, serving(registry) as address:
        registration = asyncio.create_task(stay_registered(node, address, 5.0))
        await registry.until(lambda: len(registry.beats) >= 1)
        registration.cancel()
        (registered,) = registry.registered
        assert registered.session == node.commands.session
        assert {beat.session for beat in registry.beats} == {registered.session}


async def test_a_controller_that_comes_back_finds_its_node_again(tmp_path: Path) -> None:
    first, second = Registry(), Registry()
    async with started_node(tmp_path) as node:
        async with serving(first) as address:
            registration = asyncio.create_task(stay_registered(node, address, 30.0))
            await first.until(lambda: len(first.beats) >= 1)
        async with serving(second, address):
            await second.until(lambda: len(second.beats) >= 1)
            registration.cancel()
    assert [r.node for r in second.registered] == [0]


async def test_a_controller_that_is_gone_ends_the_node_after_the_timeout(tmp_path: Path) -> None:
    registry = Registry()
    loop = asyncio.get_running_loop()
    async with started_node(tmp_path) as node:
        async with serving(registry) as address:
            registration = asyncio.create_task(stay_registered(node, address, 0.5))
            await registry.until(lambda: len(registry.beats) >= 1)
        gone = loop.time()
        with pytest.raises(TemporaryError, match="does not answer"):
            async with asyncio.timeout(PATIENCE):
                await registration
        assert 0.3 < loop.time() - gone < 5.0


async def test_a_node_that_was_stopped_itself_does_not_take_its_controller_for_gone(
    tmp_path: Path,
) -> None:
    first, second = Registry(), Registry()
    now = 0.0
    async with started_node(tmp_path) as node:
        async with serving(first) as address:
            registration = asyncio.create_task(
                stay_registered(node, address, 30.0, Pulse(clock=lambda: now))
            )
            await first.until(lambda: len(first.beats) >= 1)
        now = 3600.0
        async with serving(second, address):
            await second.until(lambda: len(second.beats) >= 1)
            registration.cancel()
    assert [r.node for r in second.registered] == [0]
    assert second.registered[0].process == first.registered[0].process == node.process


async def test_a_node_that_is_refused_gives_up_at_once(tmp_path: Path) -> None:
    async with started_node(tmp_path) as node, serving(Registry(refuses=True)) as address:
        with pytest.raises(PermanentError, match="wrong token"):
            async with asyncio.timeout(PATIENCE):
                await stay_registered(node, address, 30.0)


async def _process(folder: Path, controller: str, *more: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "edgenode",
            "--node",
            "3",
            "--controller",
            controller,
            "--insecure-plaintext",
        ),
        *("--spool", str(folder), "--bind", f"unix:{folder}/node.sock", *more),
        env={**os.environ, "TESTBED_PROCESS_TOKEN": SECRET},
        stderr=asyncio.subprocess.PIPE,
    )


async def _end(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    async with asyncio.timeout(PATIENCE):
        _, stderr = await process.communicate()
    return process.returncode, stderr.decode()


async def test_the_process_starts_small_and_stops_on_sigterm(tmp_path: Path) -> None:
    registry = Registry()
    async with serving(registry) as address:
        process = await _process(tmp_path, address)
        await registry.until(lambda: len(registry.beats) >= 1)
        assert registry.registered[0].node == 3
        assert registry.registered[0].pid == process.pid
        process.terminate()
        code, stderr = await _end(process)
    assert code == 0
    assert "Traceback" not in stderr
    assert registry.beats[0].resident_bytes < 60_000_000


async def test_the_process_ends_by_itself_without_a_controller(tmp_path: Path) -> None:
    process = await _process(tmp_path, "127.0.0.1:1", "--orphan-timeout", "0.3")
    code, stderr = await _end(process)
    assert code == TemporaryError.exit_code
    assert "does not answer" in stderr
    assert "Traceback" not in stderr


async def test_an_address_in_use_is_said_plainly(tmp_path: Path) -> None:
    async with serving(Registry(), f"unix:{tmp_path}/taken.sock"):
        process = await _process(tmp_path, "127.0.0.1:1", "--bind", f"unix:{tmp_path}/taken.sock")
        code, stderr = await _end(process)
    assert code == 3
    assert f"another process listens on {tmp_path}/taken.sock" in stderr
    assert "Traceback" not in stderr


async def test_what_a_process_that_was_killed_left_is_in_nobodys_way(tmp_path: Path) -> None:
    registry = Registry()
    async with serving(registry) as address:
        process = await _process(tmp_path, address)
        await registry.until(lambda: len(registry.beats) >= 1)
        process.kill()
        await _end(process)
        assert (tmp_path / "node.sock").is_socket()
        registered = len(registry.registered)
        process = await _process(tmp_path, address)
        await registry.until(lambda: len(registry.registered) > registered)
        process.terminate()
        code, _ = await _end(process)
    assert code == 0


def test_starting_a_node_imports_nothing_heavy() -> None:
    heavy = {"numpy", "pandas", "pydantic", "sqlalchemy", "yaml", "numba", "onnxruntime", "ray"}
    listed = subprocess.run(
        [sys.executable, "-c", "import edgenode.process, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout.split()
    assert "edgenode.process" in listed
    assert heavy.isdisjoint(listed)
