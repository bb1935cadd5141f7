"""Runs named by what they are, and schedulers with options of their own."""

from __future__ import annotations

import io
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from testbed.api.filters import Filter
from testbed.cli import main
from testbed.cli.options import scheduler_of
from testbed.errors import UsageError
from tests.cli.conftest import Command

OWN = """
from testbed.model.decision import Decision

class Own:
    name = "own"
    OPTIONS = {"peers": "a number"}

    def __init__(self, context, peers=1):
        self.node, self.peers = context.node, peers

    def decide(self, observation):
        return Decision((self.node + self.peers) % 5)
"""


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task log with runs of ratc, local and ratc with a label."""
    log = tmp_path_factory.mktemp("log") / "tasklog.sqlite"
    run = ["sim", "quickstart", "-e", "2", "--set", "slots.count=5", "--storage", str(log)]
    assert main.run([*run, "--quiet", "-s", "ratc", "-s", "local"]) == 0
    assert main.run([*run, "--quiet", "-s", "ratc", "--label", "second try"]) == 0
    return log


@pytest.fixture
def log(simulated: Path, home: Path) -> Path:
    """The same as the home's task log."""
    home.mkdir()
    return Path(shutil.copy(simulated, home / "tasklog.sqlite"))


def test_a_list_of_runs_shows_only_what_was_asked_for(testbed: Command, log: Path) -> None:
    def listed(*options: str) -> list[tuple[str, str]]:
        found = testbed("runs", "list", "--json", *options).document
        return [(each["scheduler"], each["label"]) for each in found]

    assert listed() == [("ratc", ""), ("local", ""), ("ratc", "second try")]
    assert listed("-s", "local") == [("local", "")]
    assert listed("--label", "try") == [("ratc", "second try")]
    assert listed("--state", "completed", "--scheduler", "ratc", "--limit", "1") == [
        ("ratc", "second try")
    ]
    assert listed("--scenario", "quickstart", "--testbed", "nowhere") == []
    assert "no run with testbed nowhere" in testbed("runs", "list", "--testbed", "nowhere").err
    assert testbed("runs", "list", "--state", "over").code == 2


def test_runs_are_found_by_what_was_said_of_them(testbed: Command, log: Path) -> None:
    runs = [each["run"] for each in testbed("runs", "list", "--json").document]

    def listed(*options: str) -> list[str]:
        return [each["run"] for each in testbed("runs", "list", "--json", *options).document]

    assert testbed("runs", "tag", runs[0], "paper", "final", "--json").document == {
        "run": runs[0],
        "tags": ["final", "paper"],
    }
    assert testbed("runs", "tag", runs[1], "paper").out == "paper\n"
    assert listed("--tag", "paper") == runs[:2]
    assert listed("--tag", "pap") == []
    assert "final, paper" in testbed("runs", "list").out
    assert "tags" in testbed("runs", "show", runs[0]).out
    assert testbed("runs", "tag", runs[1], "paper", "--remove").out == "no tags\n"
    assert listed("--tag", "paper") == runs[:1]

    assert testbed("runs", "note", runs[2]).out == "no note\n"
    testbed("runs", "note", runs[2], "Slower than RDA.\nAsk why.")
    assert testbed("runs", "note", runs[2]).out == "Slower than RDA.\nAsk why.\n"
    assert testbed("runs", "show", runs[2], "--json").document["note"].endswith("Ask why.")
    assert "Ask why." in testbed("runs", "show", runs[2]).out
    assert listed("--search", "slower THAN") == runs[2:]
    assert listed("--search", "FINAL") == runs[:1]
    assert testbed("runs", "show", "latest:tag=paper", "--json").document["run"] == runs[0]
    said = testbed("runs", "tag", runs[0], "two words")
    assert said.code == 2
    assert "without spaces" in said.err


def test_runs_are_found_by_when_they_began(testbed: Command, log: Path) -> None:
    with closing(sqlite3.connect(log)) as connection, connection:
        for key, day in enumerate(("2026-01-30", "2026-01-31", "2026-02-01"), 1):
            connection.execute(
                "UPDATE runs SET started = ? WHERE key = ?", (f"{day}T12:00:00.000+00:00", key)
            )

    def listed(*options: str) -> list[str]:
        found = testbed("runs", "list", "--json", *options).document
        return [each["started"][:10] for each in found]

    assert listed("--since", "2026-01-31") == ["2026-01-31", "2026-02-01"]
    assert listed("--until", "2026-01-31") == ["2026-01-30", "2026-01-31"]
    assert listed("--since", "2026-01-31T12:00", "--until", "2026-02-01T11:59") == ["2026-01-31"]
    assert listed("--since", "2026-01-31T14:00+01:00", "--until", "9999-12-31") == ["2026-02-01"]
    said = testbed("runs", "list", "--since", "yesterday")
    assert said.code == 2
    assert "since: 'yesterday'" in said.err


