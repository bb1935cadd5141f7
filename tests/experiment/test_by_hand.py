"""Faults by hand of a logged run are met once more: in a replay, and in what-if."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.experiment.alternatives import alternatives
from testbed.experiment.comparison import compare_runs
from testbed.experiment.history import task_history
from testbed.experiment.replay import compared, original
from testbed.experiment.summary import summarise
from testbed.model.faults import KINDS, Fault
from testbed.model.units import MILLISECOND, SECOND
from testbed.scenario.plan import Plan, SchedulerSpec
from testbed.sim.engine.arrays import problems_of
from testbed.sim.record import record_run
from testbed.storage.tasklog import RunState, TaskLog, open_task_log
from tests.faults.plans import fault, with_faults
from tests.sim.networks import paper_simulation

PLAN = dataclasses.replace(
    with_faults(
        paper_simulation(4, slots=20),
        fault("slow-node", SECOND, 2 * SECOND, nodes=(0,), factor=0.5),
    ),
    episodes=3,
)

FAULTS: dict[str, Fault] = {
    "killed": Fault("node-down", 700 * MILLISECOND, SECOND, nodes=(1,), mode="killed"),
    "hung": Fault("node-down", 700 * MILLISECOND, SECOND, nodes=(1,), mode="hung"),
    "slow-node": Fault("slow-node", 123_457, 9 * SECOND, nodes=(0, 2), factor=0.3),
    "node-failures": Fault("node-failures", 0, 9 * SECOND, nodes=(0, 1), failure_rate=5.0),
    "link-rate": Fault("link-rate", 1, 9 * SECOND, links=((0, 1), (1, 0)), factor=0.1),
    "link-failures": Fault(
        "link-failures", 0, 9 * SECOND, links=((0, 1), (2, 1)), failure_rate=900.0
    ),
    "partition": Fault("partition", 1, SECOND, links=((0, 1), (0, 2))),
    "crowd": Fault("arrivals", 250 * MILLISECOND, SECOND, nodes=(0, 1, 2, 3), factor=3.0),
    "calm": Fault("arrivals", 250 * MILLISECOND, SECOND, nodes=(0, 1, 2, 3), factor=0.0),
}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[TaskLog]:
    with open_task_log(str(tmp_path / "tasks.db")) as opened:
        yield opened


def noted(episode: int, each: Fault) -> dict[str, Any]:
    """A fault in a run's certificate, as the controller enters it."""
    return {
        "episode": episode,
        "id": each.id,
        "what": KINDS[each.kind].describe(each),
        **each.to_document(),
        "applied": {"0": 12},
        "released": {},
        "took": None,
        "measured": {"samples": 0},
    }


def met(log: TaskLog, by_hand: dict[int, tuple[Fault, ...]], scheduler: str = "random") -> str:
    """A run into which these were injected, with the certificate of a run on nodes."""
    run = record_run(dataclasses.replace(PLAN, by_hand=by_hand), log, scheduler=scheduler)
    documents = [noted(episode, each) for episode in by_hand for each in by_hand[episode]]
    log.end_run(run, RunState.COMPLETED, {"faults": documents})
    return run


def replayed(log: TaskLog, run: str, scheduler: str) -> str:
    found = original(log, run)
    return record_run(
        found.planned(SchedulerSpec(scheduler), None), log, first_episode=found.first_episode
    )


@pytest.mark.parametrize("name", FAULTS)
def test_a_replay_meets_what_was_injected_by_hand(log: TaskLog, name: str) -> None:
    # One that lasts is entered once per episode, from its beginning on.
    one = dataclasses.replace(FAULTS[name], number=1)
    run = met(log, {0: (one,), 1: (dataclasses.replace(one, begin=0),)})
    usual = record_run(PLAN, log, scheduler="random")
    assert list(log.tasks(run)) != list(log.tasks(usual))

    found = original(log, run)
    assert (found.episodes, found.left_out, found.changed) == ((0, 1, 2), (), ())
    assert found.repeated == KINDS[one.kind].describe(one)
    again = replayed(log, run, "random")
    said = compared(summarise(log, run), summarise(log, again)).changes
    assert said.same_course == said.tasks == len(list(log.tasks(run)))
    assert [(f["episode"], f["begin"], f["what"]) for f in log.run(again).faults_by_hand] == [
        (0, one.begin, found.repeated),
        (1, 0, found.repeated),
    ]
    assert len([f for f in log.run(again).faults if f["entry"] == 0]) == 3


def test_a_pair_that_met_the_same_by_hand_is_not_warned_of(log: TaskLog) -> None:
    run = met(log, {1: (FAULTS["killed"], FAULTS["hung"])})
    again = replayed(log, run, "local")
    assert compare_runs(log, [run, again]).warnings == ()
    usual = record_run(PLAN, log, scheduler="ratc")
    warnings = compare_runs(log, [run, again, usual]).warnings
    assert len(warnings) == 2
    assert all(f"that run {usual} had not, injected by hand: node 1" in told for told in warnings)


