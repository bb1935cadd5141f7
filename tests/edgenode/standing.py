"""A node as a process of its own, registered at a controller that only takes it in."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from testbed.model.units import SECOND
from testbed.rpc.channels import listen, new_server
from testbed.rpc.credentials import issue, shared
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import CONTROLLER, node_identity

SECRET: Final = "of all"
"""What the credentials of everybody in the testbed are made from."""


class _Registry(pb_grpc.RegistryServicer):
    """Takes a node in, as a controller does, and learns the session that its commands need."""

    def __init__(self) -> None:
        self.came: asyncio.Future[pb.RegisterRequest] = asyncio.get_running_loop().create_future()

    async def Register(self, request: pb.RegisterRequest, context: Any) -> pb.RegisterReply:
        if not self.came.done():
            self.came.set_result(request)
        return pb.RegisterReply(testbed="fuzzed", heartbeat_interval=SECOND)

    async def Beat(self, requests: AsyncIterator[pb.Heartbeat], context: Any) -> pb.Empty:
        async for _ in requests:
            pass
        return pb.Empty()


@asynccontextmanager
async def a_node(
    folder: Path, *options: str
) -> AsyncIterator[tuple[pb.RegisterRequest, psutil.Process, Path]]:
    """A node that runs, with more ``options``; how it registered, its process and its log."""
    # A path to a socket may have 108 characters only.
    with tempfile.TemporaryDirectory(prefix="tbn-") as sockets:
        me = shared(SECRET, CONTROLLER)
        server = new_server(me, calls=16)
        registry = _Registry()
        pb_grpc.add_RegistryServicer_to_server(registry, server)
        address = listen(server, f"unix:{sockets}/c", me)
        await server.start()
        credentials = Path(sockets) / "node-0.json"
        node = node_identity(0)
        own = issue(SECRET, node, [CONTROLLER, node_identity(1)])
        credentials.write_text(own.to_json())
        log = folder / "node.log"
        command = {
            "--node": "0",
            "--controller": str(address),
            "--bind": f"unix:{sockets}/n",
            "--spool": str(folder / "spool"),
            "--credentials": str(credentials),
        }
        with log.open("wb") as output:
            started = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "edgenode"),
                *itertools.chain.from_iterable(command.items()),
                *options,
                stderr=output,
            )
        try:
            request = await asyncio.wait_for(registry.came, 60)
            yield request, psutil.Process(started.pid), log
        finally:
            with contextlib.suppress(ProcessLookupError):
                started.kill()
            await started.wait()
            await server.stop(None)
