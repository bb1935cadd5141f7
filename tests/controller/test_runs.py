"""Runs from their start to their end in the task log, on real processes."""

from __future__ import annotations

import re
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import psutil
import pytest

from testbed.errors import PermanentError, UsageError
from testbed.model.events import RecordKind
from testbed.model.fidelity import Certificate
from testbed.model.history import FIRST_OF_CONTROLLER
from testbed.model.task import Outcome
from testbed.model.units import SECOND
from testbed.model.workload import tasks_of_episode
from testbed.runtime.directory import RunDirectory
from testbed.scenario.plan import ApplicationSpec, Plan
from testbed.storage.tasklog import RunState
from testbed.testing.runtime import small_plan
from tests.controller.conftest import Bench, each_ends_once

BringUp = Callable[[Plan], Bench]

PATIENCE_S = 20.0

PAUSE_S = 5.0
"""Longer than a silence that makes a node suspect."""

COULD_NOT = "the machine could not keep up ("

LONG = 400
"""Slots of 50 ms: longer than any test lets it run."""


def arrivals(plan: Plan, episode: int) -> set[int]:
    slots = tasks_of_episode(
        plan.workload, plan.topology.arrival_probability, plan.seeds.workload, episode
    )
    return {task.id for tasks in slots for task in tasks}


def test_a_scheduler_that_never_answers_costs_its_tasks_and_no_node(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(2, slots=20))
    run = bench.operator.start_run(scheduler="tests.controller.choosy:Silent")
    *_, last = bench.operator.watch_run(run)

    assert last.state == "degraded"
    assert last.ended == last.generated
    assert any(
        "NotInTime: decide() had no answer" in line and "choosy.py" in line
        for line in last.code_failures
    )
    status = bench.operator.status()
    assert {node.condition for node in status.nodes} == {"healthy"}
    each_ends_once(bench, run)


def test_a_label_that_not_every_log_can_hold_begins_no_run(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(2))
    for label in ("x" * 256, "two\nlines"):
        with pytest.raises(UsageError, match="label: "):
            bench.operator.start_run(scheduler="local", label=label)
    assert bench.operator.status().runs == ()


def test_a_scheduler_that_ends_its_node_does_not_begin_a_run(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(2))
    with pytest.raises(UsageError, match=r"node 1: does not answer: .* is dead: .*its process has"):
        bench.operator.start_run(scheduler="tests.controller.choosy:Leaving")
    assert bench.operator.status().runs == ()


def test_an_application_that_blocks_costs_its_tasks_and_no_node(bring_up: BringUp) -> None:
    plan = small_plan(2, slots=20)
    own = ApplicationSpec("tests.controller.choosy:Blocking")
    bench = bring_up(replace(plan, application=own))
    run = bench.operator.start_run(scheduler="local")
    last = bench.end(run)

    assert last.state == "degraded"
    assert last.ended == last.generated
    assert any(
        "application 'tests.controller.choosy:Blocking' raised NotInTime: execute() blocked its "
        "node for 3 s, at "
        in line
        and "choosy.py" in line
        for line in last.code_failures
    ), last.code_failures
    assert {node.condition for node in bench.operator.status().nodes} == {"healthy"}
    each_ends_once(bench, run)


def test_a_run_is_logged_completely(bring_up: BringUp) -> None:
    plan = small_plan(3, episodes=2)
    bench = bring_up(plan)
    run = bench.operator.start_run(scheduler="random", first_episode=5, label="complete")
    seen = list(bench.operator.watch_run(run))
    last = seen[-1]
    # On a busy machine the certificate may say no; everything else has to hold all the same.
    assert last.state in {"completed", "invalid"}
    assert (last.completed, last.generated, last.ended, last.lost) == (2, 60, 60, 0)
    assert [progress.ended for progress in seen] == sorted(progress.ended for progress in seen)
    assert len(seen) > 2

    logged = bench.log.run(run)
    assert logged.state == last.state
    assert (logged.info.scheduler, logged.info.label) == ("random", "complete")
    assert (logged.info.first_episode, logged.info.episodes) == (5, 2)
    assert logged.plan.scheduler.name == "random"
    assert logged.certificate is not None
    certificate = Certificate.from_document(logged.certificate)
    assert certificate.valid == last.valid
    assert certificate.execution.error.count == last.outcomes["succeeded"]
    assert certificate.generator.count == 2 * 10 * 3

    rows = list(bench.log.tasks(run))
    assert {row.task_id for row in rows} == arrivals(plan, 5) | arrivals(plan, 6)
    assert bench.log.outcomes(run) == {outcome: last.outcomes[outcome.value] for outcome in Outcome}
    ended = Counter(
        record.task.id for record in bench.log.records(run) if record.kind is RecordKind.ENDED
    )
    assert set(ended.values()) == {1}
    assert len(ended) == 60
    decided = [each for each in bench.log.decisions(run) if each.task_id is not None]
    assert {each.task_id for each in decided} == set(ended)

    # Watching what is over gives its last state at once.
    assert bench.end(run) == last
    assert not (bench.up.directory / "active-run.json").exists()


