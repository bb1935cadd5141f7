"""What only trunks can get wrong: proofs, frames that cannot be, processes that do not read."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edgenode.carriers import trunk as carrier_module
from edgenode.carriers.trunk import TrunkLink
from edgenode.driver import EpisodeDriver
from edgenode.node import EdgeNode
from edgenode.payload import BLOCK_BYTES, payload_of, payload_slice, payload_views
from testbed.errors import PermanentError
from testbed.rpc.credentials import Secrets, issue, shared
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.identity import Identity, node_identity
from testbed.rpc.messages import task_to_message
from testbed.rpc.trunks import (
    BODY_LIMIT,
    CALLER,
    CHUNK,
    HEADER,
    MAGIC,
    OPENING,
    SERVER,
    Kind,
    Opening,
    end_node,
    frame,
    new_nonce,
)
from tests.edgenode import network as network_module
from tests.edgenode.network import SECRET, Cluster, SendTo, cluster, plan, task

PATIENCE_S = 10.0


@pytest.fixture(autouse=True)
def _over_trunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_module, "carrier", "trunk")


class Client:
    """The other end of a trunk, byte by byte."""

    def __init__(self, reading: asyncio.StreamReader, writing: asyncio.StreamWriter) -> None:
        self._reading = reading
        self._writing = writing
        self.greeting = b""

    async def read(self) -> tuple[int, int, bytes]:
        """Return the next frame: kind, channel and body; kind 0 if the trunk was closed."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                header = await self._reading.readexactly(HEADER.size)
                length, kind, channel = HEADER.unpack(header)
                return kind, channel, await self._reading.readexactly(length)
            except (asyncio.IncompleteReadError, ConnectionError):
                return 0, 0, b""

    def write(self, *frames: bytes) -> None:
        self._writing.write(b"".join(frames))

    async def open(self, channel: int, sender: int, server: int, me: Secrets) -> tuple[int, bytes]:
        """Try to open a channel as node ``sender`` with what ``me`` knows; the answer."""
        opening = Opening(node_identity(sender), node_identity(server), self.greeting, new_nonce())
        token = me.shown_to(opening.server)
        proof = opening.proof(CALLER, token)
        body = OPENING.pack(sender, server, opening.nonce, proof)
        self.write(frame(Kind.OPEN, channel, body))
        kind, answered, body = await self.read()
        assert answered == channel or not kind
        if kind == Kind.OPENED:
            assert opening.holds(SERVER, token, body)
        return kind, body


@asynccontextmanager
async def connected(node: EdgeNode) -> AsyncIterator[Client]:
    """A client that was greeted by the process of ``node``."""
    path = node.host.trunk.removeprefix("unix:")
    reading, writing = await asyncio.open_unix_connection(path)
    client = Client(reading, writing)
    try:
        kind, _, body = await client.read()
        assert kind == Kind.GREETING
        assert body.startswith(MAGIC)
        client.greeting = body.removeprefix(MAGIC)
        yield client
    finally:
        writing.close()


@asynccontextmanager
async def receiving(folder: Path) -> AsyncIterator[tuple[Cluster, EdgeNode]]:
    """Two nodes in an episode, and the second of them."""
    async with cluster(folder) as network:
        await network.configure(plan(), SendTo, destination=1)
        await network.start()
        yield network, network.members[1].node


def of_node(index: int) -> Secrets:
    return shared(SECRET, node_identity(index))


def in_the_inbox(node: EdgeNode) -> tuple[int, ...]:
    assert isinstance(node.driver, EpisodeDriver)
    return tuple(node.driver.state.receiving)


ANNOUNCE = pb.TransferFrame(announce=pb.Announce(task=task_to_message(task(9))))


async def test_a_channel_needs_the_token_of_its_caller(tmp_path: Path) -> None:
    async with receiving(tmp_path) as (_, node), connected(node) as client:
        strangers = (
            Secrets(Identity.parse("node-0")),
            shared("another secret", node_identity(0)),
            issue(SECRET, node_identity(2), [node_identity(1)]),
        )
        for channel, stranger in enumerate(strangers, 1):
            kind, reason = await client.open(channel, 0, 1, stranger)
            assert kind == Kind.CLOSED
            assert reason.startswith(b"UNAUTHENTICATED")
        # What is said on a channel that is not open has no effect.
        body = ANNOUNCE.SerializeToString()
        client.write(frame(Kind.FRAME, 1, body), frame(Kind.FRAME, 7, body))
        assert (await client.open(8, 0, 1, of_node(0)))[0] == Kind.OPENED
        assert in_the_inbox(node) == (0, 0)
        client.write(frame(Kind.FRAME, 8, body))
        await until(lambda: in_the_inbox(node) == (1, 0))


