"""What the controller asks of a node."""

from __future__ import annotations

import asyncio
import gc
import os
import time
import weakref
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from edgenode.driver import EpisodeDriver
from testbed.model.task import Task
from testbed.model.units import SECOND
from testbed.rpc.clocks import clock_name
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.messages import task_to_message
from testbed.scenario.plan import ApplicationSpec, SchedulerSpec
from tests.edgenode.network import Broken, SendTo, cluster, defects, kinds, plan, task


def two_long_tasks() -> tuple[Task, Task]:
    """One to execute while a test looks, and one that waits behind it."""
    one, two = (task(i, execution=5_000_000, deadline=60_000_000) for i in (1, 2))
    return one, two


async def test_an_unknown_scheduler_is_refused_with_those_there_are(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=1) as network:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await network.configure(plan(nodes=1), "ratk")
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "ratk" in str(refused.value.details())
        assert "ratc" in str(refused.value.details())


async def test_an_unknown_application_is_refused_with_those_there_are(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=1) as network:
        with pytest.raises(grpc.aio.AioRpcError, match="known: emulated, busy, matrix"):
            await network.configure(plan(nodes=1, application=ApplicationSpec("nothing")))


async def test_a_plan_that_is_none_is_refused(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=1) as network:
        (member,) = network.members
        with pytest.raises(grpc.aio.AioRpcError, match="not a plan"):
            await member.control.Configure(pb.ConfigureRequest(run="run", plan_json="{}"))


async def test_a_node_outside_the_plan_is_refused(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=2) as network:
        with pytest.raises(grpc.aio.AioRpcError, match="this is node 1"):
            await network.configure(plan(nodes=1))


async def test_the_scheduler_changes_between_two_decisions(tmp_path: Path) -> None:
    before, after = task(1, execution=1000), task(2, execution=1000)
    async with cluster(tmp_path) as network:
        await network.configure(plan(), "local")
        await network.start()
        await network.give(before)
        control = network.members[0].control
        reply = await control.SetScheduler(pb.SetSchedulerRequest(scheduler="random"))
        assert (reply.accepted, reply.scheduler) == (True, "random")
        await network.give(after)
        await network.ended(before, after)
        by_task = {d.task_id: d.scheduler for d in network.members[0].decisions}
        assert by_task == {1: "local", 2: "random"}

        # One that is not known changes nothing.
        reply = await control.SetScheduler(pb.SetSchedulerRequest(scheduler="ratk"))
        assert (reply.accepted, reply.scheduler) == (False, "random")
        assert "ratc" in reply.reason


async def test_a_scheduler_that_raises_loses_the_task_and_not_the_node(tmp_path: Path) -> None:
    hapless, other = task(1), task(2, execution=1000)
    async with cluster(tmp_path) as network:
        await network.configure(plan(), Broken)
        await network.start()
        await network.give(hapless)
        (ended,) = await network.ended(hapless)
        assert (ended.data["outcome"], ended.data["stage"]) == ("lost", "deciding")
        assert kinds(network.history(1)) == ["generated", "ended"]

        await network.members[0].node.set_scheduler(SchedulerSpec("local"))
        await network.give(other)
        (ended,) = await network.ended(other)
        assert ended.data["outcome"] == "succeeded"


async def test_arrivals_of_another_episode_are_refused(tmp_path: Path) -> None:
    given = task(0, execution=1000, episode=3)
    async with cluster(tmp_path, nodes=1) as network:
        await network.configure(plan(nodes=1), "local")
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError, match="not running here") as refused:
                await network.tell(task(0, episode=2), episode=2)
            assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            if network.members[0].node.driver is None:
                await network.start(3)
        await network.tell(given, episode=3)
        await network.ended(given)


