"""Who is given up and who is not: real nodes in this process, time handed in."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health  # type: ignore[attr-defined]  # not in the stubs

from controller import registry as module
from controller.link import NodeLink
from controller.registry import BEAT_TIMEOUT_S, Node, Registry
from edgenode.node import EdgeNode
from testbed.rpc.authorization import Gatekeeper
from testbed.rpc.channels import connect
from testbed.rpc.credentials import shared
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import CONTROLLER, node_identity
from testbed.rpc.pulse import Pulse
from tests.edgenode.network import SECRET

PATIENCE_S = 30.0


class Clock:
    """Rings the pulse while it goes on, as a process that is awake does."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def run(self, registry: Registry, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            registry.pulse.ring()
            registry.look()


class Hanging(pb_grpc.ControlServicer):
    """Takes calls and answers none."""

    def __init__(self) -> None:
        self.address = ""
        self.asked = asyncio.Event()

    async def Describe(self, request: pb.Empty, context: Any) -> pb.NodeDescription:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError("never")

    async def Events(self, request_iterator: AsyncIterator[pb.BatchAck], context: Any) -> None:
        await asyncio.Event().wait()


async def ignore(link: NodeLink, batch: pb.EventBatch) -> None: ...


class Bench:
    """A registry of one node, reached over gRPC, and what it said of the node."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.seen: list[tuple[str, str]] = []
        self.registry = Registry(
            "test",
            1,
            shared(SECRET, CONTROLLER),
            on_events=ignore,
            changed=self._changed,
            pulse=Pulse(clock=self.clock),
        )
        self.stub: Any = None
        self.session = ""
        self._news = asyncio.Condition()
        self._telling: set[asyncio.Task[None]] = set()

    @property
    def node(self) -> Node:
        return self.registry.nodes[0]

    def _changed(self, node: Node) -> None:
        self.seen.append((node.condition, node.reason))
        telling = asyncio.get_running_loop().create_task(self._tell())
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def until(self, condition: str) -> str:
        """The reason, once the node is in this condition."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: self.node.condition == condition)
        return self.node.reason

    async def register(self, address: str, process: str, session: str = "s") -> None:
        self.session = session
        await self.stub.Register(
            pb.RegisterRequest(address=address, pid=7, process=process, session=session)
        )

    async def beat(self, *, lag: int = 0) -> Any:
        """An open heartbeat stream with one beat that has come."""
        call = self.stub.Beat()
        before = self.node.beats
        await call.write(pb.Heartbeat(lag=lag, session=self.session))
        async with asyncio.timeout(PATIENCE_S):
            while self.node.beats == before:  # noqa: ASYNC110 - nothing tells of a beat
                await asyncio.sleep(0)
        return call


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    server = grpc.aio.server(interceptors=[Gatekeeper(shared(SECRET, CONTROLLER))])
    pb_grpc.add_RegistryServicer_to_server(made.registry, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    me = shared(SECRET, node_identity(0))
    async with connect(f"127.0.0.1:{port}", me, CONTROLLER) as channel:
        made.stub = pb_grpc.RegistryStub(channel)
        try:
            yield made
        finally:
            made.registry.end()
            await made.registry.close()
            await server.stop(None)


@asynccontextmanager
async def node(folder: Path) -> AsyncIterator[EdgeNode]:
    started = EdgeNode(0, folder, shared(SECRET, node_identity(0)))
    await started.start("127.0.0.1:0")
    await started.set_serving(True)
    try:
        yield started
    finally:
        await started.close()


@asynccontextmanager
async def hanging() -> AsyncIterator[Hanging]:
    server, servicer = grpc.aio.server(), Hanging()
    pb_grpc.add_ControlServicer_to_server(servicer, server)
    serves = health.HealthServicer()
    await serves.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(serves, server)
    servicer.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield servicer
    finally:
        await server.stop(None)


async def healthy(made: Bench, started: EdgeNode) -> Any:
    await made.register(started.address, started.process, started.commands.session)
    await made.until("healthy")
    call = await made.beat()
    made.seen.clear()
    return call


async def test_nobody_is_blamed_for_a_pause_of_this_process(tmp_path: Path) -> None:
    async with bench() as made, node(tmp_path) as started:
        await healthy(made, started)
        made.clock.run(made.registry, 1.0)
        made.clock.now += 9.0
        made.clock.run(made.registry, 1.0)
        assert made.seen == []
        assert made.registry.pulse.paused == pytest.approx(9.0)


async def test_a_loop_that_is_starved_blames_nobody_either(tmp_path: Path) -> None:
    async with bench() as made, node(tmp_path) as started:
        await healthy(made, started)
        for _ in range(8):
            made.clock.now += 2.0
            made.registry.pulse.ring()
            made.registry.look()
        assert made.seen == []


async def test_a_node_that_is_silent_is_asked_and_lives_if_it_answers(tmp_path: Path) -> None:
    async with bench() as made, node(tmp_path) as started:
        await healthy(made, started)
        made.clock.run(made.registry, BEAT_TIMEOUT_S + 0.2)
        assert made.node.condition == "suspect"
        assert re.fullmatch(r"no heartbeat for 3\.\d s; asked for its health", made.node.reason)
        await made.until("healthy")
        assert [condition for condition, _ in made.seen] == ["suspect", "healthy"]
        await made.registry.settled()


async def test_a_heartbeat_ends_the_suspicion() -> None:
    async with bench() as made, hanging() as silent:
        await made.register(silent.address, "p")
        await made.until("healthy")
        call = await made.beat()
        made.clock.run(made.registry, BEAT_TIMEOUT_S + 0.2)
        assert made.node.condition == "suspect"
        await call.write(pb.Heartbeat(session=made.session))
        await made.until("healthy")


async def test_a_node_that_does_not_answer_is_unreachable_and_not_called_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ASK_S", 0.2)
    async with bench() as made, hanging() as silent:
        await made.register(silent.address, "p")
        await made.until("healthy")
        call = await made.beat()
        made.clock.run(made.registry, BEAT_TIMEOUT_S + 0.2)
        assert made.node.condition == "suspect"
        async with asyncio.timeout(PATIENCE_S):
            await silent.asked.wait()
        made.clock.run(made.registry, 0.3)
        reason = await made.until("unreachable")
        assert re.fullmatch(
            r"no heartbeat for 3\.\d s; health check not answered within 0\.2 s", reason
        )
        assert made.node.link is None
        # When it goes on, its next heartbeat tells it to register again.
        await call.write(pb.Heartbeat(session=made.session))
        assert await call.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_node_whose_process_has_ended_is_dead_at_once(tmp_path: Path) -> None:
    async with bench() as made:
        async with node(tmp_path) as started:
            call = await healthy(made, started)
        call.cancel()
        reason = await made.until("dead")
        assert reason == (
            "its heartbeat stream broke; connection refused, so its process has ended"
        )


async def test_a_broken_stream_alone_costs_no_node(tmp_path: Path) -> None:
    async with bench() as made, node(tmp_path) as started:
        call = await healthy(made, started)
        link = made.node.link
        call.cancel()
        await made.until("suspect")
        await made.register(started.address, started.process, started.commands.session)
        await made.until("healthy")
        assert "dead" not in {condition for condition, _ in made.seen}
        assert made.node.link is link, "the same process keeps its connection"


async def test_another_process_at_the_address_is_another_node(tmp_path: Path) -> None:
    async with bench() as made, node(tmp_path) as started:
        await made.register(started.address, "an earlier one", started.commands.session)
        await made.until("healthy")
        call = await made.beat()
        call.cancel()
        assert "answers in its place" in await made.until("dead")


async def test_a_second_process_is_refused_while_the_first_one_answers(tmp_path: Path) -> None:
    async with bench() as made:
        async with node(tmp_path) as started:
            await healthy(made, started)
            with pytest.raises(grpc.aio.AioRpcError, match="is up already"):
                await made.register("127.0.0.1:1", "second")
            assert made.node.process == started.process
        async with node(tmp_path) as restarted:
            await made.register(restarted.address, restarted.process, restarted.commands.session)
            await made.until("healthy")
            assert made.node.process == restarted.process


async def test_nodes_whose_timers_ring_late_are_given_more_time(tmp_path: Path) -> None:
    async with bench() as made, node(tmp_path) as started:
        await made.register(started.address, started.process, started.commands.session)
        await made.until("healthy")
        await made.beat(lag=2_000_000)
        made.seen.clear()
        made.clock.run(made.registry, BEAT_TIMEOUT_S + 3.5)
        assert made.seen == []
        made.clock.run(made.registry, 1.0)
        assert [condition for condition, _ in made.seen] == ["suspect"]


async def test_what_was_stored_while_a_node_was_given_up_is_told_when_it_is_back(
    tmp_path: Path,
) -> None:
    async with bench() as made, node(tmp_path) as started:
        await healthy(made, started)
        link = made.node.link
        assert link is not None
        await link.close()
        made.node.link = None
        link.acknowledge("run", 3)
        await made.register(started.address, started.process, started.commands.session)
        await made.until("healthy")
        assert made.node.link is not link
        assert made.node.link is not None
        assert made.node.link.acks.latest == {"run": 3}
