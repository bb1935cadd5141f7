"""Faults in runs on real processes: planned ones, and those injected by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from controller.faults import RunFaults
from testbed.errors import UsageError
from testbed.experiment.comparison import compare_runs
from testbed.experiment.replay import original
from testbed.model.events import RecordKind
from testbed.model.faults import Fault, FaultSpec
from testbed.model.task import Outcome
from testbed.model.units import MILLISECOND, SECOND
from testbed.scenario.plan import Plan, SchedulerSpec
from testbed.sim.record import record_run
from testbed.sim.simulator import simulate_episode
from testbed.testing.runtime import small_plan
from tests.controller.conftest import Bench, each_ends_once
from tests.faults.plans import fault, with_faults

BringUp = Callable[[Plan], Bench]

HOUR = 3600 * SECOND


def long_plan(slots: int = 400) -> Plan:
    plan = small_plan(3)
    return replace(plan, workload=replace(plan.workload, slots=slots))


def test_planned_faults_are_applied_at_every_node_and_measured(bring_up: BringUp) -> None:
    everybody = (0, 1, 2)
    plan = with_faults(
        small_plan(3, episodes=2),
        fault("slow-node", 0, 200 * MILLISECOND, nodes=(1,), factor=0.5),
        fault("arrivals", 0, 300 * MILLISECOND, nodes=everybody, factor=0.0),
        fault("node-down", 320 * MILLISECOND, 400 * MILLISECOND, nodes=(2,), mode="killed"),
        fault("partition", 0, HOUR, sources=(0,), destinations=(1,)),
    )
    bench = bring_up(plan)
    last = bench.end(bench.operator.start_run(scheduler="local"))
    # What a fault took does not mark a run degraded.
    assert last.state in {"completed", "invalid"}
    outcomes = each_ends_once(bench, last.run)
    simulated = [simulate_episode(replace(plan, faults=plan.faults), n, "local") for n in (0, 1)]
    assert last.generated == sum(len(result.outcomes) for result in simulated)
    assert outcomes[Outcome.LOST] >= sum(r.counts[Outcome.LOST] for r in simulated) > 0
    lost = [
        record
        for record in bench.log.records(last.run)
        if record.kind is RecordKind.ENDED and record.data["outcome"] == Outcome.LOST
    ]
    assert {(record.node, record.data.get("fault")) for record in lost} == {(2, "node-down")}

    certificate = bench.log.run(last.run).certificate
    assert certificate is not None
    noted = {(each["episode"], each["id"]): each for each in certificate["faults"]}
    assert set(noted) == {(n, f"{entry}.0") for n in (0, 1) for entry in range(4)}
    for (_, name), each in noted.items():
        assert set(each["applied"]) == {"0.0": {"1"}, "1.0": {"0", "1", "2"}}.get(
            name, {"2"} if name == "2.0" else {"0"}
        )
        assert set(each["released"]) == set(each["applied"])
        assert each["took"] is not False
    assert noted[0, "1.0"]["measured"]["arrivals"] == 0

    run = bench.operator.status().run
    assert run is not None
    assert not last.degraded
    assert last.dead_nodes == ()
    assert "faults[2]: node-down, 2 times in 2 episodes" in run.faults
    assert run.faults[-1] == f"{len(lost)} tasks lost with nodes that faults took down"


def test_a_fault_by_hand_is_everywhere_logged_and_released(bring_up: BringUp) -> None:
    bench = bring_up(long_plan())
    run = bench.operator.start_run(scheduler="local")
    bench.until(run, lambda progress: progress.ended > 0)
    down = Fault("node-down", 0, HOUR, nodes=(1,), mode="killed")
    injected = bench.operator.inject_fault(down)
    assert injected.changed == ("hand-1",)
    bench.until(run, lambda progress: progress.lost > 2)
    crowd = bench.operator.inject_fault(Fault("arrivals", 0, HOUR, nodes=(0,), factor=0.0))
    assert [each.by_hand for each in crowd.faults] == [True, True]
    listed = bench.operator.list_faults()
    assert (listed.run, listed.episode) == (run, 0)
    assert next(each.state for each in listed.faults if each.id == "hand-1") == "active"

    assert bench.operator.clear_faults().changed[0] == "hand-1"
    before = bench.until(run, lambda progress: True).lost
    succeeded = bench.until(run, lambda progress: progress.lost >= before).outcomes["succeeded"]
    bench.until(run, lambda progress: progress.outcomes["succeeded"] > succeeded + 3)
    # They end a quarter of a second after they were cleared, whatever ended meanwhile.
    bench.until(
        run,
        lambda progress: all(
            each.state != "active" for each in bench.operator.list_faults().faults
        ),
    )
    bench.operator.stop_run(run)
    each_ends_once(bench, run)
    certificate = bench.log.run(run).certificate
    assert certificate is not None
    killed, calm = certificate["faults"]
    assert (killed["what"], killed["took"], calm["kind"]) == ("node 1 killed", True, "arrivals")
    assert killed["measured"]["lost"] > 2
    assert bench.log.run(run).state != "degraded"
    assert bench.operator.list_faults().run == ""


def test_a_fault_by_hand_goes_on_in_the_next_episode_and_ends_with_the_run(
    bring_up: BringUp,
) -> None:
    bench = bring_up(small_plan(2, episodes=3))
    run = bench.operator.start_run(scheduler="local")
    bench.until(run, lambda progress: progress.generated > 0)
    bench.operator.inject_fault(Fault("node-down", 0, HOUR, nodes=(0,), mode="killed"))
    assert bench.end(run).lost > 0
    certificate = bench.log.run(run).certificate
    assert certificate is not None
    episodes = [each["episode"] for each in certificate["faults"]]
    assert episodes == sorted(set(episodes))
    assert episodes[-1] == 2
    after = bench.end(bench.operator.start_run(scheduler="local", episodes=1))
    assert after.lost == 0


def test_a_replay_has_the_arrivals_that_faults_by_hand_left(bring_up: BringUp) -> None:
    plan = small_plan(3, slots=80, episodes=2)
    plan = replace(plan, topology=replace(plan.topology, arrival_probability=(0.5,) * 3))
    bench = bring_up(plan)
    run = bench.operator.start_run(scheduler="local")
    bench.until(run, lambda progress: progress.generated > 5)
    # One ends by itself, one is cleared, one goes on in the next episode.
    bench.operator.inject_fault(Fault("arrivals", 0, SECOND, nodes=(0, 1), factor=2.0))
    bench.operator.inject_fault(Fault("arrivals", 0, HOUR, nodes=(2,), factor=0.0))
    before = bench.until(run, lambda progress: True).generated
    bench.until(run, lambda progress: progress.generated > before + 10)
    bench.operator.clear_faults()
    bench.operator.inject_fault(Fault("arrivals", 0, HOUR, nodes=(1,), factor=2.0))
    bench.operator.inject_fault(Fault("node-down", 0, SECOND, nodes=(0,), mode="killed"))
    bench.end(run)
    found = original(bench.log, run)
    assert found.left_out == ()
    assert found.episodes == (0, 1)
    assert "node 0 killed" in found.repeated
    again = record_run(found.planned(SchedulerSpec("random"), None), bench.log)
    assert compare_runs(bench.log, [run, again]).warnings == ()
    # The same on the testbed.
    there = bench.operator.start_run(scheduler="random", episodes=2, faults=found.faults_by_hand)
    bench.until(there, lambda progress: progress.generated > 0)
    assert any(each.by_hand for each in bench.operator.list_faults().faults)
    last = bench.end(there)
    tasks = {row.task for row in bench.log.tasks(run)}
    assert {row.task for row in bench.log.tasks(there)} == tasks
    assert all(fault["took"] is not False for fault in bench.log.run(there).faults_by_hand)
    assert not last.dead_nodes
    warnings = compare_runs(bench.log, [run, there]).warnings
    assert not [line for line in warnings if "by hand" in line]


def test_faults_by_hand_join_those_that_are_repeated(bring_up: BringUp) -> None:
    bench = bring_up(long_plan())
    repeated = Fault("arrivals", 0, HOUR, nodes=(0,), factor=0.0, number=3)
    run = bench.operator.start_run(scheduler="local", faults={0: (repeated,), 5: (repeated,)})
    bench.until(run, lambda progress: progress.generated > 5)
    down = Fault("node-down", 0, HOUR, nodes=(1,), mode="killed")
    listed = bench.operator.inject_fault(down)
    assert listed.changed == ("hand-4",)
    assert [each.id for each in listed.faults] == ["hand-3", "hand-4"]
    bench.until(run, lambda progress: progress.lost > 2)
    assert set(bench.operator.clear_faults().changed) == {"hand-3", "hand-4"}
    before = bench.until(run, lambda progress: True).generated
    bench.until(run, lambda progress: progress.generated > before + 10)
    bench.operator.stop_run(run)
    assert {row.source for row in bench.log.tasks(run)} == {0, 1, 2}
    first, second = bench.log.run(run).faults_by_hand
    assert (first["begin"], first["measured"]["arrivals"]) == (0, 0)
    assert second["measured"]["lost"] > 2


@pytest.mark.parametrize(
    "wrong",
    [
        Fault("node-down", 0, SECOND, nodes=(9,), mode="killed"),
        Fault("slow-node", SECOND, SECOND, nodes=(0,), factor=0.5),
        Fault("arrivals", 0, SECOND, nodes=(0,), factor=0.5, entry=0),
    ],
)
def test_a_run_that_cannot_repeat_a_fault_does_not_begin(bring_up: BringUp, wrong: Fault) -> None:
    bench = bring_up(small_plan(2))
    with pytest.raises(UsageError, match=r"of episode 0: |not a fault"):
        bench.operator.start_run(scheduler="local", faults={0: (wrong,)})
    assert bench.operator.status().runs == ()


@pytest.mark.parametrize(
    "wrong",
    [
        Fault("earthquake", 0, SECOND, nodes=(0,)),
        Fault("node-down", 0, SECOND, nodes=(9,), mode="killed"),
        Fault("node-down", 0, SECOND, nodes=(), mode="killed"),
        Fault("node-down", 0, SECOND, nodes=(0,), mode="tired"),
        Fault("partition", 0, SECOND, nodes=(0,)),
        Fault("partition", 0, SECOND, links=((0, 0),)),
        Fault("slow-node", 0, 0, nodes=(0,), factor=0.5),
        Fault("slow-node", 0, SECOND, nodes=(0,), factor=0.0),
        Fault("slow-node", 0, SECOND, nodes=(0,), factor=float("nan")),
        Fault("node-failures", 0, SECOND, nodes=(0,), failure_rate=-1.0),
    ],
)
def test_what_cannot_be_is_refused(bring_up: BringUp, wrong: Fault) -> None:
    bench = bring_up(long_plan())
    with pytest.raises(UsageError, match="no run is under way"):
        bench.operator.inject_fault(Fault("node-down", 0, SECOND, nodes=(0,), mode="killed"))
    run = bench.operator.start_run(scheduler="local")
    with pytest.raises(UsageError):
        bench.operator.inject_fault(wrong)
    assert bench.operator.list_faults().faults == ()
    bench.operator.stop_run(run)


def test_every_drawn_occurrence_is_logged(bring_up: BringUp) -> None:
    plan = with_faults(
        small_plan(2),
        FaultSpec(
            "slow-node",
            fault("slow-node", 0, 1).duration,
            per_slot=0.5,
            nodes="any",
            factor=0.5,
        ),
    )
    bench = bring_up(plan)
    last = bench.end(bench.operator.start_run(scheduler="local"))
    assert last.lost == 0
    certificate = bench.log.run(last.run).certificate
    assert certificate is not None
    assert len(certificate["faults"]) == len(plan.timeline(0).faults)


def told(faults: RunFaults) -> list[Fault]:
    return [Fault.from_document(json.loads(document)) for document in faults.told]


AT = 100 * MILLISECOND


def test_faults_are_told_when_they_have_begun() -> None:
    plan = with_faults(small_plan(3), fault("node-down", AT, HOUR, nodes=(1,), mode="killed"))
    faults = RunFaults(plan, {})
    assert faults.lines(0) == ()
    faults.begin(0)
    assert faults.lines(AT - 1) == ()
    assert faults.lines(AT) == ("faults[0]: node-down, once in 1 episode",)
    faults.inject(Fault("node-down", 0, HOUR, nodes=(2,), mode="hung"), SECOND)
    faults.end(3 * SECOND, ())
    faults.begin(1)
    assert faults.lines(SECOND) == (
        "faults[0]: node-down, 2 times in 2 episodes; 1 did not take",
        "by hand: node 2 hung, 2 times in 2 episodes; 1 did not take",
    )


def test_what_is_released_between_episodes_holds_in_none_that_follows() -> None:
    faults = RunFaults(small_plan(3), {})
    begun = faults.inject(Fault("arrivals", 0, HOUR, nodes=(0,), factor=2.0), None)
    assert (begun.begin, begun.end) == (0, HOUR)
    assert [fault.id for fault in faults.clear(None)] == [begun.id]
    assert not any(fault.holds(now) for fault in told(faults) for now in (0, 1, SECOND))


def test_arrivals_change_later_than_other_faults_and_end_later() -> None:
    faults = RunFaults(replace(small_plan(3), time_scale=0.5), {})
    slow = faults.inject(Fault("slow-node", 0, HOUR, nodes=(0,), factor=0.5), SECOND)
    crowd = faults.inject(Fault("arrivals", 0, HOUR, nodes=(0,), factor=2.0), SECOND)
    assert (slow.begin, crowd.begin) == (SECOND + 100_000, SECOND + 500_000)
    faults.clear(2 * SECOND)
    assert [fault.end for fault in told(faults)] == [2 * SECOND, 2 * SECOND + 500_000]