async def test_a_proof_holds_for_one_connection(tmp_path: Path) -> None:
    async with receiving(tmp_path) as (_, node):
        async with connected(node) as client:
            overheard = Opening(node_identity(0), node_identity(1), client.greeting, new_nonce())
        proof = overheard.proof(CALLER, of_node(0).shown_to(overheard.server))
        async with connected(node) as client:
            body = OPENING.pack(0, 1, overheard.nonce, proof)
            client.write(frame(Kind.OPEN, 1, body))
            kind, _, reason = await client.read()
            assert kind == Kind.CLOSED
            assert reason.startswith(b"UNAUTHENTICATED")


async def test_a_node_that_is_not_here_is_said_to_be_gone(tmp_path: Path) -> None:
    async with receiving(tmp_path) as (_, node), connected(node) as client:
        kind, reason = await client.open(1, 0, 3, of_node(0))
        assert (kind, reason) == (Kind.CLOSED, b"UNAVAILABLE: the node is not there")
        assert (await client.open(2, 0, 1, of_node(0)))[0] == Kind.OPENED
        await node.close()
        kind, channel, reason = await client.read()
        assert (kind, channel) == (Kind.CLOSED, 2)
        assert reason.startswith(b"UNAVAILABLE")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (pb.TransferFrame(sender=2, announce=ANNOUNCE.announce), "PERMISSION_DENIED"),
        (pb.TransferFrame(announce=pb.Announce(task=pb.Task(id=9, source=1))), "INVALID_ARGUMENT"),
        (pb.TransferFrame(hand_over=pb.HandOver(task=pb.Task(id=9), elapsed=-1)), "INVALID"),
    ],
)
async def test_a_peer_speaks_for_itself_and_of_its_own_tasks(
    tmp_path: Path, said: pb.TransferFrame, why: str
) -> None:
    async with receiving(tmp_path) as (_, node), connected(node) as client:
        assert (await client.open(1, 0, 1, of_node(0)))[0] == Kind.OPENED
        client.write(frame(Kind.FRAME, 1, ANNOUNCE.SerializeToString()))
        client.write(frame(Kind.FRAME, 1, said.SerializeToString()))
        kind, channel, reason = await client.read()
        assert (kind, channel) == (Kind.BROKEN, 1)
        assert why in reason.decode()
        # What was announced before will not come.
        assert in_the_inbox(node) == (0, 0)
        # A question of somebody else closes the channel.
        client.write(frame(Kind.PROBE, 1, pb.ProbeRequest(sender=1).SerializeToString()))
        kind, _, reason = await client.read()
        assert kind == Kind.CLOSED
        assert "PERMISSION_DENIED" in reason.decode()


@pytest.mark.parametrize(
    "said",
    [
        HEADER.pack(BODY_LIMIT + 1, Kind.FRAME, 1),
        HEADER.pack(CHUNK.size + BLOCK_BYTES + 1, Kind.BYTES, 1),
        HEADER.pack(CHUNK.size - 1, Kind.BYTES, 1),
        frame(Kind.FRAME, 1, b"\xff" * 9),
        frame(Kind.OPEN, 2, b"short"),
        frame(Kind.OPENED, 1, b""),
        HEADER.pack(0, 99, 1),
    ],
)
async def test_what_cannot_be_ends_the_trunk_and_nothing_else(tmp_path: Path, said: bytes) -> None:
    async with receiving(tmp_path) as (network, node):
        async with connected(node) as client:
            assert (await client.open(1, 0, 1, of_node(0)))[0] == Kind.OPENED
            client.write(frame(Kind.FRAME, 1, ANNOUNCE.SerializeToString()))
            await until(lambda: in_the_inbox(node) == (1, 0))
            client.write(said)
            assert (await client.read())[0] == 0
        assert in_the_inbox(node) == (0, 0)
        given = task(1, size_bytes=1000, deadline=10_000_000)
        await network.give(given)
        (ended,) = await network.ended(given)
        assert ended.data["outcome"] == "succeeded"


