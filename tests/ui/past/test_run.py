"""What the page of a run shows is what the command line says of it."""

from __future__ import annotations

import pytest

from testbed.experiment.summary import summarise, summary_of
from testbed.experiment.timeline import MOST_TASKS
from testbed.model.spans import courses
from testbed.storage.tasklog import TaskLog
from testbed.testing.tasklog import sample_run
from testbed.ui.past.run import read, read_episode


def test_a_run_of_tasks(log: TaskLog) -> None:
    ratc = log.runs()[0]
    summary = summarise(log, ratc.id)

    found = read(log, ratc.id[:-2])

    assert found.run == ratc
    assert found.outcomes == summary.outcomes
    assert sum(sum(each.values()) for each in found.by_node.values()) == summary.count
    arrived = list(summary.columns["source"])
    assert {node: sum(each.values()) for node, each in found.by_node.items()} == {
        node: arrived.count(node) for node in range(found.size)
    }
    assert sum(found.flows.values()) == sum(to is not None for _, to in summary.decided)
    assert len(found.times) == summary.outcomes["succeeded"]
    assert sum(found.times) / len(found.times) == pytest.approx(
        float(summary.times.loc["total", "mean_ms"])  # type: ignore[arg-type]
    )
    assert found.score is not None
    assert found.score.by_episode == summary.by_episode
    assert found.worst == min(summary.by_episode, key=lambda each: summary.by_episode[each])
    facts = {fact.name: fact.text for fact in found.facts}
    assert facts["scheduler"] == "ratc"
    assert facts["tasks"].split()[0] == str(summary.count)
    assert {name for name, _ in found.metrics} >= {"success-rate", "latency"}


def test_a_serving_run(log: TaskLog) -> None:
    run = log.runs()[-1]
    summary = summary_of(log, run.id)

    found = read(log, run.id)

    assert found.work == "requests"
    assert found.outcomes == summary.outcomes
    assert sum(each["served"] for each in found.by_node.values()) == summary.outcomes["served"]
    assert sum(found.flows.values()) == summary.outcomes["served"]
    assert len(found.times) == summary.outcomes["served"]
    assert not found.timed


def test_a_run_without_results_says_why(tmp_path: object, log: TaskLog) -> None:
    from testbed.storage.tasklog import open_task_log

    with open_task_log(f"{tmp_path}/log.sqlite") as empty:
        empty.begin_run(sample_run(plan=log.runs()[0].info.plan))
        found = read(empty, "latest")

    assert "no finished task" in found.nothing
    assert {fact.name: fact.text for fact in found.facts}["state"] == "running"


def test_an_episode_has_a_time_line_and_its_failures(log: TaskLog) -> None:
    run = log.runs()[1]
    tasks = [row for row in log.tasks(run.id, episode=2) if row.outcome != "succeeded"]
    found = read_episode(log, run.id, 2)

    assert found.drawn == len(list(courses(log.records(run.id, episode=2)))) < MOST_TASKS
    assert '<div class="timeline"' in found.drawing
    assert found.lacking == len(tasks) > 0
    assert [line.task for line in found.tasks] == [row.task_id for row in tasks][:20]
    assert all(line.why for line in found.tasks)
