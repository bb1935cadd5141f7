"""Questions to peers: answered, unanswered, late."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edgenode.driver import EpisodeDriver
from testbed.model.events import RecordKind
from testbed.scenario.plan import SchedulerSpec
from testbed.sim.simulator import simulate_episode
from tests.edgenode.network import AskFirst, SendTo, cluster, eventually, plan, task

# Whatever carries the messages, they mean the same.
pytestmark = pytest.mark.usefixtures("carrier")


async def test_peers_answer_with_their_state_at_that_moment(tmp_path: Path) -> None:
    busy = [task(i, source=1, execution=3_000_000, deadline=10_000_000) for i in (1, 2)]
    asking = task(3, execution=1000)
    async with cluster(tmp_path, nodes=3) as network:
        await network.configure(plan(nodes=3), SendTo, destination=1)
        await network.start()
        await network.give(*busy)
        await network.members[0].node.set_scheduler(
            SchedulerSpec("tests.edgenode.network:AskFirst", {"bits_only": False})
        )
        await network.give(asking)
        await network.ended(asking)

        (decision,) = [d for d in network.members[0].decisions if d.task_id == 3]
        answers = {answer.peer: answer for answer in decision.observation.answers}
        assert answers.keys() == {1, 2}
        assert answers[1].overloaded
        assert answers[1].state is not None
        assert answers[1].state.queue_length == 2
        assert 0 < answers[1].state.backlog <= 6_000_000
        assert answers[2].state is not None
        assert not answers[2].overloaded
        assert answers[2].state.queue_length == 0
        assert all(0 <= a.asked <= a.answered <= decision.at for a in answers.values())
        # What was heard is remembered for later decisions.
        assert decision.observation.known[1] == (answers[1].state, answers[1].answered)


async def test_a_node_asks_at_its_turn_and_tells_how_late_it_was(tmp_path: Path) -> None:
    first, second = (task(i, source=i, execution=1000) for i in (0, 1))
    async with cluster(tmp_path) as network:
        await network.configure(plan(stagger=60_000), AskFirst)
        await network.start()
        for given in (first, second):
            # Both arrive in slot 1, at 100 ms.
            await network.tell(given._replace(slot=1), node=given.source)
        await network.ended(first, second)

        for node, member in enumerate(network.members):
            (decision,) = [d for d in member.decisions if d.task_id is not None]
            turn = 100_000 + node * 60_000
            assert [answer.asked for answer in decision.observation.answers] == [turn]
            (decided,) = [r for r in member.records if r.kind is RecordKind.DECIDED]
            assert ("late" in decided.data) == (node == 1)
            assert int(decided.data.get("late", 0)) >= 0
            assert decision.at >= turn


async def test_a_peer_that_begins_late_answers_then(tmp_path: Path) -> None:
    asking = task(1, execution=1000, deadline=20_000_000)
    async with cluster(tmp_path) as network:
        early, late = network.members
        await network.configure(plan(probe_timeout=10_000_000), AskFirst)
        await network.prepare()
        await network.begin(early)
        await network.give(asking)
        await asyncio.sleep(0.05)
        before = (
            early.node.driver.clock.now() if isinstance(early.node.driver, EpisodeDriver) else 0
        )
        await network.begin(late)
        await network.ended(asking)

        (decision,) = early.decisions
        (answer,) = decision.observation.answers
        assert answer.answered >= before


async def test_bits_only_carries_no_state(tmp_path: Path) -> None:
    asking = task(1, execution=1000)
    async with cluster(tmp_path) as network:
        await network.configure(plan(), AskFirst, bits_only=True)
        await network.start()
        await network.give(asking)
        await network.ended(asking)

        (decision,) = network.members[0].decisions
        (answer,) = decision.observation.answers
        assert (answer.peer, answer.overloaded, answer.state) == (1, False, None)


async def test_some_may_be_asked_for_their_state_and_others_for_their_bit(tmp_path: Path) -> None:
    asking = task(1, execution=1000)
    async with cluster(tmp_path, nodes=4) as network:
        await network.configure(plan(nodes=4), AskFirst, bits_only=True, states_of=[1, 3])
        await network.start()
        await network.give(asking)
        await network.ended(asking)

        (decision,) = network.members[0].decisions
        told = {each.peer: each.state is not None for each in decision.observation.answers}
        assert told == {1: True, 2: False, 3: True}


async def test_a_dead_peer_is_known_to_be_silent_at_once(tmp_path: Path) -> None:
    asking = task(1, execution=1000)
    async with cluster(tmp_path, nodes=3) as network:
        await network.configure(plan(nodes=3, probe_timeout=60_000_000), AskFirst)
        await network.start()
        await network.members[2].node.close()
        await network.give(asking)
        await network.ended(asking)

        (decision,) = network.members[0].decisions
        assert [answer.peer for answer in decision.observation.answers] == [1]


async def test_a_peer_that_does_not_answer_costs_the_probe_timeout(tmp_path: Path) -> None:
    asking = task(1, execution=1000, deadline=20_000_000)
    async with cluster(tmp_path, nodes=3) as network:
        await network.configure(plan(nodes=3, probe_timeout=2_000_000), AskFirst)
        await network.start()
        # It is alive and takes no part in this episode.
        network.members[2].node.end_episode(0)
        await network.give(asking)
        await network.ended(asking)

        (decision,) = network.members[0].decisions
        assert [answer.peer for answer in decision.observation.answers] == [1]
        generated = network.history(1)[0]
        assert generated.kind is RecordKind.GENERATED
        assert decision.at == generated.at + 2_000_000


async def test_control_delay_holds_answers_and_announcements_back(tmp_path: Path) -> None:
    delay = 40_000
    asking = task(1, execution=1000)
    async with cluster(tmp_path) as network:
        await network.configure(plan(control_delay=delay), AskFirst)
        await network.start()
        await network.give(asking)
        await network.ended(asking)

        (decision,) = network.members[0].decisions
        (answer,) = decision.observation.answers
        assert answer.answered - answer.asked >= 2 * delay
        assert answer.state is not None
        # True half way, when the question had reached the peer.
        assert decision.at - network.history(1)[0].at >= 2 * delay


async def test_answers_take_the_delays_of_both_links_as_in_the_simulator(tmp_path: Path) -> None:
    asking = task(1, execution=1000)
    slow = plan(nodes=3, link_delays=((0, 90_000, 10_000), (150_000, 0, 0), (20_000, 0, 0)))
    simulated = simulate_episode(slow, 0, AskFirst)
    (expected,) = [d for d in simulated.decisions if (d.node, d.slot) == (0, 0)]
    async with cluster(tmp_path, nodes=3) as network:
        await network.configure(slow, AskFirst)
        await network.start()
        await network.give(asking)
        await network.ended(asking)

        (decision,) = network.members[0].decisions
        answers, simulated_answers = decision.observation.answers, expected.observation.answers
        assert [answer.peer for answer in answers] == [2, 1]
        for answer, other in zip(answers, simulated_answers, strict=True):
            assert answer.peer == other.peer
            assert 0 <= answer.answered - answer.asked - (other.answered - other.asked) < 100_000
        assert decision.at - network.history(1)[0].at >= 240_000


async def test_a_peer_that_is_too_far_away_is_silent_and_the_others_are_not(tmp_path: Path) -> None:
    asking = task(1, execution=1000, deadline=20_000_000)
    far = ((0, 10_000, 1_000_000), (10_000, 0, 0), (1_000_001, 0, 0))
    async with cluster(tmp_path, nodes=3) as network:
        await network.configure(plan(nodes=3, link_delays=far, probe_timeout=2_000_000), AskFirst)
        await network.start()
        await network.give(asking)
        await network.ended(asking)

        (decision,) = network.members[0].decisions
        assert [answer.peer for answer in decision.observation.answers] == [1]
        assert decision.at == network.history(1)[0].at + 2_000_000


async def test_an_announcement_takes_the_delay_of_its_link(tmp_path: Path) -> None:
    coming = (
        task(1, size_bytes=100_000_000, deadline=10_000_000),
        task(2, source=2, size_bytes=100_000_000, deadline=10_000_000),
    )
    never = 60_000_000
    async with cluster(tmp_path, nodes=3) as network:
        far = ((0, never, 0), (0, 0, 0), (0, 100_000, 0))
        await network.configure(plan(nodes=3, link_delays=far), SendTo, destination=1)
        await network.start()
        began = network.members[1].node.driver.clock.now()  # type: ignore[union-attr]
        await network.give(*coming)
        state = network.members[1].node.driver.state  # type: ignore[union-attr]
        await eventually(lambda: state.receiving[2] == 1)
        assert network.members[1].node.driver.clock.now() - began >= 100_000  # type: ignore[union-attr]
        assert state.receiving[0] == 0


async def test_announcements_are_counted_by_the_receiver(tmp_path: Path) -> None:
    coming = task(1, size_bytes=100_000_000, deadline=10_000_000)
    asking = task(2, source=2, execution=1000)
    async with cluster(tmp_path, nodes=3) as network:
        whole = plan(nodes=3)
        await network.configure(whole, SendTo, destination=1)
        await network.start()
        await network.give(coming)
        await network.until(lambda: len(network.members[0].of(1)) == 3)
        await network.members[2].node.set_scheduler(
            SchedulerSpec("tests.edgenode.network:AskFirst")
        )
        await network.give(asking)
        await network.ended(asking)

        (decision,) = [d for d in network.members[2].decisions if d.task_id == 2]
        states = {a.peer: a.state for a in decision.observation.answers if a.state}
        assert {peer: state.inbound for peer, state in states.items()} == {0: 0, 1: 1}
        needed = whole.topology.execution_time(coming, 1)
        assert {peer: state.inbound_work for peer, state in states.items()} == {0: 0, 1: needed}
