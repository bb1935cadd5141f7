"""Trunks: one Unix socket from each process to each other one, for all their nodes.

What the nodes say is written once per loop turn, all of it in one batch; questions and answers go
before the bytes of tasks. A link is a channel of the trunk between both processes, which its two
nodes have proved to each other (``testbed.rpc.trunks``). Bytes of tasks are sent from where they
are made and checked as they come in: nothing is put together in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from edgenode.carriers.channel import ChannelLink
from edgenode.links import Outgoing, Piece
from edgenode.payload import BLOCK_BYTES, payload_views
from edgenode.receiving import HasDriver, Inflow, Refused, answer
from edgenode.turns import MESSAGES_S
from testbed.errors import PermanentError
from testbed.rpc import addresses, trunks
from testbed.rpc.addresses import UnixAddress
from testbed.rpc.credentials import Credentials, Secrets
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.identity import CONTROLLER, node_identity
from testbed.rpc.trunks import CALLER, CHUNK, END, HEADER, OPENING, SERVER, Kind, Opening

_logger: Final = logging.getLogger(__name__)

READ_BYTES: Final = 65536
"""Bytes that are read at a time where frames begin; of a chunk that is under way, all there are."""

TURN_BYTES: Final = 4 << 20
"""Bytes that are read of one trunk before others get their turn."""

BATCH_BYTES: Final = 1 << 20
"""Bytes of tasks that are made ready at a time."""

BATCH_PARTS: Final = 256
"""Parts of a batch; the system takes at most 1024."""

BUFFER_BYTES: Final = 4 << 20
"""Bytes that the system is asked to hold of a trunk; it may allow less."""

MOST_WAITING: Final = 100_000
"""Messages that wait for a process that does not read, after which its trunk is given up."""

BACKLOG: Final = 1024
RETRY_S: Final = 0.01
"""Seconds between two attempts to connect to a process that has not accepted the others yet."""

_Part: TypeAlias = bytes | memoryview
_EMPTY: Final = Context()


class TrunkNode(HasDriver, Protocol):
    """A node of this process."""

    @property
    def index(self) -> int: ...

    @property
    def me(self) -> Credentials: ...

    @property
    def context(self) -> Context:
        """The context in which all of the node's code runs."""
        ...


EndNode: TypeAlias = Callable[[int], Awaitable[None]]
"""Ends a node of this process as if it had been killed."""


class Trunks:
    """The trunks of one process: those to others by address, and those from others.

    ``nodes`` are those of this process that live, by index.
    """

    def __init__(self, nodes: Mapping[int, TrunkNode], end_node: EndNode) -> None:
        self.nodes = nodes
        self.end_node = end_node
        self.address = ""
        """Where this process takes trunks; empty if it does not."""
        self._listening: socket.socket | None = None
        self._to: dict[str, _Outbound] = {}
        self._from: set[_Inbound] = set()

    def listen(self, bind: str) -> None:
        """Take trunks at ``bind``, a Unix socket.

        Raises:
            PrerequisiteMissing: the folder of the socket is open to others.
            PermanentError: the address cannot be used.
        """
        address = addresses.parse(bind)
        if not isinstance(address, UnixAddress):
            raise PermanentError(f"{bind} is no Unix socket; trunks do not leave the machine")
        addresses.check_private(address.path.parent)
        addresses.free(address)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.setblocking(False)
            listening.bind(str(address.path))
            address.path.chmod(0o600)
            listening.listen(BACKLOG)
        except OSError as error:
            listening.close()
            raise PermanentError(f"cannot listen on {address}: {error.strerror}") from None
        self._listening, self.address = listening, str(address)
        asyncio.get_running_loop().add_reader(listening, _EMPTY.run, self._accept)

    def link(self, peer: int, address: str, trunk: str, me: TrunkNode) -> TrunkLink:
        """Return a link to node ``peer`` in the process that takes trunks at ``trunk``."""
        return TrunkLink(peer, address, trunk, me, self)

    def to(self, address: str) -> _Outbound:
        """Return the trunk to ``address``, opened if there is none."""
        found = self._to.get(address)
        if found is None:
            found = self._to[address] = _Outbound(address, self._ended)
        return found

    def ended(self, node: int) -> None:
        """Break what leads to a node of this process that has ended."""
        for trunk in list(self._from):
            trunk.node_ended(node)

    def close(self) -> None:
        """Close all trunks, and take no more."""
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            path = Path(self.address.removeprefix("unix:"))
            path.unlink(missing_ok=True)
            self._listening = None
        for trunk in (*self._to.values(), *self._from):
            trunk.broke("this process ends")

    def _accept(self) -> None:
        assert self._listening is not None
        for _ in range(BACKLOG):
            try:
                stream, _address = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                _logger.error("a trunk cannot be taken: %s", error.strerror or error)
                return
            self._from.add(_Inbound(stream, self, self._from.discard))

    def _ended(self, trunk: _Outbound) -> None:
        if self._to.get(trunk.address) is trunk:
            del self._to[trunk.address]


