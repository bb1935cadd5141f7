"""Certificates: who has one is let in as what it says, and nobody else is."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health  # type: ignore[attr-defined]  # not in the stubs

from testbed.errors import PrerequisiteMissing, UsageError
from testbed.rpc.authorization import caller, roles_for
from testbed.rpc.certificates import LIFETIME, Authority, expiry
from testbed.rpc.channels import connect, listen, listen_for_probes, new_server
from testbed.rpc.credentials import PartyCertificate, Secrets, issue, of_operator, read, shared
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import CONTROLLER, OPERATOR, node_identity
from testbed.rpc.token import find_credentials
from tests.rpc.test_authorization import answer, methods
from tests.services.ports import free_ports

AUTHORITY = Authority.new("mine")
ME = AUTHORITY.issue(CONTROLLER)


class Telling(pb_grpc.OperatorServicer):
    async def Status(self, request: pb.Empty, context: Any) -> pb.StatusReply:
        return pb.StatusReply(json=str(caller()))

    async def WatchRun(
        self, request: pb.WatchRunRequest, context: Any
    ) -> AsyncIterator[pb.RunProgress]:
        for _ in range(3):
            yield pb.RunProgress(json=str(caller()))


@asynccontextmanager
async def serving() -> AsyncIterator[str]:
    server = new_server(ME, calls=64)
    telling: Any = Telling
    pb_grpc.add_OperatorServicer_to_server(telling(), server)
    address = listen(server, "127.0.0.1:0", ME)
    await server.start()
    try:
        yield str(address)
    finally:
        await server.stop(None)


@pytest.mark.parametrize("index", [0, 3, 30, 300, 99999])
def test_what_is_issued_is_read_again(tmp_path: Path, index: int) -> None:
    for who in (OPERATOR, CONTROLLER, node_identity(index)):
        made = AUTHORITY.issue(who)
        (tmp_path / "pem").write_text(made.to_pem())
        assert read(tmp_path / "pem") == made
        assert made.identity == who
        left = expiry(made) - datetime.datetime.now(datetime.UTC)
        assert datetime.timedelta(days=1) < left <= LIFETIME
    assert of_operator(AUTHORITY.issue(OPERATOR).to_pem() + "\n\n").identity == OPERATOR
    assert Authority.from_pem("mine", AUTHORITY.to_pem()).fingerprint == AUTHORITY.fingerprint


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", "no JSON", '{"identity": "root", "key": "", "tokens": {}}', "[" * 9999,
     "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
     ME.certificate + ME.authority, ME.key + ME.certificate, ME.key + ME.key + ME.certificate],
)  # fmt: skip
def test_what_is_no_file_of_credentials_is_said_plainly(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(PrerequisiteMissing, match="file"):
        read(tmp_path / "file")
    with pytest.raises(PrerequisiteMissing, match="missing"):
        read(tmp_path / "missing")


def test_credentials_of_somebody_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pem").write_text(ME.to_pem())
    assert find_credentials(CONTROLLER, tmp_path / "pem") == ME
    with pytest.raises(PrerequisiteMissing, match="those of controller"):
        find_credentials(node_identity(0), tmp_path / "pem")


async def test_who_has_a_certificate_is_what_it_says() -> None:
    async with serving() as address:
        async with connect(address, AUTHORITY.issue(OPERATOR), CONTROLLER) as channel:
            stub: Any = pb_grpc.OperatorStub(channel)
            assert (await stub.Status(pb.Empty())).json == "operator"
            watched = [each.json async for each in stub.WatchRun(pb.WatchRunRequest())]
            assert watched == ["operator"] * 3
        async with connect(address, AUTHORITY.issue(node_identity(3)), CONTROLLER) as channel:
            for method in sorted(each for each in methods() if "Operator" in each):
                assert not {OPERATOR.role} - roles_for(method)
                assert await answer(channel, method) is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    "me",
    [
        Authority.new("mine").issue(OPERATOR),
        Authority.new("other").issue(OPERATOR),
        shared("a token", OPERATOR),
    ],
    ids=["another authority of that name", "another testbed", "no certificate"],
)
async def test_nobody_else_is_let_in(me: PartyCertificate | Secrets) -> None:
    async with serving() as address, connect(address, me, CONTROLLER) as channel:
        code = await answer(channel, "/edge_testbed.v1.Operator/Status")
        assert code is grpc.StatusCode.UNAVAILABLE


def test_a_certificate_of_another_testbed_names_nobody_here() -> None:
    for name in ("edge-testbed://other/operator", "edge-testbed://mine/root", "operator", ""):
        assert ME.identify_peer({"x509_subject_alternative_name": [name.encode()]}) is None
    seen = {"x509_subject_alternative_name": [b"x", b"edge-testbed://mine/node-30"]}
    assert ME.identify_peer(seen) == node_identity(30)


async def test_a_server_that_is_another_party_is_not_talked_to() -> None:
    """Wherever its address came from."""
    async with (
        serving() as address,
        connect(address, AUTHORITY.issue(OPERATOR), node_identity(1)) as channel,
    ):
        code = await answer(channel, "/edge_testbed.v1.Operator/Status")
        assert code is grpc.StatusCode.UNAVAILABLE


async def test_nothing_goes_over_a_network_unencrypted_unasked() -> None:
    token = issue("secret", OPERATOR, [CONTROLLER])
    with pytest.raises(UsageError, match="--insecure-plaintext"):
        connect("127.0.0.1:1", token, CONTROLLER)
    server = new_server(token, calls=1)
    with pytest.raises(UsageError, match="--insecure-plaintext"):
        listen(server, "127.0.0.1:0", token)
    await connect("127.0.0.1:1", shared("secret", OPERATOR), CONTROLLER).close(None)


async def test_probes_are_answered_without_a_certificate_and_nothing_else_is() -> None:
    servicer: Any = health.HealthServicer
    serves = servicer()
    await serves.set("", health_pb2.HealthCheckResponse.SERVING)
    (port,) = free_ports(1)
    server = listen_for_probes(
        lambda server: health_pb2_grpc.add_HealthServicer_to_server(serves, server),
        f"127.0.0.1:{port}",
    )
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        for method in sorted(methods()):
            assert await answer(channel, method) is grpc.StatusCode.UNAUTHENTICATED
    await server.stop(None)
