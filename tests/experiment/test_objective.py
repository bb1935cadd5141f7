"""Runs are scored and compared by the objective of their scenario."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.api.planning import check_objective
from testbed.errors import UsageError
from testbed.experiment import metrics
from testbed.experiment.comparison import compare_runs, compare_summaries
from testbed.experiment.report import write_report
from testbed.experiment.summary import summarise
from testbed.scenario.load import dumps, load
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan
from testbed.sim.record import record_run
from testbed.storage.tasklog import TaskLog, open_task_log

SHORT = ("slots.count=12",)
USUAL = plan(load("quickstart", SHORT))
BY_LATENCY = plan(load("quickstart", [*SHORT, "objective=latency"]))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TaskLog]:
    with open_task_log(str(tmp_path_factory.mktemp("log") / "log.sqlite")) as opened:
        for scheduler in ("ratc", "local"):
            for name, drawn in (("usual", USUAL), ("quick", BY_LATENCY)):
                record_run(
                    drawn, opened, scheduler=scheduler, episodes=4, run_id=f"{name}-{scheduler}"
                )
        yield opened


def test_it_is_no_part_of_what_is_emulated() -> None:
    assert BY_LATENCY.scenario_hash == USUAL.scenario_hash
    assert "objective" not in json.loads(USUAL.to_json())
    assert "objective" not in dumps(load("quickstart"))
    assert "objective: latency" in dumps(load("quickstart", ["objective=latency"]))
    assert json.loads(BY_LATENCY.to_json())["objective"] == "latency"
    assert Plan.from_json(BY_LATENCY.to_json()) == BY_LATENCY


def test_a_run_is_scored_by_it(log: TaskLog) -> None:
    usual, quick = summarise(log, "usual-ratc"), summarise(log, "quick-ratc")
    assert usual.objective is metrics.SUCCESS_RATE
    assert usual.score.interval == usual.success_rate
    assert usual.document["score"] == usual.document["success_rate"]
    assert quick.objective is metrics.LATENCY
    assert quick.document["objective"] == "latency"
    assert quick.document["score"] == quick.measured(metrics.LATENCY).document
    assert quick.document["success_rate"] == usual.document["success_rate"]


def test_runs_are_compared_by_it_unless_a_metric_is_named(log: TaskLog, tmp_path: Path) -> None:
    ids = ["quick-ratc", "quick-local"]
    compared = compare_runs(log, ids)
    assert compared.metric is metrics.LATENCY
    assert compared.document == compare_runs(log, ids, metrics.LATENCY).document
    by_success = compare_runs(log, ids, metrics.SUCCESS_RATE)
    assert by_success.document["metric"]["name"] == "success-rate"
    report = write_report(log, ids, tmp_path / "report")
    assert report.document["metric"]["name"] == "latency"
    assert "metric" in report.figures


def test_runs_with_different_objectives_need_a_metric(log: TaskLog) -> None:
    runs = [summarise(log, "usual-ratc"), summarise(log, "quick-local")]
    with pytest.raises(UsageError, match="different objectives: success-rate, latency; name the"):
        compare_summaries(runs)
    assert compare_summaries(runs, metrics.LATENCY).metric is metrics.LATENCY


def test_an_objective_that_nobody_knows_is_refused_before_a_run(log: TaskLog) -> None:
    strange = dataclasses.replace(USUAL, objective="speed")
    with pytest.raises(UsageError) as refused:
        check_objective(strange)
    assert "the objective of scenario quickstart cannot be used" in str(refused.value)
    assert "unknown metric 'speed'; known: success-rate" in str(refused.value)
    # A run of another installation, with a metric of its own, can be shown all the same.
    record_run(strange, log, scheduler="local", episodes=1, run_id="strange")
    document = summarise(log, "strange").document
    assert (document["objective"], document["score"]) == ("speed", None)
    assert document["success_rate"]["mean"] is not None