class _Trunk:
    """One connection: frames in, and batches of frames out."""

    def __init__(self) -> None:
        self._stream: socket.socket | None = None
        self._loop = asyncio.get_running_loop()
        self._urgent: list[bytes] = []
        self._bulk: deque[Callable[[], Outgoing | bytes | None]] = deque()
        self._channel_of_bulk: deque[int] = deque()
        self._left: deque[_Part] = deque()
        self._scheduled = False
        self.blocked = False
        """Whether the system takes no more for now."""
        self._partial = b""
        self._probes: deque[tuple[int, int, bytes]] = deque()
        self._going_on = False
        # Of the chunk under way: its channel, episode, task, and how many bytes are to come.
        self._chunk = (0, 0, 0)
        self._chunk_left = 0

    # --- out --------------------------------------------------------------------------------

    def say(self, kind: Kind, channel: int, body: bytes = b"") -> None:
        """Write a frame in the next batch, before what waits of tasks' bytes."""
        self._urgent.append(HEADER.pack(len(body), kind, channel) + body)
        if len(self._urgent) > MOST_WAITING:
            self.give_up("it does not read what it is sent")
        self._schedule()

    def give_up(self, reason: str) -> None:
        """End the connection when the loop comes round: now a node may be at work."""
        self._urgent.clear()
        self._loop.call_soon(self.broke, reason, context=_EMPTY)

    def queue(self, channel: int, make: Callable[[], Outgoing | bytes | None]) -> None:
        """Write what ``make`` returns, in order, when its turn comes."""
        self._bulk.append(make)
        self._channel_of_bulk.append(channel)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and not self.blocked and self._stream is not None:
            self._scheduled = True
            self._loop.call_soon(self._flush, context=_EMPTY)

    def _flush(self) -> None:
        self._scheduled = False
        while self._stream is not None:
            if not self._left and not self._gather():
                self._unblock()
                return
            try:
                sent = self._stream.sendmsg(list(islice(self._left, BATCH_PARTS)))
            except (BlockingIOError, InterruptedError):
                self._block()
                return
            except OSError as error:
                self.broke(error.strerror or str(error))
                return
            self._written(sent)

    def _written(self, count: int) -> None:
        left = self._left
        while count:
            part = left[0]
            if len(part) <= count:
                count -= len(part)
                left.popleft()
            else:
                left[0] = memoryview(part)[count:]
                return

    def _gather(self) -> bool:
        """Make the next batch ready; return whether there is one."""
        left = self._left
        if self._urgent:
            left.append(b"".join(self._urgent))
            self._urgent.clear()
        size = 0
        small: list[bytes] = []
        while self._bulk and size < BATCH_BYTES and len(left) < BATCH_PARTS:
            make, channel = self._bulk.popleft(), self._channel_of_bulk.popleft()
            try:
                made = make()
            except Exception:
                _logger.exception("a frame cannot be made")
                continue
            if made is None:
                continue
            if isinstance(made, bytes):
                small.append(made)
            elif isinstance(made, Piece):
                small.append(
                    HEADER.pack(CHUNK.size + made.length, Kind.BYTES, channel)
                    + CHUNK.pack(made.episode, made.task_id)
                )
                left.append(b"".join(small))
                small.clear()
                left.extend(payload_views(made.task_id, made.position, made.length))
                size += made.length
            else:
                small.append(trunks.frame(Kind.FRAME, channel, made.SerializeToString()))
        if small:
            left.append(b"".join(small))
        return bool(left)

    def _block(self) -> None:
        if not self.blocked and self._stream is not None:
            self.blocked = True
            self._loop.add_writer(self._stream, _EMPTY.run, self._flush)

    def _unblock(self) -> None:
        if self.blocked and self._stream is not None:
            self.blocked = False
            self._loop.remove_writer(self._stream)

    # --- in ---------------------------------------------------------------------------------

    def _attach(self, stream: socket.socket) -> None:
        self._stream = stream
        with contextlib.suppress(OSError):
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        self._loop.add_reader(stream, _EMPTY.run, self._readable)

    def _readable(self) -> None:
        """Take what there is, and answer it at once."""
        self._read()
        self._flush_now()

    def _flush_now(self) -> None:
        """Write what waits for the end of the turn: somebody's task waits for it."""
        if self._scheduled and not self.blocked:
            self._flush()

    def _read(self) -> None:
        taken = 0
        while self._stream is not None and taken < TURN_BYTES:
            if len(self._probes) > MOST_WAITING:
                return
            wanted = self._chunk_left or READ_BYTES
            try:
                data = self._stream.recv(wanted)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self.broke(error.strerror or str(error))
                return
            if not data:
                self.broke("the other process has closed it")
                return
            taken += len(data)
            if self._chunk_left:
                self._take_bytes(data)
            else:
                self._take(data)
            if len(data) < wanted and not self._chunk_left:
                # There is no more for now: another look would only say so.
                return

    def _take(self, data: bytes) -> None:
        """Take frames, of which the last may be incomplete."""
        if self._partial:
            data = self._partial + data
        at, end = 0, len(data)
        while end - at >= HEADER.size:
            length, kind, channel = HEADER.unpack_from(data, at)
            body = at + HEADER.size
            if kind == Kind.BYTES:
                if not CHUNK.size <= length <= CHUNK.size + BLOCK_BYTES:
                    self.broke(f"a chunk of {length} bytes; at most {BLOCK_BYTES} are taken")
                    return
                if end - body < CHUNK.size:
                    break
                self._chunk = (channel, *CHUNK.unpack_from(data, body))
                self._chunk_left = length - CHUNK.size
                at = min(end, body + length)
                if at > body + CHUNK.size:
                    self._take_bytes(data[body + CHUNK.size : at])
            else:
                if length > trunks.BODY_LIMIT:
                    self.broke(f"a message of {length} bytes, more than {trunks.BODY_LIMIT}")
                    return
                if end - body < length:
                    break
                at = body + length
                if kind in (Kind.PROBE, Kind.REPLY):
                    self._probes.append((kind, channel, data[body:at]))
                    self._schedule_probes()
                else:
                    self._handle(kind, channel, data[body:at])
            if self._stream is None:
                return
        self._partial = data[at:] if at < end else b""

    def _handle(self, kind: int, channel: int, body: bytes) -> None:
        try:
            self._frame(kind, channel, body)
        except Exception as error:
            _logger.exception("a trunk brought what cannot be handled")
            self.broke(f"a frame cannot be handled: {error}")

    def _schedule_probes(self) -> None:
        if not self._going_on:
            self._going_on = True
            self._loop.call_soon(self._take_probes, context=_EMPTY)

    def _take_probes(self) -> None:
        """Handle probes and answers: some in each turn, for what tasks wait for comes first."""
        self._going_on = False
        until = time.monotonic() + MESSAGES_S
        try:
            while self._probes and self._stream is not None:
                self._handle(*self._probes.popleft())
                if time.monotonic() >= until:
                    break
        finally:
            if self._probes and self._stream is not None:
                self._schedule_probes()
            self._flush_now()

    def _take_bytes(self, data: bytes) -> None:
        self._chunk_left -= len(data)
        self._bytes(*self._chunk, data)

    def _frame(self, kind: int, channel: int, body: bytes) -> None:
        """Handle a frame other than bytes of a task."""
        raise NotImplementedError

    def _bytes(self, channel: int, episode: int, task_id: int, data: bytes) -> None:
        """Handle bytes of a task as they come."""
        raise NotImplementedError

    def broke(self, reason: str) -> None:
        """End the connection. No-op if it has ended."""
        stream, self._stream = self._stream, None
        if stream is not None:
            self._loop.remove_reader(stream)
            self._loop.remove_writer(stream)
            stream.close()
        self._urgent.clear()
        self._probes.clear()
        self._bulk.clear()
        self._channel_of_bulk.clear()
        self._left.clear()