def test_faults_by_hand_in_other_episodes_are_no_difference(log: TaskLog) -> None:
    run = met(log, {0: (FAULTS["killed"],)})
    later = record_run(PLAN, log, scheduler="local", first_episode=1)
    assert compare_runs(log, [run, later]).warnings == ()


@pytest.mark.parametrize(
    "other",
    [
        {"begin": FAULTS["killed"].begin + 1},
        {"end": FAULTS["killed"].end + 1},
        {"mode": "hung"},
        {"nodes": (2,)},
    ],
)
def test_other_faults_by_hand_are_a_difference(log: TaskLog, other: dict[str, Any]) -> None:
    changed = dataclasses.replace(FAULTS["killed"], **other)
    runs = [met(log, {0: (FAULTS["killed"],)}), met(log, {0: (changed,)}, "local")]
    warnings = compare_runs(log, runs).warnings
    assert sorted(told.split()[1] for told in warnings) == sorted(runs)


def test_a_testbed_is_told_of_those_that_lasted_in_the_episodes_it_replays(log: TaskLog) -> None:
    at_once = dataclasses.replace(FAULTS["killed"], end=FAULTS["killed"].begin, number=7)
    run = met(log, {0: (FAULTS["crowd"],), 1: (FAULTS["killed"], at_once), 2: (FAULTS["hung"],)})
    found = original(log, run)
    assert found.left_out == ()
    assert found.changed == ()
    assert found.faults_by_hand == {
        0: (FAULTS["crowd"],),
        1: (FAULTS["killed"],),
        2: (FAULTS["hung"],),
    }
    assert set(original(log, run, 1).faults_by_hand) == {1}


def test_arrivals_that_did_not_follow_the_log_are_left_out(log: TaskLog) -> None:
    run = met(log, {0: (FAULTS["crowd"],)})
    # As if it had begun at another slot than its entry says.
    later = dataclasses.replace(FAULTS["crowd"], begin=950 * MILLISECOND)
    log.end_run(run, RunState.COMPLETED, {"faults": [noted(0, later)]})
    found = original(log, run)
    assert found.episodes == (1, 2)
    assert "at other slots than the log says" in found.left_out[0].reason


@pytest.mark.parametrize(
    "damage",
    [
        {"kind": "earthquake"},
        {"nodes": [9]},
        {"nodes": []},
        {"begin": "soon"},
        {"end": -1},
        {"factor": None},
        {"episode": "first"},
        {"mode": "tired"},
    ],
)
def test_an_entry_that_cannot_be_read_is_said_to_be_missing(
    log: TaskLog, damage: dict[str, Any]
) -> None:
    run = met(log, {})
    entry = {**noted(1, FAULTS["killed"]), **damage}
    log.end_run(run, RunState.COMPLETED, {"faults": [entry]})
    found = original(log, run)
    assert not found.plan.by_hand
    (change,) = found.changed
    assert "node 1 killed: its entry in the log cannot be read" in change


def test_what_the_log_does_not_list_is_said(log: TaskLog) -> None:
    run = met(log, {})
    log.end_run(run, RunState.COMPLETED, {"faults": [], "faults_not_listed": 7})
    assert "7 faults were not listed" in original(log, run).changed[0]


@pytest.mark.parametrize("name", ["killed", "slow-node", "crowd", "partition"])
def test_what_if_meets_them_too(log: TaskLog, name: str) -> None:
    run = met(log, {0: (FAULTS[name],)}, "ratc")
    rows = [row for row in log.tasks(run, episode=0) if row.destination is not None][::7]
    for row in rows:
        history = task_history(log, run, row.task_id)
        (taken,) = (each for each in alternatives(log, history) if each.taken)
        assert taken.others == 0
        assert taken.row._replace(scheduler=row.scheduler) == row


def test_they_are_no_part_of_what_a_plan_is() -> None:
    with_them = dataclasses.replace(PLAN, by_hand={0: (FAULTS["killed"],)})
    assert with_them == PLAN
    assert with_them.to_json() == PLAN.to_json()
    assert Plan.from_json(with_them.to_json()).by_hand == {}
    assert [f.kind for f in with_them.timeline(0).faults] == ["node-down", "slow-node"]
    assert [f.kind for f in with_them.timeline(1).faults] == ["slow-node"]
    with pytest.raises(ValueError, match="no part of one"):
        Plan.from_json(PLAN.to_json().replace("{", '{"by_hand":{},', 1))


def test_the_compiled_engine_does_not_pass_over_them() -> None:
    bare = dataclasses.replace(paper_simulation(3), by_hand={4: (FAULTS["hung"],)})
    assert "faults" in {problem.path for problem in problems_of(bare)}