def test_a_machine_that_cannot_keep_up_loses_no_node_and_no_task(bring_up: BringUp) -> None:
    plan = small_plan(4, episodes=2)
    probability = (0.005,) * 4
    plan = replace(
        plan,
        topology=replace(plan.topology, arrival_probability=probability),
        workload=replace(plan.workload, slots=4000, slot=1000),
    )
    bench = bring_up(plan)
    last = bench.end(bench.operator.start_run(scheduler="ratc"))
    run = last.run
    # A fast machine may keep up; then the rest has to hold all the same.
    assert last.state in {"completed", "invalid"}
    assert (last.completed, last.dead_nodes, last.degraded) == (2, (), False)
    expected = arrivals(plan, 0) | arrivals(plan, 1)
    assert last.generated == last.ended == len(expected)
    assert {row.task_id for row in bench.log.tasks(run)} == expected
    ended = [r.task.id for r in bench.log.records(run) if r.kind is RecordKind.ENDED]
    assert sorted(ended) == sorted(expected)
    certificate = bench.log.run(run).certificate
    assert certificate is not None
    if last.lost:
        said = f"did not finish within its bound: {COULD_NOT}"
        assert last.state == "invalid"
        assert said in last.reason
        assert said in last.invalid_because[0]
        assert said in certificate["reasons"][0]
        assert said in certificate["episodes_over_bound"][0]


def test_runs_from_one_episode_share_their_arrivals(bring_up: BringUp) -> None:
    plan = small_plan(2)
    plan = replace(plan, topology=replace(plan.topology, arrival_probability=(0.5, 0.5)))
    bench = bring_up(plan)
    first, second = bench.operator.start_run(first_episode=3), ""
    with pytest.raises(UsageError, match=f"run {first} is under way"):
        bench.operator.start_run()
    bench.end(first)
    second = bench.operator.start_run(scheduler="random", first_episode=3)
    bench.end(second)
    tasks = [{row.task_id for row in bench.log.tasks(run)} for run in (first, second)]
    assert tasks[0] == tasks[1] == arrivals(plan, 3)
    assert [each.id for each in bench.log.runs()] == [first, second], "in the order of beginning"
    assert bench.operator.status().runs == (first, second)


def test_what_nodes_refuse_begins_no_run(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(2))
    with pytest.raises(UsageError, match=r"(?s)nodes 0, 1.*'nonsense'.*ratc"):
        bench.operator.start_run(scheduler="nonsense")
    with pytest.raises(UsageError, match="at least 0"):
        bench.operator.start_run(episodes=-1)
    with pytest.raises(UsageError, match="there is none above 2147483647"):
        bench.operator.start_run(first_episode=2**31 - 2, episodes=3)
    with pytest.raises(UsageError, match="there is none above 2147483647"):
        bench.operator.start_run(first_episode=2**31 - 1, episodes=2**31 - 1)
    with pytest.raises(UsageError, match="no run is under way"):
        bench.operator.change_scheduler("random")
    with pytest.raises(UsageError, match="no run never-was"):
        list(bench.operator.watch_run("never-was"))
    assert bench.log.runs() == []
    assert bench.operator.status().run is None


