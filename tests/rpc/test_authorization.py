"""Who may call what: the table is complete, and a server holds to it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health  # type: ignore[attr-defined]  # not in the stubs
from hypothesis import given
from hypothesis import strategies as st

from testbed.rpc.authorization import ALLOWED, CommandCheck, CommandStamps, caller, roles_for
from testbed.rpc.channels import connect, listen, new_server
from testbed.rpc.credentials import Secrets, issue
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import CONTROLLER, OPERATOR, Identity, node_identity

ROOT = Path(__file__).resolve().parents[2]
SECRET = "of the testbed"
NODES = [node_identity(index) for index in range(3)]
EVERYBODY = [OPERATOR, CONTROLLER, *NODES]


def credentials(identity: Identity, secret: str = SECRET) -> Secrets:
    return issue(secret, identity, [CONTROLLER, *NODES])


def methods() -> set[str]:
    """All methods of the protocol, as they are called."""
    return {
        f"/{service.full_name}/{method.name}"
        for service in pb.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def test_every_method_stands_in_the_table_and_no_other() -> None:
    listed = {f"/{service}/{method}" for service, known in ALLOWED.items() for method in known}
    assert {each for each in listed if "grpc.health" not in each} == methods()
    assert all(roles_for(each) for each in listed)


@pytest.mark.parametrize(
    "method",
    ["", "/", "//", "/edge_testbed.v1.Control/configure", "/edge_testbed.v1.Control/Configure/",
     "edge_testbed.v1.Nothing/Do", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
     "/grpc.health.v1.Health/List", "/edge_testbed.v1.Operator/Status\0"],
)  # fmt: skip
def test_what_stands_in_no_table_is_open_to_nobody(method: str) -> None:
    assert roles_for(method) == frozenset()


class Everything(
    pb_grpc.ControlServicer, pb_grpc.TasksServicer, pb_grpc.PeersServicer,
    pb_grpc.RegistryServicer, pb_grpc.OperatorServicer,
):  # fmt: skip
    """Implements nothing: what is let through ends as UNIMPLEMENTED, in its own words."""


class Counting(pb_grpc.OperatorServicer):
    """Says who calls."""

    async def Status(self, request: pb.Empty, context: Any) -> pb.StatusReply:
        return pb.StatusReply(json=str(caller()))

    async def WatchRun(
        self, request: pb.WatchRunRequest, context: Any
    ) -> AsyncIterator[pb.RunProgress]:
        yield pb.RunProgress(json=str(caller()))


@asynccontextmanager
async def serving(
    folder: Path, who: Identity, commands: CommandCheck | None = None, calls: int = 64
) -> AsyncIterator[str]:
    """A server of ``who`` with all services of the protocol, and its address."""
    me = credentials(who)
    server = new_server(me, calls=calls, commands=commands, message_limit=100_000)
    make_all: Any = Everything
    everything = make_all()
    every: list[Any] = [
        pb_grpc.add_ControlServicer_to_server,
        pb_grpc.add_TasksServicer_to_server,
        pb_grpc.add_PeersServicer_to_server,
        pb_grpc.add_RegistryServicer_to_server,
    ]
    for add in every:
        add(everything, server)
    operator: Any = Counting
    pb_grpc.add_OperatorServicer_to_server(operator(), server)
    make: Any = health.HealthServicer
    serving = make()
    await serving.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(serving, server)
    address = listen(server, f"unix:{folder}/{who}.sock", me)
    await server.start()
    try:
        yield str(address)
    finally:
        await server.stop(None)


async def answer(channel: grpc.aio.Channel, method: str) -> grpc.StatusCode:
    """What becomes of a call without content."""
    make: Any = channel.unary_stream
    call = make(method)(b"", timeout=30)
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    code: grpc.StatusCode = await call.code()
    return code


@pytest.mark.parametrize("who", EVERYBODY, ids=str)
async def test_everybody_may_do_what_the_table_says_and_nothing_else(
    tmp_path: Path, who: Identity
) -> None:
    async with (
        serving(tmp_path, CONTROLLER) as address,
        connect(address, credentials(who), CONTROLLER) as channel,
    ):
        for method in sorted(methods()):
            code = await answer(channel, method)
            if who == CONTROLLER:
                # It has nothing to prove itself to itself with.
                assert code is grpc.StatusCode.UNAUTHENTICATED, method
            elif who.role in roles_for(method):
                assert code not in _REFUSED, method
            else:
                assert code is grpc.StatusCode.PERMISSION_DENIED, method


_REFUSED = {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}


async def test_a_controller_commands_a_node_and_a_node_commands_nobody(tmp_path: Path) -> None:
    async with serving(tmp_path, NODES[1]) as address:
        for who in (CONTROLLER, NODES[0], OPERATOR):
            async with connect(address, credentials(who), NODES[1]) as channel:
                for method in sorted(methods()):
                    code = await answer(channel, method)
                    allowed = who.role in roles_for(method)
                    assert (code in _REFUSED) != allowed, (who, method, code)


async def test_nobody_gets_in_without_a_token_or_with_a_wrong_one(tmp_path: Path) -> None:
    wrong = [
        Secrets(OPERATOR),
        credentials(OPERATOR, "of another testbed"),
        # What proves it to a node proves nothing to the controller.
        Secrets(OPERATOR, tokens={"controller": credentials(OPERATOR).tokens["node-1"]}),
        # A node's token under another name.
        Secrets(OPERATOR, tokens={"controller": credentials(NODES[1]).tokens["controller"]}),
        Secrets(NODES[2], tokens={"controller": credentials(NODES[1]).tokens["controller"]}),
        Secrets(OPERATOR, tokens={"controller": credentials(OPERATOR).tokens["controller"][:-1]}),
        Secrets(OPERATOR, tokens={"controller": " "}),
    ]
    async with serving(tmp_path, CONTROLLER) as address:
        for me in wrong:
            async with connect(address, me, CONTROLLER) as channel:
                for method in sorted(methods()):
                    assert await answer(channel, method) is grpc.StatusCode.UNAUTHENTICATED
        async with grpc.aio.insecure_channel(address) as unknown:
            code = await answer(unknown, "/edge_testbed.v1.Operator/Status")
            assert code is grpc.StatusCode.UNAUTHENTICATED


async def test_health_is_open_and_says_no_more(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, CONTROLLER) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        code = await answer(channel, "/grpc.health.v1.Health/List")
        assert code is grpc.StatusCode.PERMISSION_DENIED


async def test_a_service_knows_who_calls(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, CONTROLLER) as address,
        connect(address, credentials(OPERATOR), CONTROLLER) as channel,
    ):
        stub: Any = pb_grpc.OperatorStub(channel)
        assert (await stub.Status(pb.Empty())).json == "operator"
        assert [each.json async for each in stub.WatchRun(pb.WatchRunRequest())] == ["operator"]


async def test_a_service_without_a_gatekeeper_knows_nobody() -> None:
    with pytest.raises(LookupError):
        caller()


async def test_a_command_counts_once_and_for_one_registration(tmp_path: Path) -> None:
    commands = CommandCheck()
    stamps = CommandStamps(commands.session)
    refused = grpc.StatusCode.FAILED_PRECONDITION

    async def told(stamps: CommandStamps | None) -> grpc.StatusCode:
        async with connect(address, credentials(CONTROLLER), NODES[1], stamps=stamps) as channel:
            return await answer(channel, "/edge_testbed.v1.Control/Describe")

    async with serving(tmp_path, NODES[1], commands) as address:
        assert await told(None) is refused
        assert await told(stamps) is not refused
        # The same numbers once more: a replay.
        assert await told(CommandStamps(commands.session)) is refused
        assert await told(stamps) is not refused
        before = commands.session
        commands.renew()
        assert await told(CommandStamps(before)) is refused
        assert await told(CommandStamps(commands.session)) is not refused


@given(st.lists(st.integers(0, 10_000), max_size=200))
def test_no_number_is_taken_twice(numbers: list[int]) -> None:
    commands = CommandCheck()
    taken = [n for n in numbers if not commands.refusal(f"{commands.session}:{n}")]
    assert len(taken) == len(set(taken))
    # Overtaking is no fault.
    if numbers and max(numbers) < CommandCheck.WINDOW:
        assert set(taken) == {n for n in numbers if n > -1}


@pytest.mark.parametrize("stamp", ["", ":", "x:1", "SESSION:", "SESSION:-1", "SESSION:1e3",
                                   "SESSION:9999999999999999999", "SESSION:²"])  # fmt: skip
def test_stamps_that_are_none(stamp: str) -> None:
    commands = CommandCheck()
    assert commands.refusal(stamp.replace("SESSION", commands.session))


def test_many_commands_take_no_memory() -> None:
    commands = CommandCheck()
    for number in range(1, 50_000):
        assert not commands.refusal(f"{commands.session}:{number}")
    assert commands.refusal(f"{commands.session}:7")
    assert len(commands._seen) <= 2 * CommandCheck.WINDOW + 1


async def test_a_message_that_is_too_large_is_refused(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, CONTROLLER) as address,
        connect(address, credentials(OPERATOR), CONTROLLER) as channel,
    ):
        stub: Any = pb_grpc.OperatorStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Status(pb.Empty(), metadata=(("padding", "x" * 40_000),))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.StartRun(pb.StartRunRequest(label="x" * 200_000))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await stub.Status(pb.Empty())).json == "operator"


async def test_calls_beyond_the_limit_are_refused_and_not_kept(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, CONTROLLER, calls=4) as address,
        connect(address, credentials(OPERATOR), CONTROLLER) as channel,
    ):
        watching: Any = health_pb2_grpc.HealthStub(channel)
        open_calls = [watching.Watch(health_pb2.HealthCheckRequest()) for _ in range(4)]
        for call in open_calls:
            await call.read()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await watching.Check(health_pb2.HealthCheckRequest())
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for call in open_calls:
            call.cancel()


def test_nothing_else_opens_a_port_or_a_connection() -> None:
    makes = re.compile(
        r"\b(add_(in)?secure_port|(in)?secure_channel|(grpc|aio)\.server\(|create_server\()"
    )
    allowed = {
        "testbed/rpc/channels.py",
        # Requests of anybody, which is what it is for.
        "edgenode/serving/front.py",
        # Pages for browsers, with a guard of their own.
        "testbed/ui/server.py",
        # Ports of pods as ports of this machine, and a look at whether TCP works.
        "testbed/runtime/kubernetes/forward.py",
        "testbed/cli/checks.py",
        # What the machine itself can do, and a server for the generator of others; on loopback.
        "benchmarks/bench_http.py",
        "benchmarks/bench_limits.py",
        "benchmarks/stub_front.py",
        "benchmarks/peers/locust_generator.py",
    }
    found = {
        str(path.relative_to(ROOT))
        for package in ("testbed", "controller", "edgenode", "trainer", "benchmarks")
        for path in (ROOT / package).rglob("*.py")
        if "testbed/testing" not in str(path) and makes.search(path.read_text(encoding="utf-8"))
    }
    assert found == allowed
