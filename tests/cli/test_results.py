"""``sim``, and what can be asked of its runs: ``runs``, ``compare``, ``report``, ``export``."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from testbed.cli import main
from tests.cli.conftest import Command


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task log with runs of two schedulers on the same tasks, and one on others."""
    log = tmp_path_factory.mktemp("log") / "tasklog.sqlite"
    common = ["sim", "quickstart", "--storage", str(log), "--quiet"]
    first = [*common, "-s", "local", "-e", "2", "--label", "other", "--set", "seeds.workload=9"]
    second = [*common, "-s", "ratc", "-s", "rda", "-e", "5"]
    assert main.run(first) == 0
    assert main.run(second) == 0
    return log


@pytest.fixture
def log(simulated: Path, home: Path) -> Path:
    """The same as the home's task log, to do with as one likes."""
    home.mkdir()
    return Path(shutil.copy(simulated, home / "tasklog.sqlite"))


def test_sim_prints_a_row_per_scheduler_and_a_verdict(testbed: Command) -> None:
    said = testbed("sim", "quickstart", "-s", "ratc", "-s", "local", "-e", "5")

    assert said.code == 0
    lines = said.out.splitlines()
    assert lines[0].split()[:2] == ["RUN", "SCHEDULER"]
    assert {line.split()[1] for line in lines[1:3]} == {"ratc", "local"}
    assert "ratc is better than local by" in said.out
    assert "episode 5/5" in said.err
    assert "next: testbed report" in said.err


def test_two_episodes_have_no_interval_worth_showing(testbed: Command) -> None:
    said = testbed("sim", "quickstart", "-e", "2")

    assert said.code == 0
    assert "±" not in said.out + said.err
    assert "±" in testbed("sim", "quickstart", "-e", "3").out


def test_sim_as_json(testbed: Command) -> None:
    said = testbed("sim", "quickstart", "-e", "2", "--first-episode", "3", "--json")

    run = said.document["runs"][0]
    assert run["scheduler"] == "ratc"
    assert run["driver"] == "simulator"
    assert list(run["success_rate"]["by_episode"]) == ["3", "4"]
    assert said.document["comparison"] is None


@pytest.mark.parametrize(
    "wrong",
    [
        ["-s", "local", "-s", "nope"],
        ["-s", "local", "--option", "unknown=1"],
        ["--option", "noequals"],
        ["--set", "nodes.count=many"],
        ["--episodes", "0"],
    ],
)
def test_sim_that_cannot_begin_writes_no_log(
    testbed: Command, home: Path, wrong: list[str]
) -> None:
    said = testbed("sim", "quickstart", *wrong)

    assert said.code == 2
    assert not home.exists()


@pytest.mark.parametrize("label", ["x" * 256, "two\nlines", "\x1b[2J", "\u2028"])
def test_a_label_that_no_table_can_show_is_refused(testbed: Command, log: Path, label: str) -> None:
    before = testbed("runs", "list", "--json").document

    said = testbed("sim", "quickstart", "-s", "local", "-e", "1", "--label", label)

    assert said.code == 2
    assert "label: " in said.err
    assert label not in said.err
    assert testbed("runs", "list", "--json").document == before


def test_a_label_may_be_in_any_language(testbed: Command, log: Path) -> None:
    label = "Versuch № 3 😀 " + "ü" * 200

    assert testbed("sim", "quickstart", "-s", "local", "-e", "1", "--label", label).code == 0
    assert testbed("runs", "list", "--json").document[-1]["label"] == label


def test_runs_list(testbed: Command, log: Path) -> None:
    runs = testbed("runs", "list", "--json").document

    assert [each["scheduler"] for each in runs] == ["local", "ratc", "rda"]
    assert runs[0]["label"] == "other"
    assert all(0 < each["success_rate"] < 1 for each in runs)
    said = testbed("runs", "list", "--limit", "1")
    assert runs[2]["run"] in said.out
    assert runs[1]["run"] not in said.out
    assert "2 earlier" in said.err