def test_the_scheduler_changes_while_a_run_goes_on(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(3, slots=LONG))
    run = bench.operator.start_run(scheduler="local")
    bench.until(run, lambda progress: progress.slot >= 1)

    everywhere = bench.operator.change_scheduler("random")
    assert [(each.node, each.accepted, each.scheduler) for each in everywhere] == [
        (node, True, "random") for node in range(3)
    ]
    assert bench.operator.change_scheduler("two-choice", nodes=[2])[0].accepted
    assert bench.until(run, lambda progress: True).scheduler == "random, two-choice"

    refused = bench.operator.change_scheduler("nonsense")
    assert [each.accepted for each in refused] == [False] * 3
    assert "ratc" in refused[0].reason, "the answer says what there is"
    with pytest.raises(UsageError, match="there is no node 9"):
        bench.operator.change_scheduler("local", nodes=[9])
    status = bench.operator.status()
    assert [node.scheduler for node in status.nodes] == ["random", "random", "two-choice"]
    assert status.run is not None
    changes = [(each.scheduler, each.nodes, each.accepted) for each in status.run.changes]
    assert changes == [
        ("random", (0, 1, 2), True),
        ("two-choice", (2,), True),
        ("nonsense", (0, 1, 2), False),
    ]

    slot = status.run.progress.slot
    bench.until(run, lambda progress: progress.slot > slot + 2)
    bench.operator.stop_run()
    last = bench.end(run)
    assert last.state == "stopped"
    deciders = {
        (each.node, each.scheduler) for each in bench.log.decisions(run) if each.slot == slot + 1
    }
    assert deciders == {(0, "random"), (1, "random"), (2, "two-choice")}
    # Every task that was generated has ended, and has its row.
    assert last.ended == last.generated == len(list(bench.log.tasks(run)))
    assert last.lost == 0
    bench.operator.stop_run(run)


def test_when_one_node_refuses_the_others_go_back(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(2, slots=LONG))
    run = bench.operator.start_run(scheduler="local")
    bench.until(run, lambda progress: progress.slot >= 1)
    answers = bench.operator.change_scheduler("tests.controller.choosy:Choosy")
    assert [each.accepted for each in answers] == [False, False]
    assert "went back, because node 1 refused" in answers[0].reason
    assert "not at node 1" in answers[1].reason
    assert [node.scheduler for node in bench.operator.status().nodes] == ["local", "local"]
    bench.operator.stop_run()
    assert bench.end(run).scheduler == "local"


