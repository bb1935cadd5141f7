"""States that nodes tell each other unasked."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from edgenode.driver import EpisodeDriver
from testbed.model.decision import Ask, Decision, Observation, SchedulerContext
from testbed.model.units import Micros
from testbed.scenario.plan import Plan, SchedulerSpec
from tests.edgenode.network import SendTo, cluster, eventually, plan, task

# Whatever carries the messages, they mean the same.
pytestmark = pytest.mark.usefixtures("carrier")


class Gossips:
    """A scheduler for tests: nodes tell their states, and tasks stay where they arrive."""

    name = "gossips"

    def __init__(self, context: SchedulerContext) -> None:
        given: Any = context.options["period"]
        self.gossip_period = int(given)

    def decide(self, observation: Observation) -> Decision | Ask:
        return Decision(observation.node)


def long_plan(nodes: int = 2, control_delay: Micros = 0) -> Plan:
    """Slots for longer than a test takes: states are told until the last one is over."""
    short = plan(nodes=nodes, control_delay=control_delay)
    return dataclasses.replace(short, workload=dataclasses.replace(short.workload, slots=1000))


async def test_states_are_told_once_in_a_period_and_the_newest_is_known(tmp_path: Path) -> None:
    period = 100_000
    busy = task(1, source=1, execution=3_000_000, deadline=10_000_000)
    async with cluster(tmp_path, nodes=3) as network:
        await network.configure(long_plan(nodes=3), Gossips, period=period)
        await network.start()
        await network.give(busy)
        first = network.members[0].node.driver
        assert isinstance(first, EpisodeDriver)

        def known() -> Any:
            return first.state.observe(first.clock.now(), 0).known

        await eventually(lambda: all(known()[1:]) and known()[1][0].backlog > 0)
        early = known()
        assert early[0] is None
        assert early[1][0].queue_length == 1
        assert early[2][0].queue_length == early[2][0].backlog == 0
        await eventually(lambda: all(known()[j][0].at > early[j][0].at for j in (1, 2)))
        later = known()
        # Told at multiples of the period; heard on the own clock after that.
        assert {heard[0].at % period for heard in (*early[1:], *later[1:])} == {0}
        assert later[1][1] > early[1][1]
        assert 0 < early[1][0].backlog - later[1][0].backlog < 3_000_000


async def test_what_is_told_takes_the_control_delay(tmp_path: Path) -> None:
    asking = task(1, execution=1000)
    delay = 300_000
    async with cluster(tmp_path) as network:
        await network.configure(long_plan(control_delay=delay), Gossips, period=10_000_000)
        await network.start()
        driver = network.members[0].node.driver
        state: Any = driver.state  # type: ignore[union-attr]
        await eventually(lambda: state.observe(state.now, 0).known[1] is not None)
        ((told, heard),) = [state.observe(state.now, 0).known[1]]
        assert told.at == 0
        assert heard >= delay
        await network.give(asking)
        await network.ended(asking)
        (decision,) = network.members[0].decisions
        assert decision.observation.known[1] == (told, heard)
        assert decision.observation.answers == ()


async def test_what_is_told_takes_the_delay_of_its_link(tmp_path: Path) -> None:
    delays = ((0, 0, 0), (20_000, 0, 0), (400_000, 0, 0))
    async with cluster(tmp_path, nodes=3) as network:
        whole = long_plan(nodes=3)
        rules = dataclasses.replace(whole.rules, link_delays=delays)
        await network.configure(dataclasses.replace(whole, rules=rules), Gossips, period=10_000_000)
        await network.start()
        driver = network.members[0].node.driver
        state: Any = driver.state  # type: ignore[union-attr]
        await eventually(lambda: state.observe(state.now, 0).known[2] is not None)
        _, near, far = state.observe(state.now, 0).known
        assert near[0].at == far[0].at == 0
        assert near[1] >= 20_000
        assert far[1] >= 400_000
        assert near[1] < far[1]


async def test_a_scheduler_that_does_not_want_it_ends_it(tmp_path: Path) -> None:
    async with cluster(tmp_path) as network:
        await network.configure(long_plan(), SendTo, destination=0)
        await network.start()
        first, second = network.members
        spec = SchedulerSpec("tests.edgenode.test_gossip:Gossips", {"period": 20_000})
        await second.node.set_scheduler(spec)
        state: Any = first.node.driver.state  # type: ignore[union-attr]

        def known() -> Any:
            return state.observe(state.now, 0).known[1]

        await eventually(lambda: known() is not None and known()[0].at > 0)
        await second.node.set_scheduler(
            SchedulerSpec("tests.edgenode.network:SendTo", {"destination": 1})
        )
        # What was under way comes before what is sent after it, on the same stream.
        coming = task(1, source=1, execution=1000)
        await second.node.set_scheduler(
            SchedulerSpec("tests.edgenode.network:SendTo", {"destination": 0})
        )
        await network.give(coming)
        await network.ended(coming)
        last = known()
        again = task(2, source=1, execution=1000)
        await network.give(again)
        await network.ended(again)
        assert known() == last
