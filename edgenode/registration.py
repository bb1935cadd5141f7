"""Keeps a node registered at the controller, and ends it when the controller is gone for good."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from typing import Any, Final

import grpc
import grpc.aio

from edgenode.node import EdgeNode
from edgenode.resources import used
from testbed.errors import PermanentError, TemporaryError
from testbed.model.units import SECOND
from testbed.rpc.channels import connect
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import CONTROLLER
from testbed.rpc.pulse import Pulse
from testbed.version import __version__

_logger: Final = logging.getLogger(__name__)

CALL_TIMEOUT: Final = 5.0
"""Seconds a registration may take."""

PULSE: Final = 0.5
"""Seconds between two looks at whether this process was paused."""

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0

_REFUSALS: Final = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.ALREADY_EXISTS,
}


async def stay_registered(
    node: EdgeNode,
    controller: str,
    orphan_timeout: float | None,
    pulse: Pulse | None = None,
) -> None:
    """Register and send heartbeats until cancelled; register again whenever the stream breaks.

    Time counts on ``pulse``, that is while this process ran: one that was stopped for a while has
    a controller all the same.

    Raises:
        TemporaryError: the controller was gone for ``orphan_timeout`` seconds (None: never).
        PermanentError: the controller refuses this node.
    """
    pulse = pulse or Pulse(PULSE)
    pulse.start(lambda: None)
    try:
        await _stay(node, controller, orphan_timeout, pulse)
    finally:
        pulse.stop()


async def _stay(
    node: EdgeNode, controller: str, orphan_timeout: float | None, pulse: Pulse
) -> None:
    async with connect(controller, node.me, CONTROLLER) as channel:
        stub: Any = pb_grpc.RegistryStub(channel)
        last_contact = pulse.awake()
        pause = _FIRST_PAUSE
        while True:
            try:
                # Before, not after: the controller checks the health of who registers.
                await node.set_serving(True)
                interval = await _register(stub, node)
                last_contact, pause = pulse.awake(), _FIRST_PAUSE
                await _beat(stub, node, interval)
                last_contact = pulse.awake()
                reason = "the controller closed the connection"
            except grpc.aio.AioRpcError as error:
                if error.code() in _REFUSALS:
                    raise PermanentError(
                        f"the controller at {controller} refuses node {node.index}: "
                        f"{error.details()}"
                    ) from error
                reason = f"{error.code().name}: {error.details()}"
            await node.set_serving(False)
            gone = pulse.awake() - last_contact
            if orphan_timeout is not None and gone >= orphan_timeout:
                raise TemporaryError(
                    f"the controller at {controller} does not answer for {gone:.0f} s ({reason}); "
                    "start it, then this node"
                )
            _logger.warning("node %d: no contact with the controller: %s", node.index, reason)
            # Spread out, so that all nodes of a testbed do not call at the same moments.
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))
            pause = min(2 * pause, _LONGEST_PAUSE)


async def _register(stub: Any, node: EdgeNode) -> float:
    """Register once; the interval of heartbeats in seconds."""
    reply = await stub.Register(
        pb.RegisterRequest(
            node=node.index,
            address=node.address,
            pid=os.getpid(),
            version=__version__,
            # From now on only commands of the controller that gets this are taken.
            session=node.commands.renew(),
            process=node.process,
            trunk=node.host.trunk,
            nodes=node.host.size,
            http=node.http,
            http_key=node.http_key,
            log=node.host.log,
        ),
        timeout=CALL_TIMEOUT,
    )
    _logger.info("node %d is registered with testbed '%s'", node.index, reply.testbed)
    return float(max(reply.heartbeat_interval / SECOND, 0.01))


async def _beat(stub: Any, node: EdgeNode, interval: float) -> None:
    """Send heartbeats until the stream breaks. Each says how late it is, if no timer was later."""
    call = stub.Beat()
    ended = asyncio.Event()
    call.add_done_callback(lambda _: ended.set())
    try:
        due = time.monotonic()
        while not ended.is_set():
            late = max(0, int((time.monotonic() - due) * SECOND))
            now = used()
            await call.write(
                pb.Heartbeat(
                    node=node.index,
                    resident_bytes=now.resident_bytes // node.host.size,
                    lag=max(late, node.take_lateness()),
                    cpu=now.cpu // node.host.size,
                    session=node.commands.session,
                )
            )
            due = time.monotonic() + interval
            try:
                async with asyncio.timeout(interval):
                    await ended.wait()
            except TimeoutError:
                continue
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        # Why it broke does not matter: registering again finds out what is the matter.
        pass
    finally:
        call.cancel()