class _Outbound(_Trunk):
    """A trunk to another process, for what nodes of this one send and ask."""

    def __init__(self, address: str, ended: Callable[[_Outbound], None]) -> None:
        super().__init__()
        self.address = address
        self._ended: Callable[[_Outbound], None] | None = ended
        self._greeting = b""
        self._links: dict[int, TrunkLink] = {}
        self._opening: dict[int, Opening] = {}
        self._channels = 0
        self._loop.call_soon(self._connect, context=_EMPTY)

    def open(self, link: TrunkLink) -> int:
        """Open a channel for a link; return its number. ``link.opened`` is called when it is."""
        self._channels += 1
        channel = self._channels
        self._links[channel] = link
        if self._greeting:
            self._open(channel, link)
        return channel

    def close_channel(self, channel: int) -> None:
        """Close a channel, after what was queued for it. No-op if it is closed."""
        if self._links.pop(channel, None) is not None:
            self._opening.pop(channel, None)
            end = trunks.frame(Kind.CLOSE, channel)
            self.queue(channel, lambda: end)

    def broke(self, reason: str) -> None:
        """End the connection, and tell all its links."""
        super().broke(reason)
        ended, self._ended = self._ended, None
        if ended is None:
            return
        ended(self)
        links, self._links = self._links, {}
        for channel, link in links.items():
            link.me.context.run(link.broke, channel, f"UNAVAILABLE: {reason}")

    def _connect(self) -> None:
        if self._ended is None:
            return
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.setblocking(False)
        try:
            stream.connect(self.address.removeprefix("unix:"))
        except (BlockingIOError, InterruptedError):
            stream.close()
            self._loop.call_later(RETRY_S, self._connect, context=_EMPTY)
            return
        except OSError as error:
            stream.close()
            self.broke(error.strerror or str(error))
            return
        self._attach(stream)

    def _open(self, channel: int, link: TrunkLink) -> None:
        opening = Opening(
            node_identity(link.me.index),
            node_identity(link.peer),
            self._greeting,
            trunks.new_nonce(),
        )
        self._opening[channel] = opening
        proof = opening.proof(CALLER, _shown_to(link))
        body = OPENING.pack(link.me.index, link.peer, opening.nonce, proof)
        self.say(Kind.OPEN, channel, body)

    def _frame(self, kind: int, channel: int, body: bytes) -> None:
        if kind == Kind.GREETING and not self._greeting:
            if not body.startswith(trunks.MAGIC):
                self.broke("it is a process of another version")
                return
            self._greeting = body.removeprefix(trunks.MAGIC)
            for number, link in list(self._links.items()):
                self._open(number, link)
            return
        found = self._links.get(channel)
        if found is not None:
            self._answer(kind, channel, found, body)
        # Else it was closed while this was under way.

    def _answer(self, kind: int, channel: int, link: TrunkLink, body: bytes) -> None:
        run = link.me.context.run
        if kind == Kind.OPENED:
            opening = self._opening.pop(channel, None)
            if opening is None or not opening.holds(SERVER, _shown_to(link), body):
                del self._links[channel]
                run(link.broke, channel, f"UNAUTHENTICATED: this is not node {link.peer}")
            else:
                run(link.opened)
        elif kind == Kind.CLOSED:
            del self._links[channel]
            self._opening.pop(channel, None)
            run(link.broke, channel, body.decode(errors="replace"))
        elif channel in self._opening:
            self.broke("it answers before it has proved itself")
        elif kind == Kind.TAKEN:
            run(link.taken, pb.HandOverTaken.FromString(body))
        elif kind == Kind.REPLY:
            run(link.replied, pb.ProbeReply.FromString(body))
        elif kind == Kind.BROKEN:
            run(link.transfer_broke, body.decode(errors="replace"))
        else:
            self.broke(f"a frame of kind {kind}")

    def _bytes(self, channel: int, episode: int, task_id: int, data: bytes) -> None:
        self.broke("bytes of a task came where none are expected")


