"""Links over gRPC: one connection per peer, and streams that open themselves."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import grpc
import grpc.aio

from edgenode.background import Background
from edgenode.links import Outgoing, PeerLink
from edgenode.payload import payload_slice
from testbed.rpc.channels import connect
from testbed.rpc.credentials import Credentials
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import node_identity

_logger: Final = logging.getLogger(__name__)

_EOF: Final[Any] = grpc.aio.EOF  # type: ignore[attr-defined]  # missing in the stubs

Frame = TypeVar("Frame")
Reply = TypeVar("Reply")


class FrameStream(Generic[Frame, Reply]):
    """A bidirectional stream to one peer that is opened by the first frame and after each break.

    ``on_broken`` is called once per break with the reason; frames not yet written are gone then.
    ``message`` makes the message of a frame when it is written.
    """

    def __init__(
        self,
        name: str,
        open_call: Callable[[], Any],
        background: Background,
        on_reply: Callable[[Reply], None],
        on_broken: Callable[[str], None],
        message: Callable[[Frame], object] = lambda frame: frame,
    ) -> None:
        self._name = name
        self._message = message
        self._open_call = open_call
        self._background = background
        self._on_reply = on_reply
        self._on_broken = on_broken
        self._frames: deque[Callable[[], Frame | None]] = deque()
        self._more = asyncio.Event()
        self._call: Any = None
        self._writing = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_open(self) -> bool:
        """Whether the stream was opened and did not break."""
        return self._call is not None

    @property
    def idle(self) -> bool:
        """Whether everything given so far has been passed on to the network."""
        return not self._frames and not self._writing

    def send(self, make: Callable[[], Frame | None]) -> None:
        """Write what ``make`` returns when its turn comes; nothing if that is None."""
        self._frames.append(make)
        if self._call is None:
            self._open()
        else:
            self._more.set()

    def close(self) -> None:
        """Close the stream without calling it broken. No-op if it is not open."""
        call, self._call = self._call, None
        self._frames.clear()
        self._writing = False
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        if call is not None:
            call.cancel()

    def _open(self) -> None:
        call = self._call = self._open_call()
        self._tasks = [
            self._background.start(self._write(call), f"{self._name} writer"),
            self._background.start(self._read(call), f"{self._name} reader"),
        ]

    async def _write(self, call: Any) -> None:
        try:
            while self._call is call:
                if not self._frames:
                    self._more.clear()
                    await self._more.wait()
                    continue
                make = self._frames.popleft()
                try:
                    frame = make()
                except Exception:
                    _logger.exception("%s: cannot make a frame", self._name)
                    continue
                if frame is not None:
                    self._writing = True
                    await call.write(self._message(frame))
                    self._writing = False
        except grpc.aio.AioRpcError as error:
            self._broke(call, _reason(error))
        except asyncio.InvalidStateError:
            # The call ended while this frame waited; the reader knows why and says so.
            return

    async def _read(self, call: Any) -> None:
        try:
            while (reply := await call.read()) is not _EOF:
                try:
                    self._on_reply(reply)
                except Exception:
                    # One bad reply must not leave the stream without a reader.
                    _logger.exception("%s: cannot use a reply", self._name)
            reason = f"{(await call.code()).name}: {await call.details()}"
        except grpc.aio.AioRpcError as error:
            reason = _reason(error)
        self._broke(call, reason)

    def _broke(self, call: Any, reason: str) -> None:
        if self._call is not call:
            return
        self.close()
        _logger.info("%s broke: %s", self._name, reason)
        self._on_broken(reason)


def _reason(error: grpc.aio.AioRpcError) -> str:
    return f"{error.code().name}: {error.details()}"


class GrpcLink(PeerLink):
    """A link over gRPC, to anywhere: a connection of its own, with a call for each stream."""

    carrier = "grpc"

    def __init__(self, peer: int, address: str, background: Background, me: Credentials) -> None:
        super().__init__(peer, address)
        self._channel = connect(address, me, node_identity(peer))
        stub: Any = pb_grpc.PeersStub(self._channel)
        self.transfer: FrameStream[Outgoing, pb.HandOverTaken] = FrameStream(
            f"transfer to node {peer} at {address}",
            stub.Transfer,
            background,
            lambda reply: self.on_taken(peer, reply),
            lambda reason: self.on_transfer_broken(peer, reason),
            _message,
        )
        self.probes: FrameStream[pb.ProbeRequest, pb.ProbeReply] = FrameStream(
            f"probes to node {peer} at {address}",
            stub.Probe,
            background,
            lambda reply: self.on_probe_reply(peer, reply),
            lambda reason: self.on_probes_broken(peer, reason),
        )

    async def close(self) -> None:
        """Close both streams and the connection."""
        await super().close()
        await self._channel.close(None)


def _message(frame: Outgoing) -> pb.TransferFrame:
    """Return a frame as the message that carries it."""
    if isinstance(frame, pb.TransferFrame):
        return frame
    data = payload_slice(frame.task_id, frame.position, frame.length)
    return pb.TransferFrame(
        sender=frame.sender,
        episode=frame.episode,
        chunk=pb.Chunk(task_id=frame.task_id, data=data),
    )
