"""The campaign itself: what it draws can be repeated, and what must not be is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from testbed.model.events import Record, RecordKind
from testbed.sim.record import record_run
from testbed.storage.tasklog import RunState, TaskLog, open_task_log
from testbed.testing.runtime import small_plan
from tests.campaign.campaign import Plan
from tests.campaign.checks import FINE, Account, Expected, account, judge, without_it
from tests.campaign.scene import FAULTS


def test_every_fault_comes_once_in_every_deck_and_trials_can_be_repeated_alone() -> None:
    plan = Plan(faults=100, seed=7, stores=("sqlite", "mysql"), hdfs=True, long=True)
    assert set(plan.available) == set(FAULTS)
    trials, deck = plan.trials(), len(FAULTS)
    assert sorted(trial.fault for trial in trials[:deck]) == sorted(FAULTS)
    alone = Plan(7, 7, ("sqlite", "mysql"), hdfs=True, long=True, only=(63, 17)).trials()
    assert alone == [trials[63], trials[17]]
    assert Plan(100, 8, ("sqlite", "mysql"), hdfs=True, long=True).trials() != trials
    assert "ONLY=17" in plan.repeat(17)
    assert "STORES=sqlite,mysql HDFS=1 LONG=1" in plan.repeat(17)


def test_faults_of_servers_need_servers() -> None:
    plan = Plan(faults=60, seed=1)
    assert not {"kill-mariadb", "kill-namenode", "kill-trainer"} & set(plan.available)
    assert {trial.store for trial in plan.trials()} == {"sqlite"}


@pytest.fixture
def log(tmp_path: Path) -> TaskLog:
    log = open_task_log(tmp_path / "log.sqlite")
    plan = small_plan(2, episodes=2)
    record_run(plan, log)
    return log


def change(tmp_path: Path, statement: str) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'log.sqlite'}")
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def latest(log: TaskLog) -> Account:
    return account(log, log.run("latest"))


def kinds(found: Account) -> set[str]:
    return {each.kind for each in found.problems}


def test_a_complete_log_has_nothing_wrong(log: TaskLog) -> None:
    found = latest(log)
    assert found.problems == []
    assert found.generated == found.ended == found.rows == 40
    assert judge(log.run("latest"), found, Expected()) == []


def test_a_second_end_is_found(log: TaskLog) -> None:
    run = log.run("latest").id
    end = next(record for record in log.records(run) if record.kind is RecordKind.ENDED)
    again = Record(end.kind, end.task, 1_000_000, end.node, end.at, end.clock, end.data)
    log.append(run, [again], [])
    assert kinds(latest(log)) == {"double end"}


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("DELETE FROM tasks WHERE task = 3", "unaccounted"),
        ("UPDATE tasks SET outcome = 'lost' WHERE task = 3", "contradiction"),
        (
            "UPDATE histories SET steps = json_remove(steps, '$[#-1]'), records = records - 1 "
            "WHERE task = 3",
            "unaccounted",
        ),
        ("DELETE FROM histories WHERE task = 3", "contradiction"),
    ],
)
def test_what_is_missing_or_contradicts_is_found(
    log: TaskLog, tmp_path: Path, statement: str, kind: str
) -> None:
    change(tmp_path, statement)
    assert kind in kinds(latest(log))


def test_arrivals_that_never_came_are_found(log: TaskLog, tmp_path: Path) -> None:
    for table in ("histories", "tasks"):
        change(tmp_path, f"DELETE FROM {table} WHERE task = 3")
    assert kinds(latest(log)) == {"unaccounted"}


def ended(log: TaskLog, state: str, **certificate: object) -> list[str]:
    """What is said of the run when it ended so, and nothing was expected to happen to it."""
    run = log.run("latest").id
    log.end_run(run, RunState(state), {"episodes_completed": 2, **certificate})
    found = latest(log)
    assert found.problems == []
    return [each.what for each in judge(log.run(run), found, Expected())]


def test_states_that_are_not_true_are_found(log: TaskLog) -> None:
    assert ended(log, "completed") == ended(log, "invalid") == []
    assert len(ended(log, "failed", failure="the task log cannot be written")) == 1
    assert len(ended(log, "stopped")) == 1
    nobody = ended(log, "degraded")
    assert "has to be one of" in nobody[0]
    assert "nothing says what degraded it" in nobody[1]
    blamed = ended(log, "degraded", dead_nodes={"1": "the node died"})
    assert any("nodes [1] were not touched" in each for each in blamed)
    assert any("node 1 lives" in each for each in blamed)


def test_a_node_that_died_has_to_be_named(log: TaskLog) -> None:
    run = log.run("latest").id
    log.end_run(run, RunState.COMPLETED, {"episodes_completed": 2})
    dead = Expected(states=frozenset({"degraded"}), dead=frozenset({1}))
    said = [each.what for each in judge(log.run(run), latest(log), dead)]
    assert any("nodes [1] died" in each for each in said)
    # Not if the run had ended before.
    assert judge(log.run(run), latest(log), without_it(dead)) == []
    assert without_it(dead).states >= FINE