def _shown_to(link: TrunkLink) -> str:
    me = link.me.me
    return me.shown_to(node_identity(link.peer)) if isinstance(me, Secrets) else ""


class TrunkLink(ChannelLink):
    """A link over the trunk to the process of a peer."""

    carrier = "trunk"

    def __init__(self, peer: int, address: str, trunk: str, me: TrunkNode, all_: Trunks) -> None:
        super().__init__(peer, address)
        self.me = me
        self._address = trunk
        self._trunks = all_
        self._trunk: _Outbound | None = None
        self._channel = 0
        self._is_open = False
        # What was sent before the channel was open.
        self._waiting: deque[Callable[[], None]] = deque()

    @property
    def idle(self) -> bool:
        """See ``ChannelLink``."""
        return self._is_open and self._trunk is not None and not self._trunk.blocked

    def queue(self, make: Callable[[], Outgoing | None]) -> None:
        """See ``ChannelLink``."""
        run = self.me.context.run
        self._when_open(lambda: self._queue(lambda: run(make)))

    def ask(self, request: pb.ProbeRequest) -> None:
        """See ``ChannelLink``."""
        body = request.SerializeToString()
        self._when_open(lambda: self._say(Kind.PROBE, body))

    def reset(self) -> None:
        """See ``ChannelLink``."""
        if self._is_open:
            reset = trunks.frame(Kind.RESET, self._channel)
            self._queue(lambda: reset)

    def opened(self) -> None:
        """Send what has waited for the channel to be open."""
        self._is_open = True
        waiting, self._waiting = self._waiting, deque()
        for work in waiting:
            work()

    def broke(self, channel: int, reason: str) -> None:
        """The channel is gone: say so of each stream that is open."""
        if channel != self._channel or self._trunk is None:
            return
        self._forget()
        _logger.info("link to node %d broke: %s", self.peer, reason)
        self.streams_broke(reason)

    async def close(self) -> None:
        """Close both streams and the channel."""
        await super().close()
        trunk, channel = self._trunk, self._channel
        self._forget()
        if trunk is not None:
            trunk.close_channel(channel)

    def _when_open(self, work: Callable[[], None]) -> None:
        """Call ``work`` when the channel is open: now, if it is; it is opened if need be."""
        if self._is_open:
            work()
            return
        self._waiting.append(work)
        if self._trunk is None:
            self._trunk = self._trunks.to(self._address)
            self._channel = self._trunk.open(self)
        elif len(self._waiting) > MOST_WAITING:
            self._trunk.give_up("it does not read what it is sent")

    def _queue(self, make: Callable[[], Outgoing | bytes | None]) -> None:
        if self._trunk is not None:
            self._trunk.queue(self._channel, make)

    def _say(self, kind: Kind, body: bytes = b"") -> None:
        if self._trunk is not None:
            self._trunk.say(kind, self._channel, body)

    def _forget(self) -> None:
        self._trunk = None
        self._is_open = False
        self._waiting.clear()


