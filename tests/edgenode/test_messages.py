"""Questions and answers of real nodes are counted as those of the simulator."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from testbed.experiment.messages import Messages, MessageWindow, read_messages, total
from testbed.model.events import DecisionRecord
from testbed.model.units import SECOND
from testbed.scenario.plan import Plan
from testbed.schedulers.asked import ANSWER_BYTES, QUESTION_BYTES
from testbed.sim.simulator import simulate_episode
from testbed.storage.tasklog import RunInfo, open_task_log
from tests.edgenode.network import cluster, plan, task

NODES = 3
TASKS = 8


def given(scheduler_timeout: int) -> Plan:
    """Every node with a task in each slot, none of which ends before its decision."""
    base = plan(nodes=NODES, payload="metadata", probe_timeout=scheduler_timeout)
    workload = dataclasses.replace(base.workload, slots=TASKS, slot=40_000)
    return dataclasses.replace(base, workload=workload)


def counted(
    folder: Path, network: Plan, scheduler: str, decisions: Sequence[DecisionRecord]
) -> tuple[MessageWindow, ...]:
    """The messages of a run with these decisions."""
    with open_task_log(str(folder / "log.sqlite")) as log:
        info = RunInfo.of(network, "network", scheduler=scheduler)
        log.begin_run(info)
        log.append(info.id, [], decisions)
        return read_messages(log, info.id, network)


@pytest.mark.parametrize("scheduler", ["least-completion", "ratc"])
async def test_real_nodes_and_the_simulator_have_the_same_messages(
    tmp_path: Path, scheduler: str
) -> None:
    network = given(10 * SECOND)
    simulated = counted(
        tmp_path, network, scheduler, simulate_episode(network, 0, scheduler).decisions
    )
    everything = [each for tasks in network.tasks(0) for each in tasks]
    async with cluster(tmp_path, nodes=NODES) as real:
        await real.configure(network, scheduler)
        await real.start()
        for node in range(NODES):
            own = [each for each in everything if each.source == node]
            await real.tell(*own, until=network.workload.slots, node=node)
        await real.ended(*everything)
        decisions = [each for member in real.members for each in member.decisions]

    found = counted(tmp_path, network, scheduler, decisions)
    assert found == simulated
    assert len(everything) == NODES * TASKS
    messages = total(found)
    assert messages.questions == messages.answers
    if scheduler == "least-completion":
        # All peers are asked about every task, and everybody answers as many as it asks.
        number = len(everything) * (NODES - 1)
        sizes = (number * QUESTION_BYTES.states, number, number * ANSWER_BYTES.states)
        assert messages == Messages(number, *sizes)
        assert {each[3::2] for each in found} == {(NODES - 1,) * 3}


@pytest.mark.parametrize(
    ("scheduler", "questions"), [("least-completion", 2), ("ratc-masked", 2 + 1)]
)
async def test_a_silent_peer_was_asked_and_has_not_answered(
    tmp_path: Path, scheduler: str, questions: int
) -> None:
    network, asking = given(100_000), task(1, execution=1000)
    async with cluster(tmp_path, nodes=NODES) as real:
        await real.configure(network, scheduler)
        await real.start()
        # It is alive and takes no part in this episode.
        real.members[2].node.end_episode(0)
        await real.give(asking)
        await real.ended(asking)
        decisions = [each for each in real.members[0].decisions if each.task_id is not None]

    # Of a masked scheduler it is not asked again: it is not known to be free.
    messages = total(counted(tmp_path, network, scheduler, decisions))
    assert (messages.questions, messages.answers) == (questions, questions - 1)