def test_deleted_runs_are_gone(
    testbed: Command, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [each["run"] for each in testbed("runs", "list", "--json").document]

    def left() -> list[str]:
        return [each["run"] for each in testbed("runs", "list", "--json").document]

    said = testbed("runs", "delete", runs[0])
    assert said.code == 2
    assert "--yes" in said.err
    for answer, kept in (("n", runs), ("y", runs[1:])):
        terminal = io.StringIO(f"{answer}\n")
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        monkeypatch.setattr("sys.stdin", terminal)
        said = testbed("runs", "delete", runs[0])
        assert runs[0] in said.err
        assert left() == kept
    assert testbed("runs", "delete", "--yes", runs[1], runs[2], runs[2], "--json").document == {
        "deleted": runs[1:]
    }
    assert left() == []


def test_the_latest_of_what_was_asked_for(testbed: Command, log: Path) -> None:
    runs = [each["run"] for each in testbed("runs", "list", "--json").document]

    def latest(wanted: str) -> str:
        return str(testbed("runs", "show", f"latest:{wanted}", "--json").document["run"])

    assert latest("local") == runs[1]
    assert latest("ratc") == runs[2]
    assert latest("scheduler=ratc,state=completed,label=second") == runs[2]
    compared = testbed("compare", "latest:local", "latest:ratc", "--json").document
    assert {run["run"] for run in compared["runs"]} == {runs[1], runs[2]}
    said = testbed("runs", "show", "latest:rda")
    assert said.code == 2
    assert "no run with scheduler rda" in said.err


@pytest.mark.parametrize("wanted", ["", "nosuch=1", "ratc,scheduler=rda", "state="])
def test_a_filter_that_cannot_be_read_says_how_it_is_written(wanted: str) -> None:
    with pytest.raises(UsageError, match="latest:scheduler=ratc,state=completed"):
        Filter.of(wanted)


def test_a_scheduler_is_named_with_its_options() -> None:
    spec, told = scheduler_of(
        "mine:Mine,peers=2,sizes=[1, 2],text='a,b',deep={a: 1, b: [2]}", {"peers": 1, "more": 3}
    )
    assert spec.name == "mine:Mine"
    assert spec.options == {
        "peers": 2,
        "more": 3,
        "sizes": [1, 2],
        "text": "a,b",
        "deep": {"a": 1, "b": [2]},
    }
    assert told == "peers=2, sizes=[1, 2], text='a,b', deep={a: 1, b: [2]}"
    assert scheduler_of("ratc")[1] == ""
    with pytest.raises(UsageError, match="KEY=VALUE"):
        scheduler_of("ratc,peers")


def test_one_command_compares_an_own_scheduler_with_different_options(
    testbed: Command, home: Path
) -> None:
    Path("own.py").write_text(OWN)
    said = testbed(
        *("sim", "quickstart", "-e", "4", "--set", "slots.count=5"),
        *("-s", "ratc", "-s", "own:Own,peers=1", "-s", "own:Own,peers=2"),
    )

    assert said.code == 0, said.err
    assert "own:Own (peers=1)" in said.out
    assert "own:Own (peers=2)" in said.out
    options = [
        each["label"]
        for each in testbed("runs", "list", "--scheduler", "own:Own", "--json").document
    ]
    assert options == ["peers=1", "peers=2"]


def test_a_file_that_is_no_scenario_is_not_written(testbed: Command, home: Path) -> None:
    said = testbed("init", "foo.txt")

    assert said.code == 2
    assert "foo.yaml" in said.err
    assert not Path("foo.txt").exists()


def test_hints_can_be_pasted(testbed: Command, home: Path) -> None:
    assert "testbed up 'my folder/a.yaml'" in testbed("init", "my folder/a.yaml").err
    run = ("sim", "my folder/a.yaml", "-s", "local", "-e", "1", "--set", "slots.count=3")
    assert "testbed up 'my folder/a.yaml'" in testbed(*run, "--storage", "a log.db").err
    assert "ls 'an export'" in testbed("export", "--storage", "a log.db", "--out", "an export").err


def test_one_node_is_no_nodes(testbed: Command, home: Path) -> None:
    said = testbed(
        "scenario", "validate", "quickstart", "--set", "nodes.count=1", "--set", "episodes=1"
    )

    assert "1 node, 1 episode of 40 slots" in said.out


def test_a_home_that_is_a_file_is_named(testbed: Command, home: Path) -> None:
    Path("afile").touch()

    said = testbed("--home", "afile", "doctor")

    assert "afile is a file" in said.out
    assert "chmod" not in said.out


def test_an_unknown_source_is_refused_before_anything_is_announced(
    testbed: Command, home: Path
) -> None:
    said = testbed("o2o", "quickstart", "--simulate", "--source", "nosuch", "--out", "here")

    assert said.code == 2
    assert said.err.startswith("error: unknown scheduler 'nosuch'")
    assert not Path("here").exists()
