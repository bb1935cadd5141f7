"""A node that is stopped hands over what it has logged, as far as somebody takes it in time."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from edgenode.node import EdgeNode
from edgenode.process import main
from testbed.errors import UsageError
from testbed.rpc.authorization import CommandStamps
from testbed.rpc.credentials import shared
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import node_identity
from testbed.rpc.messages import ALIVE_SERVICE, task_to_message
from tests.edgenode.network import SECRET, as_controller, cluster, plan, task

PATIENCE = 15.0


class Controller(pb_grpc.RegistryServicer):
    """Hangs up on a node whose heartbeats end, as the real one does."""

    def __init__(self) -> None:
        self.address = ""
        self.node = ""
        self.session = ""
        self.beats = 0
        self.gone = False
        self._news = asyncio.Condition()

    async def Register(self, request: pb.RegisterRequest, context: Any) -> pb.RegisterReply:
        self.node, self.session = request.address, request.session
        await self._tell()
        return pb.RegisterReply(testbed="test", heartbeat_interval=20_000)

    async def Beat(self, requests: AsyncIterator[pb.Heartbeat], context: Any) -> pb.Empty:
        try:
            async for _ in requests:
                self.beats += 1
                await self._tell()
        finally:
            self.gone = True
        return pb.Empty()

    async def until_more_beats(self, count: int) -> None:
        wanted = self.beats + count
        async with asyncio.timeout(PATIENCE), self._news:
            await self._news.wait_for(lambda: self.beats >= wanted)

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()


@asynccontextmanager
async def controller() -> AsyncIterator[Controller]:
    serving = Controller()
    server = grpc.aio.server()
    pb_grpc.add_RegistryServicer_to_server(serving, server)
    serving.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield serving
    finally:
        await server.stop(None)


async def start(spool: Path, controller: str, *more: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edgenode", "--node", "edge-node-0", "--controller", controller),
        *("--spool", str(spool / "spool"), "--bind", f"unix:{spool}/node.sock", *more),
        "--insecure-plaintext",
        env={**os.environ, "TESTBED_PROCESS_TOKEN": SECRET},
        stderr=asyncio.subprocess.PIPE,
    )


async def end(process: asyncio.subprocess.Process) -> str:
    """What it said, once it has ended in order."""
    async with asyncio.timeout(PATIENCE):
        _, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
    assert b"Traceback" not in stderr
    return stderr.decode()


def left(spool: Path) -> list[str]:
    return [path.name for path in (spool / "spool").iterdir()]


@asynccontextmanager
async def in_mid_run(registry: Controller) -> AsyncIterator[Any]:
    """The control service of a node that is executing a task."""
    node = registry.node
    async with as_controller(node, node_identity(0), CommandStamps(registry.session)) as channel:
        control: Any = pb_grpc.ControlStub(channel)
        tasks: Any = pb_grpc.TasksStub(channel)
        await control.Configure(
            pb.ConfigureRequest(
                run="run",
                plan_json=plan(nodes=1).to_json(),
                peers=[pb.PeerAddress(node=0, address=node)],
            )
        )
        await control.PrepareEpisode(pb.PrepareEpisodeRequest(run="run", episode=0))
        await control.StartEpisode(pb.StartEpisodeRequest(run="run", episode=0))
        given = task(1, execution=5_000_000, deadline=60_000_000)._replace(slot=0)
        told = pb.Arrivals(run="run", number=1, until=1, tasks=[task_to_message(given)])
        await tasks.Arrive(told)
        yield control


async def test_it_stays_registered_until_its_log_is_stored(tmp_path: Path) -> None:
    async with controller() as registry:
        process = await start(tmp_path, registry.address, "--farewell", "60")
        await registry.until_more_beats(1)
        async with in_mid_run(registry) as control:
            events = control.Events()
            batch = await events.read()
            process.terminate()
            await registry.until_more_beats(10)
            assert not registry.gone
            with pytest.raises(grpc.aio.AioRpcError, match="shutting down"):
                await control.PrepareEpisode(pb.PrepareEpisodeRequest(run="run", episode=1))
            description = await control.Describe(pb.Empty())
            assert description.unacknowledged > 0
            while description.unacknowledged > batch.number:
                batch = await events.read()
            await events.write(pb.BatchAck(run="run", number=batch.number))
            said = await end(process)
    assert registry.gone
    assert "left in the spool" not in said
    assert left(tmp_path) == []


async def test_a_listener_may_come_while_it_leaves(tmp_path: Path) -> None:
    async with controller() as registry:
        process = await start(tmp_path, registry.address, "--farewell", "60")
        await registry.until_more_beats(1)
        async with in_mid_run(registry) as control:
            process.terminate()
            await registry.until_more_beats(2)
            events = control.Events()
            batch = await events.read()
            await events.write(pb.BatchAck(run=batch.run, number=batch.number))
            await end(process)
    assert left(tmp_path) == []


@pytest.mark.parametrize("dismissed", [False, True], ids=["in-time", "dismissed"])
async def test_what_nobody_takes_stays_in_the_spool(tmp_path: Path, dismissed: bool) -> None:
    farewell = "60" if dismissed else "0.2"
    async with controller() as registry:
        process = await start(tmp_path, registry.address, "--farewell", farewell)
        await registry.until_more_beats(1)
        async with in_mid_run(registry) as control:
            if dismissed:
                await control.Shutdown(pb.Empty())
            else:
                process.terminate()
            said = await end(process)
    assert "batches left in the spool: 1" in said
    assert left(tmp_path) == ["run.spool"]


async def test_a_node_that_leaves_takes_no_run(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=1) as network:
        (member,) = network.members
        await network.configure(plan(nodes=1))
        await member.node.leave()
        with pytest.raises(UsageError, match="node 0 is shutting down"):
            member.node.prepare_episode(0)
        with pytest.raises(grpc.aio.AioRpcError, match="node 0 is shutting down"):
            await network.configure(plan(nodes=1))


async def test_it_is_alive_whatever_the_controller_does(tmp_path: Path) -> None:
    serving = health_pb2.HealthCheckResponse.SERVING
    async with cluster(tmp_path, nodes=1) as network:
        (member,) = network.members
        health = health_pb2_grpc.HealthStub(member.channel)

        async def asked(service: str) -> Any:
            reply = await health.Check(health_pb2.HealthCheckRequest(service=service))
            return reply.status

        assert await asked(ALIVE_SERVICE) == serving
        assert await asked("") != serving
        await member.node.set_serving(True)
        assert await asked("") == serving
        await member.node.leave()
        assert await asked(ALIVE_SERVICE) == serving
        assert await asked("") != serving


@pytest.mark.parametrize(
    ("advertised", "host"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("fd00::7", "[fd00::7]"),
        ("[fd00::7]", "[fd00::7]"),
        ("edge-node-0.edge-nodes", "edge-node-0.edge-nodes"),
        (None, "127.0.0.1"),
    ],
)
async def test_the_address_named_to_others(
    tmp_path: Path, advertised: str | None, host: str
) -> None:
    node = EdgeNode(0, tmp_path, shared(SECRET, node_identity(0)))
    try:
        address = await node.start("127.0.0.1:0", advertised)
    finally:
        await node.close()
    assert address.rpartition(":")[0] == host


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--node", "edge-node"], "'edge-node' is neither an index nor a name like node-3"),
        (["--node", "edge-node-3x"], "neither an index"),
        (["--node", "-1"], "neither an index"),
        (["--node", "3", "--farewell", "-1"], "not a number of seconds"),
        (["--node", "3", "--farewell", "soon"], "--farewell"),
    ],
)
def test_options_that_mean_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*options, "--controller", "127.0.0.1:1", "--spool", str(tmp_path)])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