def test_runs_show(testbed: Command, log: Path) -> None:
    latest = testbed("runs", "show", "--json").document

    assert latest["scheduler"] == "rda"
    assert latest["seeds"]["workload"] == 1
    assert sum(latest["outcomes"].values()) == latest["tasks"]
    said = testbed("runs", "show", latest["run"])
    assert latest["run"] in said.out
    assert "95 % interval" in said.out


def test_a_run_can_be_repeated_from_its_scenario(
    testbed: Command, log: Path, tmp_path: Path
) -> None:
    first = testbed("runs", "list", "--json").document[0]
    path = tmp_path / "again.yaml"

    path.write_text(testbed("runs", "show", first["run"], "--scenario").out)
    again = testbed("sim", path, "-s", "local", "-e", "2", "--json").document["runs"][0]

    assert again["scenario_hash"] == first["scenario_hash"]
    assert again["tasks"] == first["tasks"]


def test_compare_takes_the_latest_runs_that_met_the_same_tasks(testbed: Command, log: Path) -> None:
    said = testbed("compare")
    document = testbed("compare", "--json").document

    assert said.code == 0
    assert {each["scheduler"] for each in document["runs"]} == {"ratc", "rda"}
    assert document["pairs"][0]["verdict"] in said.out


def test_a_run_whose_scheduler_was_changed_is_a_run_of_none(testbed: Command, log: Path) -> None:
    latest = testbed("runs", "list", "--json").document[-1]
    change = {"accepted": True, "scheduler": "local", "nodes": [0], "episode": 1, "slot": 2}
    with closing(sqlite3.connect(log)) as database, database:
        database.execute(
            "UPDATE runs SET certificate = ? WHERE id = ?",
            (
                json.dumps({"scheduler_changes": [change, {**change, "accepted": False}]}),
                latest["run"],
            ),
        )

    by_itself = testbed("compare")
    named = testbed(
        "compare", *[each["run"] for each in testbed("runs", "list", "--json").document[1:]]
    )

    assert by_itself.code == 2, "only one run is left"
    assert named.code == 0
    assert f"{latest['scheduler']} then local" in named.out
    assert "episode 1, slot 2: local on nodes 0" in testbed("runs", "show").out


def test_compare_of_runs_that_met_different_tasks(testbed: Command, log: Path) -> None:
    runs = [each["run"] for each in testbed("runs", "list", "--json").document]

    said = testbed("compare", runs[0], runs[1])

    assert said.code == 2
    assert "cannot be compared" in said.err


def test_compare_needs_two(testbed: Command) -> None:
    testbed("sim", "quickstart", "-e", "1")

    said = testbed("compare")

    assert said.code == 2
    assert "run another scheduler" in said.err


