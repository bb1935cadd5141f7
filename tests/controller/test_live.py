"""What a controller tells those who watch: the same as its progress and its task log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from testbed.errors import PermanentError
from testbed.model.certificate import Certificate, TermSoFar
from testbed.model.run_state import RunState
from testbed.rpc.operator import (
    EpisodeCount,
    FaultList,
    FaultStatus,
    LinkNow,
    LiveState,
    MachineNow,
    NodeNow,
    Progress,
    RunStatus,
    SchedulerChange,
)
from testbed.scenario.plan import Plan
from testbed.testing.runtime import small_plan
from tests.controller.conftest import Bench

BringUp = Callable[[Plan], Bench]


def test_after_a_run_it_is_what_the_log_has(bring_up: BringUp) -> None:
    plan = small_plan(3, slots=20, episodes=2)
    bench = bring_up(plan)
    assert bench.operator.plan() == replace(plan, artifacts_url=bench.operator.status().artifacts)
    before = bench.operator.live()
    assert before.run is None
    assert [node.condition for node in before.nodes] == ["healthy"] * 3

    run = bench.operator.start_run(scheduler="random")
    last = bench.end(run)
    state = bench.operator.live()

    assert state.run is not None
    assert state.run.progress == last
    rows = list(bench.log.tasks(run))
    sent = Counter(
        (row.source, row.destination)
        for row in rows
        if row.destination != row.source and row.execution_waiting is not None
    )
    assert {(link.source, link.destination): link.work for link in state.links} == sent
    assert {link.bytes / link.work for link in state.links} == {100_000.0}
    good = Counter(row.episode for row in rows if row.outcome == "succeeded")
    ended = Counter(row.episode for row in rows)
    assert state.episodes == tuple(EpisodeCount(e, ended[e], good[e]) for e in (0, 1))
    assert bench.operator.live(run, 1).episodes == state.episodes[1:]
    assert bench.operator.live("another", 1).episodes == state.episodes
    assert state.latencies is not None
    assert list(state.latencies) == sorted(state.latencies)
    assert {node.scheduler for node in state.nodes} == {"random"}
    assert all(node.load is not None and node.backlog is not None for node in state.nodes)
    assert state.machine.cpus >= 1
    assert state.at > before.at


def test_the_fidelity_so_far_counts_what_the_certificate_counts(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(2, slots=20))
    run = bench.operator.start_run(scheduler="random")
    bench.end(run)

    terms = {term.name: term for term in bench.operator.live().fidelity}
    (found,) = [each for each in bench.log.runs() if each.id == run]
    assert found.certificate is not None
    certificate = Certificate.from_document(found.certificate)
    assert terms["transmission"].trials == certificate.transmission.error.count
    assert terms["execution"].trials == certificate.execution.error.count
    assert terms["generator"].trials == certificate.generator.count
    assert terms["execution_failures"].trials == certificate.execution_failures.trials
    assert terms["execution_failures"].expected == certificate.execution_failures.expected
    for name in ("transmission", "execution"):
        # At most a twentieth is beyond the limits exactly if the 95th percentile is within them.
        allowed = terms[name].trials // 20
        assert (terms[name].beyond <= allowed) == certificate.terms[name].holds


def test_faults_and_changes_are_told_while_they_last(bring_up: BringUp) -> None:
    from testbed.model.faults import Fault

    bench = bring_up(small_plan(2, slots=400))
    run = bench.operator.start_run(scheduler="local")
    bench.until(run, lambda progress: progress.slot > 1)
    bench.operator.inject_fault(Fault("slow-node", 0, 30_000_000, nodes=(0,), factor=0.5))
    bench.operator.change_scheduler("random", nodes=(1,))
    state = bench.operator.live()
    bench.operator.stop_run()
    over = bench.operator.live()

    assert [fault.kind for fault in state.faults.faults] == ["slow-node"]
    assert [node.scheduler for node in state.nodes] == ["local", "random"]
    assert state.run is not None
    assert [change.scheduler for change in state.run.changes] == ["random"]
    assert over.faults == FaultList()
    assert over.run is not None
    assert over.run.progress.state == "stopped"


def test_it_survives_the_wire() -> None:
    progress = Progress(
        run="r",
        state=RunState.DEGRADED,
        scheduler="ratc",
        first_episode=0,
        episodes=2,
        episode=1,
        completed=1,
        slot=3,
        slots=10,
        generated=5,
        outcomes={"succeeded": 4, "lost": 1},
        completed_outcomes={"succeeded": 2, "lost": 0},
        queue_lengths=(1, None),
        dead_nodes=(1,),
        degraded=True,
        absences=("node 1: gone",),
    )
    change = SchedulerChange(0, 1, "rda", (0, 1), accepted=False, reason="no")
    state = LiveState(
        at=1.5,
        nodes=(
            NodeNow("healthy", "", "ratc", 1, 20, 3, 4, 5),
            NodeNow("dead", "gone", "", None, None, 0, 0, 0),
        ),
        machine=MachineNow(2, 0.5, None, 1.25),
        policy="policies/x",
        run=RunStatus(progress, "label", (change,)),
        links=(LinkNow(0, 1, 2, 3),),
        latencies=(1, 2, 3),
        fidelity=(TermSoFar("generator", 3, 1), TermSoFar("execution_failures", 3, 1, 0.5)),
        episodes=(EpisodeCount(0, 2, 2),),
        faults=FaultList(
            "r", 1, 5, (FaultStatus("f", "slow-node", "x", 0, 9, "active", True),), ("f",)
        ),
    )

    assert LiveState.from_json(state.to_json()) == state


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"at": "x"}'])
def test_something_else_is_no_state(text: bytes) -> None:
    with pytest.raises(ValueError, match="not the state"):
        LiveState.from_json(text)


def test_a_controller_of_another_version_is_named(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(1))
    stub = bench.operator._stub

    class Older:
        def Live(self, *given: object, **more: object) -> object:
            reply = stub.Live(*given, **more)
            reply.json = b"{}"
            return reply

    bench.operator._stub = Older()  # type: ignore[assignment]
    with pytest.raises(PermanentError, match="not the state"):
        bench.operator.live()