async def test_noise_changes_nothing(tmp_path: Path) -> None:
    draw = random.Random(1)
    async with receiving(tmp_path) as (_, node):
        for _ in range(30):
            async with connected(node) as client:
                client.write(draw.randbytes(draw.randrange(1, 300)))
        assert in_the_inbox(node) == (0, 0)
        async with connected(node) as client:
            assert (await client.open(1, 0, 1, of_node(0)))[0] == Kind.OPENED


async def test_frames_are_the_same_wherever_they_are_cut(tmp_path: Path) -> None:
    """A task whose frames come in pieces of every length, with bytes around the block's end."""
    given = task(9, size_bytes=BLOCK_BYTES + 5000)
    content = payload_of(given)
    offer = pb.HandOver(task=task_to_message(given), payload_bytes=len(content))
    chunks = [content[at : at + 200_000] for at in range(0, len(content), 200_000)]
    frames = b"".join(
        [
            frame(Kind.FRAME, 1, ANNOUNCE.SerializeToString()),
            *(frame(Kind.BYTES, 1, CHUNK.pack(0, given.id) + chunk) for chunk in chunks),
            frame(Kind.FRAME, 1, pb.TransferFrame(hand_over=offer).SerializeToString()),
        ]
    )
    draw = random.Random(2)
    async with receiving(tmp_path) as (_, node), connected(node) as client:
        assert (await client.open(1, 0, 1, of_node(0)))[0] == Kind.OPENED
        at = 0
        while at < len(frames):
            length = draw.choice((1, 3, 9, 17, 1000, 65536, 300_000))
            client.write(frames[at : at + length])
            at += length
            await asyncio.sleep(0)
        kind, _, body = await client.read()
        assert kind == Kind.TAKEN
        taken = pb.HandOverTaken.FromString(body)
        assert (taken.accepted, taken.reason) == (True, "")


def test_views_of_a_payload_are_its_bytes() -> None:
    for position, length in ((0, 1), (0, BLOCK_BYTES), (BLOCK_BYTES - 7, 250_000), (12345, 4096)):
        for task_id in (1, 2**40):
            views = payload_views(task_id, position, length)
            assert b"".join(views) == payload_slice(task_id, position, length)


async def test_an_impostor_gets_nothing(tmp_path: Path) -> None:
    """A process in a peer's place that cannot prove that it is the peer is sent no task."""
    heard: list[int] = []

    async def pretend(reading: asyncio.StreamReader, writing: asyncio.StreamWriter) -> None:
        writing.write(frame(Kind.GREETING, 0, MAGIC + new_nonce()))
        while header := await reading.read(HEADER.size):
            length, kind, channel = HEADER.unpack(header)
            await reading.readexactly(length)
            heard.append(kind)
            if kind == Kind.OPEN:
                writing.write(frame(Kind.OPENED, channel, bytes(32)))
        writing.close()

    async with cluster(tmp_path) as network:
        victim = network.members[1].node
        place = victim.host.trunk.removeprefix("unix:")
        victim.host.close()
        async with await asyncio.start_unix_server(pretend, place):
            victim.host._trunks.address = f"unix:{place}"
            await network.configure(plan(payload="metadata"), SendTo, destination=1)
            await network.start()
            given = task(1, deadline=10_000_000)
            await network.give(given)
            (ended,) = await network.ended(given)
            assert ended.data["outcome"] == "lost"
        assert set(heard) <= {Kind.OPEN}


async def test_a_process_that_does_not_read_costs_no_memory_and_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrier_module, "MOST_WAITING", 500)
    broken: list[str] = []
    async with cluster(tmp_path) as network:
        await network.configure(plan(), SendTo, destination=1)
        node, peer = (member.node for member in network.members)
        link = node._links[1]
        assert isinstance(link, TrunkLink)
        link.on_probes_broken = lambda _, reason: broken.append(reason)
        peer.host.close()
        reading = asyncio.Event()

        async def listen(_: asyncio.StreamReader, writing: asyncio.StreamWriter) -> None:
            writing.write(frame(Kind.GREETING, 0, MAGIC + new_nonce()))
            await reading.wait()
            writing.close()

        async with await asyncio.start_unix_server(listen, link._address.removeprefix("unix:")):
            while not broken:
                link.probes.send(lambda: pb.ProbeRequest(sender=0))
                await asyncio.sleep(0)
            assert "does not read" in broken[0]
            reading.set()


def test_a_place_without_a_process_is_named(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="nobody"):
        end_node(tmp_path / "nobody.sock", 0, of_node(0), 1.0)


async def until(holds: object) -> None:
    assert callable(holds)
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not come to hold")