def test_report(testbed: Command, log: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"

    said = testbed("report", "--out", out)

    assert said.code == 0, said.err
    assert said.out.strip() == str(out / "index.html")
    assert "ratc" in (out / "index.html").read_text()
    assert len(pd.read_csv(out / "tables" / "summary.csv")) == 2


def test_report_does_not_replace_other_files(testbed: Command, log: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")

    said = testbed("report", "--out", tmp_path)

    assert said.code == 2
    assert (tmp_path / "mine.txt").exists()


def test_export(testbed: Command, log: Path, tmp_path: Path) -> None:
    out = tmp_path / "export"

    said = testbed("export", "--out", out, "--format", "csv", "--format", "parquet")

    assert said.code == 0, said.err
    tasks = testbed("runs", "show", "--json").document["tasks"]
    assert len(pd.read_csv(out / "tasks.csv")) == tasks
    assert len(pd.read_parquet(out / "tasks.parquet")) == tasks
    messages = testbed("runs", "show", "--json").document["messages"]
    for written in (pd.read_csv(out / "messages.csv"), pd.read_parquet(out / "messages.parquet")):
        assert written["asked"].sum() == messages["questions"]
        assert written["heard_bytes"].sum() == messages["answer_bytes"]
    assert not (out / "tasks.jsonl").exists()
    assert testbed("export", "--out", out).code == 2
    assert testbed("export", "--out", out, "--force").code == 0


def test_export_refuses_what_it_does_not_know(testbed: Command, log: Path, tmp_path: Path) -> None:
    said = testbed("export", "--out", tmp_path / "new", "--format", "xml", "--table", "nodes")

    assert said.code == 2
    assert "'xml'" in said.err
    assert "'nodes'" in said.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "command", [["runs", "list"], ["runs", "show"], ["compare"], ["report"], ["export"]]
)
def test_without_a_task_log(testbed: Command, home: Path, command: list[str]) -> None:
    said = testbed(*command)

    assert said.code == 3
    assert "testbed sim" in said.err
    assert not home.exists()


@pytest.mark.parametrize("command", [["runs", "list"], ["compare"], ["sim", "quickstart"]])
def test_a_damaged_task_log(testbed: Command, log: Path, command: list[str]) -> None:
    log.write_bytes(b"SQLite format 3\0" + b"\0" * 4000)

    said = testbed(*command)

    assert said.code == 5
    assert str(log) in said.err
    assert "Traceback" not in said.err


def test_an_unknown_run_names_the_known(testbed: Command, log: Path) -> None:
    said = testbed("runs", "show", "20000101")

    assert said.code == 2
    assert testbed("runs", "list", "--json").document[-1]["run"] in said.err


def test_the_storage_asked_for_goes_before_the_home(
    testbed: Command, simulated: Path, home: Path
) -> None:
    said = testbed("compare", "--storage", simulated)

    assert said.code == 0
    assert f"--storage {simulated}" in said.err
    assert not home.exists()


@pytest.fixture
def shared(log: Path) -> list[str]:
    """Ids of runs that several shells have made: on testbed mine, on yours, one still going on."""
    with closing(sqlite3.connect(log)) as database:
        ids = [row[0] for row in database.execute("SELECT id FROM runs ORDER BY key")]
        for run, testbed, state in zip(
            ids, ("mine", "yours", "yours"), ("completed", "completed", "running"), strict=True
        ):
            database.execute(
                "UPDATE runs SET driver = 'network', state = ?, "
                "versions = json_set(versions, '$.testbed', ?) WHERE id = ?",
                (state, testbed, run),
            )
        database.commit()
    return ids


def test_latest_says_which_run_it_is(testbed: Command, shared: list[str]) -> None:
    said = testbed("runs", "show", "latest")

    assert said.code == 0
    assert f"latest: run {shared[2]} (rda, quickstart, testbed 'yours', started" in said.err
    assert "seconds ago, running)" in said.err
    assert "latest:" not in testbed("runs", "show", shared[2]).err
    assert said.out.split("testbed")[1].split()[0] == "yours"


@pytest.mark.parametrize(
    "command",
    [
        ("runs", "show"),
        ("tasks",),
        ("export", "--out", "x", "--format", "csv"),
        ("report", "--out", "y"),
    ],
)
def test_latest_is_of_the_testbed_that_is_named(
    testbed: Command, shared: list[str], command: tuple[str, ...]
) -> None:
    said = testbed(*command, "--name", "mine")

    assert said.code == 0
    assert f"latest: run {shared[0]} (local, quickstart, testbed 'mine'" in said.err


def test_latest_is_no_run_in_progress_where_that_makes_no_sense(
    testbed: Command, shared: list[str], tmp_path: Path
) -> None:
    said = testbed("export", "latest", "--out", tmp_path / "out", "--format", "csv", "--json")

    assert said.code == 0
    assert [run["id"] for run in said.document["runs"]] == [shared[1]]
    assert f"latest: run {shared[1]} (ratc" in said.err
    assert f"; {shared[2]} is still running" in said.err


def test_latest_of_a_testbed_without_runs_is_that_of_the_log(
    testbed: Command, shared: list[str]
) -> None:
    said = testbed("tasks", "-n", "nobody")

    assert said.code == 0
    assert f"latest: run {shared[2]}" in said.err
    assert "no run of testbed 'nobody' is in this log" in said.err
