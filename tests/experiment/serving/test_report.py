"""Reports of serving runs: figures draw what the log says, and the page and its tables say it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from testbed.errors import UsageError
from testbed.experiment.report import write_report
from testbed.experiment.serving import figures
from testbed.experiment.serving.summary import ServingSummary
from testbed.experiment.summary import summary_of
from testbed.storage.tasklog import TaskLog
from tests.experiment.pages import check_files
from tests.experiment.serving.conftest import SECONDS
from tests.storage.logs import full_episode, log_run


def read(log: TaskLog, run: str) -> ServingSummary:
    found = summary_of(log, run)
    assert isinstance(found, ServingSummary)
    return found


def test_requests_over_time_are_those_of_the_log(log: TaskLog) -> None:
    run = read(log, "killed")
    counted = Counter(
        (row.at // 1_000_000, row.episode, row.source, row.outcome.value, row.server)
        for row in log.requests("killed")
    )
    assert {(window, *kind): number for (window, kind), number in run.over_time.items()} == counted
    of_windows = read(log, "windows")
    # An answer may come a window later than the request.
    assert sum(of_windows.over_time.values()) == run.count
    figure = figures.outcomes_over_time(run)
    assert [axes.get_title("left") for axes in figure.axes] == [
        "users of node 0",
        "users of node 1",
    ]
    # The top of the stack is all that came: 50 and 10 requests per second.
    for axes, rate in zip(figure.axes, (50, 10), strict=True):
        paths = [path for each in axes.collections for path in each.get_paths()]
        top = max(np.asarray(path.vertices)[:, 1].max() for path in paths)
        assert top == pytest.approx(rate)
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {
        *("served here", "served at peers", "no peer (503)", "over limit (429)"),
        *("unreachable (502)", "fault"),
    }


def test_lines_of_servers_are_rates_by_second(log: TaskLog) -> None:
    run = read(log, "slack")
    (first, second) = figures.servers_over_time(run).axes
    rows = [row for row in log.requests("slack") if row.source == 0]
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in first.get_lines()}
    assert set(lines) == {"at node 0", "at node 1", "at node 2", "refused"}
    for server in range(3):
        at_last = sum(
            row.server == server and row.at // 1_000_000 == SECONDS - 1 for row in rows
        ) / len(run.episodes)
        assert lines[f"at node {server}"][SECONDS - 1] == pytest.approx(at_last)
    total = sum(float(values[:SECONDS].sum()) for values in lines.values())
    assert total == pytest.approx(len(rows) / len(run.episodes))
    assert len(second.get_lines()) == 1


def test_a_report_of_serving_runs_has_all_its_parts(log: TaskLog, tmp_path: Path) -> None:
    written = write_report(log, ["slack", "local"], tmp_path / "r")
    assert set(written.figures) == {
        *("differences", "refused-rate", "outcomes", "servers", "outcomes-2", "servers-2"),
        *("load", "load-times", "nodes", "latency", "messages"),
    }
    assert all(path.stat().st_size > 5_000 for path in written.figures.values())
    page = written.path.read_text()
    for heading in (
        *("Requests refused", "Refused in parts", "Requests by outcome", "Who served them"),
        *("Times of served requests", "Messages", "Fidelity"),
    ):
        assert f">{heading}</h2>" in page
    assert 'name="viewport"' in page
    assert f"{2 * 4 * 60 * SECONDS} requests" in page
    assert "is better than" in page
    over_time = pd.read_csv(written.tables["over-time"])
    assert over_time.groupby("run")["requests"].sum().to_dict() == {
        "slack": 4 * 60 * SECONDS,
        "local": 4 * 60 * SECONDS,
    }
    times = pd.read_csv(written.tables["times"])
    assert times["served"].sum() == sum(
        row.outcome == "served" for run in ("slack", "local") for row in log.requests(run)
    )
    check_files(written.path)
    document = json.loads((tmp_path / "r" / "report.json").read_text())
    assert document["metric"]["name"] == "refused-rate"
    assert [run["model"] for run in document["runs"]] == ["serving", "serving"]


def test_a_report_by_another_metric_shows_the_share_refused_too(
    log: TaskLog, tmp_path: Path
) -> None:
    written = write_report(log, ["slack", "local"], tmp_path / "r", metric="latency-p99")
    page = written.path.read_text()
    assert ">99th percentile of the times of served requests</h2>" in page
    assert ">Requests refused</h2>" in page
    assert "metric" in written.figures


def test_a_report_of_windows_alone_has_no_times(log: TaskLog, tmp_path: Path) -> None:
    written = write_report(log, ["windows"], tmp_path / "r")
    assert not {"latency", "load-times", "function-times"} & set(written.figures)
    page = written.path.read_text()
    assert "no time of a request is known" in page
    assert ">Faults</h2>" in page


def test_a_report_does_not_mix_families(own_log: TaskLog, log: TaskLog, tmp_path: Path) -> None:
    log_run(own_log, *full_episode(), id="tasks")
    own_log.begin_run(log.run("slack").info)
    own_log.append_serving("slack", list(log.requests("slack", episode=0)))
    with pytest.raises(UsageError, match="no metric in common"):
        write_report(own_log, ["tasks", "slack"], tmp_path / "r")
    assert not (tmp_path / "r").exists()
