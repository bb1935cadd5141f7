"""Commands and Python show serving runs, beside runs of tasks in the same log."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet
import pytest

import testbed as tb
from testbed.storage.tasklog import open_task_log
from tests.cli.conftest import Command
from tests.experiment.serving.conftest import SECONDS
from tests.storage.logs import full_episode, log_run

ALL = 4 * 60 * SECONDS


@pytest.fixture
def mixed(tmp_path: Path, serving_log: Path) -> Path:
    path = tmp_path / "mixed.db"
    with open_task_log(serving_log, create=False) as source, open_task_log(path) as log:
        log_run(log, *full_episode(), id="tasks")
        log.begin_run(source.run("slack").info)
        log.append_serving("slack", list(source.requests("slack")), list(source.windows("slack")))
    return path


def test_runs_of_both_families_are_listed(mixed: Path, testbed: Command) -> None:
    shown = testbed("runs", "list", "--storage", mixed)
    (head, tasks, serving) = shown.out.splitlines()[:3]
    assert "TASKS OR REQUESTS" in head
    assert "6 tasks" in tasks
    assert f"{ALL} requests" in serving
    found = testbed("runs", "list", "--storage", mixed, "--json").document
    assert [each["model"] for each in found] == ["tasks", "serving"]
    assert found[0]["tasks"] == 6
    assert found[1]["requests"] == ALL
    assert 0 < found[1]["served_rate"] < 1
    table = tb.open_log(mixed).runs().table
    assert table["tasks"].tolist() == [6, ALL]
    refused = testbed("compare", "slack", "tasks", "--storage", mixed)
    assert refused.code == 2
    assert "no metric in common" in refused.err


def test_only_requests_are_heads_of_serving_runs(serving_log: Path, testbed: Command) -> None:
    shown = testbed("runs", "list", "--storage", serving_log)
    assert " REQUESTS " in shown.out.splitlines()[0]
    assert "TASKS" not in shown.out


def test_one_run_is_shown(serving_log: Path, testbed: Command) -> None:
    shown = testbed("runs", "show", "killed", "--storage", serving_log)
    for said in ("refused-rate", "over limit", "UNREACHABLE", "AT NODE 2", "P99", "message-bytes"):
        assert said in shown.out
    found = testbed("runs", "show", "killed", "--storage", serving_log, "--json").document
    assert found["requests"] == 2 * 60 * SECONDS
    assert found["score"]["mean"] == found["metrics"]["refused-rate"]["mean"]
    assert set(found["metrics"]) == set(tb.open_log(serving_log).run("killed").metrics.index)
    windows = testbed("runs", "show", "windows", "--storage", serving_log)
    assert "TIMES OF SERVED" not in windows.out


def test_runs_are_compared_by_what_serving_runs_have(serving_log: Path, testbed: Command) -> None:
    shown = testbed("compare", "slack", "local", "--storage", serving_log)
    assert shown.code == 0
    assert "REFUSED-RATE" in shown.out.splitlines()[0]
    by = testbed(
        "compare", "slack", "local", "--by", "messages", "--storage", serving_log, "--json"
    )
    assert by.document["metric"]["name"] == "messages"
    unknown = testbed("compare", "slack", "local", "--by", "nothing", "--storage", serving_log)
    assert (unknown.code, "served-rate" in unknown.err) == (2, True)
    # Without names: of each scheduler the latest run on the scenario of the latest run.
    alone = testbed("compare", "--storage", serving_log)
    assert "only slack (windows) of the latest scenario" in alone.err


def test_an_export_has_the_tables_of_its_runs(
    mixed: Path, testbed: Command, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found = testbed("export", "slack", "--storage", mixed, "--out", out, "--json").document
    assert set(found["tables"]) == {"requests", "windows", "routings"}
    assert found["tables"]["requests"]["rows"] == ALL
    assert found["runs"][0]["outcomes"]["served"] > 0
    assert set(found["files"]) == {
        f"{table}.{ending}"
        for table in ("requests", "windows", "routings")
        for ending in ("csv", "jsonl", "parquet")
    }
    requests = pyarrow.parquet.read_table(out / "requests.parquet").to_pylist()
    with open_task_log(mixed, create=False) as log:
        assert [tuple(row.values())[1:] for row in requests] == list(log.requests("slack"))
        first = next(log.windows("slack"))
    window = json.loads((out / "windows.jsonl").read_text().splitlines()[0])
    assert (window["node"], tuple(window["counts"])) == (first.node, first.counts)
    both = testbed(
        "export", "slack", "tasks", "--storage", mixed, "--out", tmp_path / "b", "--json"
    )
    tables = {*found["tables"], "tasks", "events", "decisions", "messages"}
    assert set(both.document["tables"]) == tables
    trace = testbed(
        *("export", "slack", "tasks", "--storage", mixed, "--out", tmp_path / "c"),
        *("--format", "trace", "--json"),
    )
    assert set(trace.document["traces"]) == {"slack", "tasks"}
    assert set(trace.document["files"]) == {"trace-slack.json", "trace-tasks.json"}


def test_python_reads_serving_runs(serving_log: Path) -> None:
    runs = tb.open_log(serving_log).runs()
    result = tb.open_log(serving_log).run("slack")
    assert 0 < result.score < 1
    assert len(result.requests) == ALL
    assert result.outcomes["served"] == (result.requests["outcome"] == "served").sum()
    assert "refused-rate" in repr(result)
    assert "served at peers" in result._repr_html_()
    for name in ("refused", "outcomes", "servers", "latency", "messages", "metric", None):
        assert result.figure(name).axes
    with pytest.raises(tb.UsageError, match="one of refused, outcomes, servers"):
        result.figure("queues")
    for what in ("success_rate", "tasks", "events", "plan"):
        with pytest.raises(tb.UsageError, match="has no"):
            getattr(result, what)
    compared = runs[:2].compare()
    assert compared.table["requests"].tolist() == [ALL, ALL]
    assert list(compared.by("forwarded").table["forwarded"]) == [
        compared["slack"].metrics["mean"]["forwarded"],
        compared["all-local"].metrics["mean"]["forwarded"],
    ]
    assert compared.figure().axes
    assert set(runs.requests()["run"]) == {"slack", "local", "killed"}