class _Incoming:
    """A channel from a node elsewhere to one of this process."""

    __slots__ = ("inflow", "node", "sender")

    def __init__(
        self, node: TrunkNode, sender: int, taken: Callable[[pb.HandOverTaken], None]
    ) -> None:
        self.node = node
        self.sender = sender
        self.inflow = Inflow(node, sender, taken)

    def end(self) -> None:
        """Withdraw what was announced."""
        self.node.context.run(self.inflow.end)


class _Inbound(_Trunk):
    """A trunk from another process, for what its nodes send to and ask those of this one."""

    def __init__(
        self, stream: socket.socket, all_: Trunks, ended: Callable[[_Inbound], None]
    ) -> None:
        super().__init__()
        self._trunks = all_
        self._ended = ended
        self._greeting = trunks.new_nonce()
        self._channels: dict[int, _Incoming] = {}
        self._ending: set[asyncio.Task[None]] = set()
        stream.setblocking(False)
        self._attach(stream)
        self.say(Kind.GREETING, 0, trunks.MAGIC + self._greeting)

    def node_ended(self, node: int) -> None:
        """Close the channels to a node that has ended."""
        for number, channel in list(self._channels.items()):
            if channel.node.index == node:
                del self._channels[number]
                self.say(Kind.CLOSED, number, b"UNAVAILABLE: the node has ended")

    def broke(self, reason: str) -> None:
        """End the connection; what was announced over it will not come."""
        super().broke(reason)
        self._ended(self)
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.end()

    def _frame(self, kind: int, channel: int, body: bytes) -> None:
        if kind == Kind.OPEN:
            self._open(channel, body)
            return
        if kind == Kind.END_NODE:
            self._end_node(body)
            return
        found = self._channels.get(channel)
        if found is None:
            # It was closed while this was under way, or was never opened: there is no effect.
            return
        run = found.node.context.run
        if kind == Kind.FRAME:
            try:
                run(found.inflow.frame, pb.TransferFrame.FromString(body))
            except Refused as refused:
                self._refuse(channel, found, refused)
        elif kind == Kind.PROBE:
            try:
                run(
                    answer,
                    found.node,
                    found.sender,
                    pb.ProbeRequest.FromString(body),
                    partial(self._answered, Kind.REPLY, channel),
                )
            except Refused as refused:
                self._drop(channel, found, _reason(refused))
        elif kind == Kind.RESET:
            found.end()
        elif kind == Kind.CLOSE:
            del self._channels[channel]
            found.end()
        else:
            self.broke(f"a frame of kind {kind}")

    def _answered(self, kind: Kind, channel: int, reply: pb.HandOverTaken | pb.ProbeReply) -> None:
        """Say what a node answers; it may do so when the channel is closed already."""
        if channel in self._channels:
            self.say(kind, channel, reply.SerializeToString())

    def _bytes(self, channel: int, episode: int, task_id: int, data: bytes) -> None:
        found = self._channels.get(channel)
        if found is None:
            return
        try:
            found.node.context.run(found.inflow.chunk, episode, task_id, data)
        except Refused as refused:
            self._refuse(channel, found, refused)

    def _refuse(self, channel: int, found: _Incoming, refused: Refused) -> None:
        found.end()
        self.say(Kind.BROKEN, channel, _reason(refused))

    def _drop(self, channel: int, found: _Incoming, reason: bytes) -> None:
        del self._channels[channel]
        found.end()
        self.say(Kind.CLOSED, channel, reason)

    def _open(self, channel: int, body: bytes) -> None:
        sender, index, nonce, proof = OPENING.unpack(body)
        node = self._trunks.nodes.get(index)
        if node is None:
            self.say(Kind.CLOSED, channel, b"UNAVAILABLE: the node is not there")
            return
        if channel in self._channels or sender < 0 or sender == index:
            self.broke("a channel that cannot be")
            return
        opening = Opening(node_identity(sender), node_identity(index), self._greeting, nonce)
        token = _expected_of(node, opening)
        if not opening.holds(CALLER, token, proof):
            _logger.warning("refused a trunk to node %d: it is not from node %d", index, sender)
            self.say(Kind.CLOSED, channel, b"UNAUTHENTICATED: the token of this testbed is needed")
            return
        taken = partial(self._answered, Kind.TAKEN, channel)
        self._channels[channel] = _Incoming(node, sender, taken)
        self.say(Kind.OPENED, channel, opening.proof(SERVER, token))

    def _end_node(self, body: bytes) -> None:
        _, index, nonce, proof = OPENING.unpack(body)
        node = self._trunks.nodes.get(index)
        if node is None:
            self.say(Kind.CLOSED, 0, b"it is not running in this process")
            return
        opening = Opening(CONTROLLER, node_identity(index), self._greeting, nonce)
        token = _expected_of(node, opening)
        if not opening.holds(END, token, proof):
            _logger.warning("refused to end node %d", index)
            self.say(Kind.CLOSED, 0, b"the controller's credentials are needed")
            return

        async def end() -> None:
            await self._trunks.end_node(index)
            self.say(Kind.OPENED, 0, opening.proof(SERVER, token))

        task = self._loop.create_task(end(), context=_EMPTY.copy())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _expected_of(node: TrunkNode, opening: Opening) -> str:
    me: Any = node.me
    return me.expected_of(opening.caller) if isinstance(me, Secrets) else ""


def _reason(refused: Refused) -> bytes:
    code = "PERMISSION_DENIED" if refused.denied else "INVALID_ARGUMENT"
    return f"{code}: {refused}".encode()
