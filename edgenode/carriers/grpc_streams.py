"""Links over gRPC: one connection per peer with one stream, which opens itself.

What a node says to a peer in one turn of its event loop is one message, and so is what the peer
answers to it: a message costs far more than what is in it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import grpc
import grpc.aio

from edgenode.background import Background
from edgenode.carriers.channel import ChannelLink
from edgenode.links import Outgoing
from edgenode.payload import payload_slice
from testbed.rpc.channels import connect
from testbed.rpc.credentials import Credentials
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import node_identity

_logger: Final = logging.getLogger(__name__)

_EOF: Final[Any] = grpc.aio.EOF  # type: ignore[attr-defined]  # missing in the stubs

BATCH_BYTES: Final = 250_000
"""Bytes of tasks from which on a message is written; larger ones are slower, by a third."""

BATCH_FRAMES: Final = 1000
"""Frames from which on a message is written."""

MOST_WAITING: Final = 100_000
"""Frames or questions that wait for a peer that does not read, after which its stream is given
up."""


class GrpcLink(ChannelLink):
    """A link over gRPC, to anywhere: a connection and a stream of its own.

    Frames that are not yet written when the stream breaks are gone.
    """

    carrier = "grpc"

    def __init__(self, peer: int, address: str, background: Background, me: Credentials) -> None:
        super().__init__(peer, address)
        self._background = background
        self._channel = connect(address, me, node_identity(peer))
        self._stub: Any = pb_grpc.PeersStub(self._channel)
        self._call: Any = None
        self._questions: list[pb.ProbeRequest] = []
        # None: the peer is to forget what was announced.
        self._frames: deque[Callable[[], Outgoing | None] | None] = deque()
        self._more = asyncio.Event()
        self._writing_frames = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def idle(self) -> bool:
        """See ``ChannelLink``."""
        return not self._frames and not self._writing_frames

    def queue(self, make: Callable[[], Outgoing | None]) -> None:
        """See ``ChannelLink``."""
        self._frames.append(make)
        self._go_on()

    def ask(self, request: pb.ProbeRequest) -> None:
        """See ``ChannelLink``."""
        self._questions.append(request)
        self._go_on()

    def reset(self) -> None:
        """See ``ChannelLink``."""
        if self._call is not None:
            self._frames.append(None)
            self._more.set()

    async def close(self) -> None:
        """Close both streams and the connection."""
        await super().close()
        self._hang_up()
        await self._channel.close(None)

    def _go_on(self) -> None:
        if max(len(self._frames), len(self._questions)) > MOST_WAITING and self._call is not None:
            # When the loop comes round: now the node is at work.
            loop = asyncio.get_running_loop()
            loop.call_soon(self._broke, self._call, "it does not read what it is sent")
        elif self._call is None:
            call = self._call = self._stub.Exchange()
            name = f"link to node {self.peer} at {self.address}"
            self._tasks = [
                self._background.start(self._write(call), f"{name}, writer"),
                self._background.start(self._read(call), f"{name}, reader"),
            ]
        else:
            self._more.set()

    def _hang_up(self) -> None:
        call, self._call = self._call, None
        self._questions.clear()
        self._frames.clear()
        self._writing_frames = False
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        if call is not None:
            call.cancel()

    async def _write(self, call: Any) -> None:
        try:
            while self._call is call:
                message = self._gather()
                if message is None:
                    self._more.clear()
                    await self._more.wait()
                    continue
                self._writing_frames = bool(message.frames)
                await call.write(message)
                self._writing_frames = False
        except grpc.aio.AioRpcError as error:
            self._broke(call, _reason(error))
        except asyncio.InvalidStateError:
            # The call ended while this message waited; the reader knows why and says so.
            return

    def _gather(self) -> pb.PeerFrames | None:
        """Return all that is to be written now as one message; None if there is nothing."""
        questions, self._questions = self._questions, []
        frames: list[pb.TransferFrame] = []
        reset, size = False, 0
        while self._frames and size < BATCH_BYTES and len(frames) < BATCH_FRAMES:
            if self._frames[0] is None and frames:
                # It is for what comes after these.
                break
            make = self._frames.popleft()
            if make is None:
                reset = True
                continue
            try:
                frame = make()
            except Exception:
                _logger.exception("node %d: a frame cannot be made", self.peer)
                continue
            if frame is not None:
                frames.append(_message(frame))
                size += 0 if isinstance(frame, pb.TransferFrame) else frame.length
        if not (questions or frames or reset):
            return None
        return pb.PeerFrames(probes=questions, reset=reset, frames=frames)

    async def _read(self, call: Any) -> None:
        try:
            while (replies := await call.read()) is not _EOF:
                for taken in replies.taken:
                    self._hand_in(self.taken, taken)
                for answer in replies.probes:
                    self._hand_in(self.replied, answer)
            reason = f"{(await call.code()).name}: {await call.details()}"
        except grpc.aio.AioRpcError as error:
            reason = _reason(error)
        self._broke(call, reason)

    def _hand_in(self, take: Callable[[Any], None], reply: object) -> None:
        try:
            take(reply)
        except Exception:
            # One bad reply must not leave the stream without a reader.
            _logger.exception("node %d: a reply cannot be used", self.peer)

    def _broke(self, call: Any, reason: str) -> None:
        if self._call is not call:
            return
        self._hang_up()
        _logger.info("link to node %d at %s broke: %s", self.peer, self.address, reason)
        self.streams_broke(reason)


def _reason(error: grpc.aio.AioRpcError) -> str:
    return f"{error.code().name}: {error.details()}"


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
