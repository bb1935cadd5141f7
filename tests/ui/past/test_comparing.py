"""The comparison on the page has the figures of ``testbed compare``."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.errors import UsageError
from testbed.experiment.comparison import compare_runs
from testbed.experiment.summary import summary_of
from testbed.storage.tasklog import TaskLog
from testbed.ui.palette import LIGHT
from testbed.ui.past import charts, comparing


def test_runs_are_compared_as_on_the_command_line(log: TaskLog) -> None:
    ids = [run.id for run in log.runs()[:3]]
    expected = compare_runs(log, ids)

    found = comparing.read(log, ids, None)

    assert found.comparison is not None
    assert found.comparison.document == expected.document
    assert [name for name, _ in found.measured] == [run.title for run in expected.runs]
    options = charts.differences(found.comparison.pairs, found.titles, LIGHT)
    assert len(options["yAxis"]["data"]) == 3
    means = [each["data"][0][0] for each in options["series"] if each["type"] == "scatter"]
    assert means == [
        pytest.approx(100 * pair.comparison.difference.mean, abs=1e-3) for pair in expected.pairs
    ]
    whiskers = [each["data"] for each in options["series"] if each["type"] == "line"]
    for drawn, pair in zip(whiskers, expected.pairs, strict=True):
        low, high = (point[0] for point in drawn)
        assert low == pytest.approx(100 * pair.comparison.difference.low, abs=1e-3)
        assert high == pytest.approx(100 * pair.comparison.difference.high, abs=1e-3)


def test_runs_are_compared_by_another_metric(log: TaskLog) -> None:
    ids = [run.id for run in log.runs()[:2]]

    found = comparing.read(log, ids, "latency")

    assert found.metric.name == "latency"
    assert "latency" in found.metrics
    with pytest.raises(UsageError, match="unknown metric"):
        comparing.read(log, ids, "beauty")


def test_a_run_alone_and_runs_of_different_families(log: TaskLog) -> None:
    runs = [run.id for run in log.runs()]

    alone = comparing.read(log, runs[:1], None)

    assert (alone.comparison, alone.problem) == (None, "")
    with pytest.raises(UsageError, match="no metric in common"):
        comparing.read(log, [runs[0], runs[-1]], None)


def test_runs_of_one_title_are_told_from_each_other(log: TaskLog) -> None:
    summary, other = (summary_of(log, run.id) for run in log.runs()[:2])
    again = replace(summary, run=replace(summary.run, info=replace(summary.run.info, id="again")))
    titles = comparing.titles_of([summary, again, other])

    assert titles[summary.run.id] == f"ratc [{summary.run.id}]"
    assert titles["again"] == "ratc [again]"
    assert titles[other.run.id] == "local"


def test_the_like_of_a_run_are_the_latest_of_each_scheduler(log: TaskLog) -> None:
    runs = log.runs()

    found = comparing.like(runs, runs[1].id)

    assert found == tuple(sorted(run.id for run in runs[:3]))
    assert [run.id for run in comparing.comparable(runs, runs[-1].id)] == [runs[-1].id]
    assert comparing.like(runs, "nobody") == ()
