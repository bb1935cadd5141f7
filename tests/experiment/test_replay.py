"""What a replay compares: two plans, and the ends of the same tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.experiment.replay import arrivals, compared, differences, original
from testbed.experiment.summary import summarise
from testbed.scenario.load import load
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan as plan_of
from testbed.sim.record import record_run
from testbed.storage.tasklog import RunInfo, label_of_replay, open_task_log


def plan(*settings: str) -> Plan:
    return plan_of(load("quickstart", settings), episodes=2)


@pytest.mark.parametrize(
    ("setting", "path"),
    [
        ("slots.count=15", "workload.slots"),
        ("nodes.count=6", "topology.cores"),
        ("seeds.workload=9", "seeds.workload"),
        ("seeds.faults=9", "seeds.faults"),
        ("nodes.arrivalProbability=0.4", "topology.arrival_probability[0]"),
        ("rules.dropHopeless=false", "rules.drop_hopeless"),
    ],
)
def test_what_matters_is_named(setting: str, path: str) -> None:
    found = differences(plan(), plan(setting))

    assert path in {problem.path for problem in found}
    assert len(found) <= 9


@pytest.mark.parametrize(
    "setting",
    ["timeScale=2", "payload=metadata", "scheduler=rda", "seeds.schedulers=9", "episodes=7"],
)
def test_what_does_not_matter_is_not(setting: str) -> None:
    assert differences(plan(), plan(setting)) == []


def test_a_label_names_the_run_that_is_replayed() -> None:
    def info(label: str) -> RunInfo:
        return RunInfo.of(plan(), "simulator", label=label)

    for own in ("", "mine", "a; b", "replay of mine"):
        stored = info(label_of_replay("20260101-000000-abcd", own))
        assert stored.replay_of == "20260101-000000-abcd"
        assert stored.own_label == own
    for other in ("", "mine", "a replay of two words", "my replay of x"):
        assert info(other).replay_of is None
        assert info(other).own_label == other


def test_tasks_are_drawn_as_they_were_logged(tmp_path: Path) -> None:
    with open_task_log(tmp_path / "log.sqlite") as log:
        run = record_run(plan(), log, first_episode=4)
        found = original(log, run)

        assert found.episodes == (4, 5)
        assert (found.first_episode, found.count) == (4, 2)
        for episode in found.episodes:
            logged = [row.task_id for row in log.tasks(run, episode=episode)]
            assert logged == [task.id for task in arrivals(found.plan, episode)]


def test_changes_add_up(tmp_path: Path) -> None:
    with open_task_log(tmp_path / "log.sqlite") as log:
        first = summarise(log, record_run(plan(), log, scheduler="ratc"))
        second = summarise(log, record_run(plan(), log, scheduler="local"))
    there, back = compared(first, second), compared(second, first)

    assert there.changes.saved == back.changes.spoilt
    assert there.changes.spoilt == back.changes.saved
    assert there.changes.same_outcome == back.changes.same_outcome
    assert there.changes.same_outcome + sum(n for _, _, n in there.changes.moves) == len(
        first.tasks
    )
    assert (
        second.outcomes["succeeded"] - first.outcomes["succeeded"]
        == there.changes.saved - there.changes.spoilt
    )
    assert there.comparison.difference.mean == -back.comparison.difference.mean
