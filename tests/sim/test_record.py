"""A simulated run in the task log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.errors import UsageError
from testbed.model.decision import Ask, Decision, Observation, SchedulerContext
from testbed.model.task import Outcome
from testbed.scenario.plan import SchedulerSpec
from testbed.sim.record import About, record_run
from testbed.sim.simulator import EpisodeResult, simulate_episode
from testbed.storage.tasklog import RunState, TaskLog, open_task_log
from tests.sim.networks import paper_simulation, replaced

PLAN = replaced(paper_simulation(5, slots=12), episodes=3)


class Broken:
    """Raises when the second episode comes."""

    def __init__(self, context: SchedulerContext) -> None:
        self.name = "broken"

    def decide(self, observation: Observation) -> Decision | Ask:
        if observation.episode == 1:
            raise RuntimeError("a defect")
        return Decision(observation.node)


@pytest.fixture
def task_log(tmp_path: Path) -> Iterator[TaskLog]:
    with open_task_log(tmp_path / "log.sqlite") as opened:
        yield opened


def test_all_of_a_run_is_logged_as_it_was(task_log: TaskLog) -> None:
    seen: list[EpisodeResult] = []
    run_id = record_run(
        PLAN,
        task_log,
        scheduler="rda-masked",
        first_episode=4,
        about=About("a label"),
        on_episode=seen.append,
    )
    run = task_log.run(run_id)
    assert run.state is RunState.COMPLETED
    assert run.certificate is None
    assert (run.info.driver, run.info.label, run.info.scheduler) == (
        "simulator",
        "a label",
        "rda-masked",
    )
    assert (run.info.first_episode, run.info.episodes) == (4, 3)
    assert run.plan.scheduler == SchedulerSpec("rda-masked")
    assert run.plan.topology == PLAN.topology
    assert [result.episode for result in seen] == [4, 5, 6]
    for result in seen:
        assert result == simulate_episode(PLAN, result.episode, "rda-masked")
        logged = list(task_log.records(run_id, episode=result.episode))
        assert logged == sorted(result.records, key=lambda r: (r.task.id, r.seq))
        decisions = list(task_log.decisions(run_id, episode=result.episode))
        assert decisions == sorted(result.decisions, key=lambda d: (d.node, d.slot))
        rows = list(task_log.tasks(run_id, episode=result.episode))
        assert {row.task_id: row.outcome for row in rows} == result.outcomes


def test_an_episode_is_logged_before_it_is_told(task_log: TaskLog) -> None:
    counts: list[int] = []

    def note(result: EpisodeResult) -> None:
        (run,) = task_log.runs()
        assert run.state is RunState.RUNNING
        counts.append(len(list(task_log.tasks(run.id, episode=result.episode))))

    record_run(PLAN, task_log, on_episode=note)
    assert all(counts)
    assert len(counts) == 3


def test_what_nobody_knows_is_refused_before_anything_is_logged(task_log: TaskLog) -> None:
    with pytest.raises(UsageError, match="unknown scheduler"):
        record_run(PLAN, task_log, scheduler="nonsense")
    with pytest.raises(UsageError, match="unknown option"):
        record_run(PLAN, task_log, scheduler=SchedulerSpec("ratc", {"x": 1}))
    assert task_log.runs() == []


def test_an_interrupted_run_is_stopped_with_what_was_done(task_log: TaskLog) -> None:
    def interrupt(result: EpisodeResult) -> None:
        if result.episode == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record_run(PLAN, task_log, on_episode=interrupt)
    (run,) = task_log.runs()
    assert run.state is RunState.STOPPED
    assert {row.episode for row in task_log.tasks(run.id)} == {0, 1}


def test_a_run_that_breaks_has_failed_with_what_was_done(task_log: TaskLog) -> None:
    def break_(result: EpisodeResult) -> None:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        record_run(PLAN, task_log, on_episode=break_)
    (run,) = task_log.runs()
    assert run.state is RunState.FAILED
    assert {row.episode for row in task_log.tasks(run.id)} == {0}


def test_a_scheduler_that_fails_degrades_its_run_which_goes_on(task_log: TaskLog) -> None:
    run_id = record_run(PLAN, task_log, scheduler=f"{__name__}:Broken")
    run = task_log.run(run_id)
    assert run.state is RunState.DEGRADED
    assert {row.episode for row in task_log.tasks(run.id)} == set(range(PLAN.episodes))
    lost = sum(row.outcome is Outcome.LOST for row in task_log.tasks(run.id))
    (line,) = run.code_failures
    assert line.startswith(f"the scheduler failed at {lost} task")
    assert "episode 1" in line
    assert "RuntimeError: a defect, at " in line
    assert "test_record.py:" in line


def test_central_is_logged_like_any_other(task_log: TaskLog) -> None:
    run_id = record_run(PLAN, task_log, scheduler="central", episodes=1)
    assert {row.scheduler for row in task_log.tasks(run_id)} == {"central"}
