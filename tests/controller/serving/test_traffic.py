"""The traffic of users: an open loop, whatever the fronts do."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace

from controller.serving.client import FrontAddress
from controller.serving.episode import ServingEpisode, Watchers
from controller.serving.ledger import Joined
from controller.serving.recording import Batch
from testbed.model.serving.record import RequestOutcome
from testbed.model.units import SECOND, Micros
from testbed.scenario.plan import ServingPlan
from testbed.scenario.plan.serving import Horizon
from tests.controller.serving.fronts import FakeFront
from tests.sim.serving_plans import federation


def of(rate: float, seconds: float = 1.0, limit: int = 1_000) -> ServingPlan:
    """Return a plan with users at one node."""
    plan = federation((rate,), (limit,))
    return replace(plan, horizon=Horizon(int(seconds * SECOND), drain=SECOND))


@dataclass
class Told:
    """What an episode has told."""

    lateness: list[Micros] = field(default_factory=list)
    joined: list[Joined[Batch]] = field(default_factory=list)

    def episode(
        self, plan: ServingPlan, *fronts: FrontAddress | None, most_open: int = 500
    ) -> ServingEpisode:
        """Return an episode that tells it."""
        watchers = Watchers(self.lateness.append, self.joined.append, lambda: None)
        return ServingEpisode(plan, 0, fronts, watchers, most_open=most_open)


async def test_every_request_is_sent_once_and_counted() -> None:
    plan, told = of(100, limit=60), Told()
    async with FakeFront(plan) as front:
        episode = told.episode(plan, front.at)
        episode.begin()
        await episode.wait()
        assert episode.ledger.sent == len(told.lateness) == 100
        assert min(told.lateness) >= 0
        assert sorted(front.came) == list(range(100))
        assert front.tokens == {"proof"}
        # No node has reported anything: no row is complete.
        assert told.joined == []
        for record in front.records:
            joined = episode.ledger.reported(record, None)  # type: ignore[arg-type]
            assert joined is not None
            assert joined.seen is not None
            assert joined.row.outcome is joined.seen.outcome
            assert joined.row.client_status == joined.row.status
            assert joined.row.sent is not None
            assert joined.row.answered is not None
            told.joined.append(joined)
        outcomes = Counter(joined.row.outcome for joined in told.joined)
        assert set(outcomes) == {RequestOutcome.SERVED, RequestOutcome.NO_PEER}
        assert list(episode.ledger.close()) == []


async def test_no_request_waits_for_an_answer() -> None:
    """A front that answers nothing for a while gets all requests in time all the same."""
    plan, told = of(100, seconds=0.5), Told()
    released = asyncio.Event()

    async def hold(_number: int) -> None:
        await released.wait()

    async with FakeFront(plan, before=hold) as front:
        episode = told.episode(plan, front.at)
        episode.begin()
        await front.has(50)
        assert episode.ledger.unanswered == 50
        assert not episode.over.is_set()
        released.set()
        await episode.wait()
        assert len(front.records) == 50


async def test_what_is_never_answered_is_lost_after_the_drain() -> None:
    plan, told = of(20), Told()

    async def hold(number: int) -> None:
        if number % 2:
            await asyncio.Event().wait()

    async with FakeFront(plan, before=hold) as front:
        episode = told.episode(plan, front.at)
        episode.begin()
        await episode.wait()
        for record in front.records:
            assert episode.ledger.reported(record, None) is not None  # type: ignore[arg-type]
        lost = list(episode.ledger.close())
        assert [joined.row.request for joined in lost] == list(range(1, 20, 2))
        assert {joined.row.outcome for joined in lost} == {RequestOutcome.LOST}
        assert {joined.row.client_status for joined in lost} == {None}


async def test_requests_for_a_node_that_is_dead_find_nobody() -> None:
    plan, told = of(40), Told()
    async with FakeFront(plan) as front:
        address = front.at
    episode = told.episode(plan, address)
    episode.begin()
    await episode.wait()
    assert Counter(joined.row.outcome for joined in told.joined) == {RequestOutcome.UNREACHABLE: 40}
    assert list(episode.ledger.close()) == []


async def test_requests_for_a_node_that_takes_no_part_find_nobody() -> None:
    told = Told()
    episode = told.episode(of(40, seconds=0.5), None)
    episode.begin()
    await episode.wait()
    assert Counter(joined.row.outcome for joined in told.joined) == {RequestOutcome.UNREACHABLE: 20}


async def test_a_run_that_is_stopped_sends_no_more() -> None:
    plan, told = of(100, seconds=60), Told()
    async with FakeFront(plan) as front:
        episode = told.episode(plan, front.at)
        episode.begin()
        await front.has(10)
        episode.stop(wait=True)
        await episode.wait()
        assert episode.ledger.sent < 6_000
        assert episode.ledger.unanswered == 0
        assert len(front.records) == episode.ledger.sent


async def test_a_run_that_is_stopped_at_once_waits_for_nothing() -> None:
    plan, told = of(100, seconds=60), Told()

    async def hold(_number: int) -> None:
        await asyncio.Event().wait()

    async with FakeFront(plan, before=hold) as front:
        episode = told.episode(plan, front.at)
        episode.begin()
        await front.has(5)
        episode.stop(wait=False)
        await episode.wait()
        assert episode.ledger.unanswered == 0
        assert {joined.row.outcome for joined in episode.ledger.close()} == {RequestOutcome.LOST}


async def test_an_episode_that_is_stopped_before_it_begins_sends_nothing() -> None:
    told = Told()
    episode = told.episode(of(100), None)
    episode.stop(wait=True)
    episode.begin()
    await episode.wait()
    assert episode.ledger.sent == 0


async def test_no_more_are_open_than_may_be() -> None:
    plan, told = of(200, seconds=0.5), Told()

    async def hold(_number: int) -> None:
        await asyncio.Event().wait()

    async with FakeFront(plan, before=hold) as front:
        episode = told.episode(plan, front.at, most_open=30)
        episode.begin()
        await episode.wait()
        assert len(front.came) == 30
        assert episode.unsent == 70
        assert len(told.joined) == 70
        assert {joined.row.outcome for joined in told.joined} == {RequestOutcome.LOST}
