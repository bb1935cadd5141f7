"""Errors across gRPC: what is raised at the controller is what its caller catches."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc
import pytest
import pytest_asyncio

from testbed.errors import (
    PermanentError,
    PrerequisiteMissing,
    Problem,
    TemporaryError,
    TestbedError,
    UsageError,
)
from testbed.rpc.failures import abort, received
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc

_Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
LONG = UsageError("a scenario", [Problem(f"key {n}", "xxxö" * 30, "y") for n in range(100)])
ERRORS = [
    UsageError("no such policy", [Problem("policy", "'a'; b", "known are c; d")]),
    PrerequisiteMissing("no task log", "run a scenario first"),
    TemporaryError("locked", fix="wait"),
    PermanentError("damaged: fü"),
]


class _Failing(pb_grpc.OperatorServicer):
    async def StopRun(self, request: pb.StopRunRequest, context: _Context) -> pb.Empty:
        await abort(context, LONG if request.run == "long" else ERRORS[int(request.run)])


@pytest_asyncio.fixture
async def stub() -> AsyncIterator[pb_grpc.OperatorStub]:
    server = grpc.aio.server()
    pb_grpc.add_OperatorServicer_to_server(_Failing(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield pb_grpc.OperatorStub(channel)
    await server.stop(None)


@pytest.mark.parametrize("number", range(len(ERRORS)))
async def test_an_error_arrives_as_it_was(stub: pb_grpc.OperatorStub, number: int) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await stub.StopRun(pb.StopRunRequest(run=str(number)))
    error = received(caught.value)
    assert isinstance(error, TestbedError)
    assert type(error) is type(ERRORS[number])
    assert error.to_document() == ERRORS[number].to_document()
    assert str(error) == str(ERRORS[number])


async def test_an_error_too_long_for_metadata_arrives_as_its_message(
    stub: pb_grpc.OperatorStub,
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await stub.StopRun(pb.StopRunRequest(run="long"))
    assert received(caught.value) is None
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    details = caught.value.details() or ""
    assert details.startswith("a scenario\n  - key 0: xxx")
    assert details.endswith(" [...]")
