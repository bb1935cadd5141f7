"""Requests over HTTP: served, forwarded, refused, counted and logged."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from testbed.rpc import front
from tests.edgenode.serving.federation import federation, plan


async def test_between_runs_a_node_serves_and_logs_nothing(tmp_path: Path) -> None:
    async with federation(tmp_path, 1) as network:
        answer = await network.get()
        assert (answer.status, answer.outcome) == (503, "not_configured")
        await network.configure(plan(1000), run="standby", standby=True)

        answer = await network.get()

        assert answer.status == 200
        assert (answer.headers[front.NODE], answer.server) == ("0", "0")
        assert answer.headers[front.REQUEST].startswith("standby-")
        assert answer.document["function"] == "f"
        assert answer.document["elapsed_ms"] >= 5
        assert (await network.get(path="/")).status == 200
        assert network.members[0].node.spool.unacknowledged == 0
        assert network.members[0].node.run_id == ""


@pytest.mark.parametrize("together", [True, False])
async def test_what_is_above_the_limit_goes_to_the_neighbour(
    tmp_path: Path, together: bool
) -> None:
    async with federation(tmp_path, 2, together=together) as network:
        # One window, whenever the test comes to send.
        await network.configure(plan(3, 1000, window=3_600_000_000, length=3_600_000_000))
        await network.start()

        answers = [await network.get(number=number) for number in range(8)]

        assert [answer.status for answer in answers] == [200] * 8
        assert Counter(answer.server for answer in answers) == {"0": 3, "1": 5}
        assert {answer.headers[front.NODE] for answer in answers} == {"0"}
        assert answers[4].headers[front.REQUEST] == "0-4"
        first, second = network.members
        await network.until(lambda: len(first.requests) == 8)
        assert [record.id for record in first.requests] == list(range(8))
        assert [record.server for record in first.requests] == [0] * 3 + [1] * 5
        assert [record.peer for record in first.requests] == [None] * 3 + [1] * 5
        assert all(record.elapsed >= 5_000 for record in first.requests)
        await network.end()
        await network.until(lambda: bool(first.windows and second.windows))
        assert first.counts == {"local": 3, "to:1": 5}
        assert second.counts == {"from:0": 5}
        assert second.requests == []
