"""Changes of scheduler at nodes in this process: everywhere in the end, or nowhere, and logged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from controller.changes import SchedulerChanges
from controller.deploy import ActiveRun
from controller.link import NodeLink
from testbed.errors import TemporaryError, UsageError
from testbed.policies import save
from testbed.rpc.generated import edge_pb2 as pb
from testbed.scenario.plan import SchedulerSpec
from tests.controller.test_deploy import deployments
from tests.edgenode.network import Cluster, cluster
from tests.edgenode.network import plan as network_plan
from tests.policies import tiny


class LosesAnswers(NodeLink):
    """A link whose node does what it is asked, and whose answer is lost the first time."""

    lost = False

    async def set_scheduler(self, scheduler: SchedulerSpec) -> pb.SetSchedulerReply:
        reply = await super().set_scheduler(scheduler)
        if not self.lost:
            self.lost = True
            raise TemporaryError("deadline exceeded")
        return reply


class LosesTwoAnswers(LosesAnswers):
    """The same, twice, so that not even going back is confirmed."""

    answers = 0

    async def set_scheduler(self, scheduler: SchedulerSpec) -> pb.SetSchedulerReply:
        self.answers += 1
        self.lost = self.answers > 2
        return await super().set_scheduler(scheduler)


@asynccontextmanager
async def changing(
    folder: Path, *kinds: type[NodeLink]
) -> AsyncIterator[tuple[Cluster, SchedulerChanges, list[NodeLink]]]:
    plan = network_plan(nodes=len(kinds))
    async with cluster(folder, nodes=len(kinds)) as network:
        await network.configure(plan, "local")
        async with deployments(network, plan, folder, kinds) as (_, links):
            changes = SchedulerChanges(len(kinds), lambda: (0, 0))
            for link in links:
                changes.began(link.node, SchedulerSpec("local"), "local")
            yield network, changes, links


def deciding(network: Cluster) -> list[str]:
    return [member.node.scheduler_name for member in network]


@pytest.mark.parametrize("kind", [LosesAnswers, LosesTwoAnswers])
async def test_a_node_whose_answer_was_lost_goes_back_too(
    tmp_path: Path, kind: type[NodeLink]
) -> None:
    async with changing(tmp_path, NodeLink, kind) as (network, changes, links):
        answers = await changes.change(links, SchedulerSpec("random"))
        assert [answer.accepted for answer in answers] == [False, False]
        await changes.reassert(links)
        assert deciding(network) == ["local", "local"]
        assert changes.summary == "local"
        assert not changes.log[0].accepted
        assert "node 1: deadline exceeded" in changes.log[0].reason
        assert (await changes.change(links, SchedulerSpec("random")))[0].accepted
        assert deciding(network) == ["random", "random"]


async def test_a_node_that_was_absent_is_told_when_it_is_back(tmp_path: Path) -> None:
    async with changing(tmp_path, NodeLink, NodeLink) as (network, changes, links):
        await changes.change(links[:1], SchedulerSpec("random"), absent=[1])
        assert deciding(network) == ["random", "local"]
        await changes.reassert(links[:1])
        assert len(changes.log) == 1
        await changes.reassert(links)
        assert deciding(network) == ["random", "random"]
        assert [(each.nodes, each.accepted) for each in changes.log] == [((0,), True), ((1,), True)]
        await changes.reassert(links)
        assert len(changes.log) == 2


async def test_no_change_is_made_to_a_run_that_is_ending(tmp_path: Path) -> None:
    async with changing(tmp_path, NodeLink) as (network, changes, links):
        await changes.close()
        with pytest.raises(UsageError, match="is ending"):
            await changes.change(links, SchedulerSpec("random"))
        assert deciding(network) == ["local"]


async def test_a_deploy_to_all_is_for_absent_nodes_too(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    plan = replace(network_plan(nodes=2), artifacts_url=store)
    old = save(store, *tiny.per_destination("old"))
    new = save(store, *tiny.per_destination("new", own=1.0))
    async with cluster(tmp_path, nodes=2) as network:
        await network.configure(plan, "drl", policy=old)
        changes = SchedulerChanges(2, lambda: (0, 0))
        run = ActiveRun("run", (1,), changes)
        kinds = (NodeLink, NodeLink)
        async with deployments(network, plan, tmp_path, kinds, lambda: run) as (policies, links):
            for link in links:
                changes.began(link.node, SchedulerSpec("drl", {"policy": old}), "drl:old")
            result = await policies.deploy(new, ())
            assert [each.node for each in result.nodes] == [0]
            await changes.reassert(links)
            first, second = deciding(network)
            assert first == second == result.nodes[0].scheduler
