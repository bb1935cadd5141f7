"""Tasks that cross a link: real bytes, real time, real connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edgenode.driver import EpisodeDriver
from edgenode.node import EdgeNode
from edgenode.payload import payload_of
from testbed.model.draws import Purpose, failure_after, uniform
from testbed.model.events import RecordKind
from testbed.model.task import Task
from testbed.rpc.channels import connect
from testbed.rpc.credentials import shared
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import node_identity
from testbed.rpc.messages import task_to_message
from tests.edgenode.network import SECRET, Cluster, SendTo, cluster, defects, kinds, plan, task

# Whatever carries the messages, they mean the same.
pytestmark = pytest.mark.usefixtures("carrier")

ALL_STEPS = [
    "generated",
    "decided",
    "transmission_started",
    "sent",
    "received",
    "admitted",
    "execution_started",
    "ended",
]

PATIENT = 10_000_000
"""A deadline that no busy machine misses."""

SEEN: dict[int, bytes | None] = {}


def began(network: Cluster, task_id: int) -> int:
    """The instant at which a transmission began; its record is written a little later."""
    (start,) = (
        record
        for record in network.history(task_id)
        if record.kind is RecordKind.TRANSMISSION_STARTED
    )
    return start.at


@asynccontextmanager
async def exchange(network: Cluster) -> AsyncIterator[tuple[EdgeNode, Any]]:
    """A call by which a test says to node 1 what node 0 may say."""
    await network.configure(plan(), SendTo, destination=1)
    await network.start()
    receiver, sender = network.members[1].node, shared(SECRET, node_identity(0))
    async with connect(receiver.address, sender, node_identity(1)) as channel:
        yield receiver, pb_grpc.PeersStub(channel).Exchange()


def remember(task: Task, payload: bytes | None) -> None:
    """An application for tests."""
    SEEN[task.id] = payload


async def test_a_task_moves_with_its_bytes_at_the_links_rate(tmp_path: Path) -> None:
    given = task(1, deadline=PATIENT)
    async with cluster(tmp_path) as network:
        await network.configure(plan(), SendTo, destination=1)
        await network.start()
        await network.give(given)
        (ended,) = await network.ended(given)

        assert ended.data["outcome"] == "succeeded"
        assert kinds(network.history(1)) == ALL_STEPS
        clocks = {record.kind: record.clock for record in network.history(1)}
        # 1 MB at 20 MB/s, then 20 ms of execution: never early, however busy this machine is.
        transmission = clocks[RecordKind.SENT] - began(network, 1)
        execution = clocks[RecordKind.ENDED] - clocks[RecordKind.EXECUTION_STARTED]
        assert 50_000 <= transmission < 500_000
        assert 0 < execution < 500_000
        assert (
            ended.at
            - next(r.at for r in network.history(1) if r.kind is RecordKind.EXECUTION_STARTED)
            == 20_000
        )
        assert 70_000 <= int(ended.data["elapsed"]) < 1_000_000
        # Each side speaks for itself only.
        assert [record.node for record in network.history(1)] == [0] * 4 + [1] * 4


async def test_the_application_gets_the_bytes_that_were_sent(tmp_path: Path) -> None:
    spec = plan().application
    remote, local = task(1, deadline=PATIENT), task(2, source=1, deadline=PATIENT)
    spec = type(spec)(f"{__name__}:remember")
    async with cluster(tmp_path) as network:
        await network.configure(plan(application=spec), SendTo, destination=1)
        await network.start()
        await network.give(remote, local)
        endings = await network.ended(remote, local)

    assert [ended.data["outcome"] for ended in endings] == ["succeeded"] * 2
    assert SEEN.pop(1) == payload_of(remote)
    assert SEEN.pop(2) == payload_of(local)
    assert payload_of(remote) != payload_of(local)


async def test_metadata_moves_no_bytes_and_takes_the_same_time(tmp_path: Path) -> None:
    given = task(1, deadline=PATIENT)
    async with cluster(tmp_path) as network:
        await network.configure(plan(payload="metadata"), SendTo, destination=1)
        await network.start()
        await network.give(given)
        await network.ended(given)

        clocks = {record.kind: record.clock for record in network.history(1)}
        assert clocks[RecordKind.SENT] - began(network, 1) >= 50_000


async def test_a_link_serves_first_come_first_served(tmp_path: Path) -> None:
    given = [task(i, size_bytes=400_000, execution=1000, deadline=PATIENT) for i in range(1, 6)]
    async with cluster(tmp_path) as network:
        await network.configure(plan(), SendTo, destination=1)
        await network.start()
        await network.give(*given)
        await network.ended(*given)

        received = [r for r in network.members[1].records if r.kind is RecordKind.RECEIVED]
        assert [record.task.id for record in received] == [1, 2, 3, 4, 5]
        # One at a time: each takes 20 ms, and begins when the one before has gone.
        sending = network.members[0].records
        starts = [r.at for r in sending if r.kind is RecordKind.TRANSMISSION_STARTED]
        sent = [r.at for r in sending if r.kind is RecordKind.SENT]
        assert starts[1:] == sent[:-1]
        assert all(end - start >= 20_000 for start, end in zip(starts, sent, strict=True))


async def test_a_deadline_in_transit_frees_the_link(tmp_path: Path) -> None:
    # 2 MB take 100 ms, and there are 30.
    late = task(1, size_bytes=2_000_000, deadline=30_000)
    next_ = task(2, size_bytes=200_000, deadline=PATIENT)
    async with cluster(tmp_path) as network:
        await network.configure(plan(), SendTo, destination=1)
        await network.start()
        await network.give(late, next_)
        first, second = await network.ended(late, next_)

        assert (first.data["outcome"], first.data["stage"]) == ("dropped", "transmission")
        assert second.data["outcome"] == "succeeded"
        _, decided, started, *_ = network.history(2)
        assert started.kind is RecordKind.TRANSMISSION_STARTED
        assert started.at == max(decided.at, first.at)
        assert network.members[1].of(1) == []
        driver = network.members[1].node.driver
        assert isinstance(driver, EpisodeDriver)
        assert driver.state.receiving == (0, 0)


async def test_a_drawn_failure_in_transit_ends_the_task_at_its_instant(tmp_path: Path) -> None:
    beta = 100.0
    given = task(1)
    after = failure_after(beta, uniform(1, Purpose.TRANSMISSION_FATE, 0, given.id, 1))
    assert after < 50_000, "choose another seed"
    async with cluster(tmp_path) as network:
        await network.configure(plan(beta=beta), SendTo, destination=1)
        await network.start()
        await network.give(given)
        (ended,) = await network.ended(given)

        assert ended.data["outcome"] == "transmission_failed"
        started = next(r for r in network.history(1) if r.kind is RecordKind.TRANSMISSION_STARTED)
        assert ended.at - started.at == after


async def test_a_peer_that_dies_loses_the_task_in_transit(tmp_path: Path) -> None:
    given = task(1, size_bytes=100_000_000, deadline=PATIENT)
    again = task(2, size_bytes=100_000, deadline=PATIENT)
    async with cluster(tmp_path) as network:
        await network.configure(plan(), SendTo, destination=1)
        await network.start()
        await network.give(given)
        await network.until(lambda: len(network.members[0].of(1)) == 3)
        await network.members[1].node.close()
        (ended,) = await network.ended(given)
        assert (ended.data["outcome"], ended.data["stage"]) == ("lost", "transmission")

        # The node goes on, and what it sends there later is lost at once.
        await network.give(again)
        (ended,) = await network.ended(again)
        assert ended.data["outcome"] == "lost"


async def test_a_peer_that_begins_late_loses_nothing(tmp_path: Path) -> None:
    several = [task(i, size_bytes=10_000, execution=1000, deadline=PATIENT) for i in (1, 2)]
    async with cluster(tmp_path) as network:
        early, late = network.members
        await network.configure(plan(), SendTo, destination=1)
        await network.prepare()
        await network.begin(early)
        await network.give(*several)
        await network.until(lambda: len(early.of(1)) == 3)
        # More than the transmission takes: all of the first task is with its peer.
        await asyncio.sleep(0.1)
        assert isinstance(late.node.driver, EpisodeDriver)
        assert late.node.driver.state.receiving == (0, 0)
        assert not any(record.kind is RecordKind.SENT for record in early.records)
        await network.begin(late)
        endings = await network.ended(*several)

        assert [ended.data["outcome"] for ended in endings] == ["succeeded", "succeeded"]
        assert kinds(network.history(1)) == ALL_STEPS
        # In the order in which they were sent.
        assert [r.task.id for r in late.records if r.kind is RecordKind.RECEIVED] == [1, 2]


async def test_an_episode_that_ends_before_it_begins_takes_no_task(tmp_path: Path) -> None:
    given = task(1, size_bytes=10_000, deadline=PATIENT)
    async with cluster(tmp_path) as network:
        early, late = network.members
        await network.configure(plan(), SendTo, destination=1)
        await network.prepare()
        await network.begin(early)
        await network.give(given)
        await network.until(lambda: len(early.of(1)) == 3)
        await asyncio.sleep(0.1)
        await late.control.EndEpisode(pb.EndEpisodeRequest(run="run", episode=0))
        (ended,) = await network.ended(given)

        assert (ended.data["outcome"], ended.data["stage"]) == ("lost", "handing_over")
        assert not late.records


async def test_what_a_dead_sender_announced_is_no_longer_expected(tmp_path: Path) -> None:
    given = task(1, size_bytes=100_000_000, deadline=PATIENT)
    async with cluster(tmp_path) as network:
        await network.configure(plan(), SendTo, destination=1)
        await network.start()
        await network.give(given)
        receiver = network.members[1].node.driver
        assert isinstance(receiver, EpisodeDriver)
        await network.until(lambda: len(network.members[0].of(1)) == 3)
        await network.members[0].node.close()
        probe = task(2, source=1)
        await network.give(probe)
        await network.ended(probe)

        assert receiver.state.receiving == (0, 0)


@pytest.mark.parametrize(
    ("sent", "episode", "why"),
    [
        (b"", 0, "0 bytes arrived"),
        (b"x" * 1000, 0, "not those that were sent"),
        (b"", 7, "episode 7"),
    ],
)
async def test_a_hand_over_that_is_wrong_is_refused(
    tmp_path: Path, sent: bytes, episode: int, why: str
) -> None:
    given = task(1, size_bytes=1000)
    async with cluster(tmp_path) as network:
        async with exchange(network) as (receiver, call):
            if sent:
                chunk = pb.Chunk(task_id=1, data=sent)
                frame = pb.TransferFrame(sender=0, episode=episode, chunk=chunk)
                await call.write(pb.PeerFrames(frames=[frame]))
            offer = pb.HandOver(task=task_to_message(given), payload_bytes=1000)
            frame = pb.TransferFrame(sender=0, episode=episode, hand_over=offer)
            await call.write(pb.PeerFrames(frames=[frame]))
            [reply] = (await call.read()).taken

        assert not reply.accepted
        assert why in reply.reason
        assert isinstance(receiver.driver, EpisodeDriver)
        assert receiver.driver.state.held == frozenset()


async def test_a_task_that_is_announced_again_comes_whole(tmp_path: Path) -> None:
    """Bytes of an attempt that a fault ended may arrive after the fault began."""
    given = task(1, size_bytes=1000, deadline=PATIENT)
    announce = pb.TransferFrame(announce=pb.Announce(task=task_to_message(given)))
    chunk = pb.TransferFrame(chunk=pb.Chunk(task_id=1, data=payload_of(given)))
    late = pb.TransferFrame(chunk=pb.Chunk(task_id=1, data=payload_of(given)[300:700]))
    offer = pb.HandOver(task=task_to_message(given), payload_bytes=1000)
    async with cluster(tmp_path) as network:
        async with exchange(network) as (receiver, call):
            frames = [announce, late, announce, chunk, pb.TransferFrame(hand_over=offer)]
            await call.write(pb.PeerFrames(frames=frames))
            [reply] = (await call.read()).taken
        assert isinstance(receiver.driver, EpisodeDriver)
        assert (reply.accepted, reply.reason) == (True, "")
        assert not any(receiver.driver.state.receiving)


@pytest.mark.parametrize(
    ("frame", "status"),
    [
        (pb.TransferFrame(sender=2, announce=pb.Announce(task=task_to_message(task(9)))), "DENIED"),
        (pb.TransferFrame(sender=-1), "DENIED"),
        (pb.TransferFrame(chunk=pb.Chunk(task_id=1, data=bytes(1 << 21))), "ARGUMENT"),
        (pb.TransferFrame(announce=pb.Announce(task=pb.Task(id=9, source=1))), "ARGUMENT"),
        (pb.TransferFrame(announce=pb.Announce(task=pb.Task(id=9, slot=-1))), "ARGUMENT"),
        (pb.TransferFrame(hand_over=pb.HandOver(task=pb.Task(size_bytes=-1))), "ARGUMENT"),
        (pb.TransferFrame(hand_over=pb.HandOver(task=pb.Task(id=9), elapsed=-1)), "ARGUMENT"),
    ],
)
async def test_a_peer_speaks_for_itself_and_of_its_own_tasks(
    tmp_path: Path, frame: pb.TransferFrame, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with cluster(tmp_path) as network:
        async with exchange(network) as (receiver, call):
            await call.write(pb.PeerFrames(frames=[frame]))
            assert (await call.code()).name.endswith(status)
        assert isinstance(receiver.driver, EpisodeDriver)
        assert receiver.driver.state.receiving == (0, 0)
        assert not defects(caplog)


async def test_announcements_that_are_repeated_count_once(tmp_path: Path) -> None:
    coming = pb.TransferFrame(announce=pb.Announce(task=task_to_message(task(9))))
    going = pb.TransferFrame(withdraw=pb.Withdraw(task_id=9))
    async with cluster(tmp_path) as network:
        await network.configure(plan(), SendTo, destination=1)
        await network.start()
        receiver = network.members[1].node
        driver = receiver.driver
        assert isinstance(driver, EpisodeDriver)
        me = shared(SECRET, node_identity(0))
        async with connect(receiver.address, me, node_identity(1)) as channel:
            call = pb_grpc.PeersStub(channel).Exchange()

            async def receiving_after(*frames: pb.TransferFrame) -> tuple[int, ...]:
                offer = pb.HandOver(task=task_to_message(task(1)), payload_bytes=7)
                for frame in (*frames, pb.TransferFrame(hand_over=offer)):
                    await call.write(pb.PeerFrames(frames=[frame]))
                # Answered when what came before it has been handled.
                [taken] = (await call.read()).taken
                assert not taken.accepted
                return tuple(driver.state.receiving)

            assert await receiving_after(going) == (0, 0)
            assert await receiving_after(coming, coming, coming) == (1, 0)
            assert await receiving_after(going, going) == (0, 0)
