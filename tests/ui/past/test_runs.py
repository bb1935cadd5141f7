"""The list of runs: rows, filters in addresses, and the commands that list the same."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest

from testbed.api.filters import Filter
from testbed.cli import main
from testbed.model.task import Outcome
from testbed.storage.tasklog import TaskLog
from testbed.ui.context import Settings
from testbed.ui.past import commands
from testbed.ui.past.runs import Choices, filter_of, listed, runs_of
from testbed.ui.past.runs_page import _LABELS
from tests.ui.past.conftest import EPISODES


def settings(home: Path) -> Settings:
    return Settings("default", str(home / "tasklog.sqlite"), str(home / "artifacts"), home / "sets")


def test_runs_are_listed_the_latest_first(log: TaskLog) -> None:
    found = listed(log, Filter())

    assert [row.scheduler for row in found.rows[-3:]] == ["rda", "local", "ratc"]
    assert (found.found, found.total) == (len(log.runs()), len(log.runs()))
    row = found.rows[-1]
    assert (row.scenario, row.state, row.episodes, row.work) == (
        "quickstart",
        "completed",
        EPISODES,
        "tasks",
    )
    outcomes = log.outcomes(row.run)
    assert row.pieces == sum(outcomes.values())
    assert row.success == f"{100 * outcomes[Outcome.SUCCEEDED] / row.pieces:.1f} %"
    assert found.rows[0].work == "requests"


def test_a_part_of_what_a_filter_finds_is_listed(log: TaskLog) -> None:
    found = listed(log, Filter(scenario="quickstart"), limit=2)

    assert [row.scheduler for row in found.rows] == ["rda", "local"]
    assert found.found == 3
    assert found.total == len(log.runs())
    # What else can be asked for does not shrink with what was.
    assert set(found.choices.scheduler) >= {"local", "ratc", "rda"}
    assert found.choices.state == ("completed",)


def test_addresses_hold_filters() -> None:
    assert filter_of(
        {"scheduler": "ratc", "search": "", "since": "2026-01-31", "x": "y"}
    ) == Filter(scheduler="ratc", since="2026-01-31")
    # An address that somebody has changed by hand is no reason to show nothing.
    assert filter_of({"scheduler": "ratc", "state": "over", "until": "soon"}) == Filter(
        scheduler="ratc"
    )
    assert runs_of({"runs": "b, a,,b"}) == ("b", "a")
    assert runs_of({}) == ()


def test_the_page_has_an_input_for_each_part_of_a_filter() -> None:
    names = {field.name for field in dataclasses.fields(Filter)}

    assert set(_LABELS) == names
    assert {field.name for field in dataclasses.fields(Choices)} <= names


def test_the_command_lists_the_same_runs(
    past: Path,
    log: TaskLog,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TESTBED_HOME", str(past))
    only = Filter(scheduler="rda", label="second try", search="QUICK", since="2020-01-01")

    line = shlex.split(commands.listing(settings(past), only, 50))

    assert main.run([*line[1:], "--quiet"]) == 0
    said = capsys.readouterr().out
    (row,) = listed(log, only).rows
    assert row.run in said
    assert len(said.splitlines()) == 2


def test_commands_name_the_log_only_where_it_is_another(
    past: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESTBED_HOME", str(past))
    monkeypatch.delenv("TESTBED_ARTIFACTS", raising=False)
    usual = settings(past)
    assert commands.on_log(usual, "runs", "show", "a b") == "testbed runs show 'a b'"
    assert commands.on_store(usual, "policy", "list") == "testbed policy list"
    elsewhere = dataclasses.replace(usual, options="--home /x")
    assert commands.plain(elsewhere, "ps") == "testbed ps --home /x"
    other = dataclasses.replace(
        usual, task_log="mysql+pymysql://me:secret@host/log", artifacts="/elsewhere"
    )
    assert "secret" not in commands.on_log(other, "runs", "list")
    assert "--storage mysql+pymysql://me@host/log" in commands.on_log(other, "runs", "list")
    assert commands.on_store(other, "policy", "list").endswith("--artifacts /elsewhere")