WRONG = {
    "another episode's": pb.Task(id=9, episode=4, slot=1, deadline=SECOND),
    "another node's": pb.Task(id=9, episode=0, slot=1, source=1, deadline=SECOND),
    "a negative size": pb.Task(id=9, episode=0, slot=1, size_bytes=-1, deadline=SECOND),
    "a negative length": pb.Task(id=9, episode=0, slot=1, cycles=-1, deadline=SECOND),
    "a negative deadline": pb.Task(id=9, episode=0, slot=1, deadline=-1),
    "the same number": pb.Task(id=0, episode=0, slot=1, deadline=SECOND),
    "a slot before": pb.Task(id=9, episode=0, slot=0, deadline=SECOND),
    "a slot after": pb.Task(id=9, episode=0, slot=2, deadline=SECOND),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
async def test_a_task_that_cannot_be_is_refused(
    tmp_path: Path, wrong: pb.Task, caplog: pytest.LogCaptureFixture
) -> None:
    given = task(0, execution=1000)
    async with cluster(tmp_path, nodes=1) as network:
        await network.configure(plan(nodes=1), "local")
        await network.start()
        await network.tell(given, until=1)
        told = pb.Arrivals(run="run", number=2, first=1, until=2, tasks=[wrong])
        with pytest.raises(grpc.aio.AioRpcError, match="cannot arrive") as refused:
            await network.members[0].tasks.Arrive(told)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        await network.ended(given)
    assert not defects(caplog)


@pytest.mark.parametrize(("first", "until"), [(2, 3), (-1, 3), (1, 0), (0, 11)])
async def test_slots_that_cannot_be_are_refused(tmp_path: Path, first: int, until: int) -> None:
    async with cluster(tmp_path, nodes=1) as network:
        await network.configure(plan(nodes=1), "local")
        await network.start()
        await network.tell(until=1)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await network.tell(number=2, first=first, until=until)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_is_told_twice_is_taken_once(tmp_path: Path) -> None:
    given = task(1, execution=1000)
    async with cluster(tmp_path, nodes=1) as network:
        await network.configure(plan(nodes=1), "local")
        await network.start()
        answers = [await network.tell(given, until=3) for _ in range(2)]
        await network.ended(given)
        # Also when its slots have begun: the answer is the one that was lost.
        answers.append(await network.tell(given, until=3))
        assert [(each.first, each.next) for each in answers] == [(0, 0)] * 3
        assert [record.seq for record in network.history(given.id)] == [0, 1, 2, 3, 4]


async def test_tasks_arrive_at_the_beginning_of_their_slots(tmp_path: Path) -> None:
    told = [task(slot, execution=1000) for slot in (0, 1, 3)]
    async with cluster(tmp_path, nodes=1) as network:
        await network.configure(plan(nodes=1), "local")
        await network.start()
        await network.tell(*told)
        await network.ended(*told)
        arrived = [network.history(each.id)[0] for each in told]
        assert [record.at for record in arrived] == [0, 100_000, 300_000]
        assert all(record.clock >= record.at for record in arrived)


async def test_slots_that_have_not_begun_are_replaced_or_taken_back(tmp_path: Path) -> None:
    kept, dropped, given = task(0), task(8), task(1, execution=1000)
    async with cluster(tmp_path, nodes=1) as network:
        await network.configure(plan(nodes=1, time_scale=3.0), "local")
        await network.start()
        await network.tell(kept, dropped, until=10)
        await network.ended(kept)
        # It cannot be known here whether slot 1 has begun; what it answers is what is.
        answer = await network.tell(given, number=2, first=0, until=10)
        assert answer.first >= 1
        if answer.first == 1:
            await network.ended(given)
        answer = await network.tell(number=3, first=0, until=0)
        assert answer.next == answer.first
        driver = network.members[0].node.driver
        assert isinstance(driver, EpisodeDriver)
        assert not driver.arrivals._tasks
        await network.end()
        assert network.history(dropped.id) == []
        slots = {decision.slot for decision in network.members[0].decisions}
        assert slots <= set(range(answer.first))


@pytest.mark.parametrize("logged", [True, False])
async def test_idle_slots_are_logged_if_the_plan_says_so(tmp_path: Path, logged: bool) -> None:
    given = task(1, execution=1000)
    async with cluster(tmp_path, nodes=1) as network:
        await network.configure(plan(nodes=1, log_idle_slots=logged), "local")
        await network.start()
        await network.tell(given, until=2)
        await network.ended(given)
        slots = [(d.slot, d.task_id) for d in network.members[0].decisions]
        assert slots == ([(0, None), (1, given.id)] if logged else [(1, given.id)])


async def test_an_episode_begins_at_the_instant_that_was_agreed(tmp_path: Path) -> None:
    given = task(0, execution=1000)
    async with cluster(tmp_path, nodes=1) as network:
        (member,) = network.members
        await network.configure(plan(nodes=1), "local")
        told = pb.Arrivals(run="run", number=1, until=1, tasks=[task_to_message(given)])
        begins = time.monotonic() + 0.3
        request = pb.StartEpisodeRequest(
            run="run", clock=clock_name(), start_at=int(begins * SECOND)
        )
        with pytest.raises(grpc.aio.AioRpcError, match="not prepared here"):
            await member.control.StartEpisode(request)
        await member.control.PrepareEpisode(pb.PrepareEpisodeRequest(run="run", arrivals=told))
        await member.control.StartEpisode(request)
        driver = member.node.driver
        assert isinstance(driver, EpisodeDriver)
        assert abs(driver.clock.loop_time(0) - begins) < 1e-5
        # Once more, as after an answer that was lost: nothing begins anew.
        await member.control.PrepareEpisode(pb.PrepareEpisodeRequest(run="run", arrivals=told))
        await member.control.StartEpisode(request)
        assert member.node.driver is driver
        network.listen(member)
        await network.ended(given)
        assert network.history(given.id)[0].at == 0

        # A clock that is not its own says nothing; then it begins some time after the request.
        request = pb.StartEpisodeRequest(
            run="run", episode=1, clock="another", start_at=1, start_in=SECOND // 2
        )
        await member.control.PrepareEpisode(pb.PrepareEpisodeRequest(run="run", episode=1))
        before = time.monotonic()
        await member.control.StartEpisode(request)
        driver = member.node.driver
        assert isinstance(driver, EpisodeDriver)
        assert before + 0.5 <= driver.clock.loop_time(0) <= time.monotonic() + 0.5
        request.episode, request.start_in = 2, 3600 * SECOND
        await member.control.PrepareEpisode(pb.PrepareEpisodeRequest(run="run", episode=2))
        with pytest.raises(grpc.aio.AioRpcError, match="begins within"):
            await member.control.StartEpisode(request)


async def test_an_episode_that_ends_early_says_what_was_left(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=1) as network:
        await network.configure(plan(nodes=1), "local")
        await network.start()
        await network.give(*two_long_tasks())
        (reply,) = await network.end()
        assert reply.unfinished == 2
        await network.until(lambda: network.members[0].batches[-1:] == [reply.last_batch])
        (again,) = await network.end()
        assert (again.unfinished, again.last_batch) == (0, reply.last_batch)


async def test_each_episode_starts_with_empty_queues_and_its_own_clock(tmp_path: Path) -> None:
    given = task(11, execution=1000, episode=1)
    async with cluster(tmp_path, nodes=1) as network:
        await network.configure(plan(nodes=1), "local")
        await network.start()
        await network.give(task(1, execution=500_000))
        await network.end()
        await network.start(episode=1, listen=False)
        await network.give(given)
        await network.ended(given)
        (decision,) = [d for d in network.members[0].decisions if d.task_id == 11]
        assert decision.observation.queue_length == 0
        assert network.ending(1) is None


async def test_time_scale_stretches_real_time_only(tmp_path: Path) -> None:
    given = task(1, execution=20_000)
    loop = asyncio.get_running_loop()
    async with cluster(tmp_path) as network:
        await network.configure(plan(time_scale=4.0), SendTo, destination=1)
        await network.start()
        began = loop.time()
        await network.give(given)
        (ended,) = await network.ended(given)
        # 50 ms of transmission and 20 ms of execution, four times as slow.
        assert loop.time() - began >= 0.28
        assert 70_000 <= int(ended.data["elapsed"]) < 1_000_000


async def test_a_node_describes_itself(tmp_path: Path) -> None:
    async with cluster(tmp_path) as network:
        member = network.members[0]
        description = await member.control.Describe(pb.Empty())
        assert (description.run, description.episode, description.scheduler) == ("", -1, "")
        await network.configure(plan(), "local", run="a run")
        await network.start(run="a run", listen=False)
        await network.give(*two_long_tasks())
        description = await member.control.Describe(pb.Empty())

    assert (description.node, description.pid) == (0, os.getpid())
    assert description.address == member.node.address
    assert (description.run, description.episode) == ("a run", 0)
    assert (description.scheduler, description.queue_length, description.held) == ("local", 2, 2)
    assert 5_000_000 < description.backlog <= 10_000_000
    assert description.resident_bytes > 10_000_000


async def test_the_health_service_says_whether_the_node_serves(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=1) as network:
        (member,) = network.members
        health = health_pb2_grpc.HealthStub(member.channel)
        answers = []
        for serving in (False, True):
            await member.node.set_serving(serving)
            answers.append((await health.Check(health_pb2.HealthCheckRequest())).status)
    assert answers == [
        health_pb2.HealthCheckResponse.NOT_SERVING,
        health_pb2.HealthCheckResponse.SERVING,
    ]


async def test_shutdown_asks_the_process_to_stop(tmp_path: Path) -> None:
    async with cluster(tmp_path, nodes=1) as network:
        (member,) = network.members
        await member.control.Shutdown(pb.Empty())
        assert member.node.stopped.is_set()


async def test_garbage_is_collected_between_episodes(tmp_path: Path) -> None:
    class Cycle:
        def __init__(self) -> None:
            self.itself = self

    async with cluster(tmp_path, nodes=1) as network:
        await network.configure(plan(nodes=1), "local")
        await network.start()
        gc.disable()
        try:
            gone = asyncio.Event()
            weakref.finalize(Cycle(), gone.set)
            assert not gone.is_set()
            await network.end()
            async with asyncio.timeout(30):
                await gone.wait()
        finally:
            gc.enable()
