"""Nothing that happened is lost between a node and the controller."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgenode.spool import LATEST, SOON, LogEvent, RunSpool, Spool
from testbed.model.events import Record, RecordKind
from testbed.rpc.codec import decode_record
from testbed.rpc.generated import edge_pb2 as pb
from tests.edgenode.network import cluster, eventually, plan, task


def record(number: int) -> Record:
    return Record(RecordKind.GENERATED, task(number), 0, 0, number, number, {})


def sent(spool: Spool, position: dict[str, int] | None = None) -> list[pb.EventBatch]:
    """All batches a new listener gets."""
    position = {} if position is None else position
    batches = []
    while (batch := spool.next_batch(position)) is not None:
        batches.append(batch)
    return batches


def ids(batches: list[pb.EventBatch]) -> list[int]:
    return [decode_record(r).task.id for batch in batches for r in batch.records]


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def size(path: Path) -> int:
    return path.stat().st_size


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path)
    spool.begin("run")
    return spool


async def test_batches_are_numbered_without_gaps_and_kept_until_acknowledged(spool: Spool) -> None:
    for number in range(3):
        spool.record(record(number))
        assert spool.flush("run") == number + 1
    assert [batch.number for batch in sent(spool)] == [1, 2, 3]
    spool.acknowledge("run", 2)
    assert [batch.number for batch in sent(spool)] == [3]
    assert spool.unacknowledged == 1


async def end_of_turn() -> None:
    """Let the event loop go on: what was logged in this turn is in its file then."""
    await asyncio.sleep(0)


async def test_what_happens_in_one_turn_is_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)
    spool.begin("run")
    writes: list[bytes] = []

    really = os.write

    def write(file: int, content: bytes) -> int:
        writes.append(content)
        return really(file, content)

    monkeypatch.setattr("edgenode.spool.os.write", write)
    for number in range(3):
        spool.record(record(number))
    assert writes == []
    await end_of_turn()
    assert [content.count(b"\n") for content in writes] == [3]
    # The end of a batch goes with what is in it.
    spool.record(record(3))
    spool.flush("run")
    assert [content.count(b"\n") for content in writes] == [3, 2]


async def test_batches_wait_longer_the_more_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    spool = RunSpool("run", tmp_path / "run.spool", lambda: None)
    loop = asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)

    def next_batch(after: float) -> float:
        nonlocal now
        now += after
        spool.append(LogEvent(b"r", bytes, b"{}"))
        wait = spool._due - now
        spool.cut()
        return round(wait, 3)

    # An event in every 50 ms: the first batches are cut soon, then four a second.
    waits = [next_batch(0.05) for _ in range(20)]
    assert waits[:4] == [SOON] * 4
    assert set(waits[4:]) == {SOON, LATEST}
    assert waits[4:].count(SOON) <= 4
    # After a while in which nothing happens.
    assert next_batch(2.0) == SOON
    monkeypatch.undo()
    spool.close()


async def test_nodes_of_one_process_have_one_log(tmp_path: Path) -> None:
    first = Spool(tmp_path / "node-0")
    second = Spool(tmp_path / "node-1", first.files)
    first.begin("one")
    second.begin("one")
    first.record(record(1))
    second.record(record(2))
    assert second.flush("one") == first.flush("one") == 1
    assert ids(sent(first)) == ids(sent(second)) == [1, 2]
    assert not (tmp_path / "node-1").exists()

    # A node that is in a run of its own still logs into that one.
    first.begin("two")
    first.acknowledge("one", 1)
    second.record(record(3))
    assert (second.flush("one"), second.flush("two")) == (2, 0)
    assert [batch.run for batch in sent(first)] == ["one"]
    # One that ends leaves the log to the others.
    first.close()
    second.acknowledge("one", 2)
    second.record(record(4))
    assert second.flush("one") == 3
    second.close()
    # The file does not say what was acknowledged.
    assert ids(sent(Spool(tmp_path / "node-0"))) == [1, 2, 3, 4]


async def test_what_nodes_left_in_files_of_their_own_is_taken_over(tmp_path: Path) -> None:
    for number in range(3):
        alone = Spool(tmp_path / f"node-{number}")
        alone.begin("run")
        alone.record(record(number))
        alone.close()
    first = Spool(tmp_path / "node-0")
    second = Spool(tmp_path / "node-1", first.files)
    Spool(tmp_path / "node-2", first.files)
    batches = sent(second)
    assert ids(batches) == [0, 1, 2]
    assert [batch.number for batch in batches] == [1, 2, 3]
    assert not files(tmp_path / "node-1")
    # Another process that dies finds all of it in one place.
    assert ids(sent(Spool(tmp_path / "node-0"))) == [0, 1, 2]


async def test_what_is_waited_for_is_cut_soon(tmp_path: Path) -> None:
    spool = RunSpool("run", tmp_path / "run.spool", lambda: None)
    for _ in range(10):
        spool.append(LogEvent(b"r", bytes, b"{}"))
        spool.cut()
    spool.append(LogEvent(b"r", bytes, b"{}"))
    loop = asyncio.get_running_loop()
    assert spool._due - loop.time() > SOON
    spool.hurry()
    assert spool._due - loop.time() <= SOON
    spool.close()


async def test_nothing_new_makes_no_batch(spool: Spool) -> None:
    assert spool.flush("run") == 0
    spool.record(record(1))
    assert spool.flush("run") == 1
    assert spool.flush("run") == 1


async def test_a_batch_is_cut_by_itself(spool: Spool) -> None:
    spool.record(record(1))
    async with asyncio.timeout(30):
        await spool.news.wait()
    assert ids(sent(spool)) == [1]


async def test_a_batch_that_comes_before_anybody_waits_for_it_is_not_missed(spool: Spool) -> None:
    another = spool.news
    assert sent(spool) == []
    waiting = asyncio.create_task(another.wait())
    # The task has not run yet.
    spool.record(record(1))
    spool.flush("run")
    async with asyncio.timeout(30):
        await waiting
    assert ids(sent(spool)) == [1]


async def test_a_new_process_goes_on_where_the_last_one_died(tmp_path: Path) -> None:
    dead = Spool(tmp_path)
    dead.begin("a/run")
    dead.record(record(1))
    dead.flush("a/run")
    dead.record(record(2))
    dead.flush("a/run")
    dead.acknowledge("a/run", 1)
    dead.record(record(3))  # not in a batch yet
    await end_of_turn()
    (path,) = files(tmp_path)
    append(path, b'r{"kind":"gener')  # and died while it wrote

    again = Spool(tmp_path)
    batches = sent(again)
    # The file does not say what was acknowledged: the controller takes a batch twice as once.
    assert [(batch.run, batch.number) for batch in batches] == [
        ("a/run", 1),
        ("a/run", 2),
        ("a/run", 3),
    ]
    assert ids(batches) == [1, 2, 3]
    again.begin("a/run")
    again.record(record(4))
    assert again.flush("a/run") == 4


def remove(path: Path) -> None:
    path.unlink()


def remove_folder(path: Path) -> None:
    shutil.rmtree(path.parent.parent)


def cut_short(path: Path) -> None:
    os.truncate(path, 7)


def write_into(path: Path) -> None:
    append(path, b"\xff" * 40)


@pytest.mark.parametrize("damage", [remove, remove_folder, cut_short, write_into])
async def test_a_file_that_is_taken_away_or_damaged_is_made_anew(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder = tmp_path / "spool" / "node-0"
    spool = Spool(folder)
    spool.begin("run")
    for number in range(3):
        spool.record(record(number))
        spool.flush("run")
    spool.acknowledge("run", 1)
    (path,) = files(folder)
    damage(path)
    spool.record(record(3))
    spool.flush("run")
    spool.record(record(4))
    await end_of_turn()
    again = Spool(folder)
    assert ids(sent(again)) == [1, 2, 3, 4]
    assert [batch.number for batch in sent(again)] == [2, 3, 4, 5]


async def test_what_cannot_be_read_is_left_out_and_kept_beside(tmp_path: Path) -> None:
    dead = Spool(tmp_path)
    dead.begin("run")
    for number in range(4):
        dead.record(record(number))
        dead.flush("run")
    (path,) = files(tmp_path)
    content = path.read_bytes()
    lines = content.split(b"\n")
    lines[2] = os.urandom(20).replace(b"\n", b"x")
    lines[5] = b"=12x"
    path.write_bytes(b"\n".join(lines))
    (tmp_path / "folder.spool").mkdir()

    again = Spool(tmp_path)
    batches = sent(again)
    assert ids(batches) == [0, 2, 3]
    assert [batch.number for batch in batches] == [1, 4]
    assert [batch.number for batch in sent(again, {"run": 1})] == [4]
    assert [batch.number for batch in sent(again, {"run": 2})] == [4]
    assert (tmp_path / "run.damaged").read_bytes() == b"\n".join(lines)
    assert ids(sent(Spool(tmp_path))) == [0, 2, 3], "what is left can be read"
    again.begin("run")
    again.record(record(5))
    assert again.flush("run") == 5


async def test_a_file_that_is_all_acknowledged_is_emptied_and_numbers_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgenode.spool._KEEP_BYTES", 20)
    spool = Spool(tmp_path)
    spool.begin("run")
    spool.record(record(1))
    spool.acknowledge("run", spool.flush("run"))
    (path,) = files(tmp_path)
    assert size(path) < 20

    again = Spool(tmp_path)
    again.begin("run")
    again.record(record(2))
    assert again.flush("run") == 2
    assert ids(sent(again)) == [2]


async def test_files_go_when_all_is_acknowledged(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.begin("one")
    spool.record(record(1))
    last = spool.flush("one")
    spool.begin("two")
    assert len(files(tmp_path)) == 2
    spool.acknowledge("one", last)
    assert [path.stem for path in files(tmp_path)] == ["two"]
    spool.close()
    assert files(tmp_path) == []


async def test_what_is_not_acknowledged_stays_after_the_end(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.begin("run")
    spool.record(record(1))
    spool.close()
    assert ids(sent(Spool(tmp_path))) == [1]


async def test_a_full_disk_costs_the_file_and_not_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path)
    spool.begin("run")
    spool.record(record(1))

    def full(_file: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        spool.record(record(2))
        spool.record(record(3))
        last = spool.flush("run")
    assert ids(sent(spool)) == [1, 2, 3]
    assert caplog.text.count("No space left on device") == 1
    spool.acknowledge("run", last)
    spool.close()


async def test_what_was_not_acknowledged_is_sent_again_after_a_reconnect(tmp_path: Path) -> None:
    given = task(1, execution=1000)
    async with cluster(tmp_path, nodes=1) as network:
        (member,) = network.members
        await network.configure(plan(nodes=1), "local")
        await network.start(listen=False)
        await network.give(given)
        first = member.control.Events()
        got = [await first.read()]
        while RecordKind.ENDED not in [decode_record(r).kind for r in got[-1].records]:
            got.append(await first.read())
        (reply,) = await network.end()
        assert got[-1].number == reply.last_batch
        first.cancel()

        second = member.control.Events()
        again = [await second.read() for _ in got]
        assert again == got
        await second.write(pb.BatchAck(run="run", number=reply.last_batch))
        await second.done_writing()
        assert await second.code() is not None
        assert member.node.spool.unacknowledged == 0


async def test_a_second_listener_ends_the_first(tmp_path: Path) -> None:
    given = task(1, execution=1000)
    async with cluster(tmp_path, nodes=1) as network:
        (member,) = network.members
        await network.configure(plan(nodes=1), "local")
        first = member.control.Events()
        await eventually(member.node.spool.reading.locked)
        await network.start()
        await network.give(given)
        await network.ended(given)
        async with asyncio.timeout(30):
            await first.code()


async def test_another_node_of_the_process_sends_what_one_that_ends_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.edgenode.network.carrier", "local")
    given = [task(number, source=number, execution=1000) for number in range(2)]
    async with cluster(tmp_path) as network:
        first, second = network.members
        await network.configure(plan(), "local")
        # One after the other: who is there first is sent the log. A connection alone does not tell
        # that the node has seen the call.
        listening = first.control.Events()
        await eventually(first.node.spool.reading.locked)
        waiting = second.control.Events()
        await waiting.wait_for_connection()
        await network.start(listen=False)
        await network.give(*given)
        got: set[int] = set()
        async with asyncio.timeout(30):
            while got != {0, 1}:
                got |= set(ids([await listening.read()]))
        # What is not acknowledged comes again, from the other one.
        await first.node.close()
        got.clear()
        async with asyncio.timeout(30):
            while got != {0, 1}:
                batch = await waiting.read()
                got |= set(ids([batch]))
        await waiting.write(pb.BatchAck(run="run", number=batch.number))
        assert await second.node.spool.drained(30)
