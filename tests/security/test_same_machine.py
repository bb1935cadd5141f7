"""What somebody who can connect, and even knows a secret or two, can do with it: only his own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from testbed.rpc.authorization import ALLOWED, COMMAND_KEY, roles_for
from testbed.rpc.channels import connect_blocking
from testbed.rpc.credentials import Secrets, read
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import CONTROLLER, Identity, Role, node_identity
from testbed.rpc.operator import OperatorClient, Status
from testbed.runtime.base import Testbed
from testbed.testing.runtime import small_plan

REFUSED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


@pytest.fixture
def status(attacked: Testbed) -> Iterator[Status]:
    """The testbed before the attack; after it, it has to be the same."""
    with OperatorClient(attacked.address, attacked.token) as operator:
        before = operator.status()
        yield before
        after = operator.status()
    assert after.healthy
    assert [node.pid for node in after.nodes] == [node.pid for node in before.nodes]
    assert after.runs == before.runs


def addresses(status: Status) -> dict[Identity, str]:
    """Where every process listens."""
    nodes = {node_identity(node.node): str(node.address) for node in status.nodes}
    return {CONTROLLER: status.address, **nodes}


def credentials(attacked: Testbed, who: Identity) -> Secrets:
    found = read(attacked.directory / "credentials" / f"{who}.json")
    assert isinstance(found, Secrets)
    return found


def configure(marker: Path) -> bytes:
    """What makes a node run a program, if it takes it."""
    document = json.loads(small_plan().to_json())
    document["application"] = {
        "name": "subprocess:Popen",
        "options": {"args": ["touch", str(marker)]},
    }
    request = pb.ConfigureRequest(run="evil", plan_json=json.dumps(document))
    return request.SerializeToString()


def attempt(channel: grpc.Channel, method: str, content: bytes = b"") -> grpc.StatusCode:
    make: Any = channel.unary_stream
    call = make(method)(content, timeout=20)
    try:
        for _ in call:
            call.cancel()
            return grpc.StatusCode.OK
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


METHODS = sorted(
    f"/{service}/{method}"
    for service, known in ALLOWED.items()
    if "health" not in service
    for method in known
)


def test_without_a_token_nothing_is_done(attacked: Testbed, status: Status, tmp_path: Path) -> None:
    marker = tmp_path / "code-was-run"
    for who, address in addresses(status).items():
        for me in (Secrets(CONTROLLER), Secrets(CONTROLLER, tokens={str(who): attacked.token})):
            with connect_blocking(address, me, who) as channel:
                for method in METHODS:
                    assert attempt(channel, method) in REFUSED, (who, method)
                code = attempt(channel, "/edge_testbed.v1.Control/Configure", configure(marker))
                assert code in REFUSED
    assert not marker.exists()


def test_a_node_is_no_operator_no_controller_and_no_other_node(
    attacked: Testbed, status: Status, tmp_path: Path
) -> None:
    me = credentials(attacked, node_identity(0))
    marker = tmp_path / "code-was-run"
    for who, address in addresses(status).items():
        if who == me.identity:
            continue
        for pretended in (me.identity, CONTROLLER, Identity(Role.OPERATOR), node_identity(1)):
            shown = Secrets(pretended, me.key, me.tokens)
            with connect_blocking(address, shown, who) as channel:
                for method in METHODS:
                    if pretended == me.identity and Role.NODE in roles_for(method):
                        continue
                    assert attempt(channel, method) in REFUSED, (who, pretended, method)
                attempt(channel, "/edge_testbed.v1.Control/Configure", configure(marker))
    assert not marker.exists()


def test_a_node_speaks_for_itself_alone(attacked: Testbed, status: Status) -> None:
    """No registration in another's name, no heartbeat that hangs up for another."""
    me = credentials(attacked, node_identity(0))
    with connect_blocking(status.address, me, CONTROLLER) as channel:
        registry = pb_grpc.RegistryStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            registry.Register(
                pb.RegisterRequest(node=1, address="unix:/tmp/evil", pid=1), timeout=20
            )
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(grpc.RpcError) as refused:
            registry.Beat(iter([pb.Heartbeat(node=1)]), timeout=20)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        # Its own, but of no registration.
        with pytest.raises(grpc.RpcError) as refused:
            registry.Beat(iter([pb.Heartbeat(node=0, session="guessed")]), timeout=20)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_a_controller_that_a_node_is_not_registered_with_commands_nothing(
    attacked: Testbed, status: Status, tmp_path: Path
) -> None:
    """As one that hung while another took its place."""
    me = credentials(attacked, CONTROLLER)
    marker = tmp_path / "code-was-run"
    for who, address in addresses(status).items():
        if who == CONTROLLER:
            continue
        with connect_blocking(address, me, who) as channel:
            control = pb_grpc.ControlStub(channel)
            for stamp in ("", "0123456789abcdef:1"):
                with pytest.raises(grpc.RpcError) as refused:
                    control.Configure(
                        pb.ConfigureRequest.FromString(configure(marker)),
                        timeout=20,
                        metadata=((COMMAND_KEY, stamp),),
                    )
                assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert not marker.exists()


def test_garbage_ends_no_process(attacked: Testbed, status: Status) -> None:
    """Bytes that are no HTTP/2, from somebody who can connect."""
    import socket

    for address in addresses(status).values():
        for content in (b"", b"GET / HTTP/1.1\r\n\r\n", os.urandom(65536), b"\0" * 100_000):
            with socket.socket(socket.AF_UNIX) as each:
                each.settimeout(20)
                each.connect(address.removeprefix("unix:"))
                try:
                    each.sendall(content)
                    each.recv(100)
                except OSError:
                    continue


def test_peers_that_never_read_hold_nobody_up(attacked: Testbed, status: Status) -> None:
    import socket

    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
    opened = []
    try:
        for address in addresses(status).values():
            for _ in range(50):
                each = socket.socket(socket.AF_UNIX)
                opened.append(each)
                each.settimeout(20)
                each.connect(address.removeprefix("unix:"))
                each.sendall(preface)
        with OperatorClient(attacked.address, attacked.token, timeout=30.0) as operator:
            assert operator.status().healthy
    finally:
        for each in opened:
            each.close()
