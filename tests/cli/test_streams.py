"""Terminals, encodings and pipes that are not what one would wish."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.cli.conftest import environment, program
from tests.cli.test_main import on_a_terminal

PATIENCE_S = 110


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a run in its task log."""
    home = tmp_path_factory.mktemp("home")
    for scheduler in ("local", "random"):
        done = run(
            home, "sim", "quickstart", "-s", scheduler, "-e", "3", "--label", "Bär µ ± \U0001f600"
        )
        assert done.returncode == 0, done.stderr
    return home


def run(
    home: Path, *arguments: str, variables: Mapping[str, str] | None = None, redirect: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command line in a shell that redirects its streams."""
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirect}', "sh", *program(*arguments)],
        env={**environment(home), **(variables or {})},
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=PATIENCE_S,
        check=False,
    )


ENCODINGS: list[Mapping[str, str]] = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "koi8-r"},
    {"PYTHONIOENCODING": "cp437:strict"},
    {"LC_ALL": "C"},
    {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
]
COMMANDS = [
    ("runs", "list"),
    ("runs", "show", "latest"),
    ("compare",),
    ("scenario", "list"),
    ("scenario", "show", "paper-testbed", "--full"),
    ("scenario", "show", "quickstart", "--plan"),
    ("scheduler", "list"),
    ("policy", "list"),
    ("doctor",),
    ("ps",),
    ("db", "check"),
    ("dataset", "list"),
    ("sim", "--help"),
    ("--help",),
]


SEVERAL = """
import json, os, sys
from testbed.cli import main, streams
for variables, command in json.loads(sys.argv[1]):
    os.environ.update(variables)
    streams.prepare()
    code = main.run(command)
    sys.stdout.write(f"@{code}\\n")
    for variable in variables:
        os.environ.pop(variable, None)
"""


def several(
    home: Path,
    commands: Sequence[tuple[Mapping[str, str], Sequence[str]]],
    variables: Mapping[str, str] | None = None,
) -> list[tuple[int, str]]:
    """Run command lines one after the other in one process: exit code and output of each."""
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL, json.dumps(commands)],
        env={**environment(home), **(variables or {})},
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    parts = re.split(r"^@(\d+)\n", done.stdout, flags=re.MULTILINE)
    return [(int(code), out) for out, code in zip(parts[:-1:2], parts[1::2], strict=True)]


@pytest.mark.parametrize("variables", ENCODINGS, ids=lambda v: ",".join(v.values()))
def test_a_result_survives_an_encoding_that_lacks_characters(
    home: Path, variables: Mapping[str, str]
) -> None:
    sim = ("sim", "quickstart", "-e", "3", "-s", "local")
    (listed_code, listed), (sim_code, simulated) = several(
        home, [({}, ("runs", "list")), ({}, sim)], variables
    )
    assert (listed_code, sim_code) == (0, 0)
    rows = listed.splitlines()
    assert len(rows) >= 3
    assert all("%" in row for row in rows[1:])
    assert re.search(r"local .*%", simulated)


def checks(report: str) -> list[str]:
    """Return the rows of ``doctor`` that begin a check.

    A busy machine adds a line with advice to a check (timers, processors), so two reports of
    one machine may differ in those.
    """
    return [row for row in report.splitlines() if not row.startswith(" ")]


def test_every_command_prints_in_ascii_what_it_prints_elsewhere(home: Path) -> None:
    commands: list[tuple[Mapping[str, str], Sequence[str]]] = [({}, each) for each in COMMANDS]
    wide = several(home, commands)
    sim = ("sim", "quickstart", "-s", "ratc", "-e", "3")
    *ascii_only, simulated = several(
        home, [*commands, ({}, sim)], {"PYTHONIOENCODING": "ascii:strict"}
    )
    for command, (code, out), (ascii_code, ascii_out) in zip(
        COMMANDS, wide, ascii_only, strict=True
    ):
        assert ascii_code == code in (0, 3), command
        assert ascii_out.isascii(), command
        rows = checks if command == ("doctor",) else str.splitlines
        assert len(rows(ascii_out)) == len(rows(out)), command
    assert "+/-" in simulated[1], "a sign is written so that it is understood"


SIZES: list[Mapping[str, str]] = [
    {"COLUMNS": "0"},
    {"COLUMNS": "garbage"},
    {"COLUMNS": "-3"},
    {"COLUMNS": "1"},
    {"COLUMNS": "\u00b2"},
    {"COLUMNS": "9" * 30},
    {"COLUMNS": "99999999"},
    {"COLUMNS": "", "LINES": "0"},
    {"TERM": "dumb"},
    {"TERM": "unknown-to-all"},
    {"TERM": ""},
    {"NO_COLOR": "1"},
    {"FORCE_COLOR": "1"},
]


def test_a_strange_terminal_prints_the_result(home: Path) -> None:
    commands = [(size, each) for size in SIZES for each in (("runs", "list"), ("--help",))]
    found = several(home, commands, {"TERMINAL_WIDTH": "garbage"})
    for (size, command), (code, out) in zip(commands, found, strict=True):
        assert code == 0, size
        assert ("local" if command[0] == "runs" else "teardown") in out, size
        assert len(out) < 100_000, size


@pytest.mark.parametrize("columns", ["0", "1", "99999999"])
def test_a_terminal_of_a_strange_width_shows_the_result(home: Path, columns: str) -> None:
    seen = on_a_terminal(home, "runs", "list", COLUMNS=columns)
    assert "local" in seen
    assert len(seen) < 100_000


@pytest.mark.parametrize(
    ("redirect", "command", "code", "message"),
    [
        (">&-", ("scenario", "list"), 5, "bad file descriptor"),
        (">/dev/full", ("scenario", "list"), 5, "no space left"),
        (">/dev/full", ("--help",), 5, "no space left"),
        ("2>&-", ("scenario", "list"), 0, ""),
        ("2>/dev/full", ("sim", "quickstart", "-s", "local", "-e", "3"), 0, ""),
        ("2>/dev/full", ("scenario", "show", "nothing"), 2, ""),
        ("2>&-", ("scenario", "show", "nothing"), 2, ""),
        ("| head -1", ("runs", "list"), 0, ""),
    ],
)
def test_streams_that_cannot_be_written(
    home: Path, redirect: str, command: tuple[str, ...], code: int, message: str
) -> None:
    done = run(home, *command, redirect=redirect)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    for word in ("Traceback", "Exception ignored", "defect"):
        assert word not in done.stderr
    if code == 0:
        assert done.stdout


def test_no_file_of_ours_gets_the_number_of_a_closed_stream(home: Path) -> None:
    done = run(
        home, "sim", "quickstart", "-s", "local", "-e", "2", "--quiet", redirect="<&- >&- 2>&-"
    )
    assert done.returncode == 5
    listed = run(home, "runs", "list")
    assert listed.returncode == 0, "the task log was not written over"


def test_an_argument_that_is_no_unicode_text_is_refused(home: Path) -> None:
    label = os.fsdecode(b"caf\xe9")
    done = run(home, "sim", "quickstart", "-s", "local", "-e", "2", "--label", label)
    assert done.returncode == 2, done.stderr
    assert "caf" in done.stderr
    assert "UTF-8" in done.stderr
