"""An episode ends although a node takes its tasks and never says what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from controller import episode as module
from controller.episode import Episode
from controller.link import NodeLink
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.testing.runtime import small_plan


class Silent(pb_grpc.TasksServicer):
    """Takes every slot and keeps quiet."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, bool]] = []

    async def Submit(
        self, request_iterator: AsyncIterator[pb.SlotTask], context: Any
    ) -> AsyncIterator[pb.SlotTaskTaken]:
        async for slot in request_iterator:
            self.taken.append((slot.slot, slot.HasField("task")))
            yield pb.SlotTaskTaken(slot=slot.slot)


async def ignore_events(link: NodeLink, batch: pb.EventBatch) -> None:
    raise AssertionError("nobody sends any")


async def test_the_hard_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.1)
    node = Silent()
    server = grpc.aio.server()
    pb_grpc.add_TasksServicer_to_server(node, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    link = NodeLink(0, address, ignore_events)
    broken: list[str] = []
    late: list[int] = []
    plan = small_plan(2)
    try:
        # Node 1 is dead from the beginning.
        submission = link.submission(lambda link, reason: broken.append(reason))
        episode = Episode(
            plan, 0, [submission, None], lost=set(), late=late.append, changed=lambda: None
        )
        began = asyncio.get_running_loop().time()
        await episode.wait()
        lasted = asyncio.get_running_loop().time() - began
    finally:
        await link.close()
        await server.stop(None)
    assert episode.timed_out
    # 10 slots of 50 ms, the deadline of 400 ms, and the grace.
    assert lasted >= 1.0 - 0.01
    assert node.taken == [(slot, True) for slot in range(10)]
    assert len(late) == 10
    assert broken == []
    # Nobody logged them, so each is said to have been generated and to have ended.
    assert len(episode.ledger.close(episode.now)) == 2 * 20
    assert episode.ledger.outcomes["lost"] == episode.ledger.generated == 20