def test_a_node_that_dies_takes_its_tasks_with_it_and_no_more(bring_up: BringUp) -> None:
    plan = small_plan(3, slots=20, episodes=2)
    bench = bring_up(plan)
    run = bench.operator.start_run(scheduler="random")
    bench.until(run, lambda progress: progress.slot >= 5)
    bench.runtime.kill("bench", 1)
    last = bench.end(run)
    assert last.state == "degraded"
    assert last.dead_nodes == (1,)
    assert last.completed == 2, "the run went on to its end"
    assert last.ended == last.generated == 2 * 20 * 3

    rows = {row.task_id: row for row in bench.log.tasks(run)}
    assert set(rows) == arrivals(plan, 0) | arrivals(plan, 1)
    lost = {task_id for task_id, row in rows.items() if row.outcome is Outcome.LOST}
    assert len(lost) == last.lost
    assert {i for i, row in rows.items() if row.episode == 1 and row.source == 1} <= lost
    assert any(row.episode == 1 and row.outcome is Outcome.SUCCEEDED for row in rows.values())
    by_controller = {
        record.task.id for record in bench.log.records(run) if record.seq >= FIRST_OF_CONTROLLER
    }
    assert by_controller <= lost
    status = bench.operator.status()
    assert [node.condition for node in status.nodes] == ["healthy", "dead", "healthy"]
    assert "heartbeat" in status.nodes[1].reason
    certificate = bench.log.run(run).certificate
    assert certificate is not None
    # The verdict is about times alone; it may be no on a busy machine, but never for what was lost.
    assert not any("lost" in reason for reason in certificate["reasons"])
    assert certificate["outcomes"]["lost"] == last.lost > 0
    assert list(certificate["dead_nodes"]) == ["1"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_node_that_is_stopped_in_the_middle_of_a_run_hands_over_its_log(
    bring_up: BringUp, number: signal.Signals
) -> None:
    plan = small_plan(3, slots=40)
    bench = bring_up(plan)
    place = RunDirectory(bench.runtime.home, "bench")
    run = bench.operator.start_run(scheduler="random")
    bench.until(run, lambda progress: progress.slot >= 5)
    node = psutil.Process(place.processes()["node-1"][0])
    node.send_signal(number)
    psutil.wait_procs([node], timeout=PATIENCE_S)
    assert not list((place.spool / "node-1").iterdir())
    last = bench.end(run)
    assert last.state == "degraded"
    assert last.dead_nodes == (1,)
    assert last.ended == last.generated == 40 * 3
    assert {row.task_id for row in bench.log.tasks(run)} == arrivals(plan, 0)


def test_a_controller_that_is_hung_up_ends_its_run_in_order(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(2, slots=LONG))
    run = bench.operator.start_run(scheduler="local")
    bench.until(run, lambda progress: progress.slot >= 3)
    place = RunDirectory(bench.runtime.home, "bench")
    controller = psutil.Process(place.processes()["controller"][0])
    controller.send_signal(signal.SIGHUP)
    assert psutil.wait_procs([controller], timeout=PATIENCE_S)[0]
    assert bench.log.run(run).state is RunState.STOPPED
    each_ends_once(bench, run)


def test_a_run_whose_nodes_all_die_fails(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(2, slots=10, episodes=3))
    run = bench.operator.start_run()
    bench.until(run, lambda progress: progress.slot >= 2)
    bench.runtime.kill("bench", 0)
    bench.runtime.kill("bench", 1)
    last = bench.end(run)
    assert last.state == "failed"
    assert last.reason == (
        "no node is left in the run: nodes 0, 1: its heartbeat stream broke; connection refused, "
        "so its process has ended"
    )
    assert bench.log.run(run).state is RunState.FAILED


def test_a_log_that_breaks_fails_the_run_and_nodes_keep_what_is_not_stored(
    bring_up: BringUp,
) -> None:
    bench = bring_up(small_plan(2, slots=LONG))
    run = bench.operator.start_run()
    bench.until(run, lambda progress: progress.ended >= 2)
    with closing(sqlite3.connect(bench.up.store)) as database:
        database.execute("DROP TABLE histories")
    last = bench.end(run)
    assert last.state == "failed"
    assert "the task log cannot be written" in last.reason
    assert bench.log.run(run).state is RunState.FAILED
    assert all(node.unacknowledged for node in bench.operator.status().nodes)


def test_a_log_that_is_damaged_is_said_to_be_before_a_run_begins(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(2))
    with closing(sqlite3.connect(bench.up.store)) as database:
        database.execute("DROP TABLE runs")
    with pytest.raises(PermanentError, match=r"task log .*no such table: runs"):
        bench.operator.start_run()
    assert bench.operator.status().run is None


def test_a_run_that_was_cut_short_is_marked_by_the_next_controller(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(2, slots=LONG))
    run = bench.operator.start_run()
    bench.until(run, lambda progress: progress.ended >= 2)
    place = RunDirectory(bench.runtime.home, "bench")
    psutil.Process(place.processes()["controller"][0]).kill()
    bench.runtime.down("bench")
    assert bench.log.run(run).state is RunState.RUNNING
    again = bring_up(small_plan(2))
    assert again.log.run(run).state is RunState.INTERRUPTED
    assert again.operator.status().run is None
    # What the nodes had not got stored they kept, and the next ones on the same spools hand it in.
    give_up = time.monotonic() + PATIENCE_S
    while any(node.unacknowledged for node in again.operator.status().nodes):
        assert time.monotonic() < give_up
    steps: dict[int, list[int]] = {}
    for record in again.log.records(run):
        steps.setdefault(record.task.id, []).append(record.seq)
    assert steps
    for seqs in steps.values():
        # A task that no node has ended was given an end, lost, when the run was settled.
        own = [seq for seq in seqs if seq < FIRST_OF_CONTROLLER]
        assert own == list(range(len(own)))
    each_ends_once(again, run)


def test_down_ends_a_run_in_order(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(2, slots=LONG))
    run = bench.operator.start_run()
    bench.until(run, lambda progress: progress.ended >= 2)
    assert not any(each.forced for each in bench.runtime.down("bench").stopped)
    assert bench.log.run(run).state is RunState.STOPPED
    ended = [r for r in bench.log.records(run) if r.kind is RecordKind.ENDED]
    assert len(ended) == len(list(bench.log.tasks(run)))


def test_time_scale_stretches_the_run_and_not_the_log(bring_up: BringUp) -> None:
    plan = small_plan(2)
    bench = bring_up(replace(plan, time_scale=2.0))
    run = bench.operator.start_run()
    bench.end(run)
    generated = [r for r in bench.log.records(run) if r.kind is RecordKind.GENERATED]
    gaps = [r.at - plan.workload.slot * r.task.slot for r in generated]
    # In emulated time arrivals are where the plan says; wall time would put the last 450 ms later.
    assert max(gaps) < 300_000


def test_a_node_that_hangs_is_left_behind(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(2, slots=20))
    run = bench.operator.start_run()
    bench.until(run, lambda progress: progress.slot >= 2)
    pid = bench.operator.status().nodes[1].pid
    assert pid is not None
    psutil.Process(pid).suspend()
    last = bench.end(run)
    assert (last.state, last.dead_nodes) == ("degraded", (1,))
    assert last.ended == last.generated == 40
    status = bench.operator.status().nodes[1]
    assert status.condition == "unreachable"
    assert re.search(r"no heartbeat for [\d.]+ s; health check not answered", status.reason)
    assert any("no heartbeat" in line for line in last.absences)
    assert "died" not in f"{last.reason} {last.absences} {status.reason}"


def test_a_pause_of_the_controller_costs_no_node_and_no_task(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(3, slots=30))
    run = bench.operator.start_run(scheduler="random")
    bench.until(run, lambda progress: progress.slot >= 3)
    with paused(bench, "controller"):
        time.sleep(PAUSE_S)
    last = bench.end(run)
    assert (last.dead_nodes, last.absences, last.lost) == ((), (), 0)
    assert last.ended == last.generated == 30 * 3
    assert {node.condition for node in bench.operator.status().nodes} == {"healthy"}
    certificate = bench.log.run(run).certificate
    assert certificate is not None
    assert any(pause["length"] > 3_000_000 for pause in certificate["machine"]["pauses"])
    # Nodes know what arrives, and when: their tasks did not wait for the controller.
    late = [
        record.clock - record.task.slot * 50_000
        for record in bench.log.records(run)
        if record.kind is RecordKind.GENERATED
    ]
    assert sorted(late)[len(late) // 2] < PAUSE_S * SECOND / 4


def test_a_node_that_goes_on_after_a_pause_takes_part_again(bring_up: BringUp) -> None:
    bench = bring_up(small_plan(2, slots=20, episodes=6))
    run = bench.operator.start_run(scheduler="local")
    bench.until(run, lambda progress: progress.slot >= 3)
    with paused(bench, "node-1"):
        bench.until(run, lambda progress: progress.dead_nodes == (1,))
    last = bench.end(run)
    assert (last.state, last.dead_nodes, last.completed) == ("degraded", (), 6)
    (line,) = last.absences
    assert re.match(r"node 1: out of the run from episode \d, back in \d: no heartbeat for", line)
    assert last.ended == last.generated == 6 * 20 * 2
    rows = list(bench.log.tasks(run))
    assert len(rows) == 6 * 20 * 2
    # In the last episode it did its share.
    assert all(row.outcome is not Outcome.LOST for row in rows if row.episode == 5)
    ended = [r.task.id for r in bench.log.records(run) if r.kind is RecordKind.ENDED]
    assert len(ended) == len(set(ended)) == len(rows)


@contextmanager
def paused(bench: Bench, name: str) -> Iterator[None]:
    """A process of the testbed stopped, and going on afterwards."""
    place = RunDirectory(bench.runtime.home, "bench")
    process = psutil.Process(place.processes()[name][0])
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def test_what_a_node_hands_in_after_the_run_changes_no_end_that_was_told(
    bring_up: BringUp,
) -> None:
    bench = bring_up(small_plan(2, slots=20))
    run = bench.operator.start_run()
    bench.until(run, lambda progress: progress.slot >= 2)
    node = psutil.Process(bench.operator.status().nodes[1].pid)
    node.suspend()
    last = bench.end(run)
    assert last.state == "degraded"
    told = each_ends_once(bench, run)
    assert told == {outcome: last.outcomes[outcome.value] for outcome in Outcome}
    node.resume()
    give_up = time.monotonic() + 3 * PATIENCE_S
    while not bench.operator.status().healthy or any(
        each.unacknowledged for each in bench.operator.status().nodes
    ):
        assert time.monotonic() < give_up
    assert each_ends_once(bench, run) == told
    assert sum(told.values()) == last.generated
    again = bench.operator.start_run()
    bench.end(again)
    each_ends_once(bench, again)
