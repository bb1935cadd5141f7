"""Policies brought to running nodes: all of them or none, and back."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from controller.deploy import ActiveRun, Deployments
from controller.link import NodeLink
from controller.registry import Registry
from testbed.errors import PermanentError, UsageError
from testbed.policies import CARD, PolicyCard, artifact, save
from testbed.rpc.credentials import shared
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.identity import CONTROLLER
from testbed.scenario.plan import Plan, SchedulerSpec
from testbed.storage.artifacts import open_artifact_store
from testbed.testing.runtime import small_plan
from tests.controller.conftest import Bench
from tests.edgenode.network import SECRET, Cluster, cluster
from tests.edgenode.network import plan as network_plan
from tests.policies import tiny

BringUp = Callable[[Plan], Bench]

LONG = 400
"""Slots of 50 ms: longer than any test lets it run."""


def put(bench: Bench, name: str, own: float) -> str:
    """A policy in the store of the testbed; its id."""
    card, actor = tiny.per_destination(name, own=own)
    save(str(bench.runtime.home / "artifacts"), card, actor)
    return card.id


# --- real processes ---------------------------------------------------------------------------


def test_a_policy_is_swapped_while_a_run_goes_on_and_back_again(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(3, slots=LONG))
    first, second = put(bench, "first", 20.0), put(bench, "second", -20.0)
    run = bench.operator.start_run(scheduler="drl", options={"policy": f"policies/{first}"})
    bench.until(run, lambda progress: progress.ended >= 6)

    swapped = bench.operator.deploy_policy(second)
    assert swapped.complete
    assert [(each.node, each.state, each.scheduler) for each in swapped.nodes] == [
        (node, "deciding", f"drl:{second}") for node in range(3)
    ]
    assert bench.operator.status().policy == f"policies/{second}"
    seen = bench.until(run, lambda progress: True).ended
    bench.until(run, lambda progress: progress.ended >= seen + 12)

    back = bench.operator.roll_back_policy()
    assert back.complete
    assert {each.scheduler for each in back.nodes} == {f"drl:{first}"}
    seen = bench.until(run, lambda progress: True).ended
    bench.until(run, lambda progress: progress.ended >= seen + 12)
    bench.operator.stop_run()

    last = bench.end(run)
    assert last.lost == 0
    for node in range(3):
        decided = [
            each
            for each in bench.log.decisions(run)
            if each.node == node and each.destination is not None
        ]
        names = [each.scheduler for each in decided]
        order = [name for name, before in zip(names, ["", *names], strict=False) if name != before]
        assert order == [f"drl:{first}", f"drl:{second}", f"drl:{first}"]
        # The first policy stays, the second one leaves while a peer is free.
        for each in decided:
            assert each.probabilities is not None
            if each.mask is not None and sum(each.mask) > 1:
                assert (each.destination == node) == (each.scheduler == f"drl:{first}")
    (entered, undone) = bench.operator.status().run.changes  # type: ignore[union-attr]
    assert (entered.scheduler, entered.nodes, entered.accepted) == (
        f"drl:{second}",
        (0, 1, 2),
        True,
    )
    assert undone.scheduler == f"drl:{first}"
    with pytest.raises(UsageError, match="nothing to roll back"):
        bench.operator.roll_back_policy()


def test_what_was_deployed_is_what_drl_means(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(2, slots=LONG))
    first, second = put(bench, "first", 0.0), put(bench, "second", 1.0)
    ready = bench.operator.deploy_policy(first)
    assert {each.state for each in ready.nodes} == {"ready"}
    run = bench.operator.start_run(scheduler="drl")
    assert bench.until(run, lambda progress: progress.slot >= 1).scheduler == f"drl:{first}"
    assert bench.log.run(run).plan.scheduler.options == {"policy": f"policies/{first}"}

    # Another scheduler stays until it is changed; then the new policy decides.
    assert all(each.accepted for each in bench.operator.change_scheduler("ratc", nodes=[1]))
    mixed = bench.operator.deploy_policy(second)
    assert [(each.state, each.scheduler) for each in mixed.nodes] == [
        ("deciding", f"drl:{second}"),
        ("ready", "ratc"),
    ]
    (answer,) = bench.operator.change_scheduler("drl", nodes=[1])
    assert (answer.accepted, answer.scheduler) == (True, f"drl:{second}")

    # To one node, for this run.
    part = bench.operator.deploy_policy(first, nodes=[0])
    assert [(each.node, each.state) for each in part.nodes] == [(0, "deciding")]
    assert bench.operator.status().policy == f"policies/{second}"
    back = bench.operator.roll_back_policy()
    assert [(each.node, each.scheduler) for each in back.nodes] == [(0, f"drl:{second}")]
    bench.operator.stop_run()
    with pytest.raises(UsageError, match="no run is under way"):
        bench.operator.deploy_policy(first, nodes=[0])


def test_what_cannot_be_used_is_refused_before_anything_changes(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(3, slots=LONG))
    good = put(bench, "good", 0.0)
    store = str(bench.runtime.home / "artifacts")
    four, strange = tiny.flat(4), tiny.per_destination("strange", encoder="per-destination-v9")
    only = tiny.per_destination("only", scenario_hash="f00", scenario_required=True)
    for card, actor in (four, strange, only):
        save(store, card, actor)
    torn_card, torn = tiny.per_destination("torn", own=3.0)
    save(store, torn_card, torn)
    (Path(store) / "policies" / torn_card.id / "actor.onnx").write_bytes(torn[:-7])
    noise = b"no graph"
    bad = PolicyCard.describe(
        "bad", noise, kind="per-destination", encoder="per-destination-v1", nodes=None
    )
    save(store, bad, noise)

    run = bench.operator.start_run(scheduler="drl", options={"policy": good})
    bench.until(run, lambda progress: progress.slot >= 1)
    for reference, message in (
        (four[0].id, r"for 4 nodes, the network has 3"),
        (strange[0].id, r"per-destination-v9.*known are"),
        (only[0].id, r"allows no other scenario"),
        ("nonsense", r"nonsense.*there are .*good"),
        ("policies/../x", r"policies/../x"),
        ("/tmp", r"testbed policy import"),
    ):
        with pytest.raises(UsageError, match=f"(?s){message}"):
            bench.operator.deploy_policy(reference)
    with pytest.raises((UsageError, PermanentError), match=r"bytes instead of"):
        bench.operator.deploy_policy(torn_card.id)
    with pytest.raises(UsageError, match="no node 7"):
        bench.operator.deploy_policy(good, nodes=[7])

    # The file is whole, and is no graph: no node is asked to load it.
    with pytest.raises(UsageError, match=r"cannot be used\n.*actor.onnx: is no ONNX model"):
        bench.operator.deploy_policy(bad.id)
    with pytest.raises(UsageError, match=r"(?s)nothing was changed.*node 0"):
        bench.operator.change_scheduler("drl", options={"policy": bad.id})

    status = bench.operator.status()
    assert status.policy == ""
    assert {node.scheduler for node in status.nodes} == {f"drl:{good}"}
    bench.operator.stop_run()


def test_a_node_that_dies_while_it_loads_is_reported_and_nothing_changes(
    bring_up: BringUp,
) -> None:
    bench = bring_up(small_plan(3, slots=LONG))
    old, new = put(bench, "old", 0.0), put(bench, "new", 1.0)
    run = bench.operator.start_run(scheduler="drl", options={"policy": old})
    bench.until(run, lambda progress: progress.slot >= 1)
    pid = next(each.pid for each in bench.operator.status().nodes if each.node == 2)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        deploying = pool.submit(bench.operator.deploy_policy, new)
        # The others have loaded it, so the deploy is under way and waits for node 2.
        for node in ("node-0", "node-1"):
            lines = bench.runtime.logs("bench", node, follow=True)
            next(line for line in lines if f"has loaded policies/{new}" in line)
        os.kill(pid, signal.SIGKILL)
        result = deploying.result(timeout=20)
    assert not result.accepted
    assert [(each.node, each.state) for each in result.nodes] == [
        (0, "unchanged"),
        (1, "unchanged"),
        (2, "refused"),
    ]
    assert "does not answer" in result.nodes[2].reason

    # The others go on, and can be given it without the dead one.
    bench.until(run, lambda progress: progress.dead_nodes == (2,))
    again = bench.operator.deploy_policy(new)
    assert again.complete
    assert [(each.node, each.scheduler) for each in again.nodes] == [
        (0, f"drl:{new}"),
        (1, f"drl:{new}"),
    ]
    seen = bench.until(run, lambda progress: True).ended
    bench.until(run, lambda progress: progress.ended >= seen + 8)
    bench.operator.stop_run()
    named = {each.scheduler for each in bench.log.decisions(run) if each.destination is not None}
    assert named == {f"drl:{old}", f"drl:{new}"}


# --- nodes in this process --------------------------------------------------------------------


class DiesBeforeCommit(NodeLink):
    """A link whose node ends when it is told to use what it has loaded."""

    end: Callable[[], object]

    async def commit_policy(self, deployment: str) -> pb.CommitPolicyReply:
        await self.end()  # type: ignore[misc]
        return await super().commit_policy(deployment)


class SaysAnother(NodeLink):
    """A link over which another policy is announced than the one in the store."""

    async def prepare_policy(self, request: pb.PreparePolicyRequest) -> pb.PreparePolicyReply:
        request.sha256 = "0" * 64
        return await super().prepare_policy(request)


def _no_run() -> ActiveRun | None:
    return None


async def _ignore(link: NodeLink, batch: pb.EventBatch) -> None: ...


@asynccontextmanager
async def deployments(
    network: Cluster,
    plan: Plan,
    folder: Path,
    kinds: Sequence[type[NodeLink]],
    run: Callable[[], ActiveRun | None] = _no_run,
) -> AsyncIterator[tuple[Deployments, list[NodeLink]]]:
    me = shared(SECRET, CONTROLLER)
    registry = Registry("test", len(kinds), me, on_events=_ignore, changed=lambda node: None)
    links = []
    for member, kind in zip(network.members, kinds, strict=True):
        link = kind(member.node.index, member.node.address, _ignore, me, member.stamps)
        node = registry.nodes[member.node.index]
        node.link, node.condition = link, "healthy"
        links.append(link)
        if isinstance(link, DiesBeforeCommit):
            link.end = member.node.close
    try:
        yield Deployments(plan, registry, folder, run), links
    finally:
        for link in links:
            await link.close()


async def test_a_node_that_dies_when_told_to_use_it_is_reported_and_the_others_have_it(
    tmp_path: Path,
) -> None:
    plan = replace(network_plan(nodes=3), artifacts_url=str(tmp_path / "store"))
    (old, actor), (new, other) = tiny.per_destination("old"), tiny.per_destination("new", own=1.0)
    old_key, new_key = (
        save(str(tmp_path / "store"), old, actor),
        save(str(tmp_path / "store"), new, other),
    )
    async with cluster(tmp_path, nodes=3) as network:
        await network.configure(plan, "drl", policy=old_key, deterministic=True)
        kinds = (NodeLink, DiesBeforeCommit, NodeLink)
        async with deployments(network, plan, tmp_path, kinds) as (policies, _):
            result = await policies.deploy(new_key, ())
            assert result.accepted
            assert not result.complete
            assert [(each.node, each.state) for each in result.nodes] == [
                (0, "deciding"),
                (1, "lost"),
                (2, "deciding"),
            ]
            assert [each.node for each in result.failures] == [1]
            assert policies.current == new_key
            assert network.members[0].node.scheduler_name == f"drl:{new.id}"
            # Its other options stay as they were.
            assert network.members[2].node.asked == SchedulerSpec(
                "drl", {"policy": new_key, "deterministic": True}
            )


async def test_one_that_refuses_keeps_all_as_they_are(tmp_path: Path) -> None:
    plan = replace(network_plan(nodes=2), artifacts_url=str(tmp_path / "store"))
    (old, actor), (new, other) = tiny.per_destination("old"), tiny.per_destination("new", own=1.0)
    old_key, new_key = (
        save(str(tmp_path / "store"), old, actor),
        save(str(tmp_path / "store"), new, other),
    )
    async with cluster(tmp_path, nodes=2) as network:
        await network.configure(plan, "drl", policy=old_key)
        async with deployments(network, plan, tmp_path, (NodeLink, SaysAnother)) as (policies, _):
            result = await policies.deploy(new_key, ())
            assert [(each.node, each.state) for each in result.nodes] == [
                (0, "unchanged"),
                (1, "refused"),
            ]
            assert "not the one that was announced" in result.nodes[1].reason
            assert policies.current is None
            assert {each.node.scheduler_name for each in network} == {f"drl:{old.id}"}
            # What was dropped cannot be used later.
            for member in network:
                reply = await member.control.CommitPolicy(pb.PreparedPolicy(deployment="x"))
                assert not reply.accepted


async def test_what_was_prepared_is_worth_nothing_after_a_change(tmp_path: Path) -> None:
    plan = replace(network_plan(nodes=1), artifacts_url=str(tmp_path / "store"))
    card, actor = tiny.per_destination()
    key = save(str(tmp_path / "store"), card, actor)
    request = pb.PreparePolicyRequest(
        deployment="d",
        key=key,
        sha256=card.sha256,
        size_bytes=card.size_bytes,
        store=plan.artifacts_url or "",
    )
    async with cluster(tmp_path, nodes=1) as network:
        (member,) = network.members
        await network.configure(plan, "drl", policy=key)
        assert (await member.control.PreparePolicy(request)).accepted
        await member.control.SetScheduler(pb.SetSchedulerRequest(scheduler="local"))
        reply = await member.control.CommitPolicy(pb.PreparedPolicy(deployment="d"))
        assert (reply.accepted, reply.scheduler) == (False, "local")
        assert "deploy the policy again" in reply.reason

        assert (await member.control.PreparePolicy(request)).accepted
        replies = [
            await member.control.CommitPolicy(pb.PreparedPolicy(deployment="d")) for _ in range(2)
        ]
        assert [(each.accepted, each.scheduler) for each in replies] == [(True, "local")] * 2
        await member.control.AbortPolicy(pb.PreparedPolicy(deployment="d"))


async def test_history_outlives_the_controller(tmp_path: Path) -> None:
    plan = replace(network_plan(nodes=1), artifacts_url=str(tmp_path / "store"))
    keys = [
        save(str(tmp_path / "store"), *tiny.per_destination(f"p{i}", own=float(i)))
        for i in range(2)
    ]
    async with cluster(tmp_path, nodes=1) as network:
        async with deployments(network, plan, tmp_path, (NodeLink,)) as (policies, _):
            for key in keys:
                assert (await policies.deploy(key, ())).complete
            assert policies.filled(SchedulerSpec("drl")).options == {"policy": keys[1]}
            assert policies.filled(SchedulerSpec("drl", {"policy": "x"})).options["policy"] == "x"
            assert policies.filled(SchedulerSpec("ratc")).options == {}
        async with deployments(network, plan, tmp_path, (NodeLink,)) as (policies, _):
            assert policies.current == keys[1]
            assert (await policies.roll_back()).key == keys[0]
            assert policies.current == keys[0]
        (tmp_path / "policies.json").write_text("{")
        async with deployments(network, plan, tmp_path, (NodeLink,)) as (policies, _):
            assert policies.current is None


async def test_the_first_policy_has_none_before_it_unless_one_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact, "_SHIPPED_FOLDER", tmp_path / "shipped")
    plan = replace(network_plan(nodes=1), artifacts_url=str(tmp_path / "store"))
    key = save(str(tmp_path / "store"), *tiny.per_destination())
    async with (
        cluster(tmp_path, nodes=1) as network,
        deployments(network, plan, tmp_path, (NodeLink,)) as (policies, _),
    ):
        assert (await policies.deploy(key, ())).complete
        with pytest.raises(UsageError, match="is the first policy"):
            await policies.roll_back()
        shipped = tmp_path / "shipped" / "per-destination-v1"
        artifact.write_folder(shipped, *tiny.per_destination("shipped", own=2.0))
        assert (shipped / CARD).exists()
        back = await policies.roll_back()
        assert back.complete
        assert back.key == "shipped/per-destination-v1"


async def test_a_scenario_it_was_not_trained_on_is_told(tmp_path: Path) -> None:
    plan = replace(network_plan(nodes=1), artifacts_url=str(tmp_path / "store"))
    card, actor = tiny.per_destination(scenario="elsewhere", scenario_hash="f00")
    key = save(str(tmp_path / "store"), card, actor)
    assert open_artifact_store(str(tmp_path / "store")).exists(key)
    async with (
        cluster(tmp_path, nodes=1) as network,
        deployments(network, plan, tmp_path, (NodeLink,)) as (policies, _),
    ):
        result = await policies.deploy(key, ())
        assert result.complete
        assert "trained on elsewhere [f00]" in result.warnings[0]
