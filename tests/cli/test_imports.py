"""A command loads what it uses: what is listed here takes a tenth of a second or more each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from testbed.cli.commands import COMMANDS, Commands, Entry
from testbed.cli.main import app
from tests.cli.conftest import environment

SLOW = frozenset(
    {
        *("alembic", "grpc", "kubernetes", "matplotlib", "numba", "numpy", "onnxruntime"),
        *("pandas", "pyarrow", "pymysql", "ray", "rich.markdown", "scipy", "sqlalchemy"),
        *("structlog", "torch", "testbed.scenario.schema", "cryptography"),
    }
)
LOG = frozenset({"sqlalchemy"})
PROGRAM = """
import sys
from testbed.cli import main
code = main.run(sys.argv[1:])
sys.stderr.write("\\nLOADED " + " ".join(sys.modules))
sys.exit(code)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two runs that can be compared."""
    home = tmp_path_factory.mktemp("home")
    for scheduler in ("local", "ratc"):
        loaded(home, "sim", "quickstart", "-s", scheduler, "--episodes", "4")
    return home


def loaded(home: Path, *arguments: str, code: int = 0) -> set[str]:
    """The modules that a command has loaded when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == code, done.stderr
    return set(done.stderr.rpartition("LOADED ")[2].split())


@pytest.mark.parametrize(
    ("command", "used"),
    [
        ("--help", {"rich.markdown"}),
        ("version", set()),
        ("ps", set()),
        ("runs list", LOG),
        ("runs list --json --limit 0", LOG),
        ("tasks latest", LOG),
        ("compare", LOG),
        ("compare --json", {*LOG, "pandas", "numpy", "pyarrow"}),
        ("sim quickstart --episodes 1", {*LOG, "testbed.scenario.schema"}),
        ("scenario list", {"testbed.scenario.schema"}),
        ("runs show", {*LOG, "pandas", "numpy", "pyarrow"}),
        ("report --out {home}/report", {*LOG, "pandas", "numpy", "pyarrow", "matplotlib"}),
    ],
)
def test_a_command_loads_what_it_uses(home: Path, command: str, used: set[str]) -> None:
    arguments = command.format(home=home).split()
    assert loaded(home, *arguments) & SLOW <= used


def test_help_loads_no_command(home: Path) -> None:
    modules = {f"testbed.cli.{entry.module}" for entry in COMMANDS}
    assert not loaded(home, "--help") & modules


@pytest.mark.parametrize("command", [entry.name for entry in COMMANDS])
def test_the_help_of_a_command_loads_nothing_slow(home: Path, command: str) -> None:
    assert loaded(home, command, "--help") & SLOW <= {"rich.markdown"}


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: str(entry.name))
def test_the_list_of_commands_says_what_the_command_says(entry: Entry) -> None:
    command = entry.load()
    assert command.name == entry.name
    assert (command.help or "").split("\n\n")[0].replace("\n", " ") == entry.summary
    assert command.hidden == entry.hidden


def test_a_command_that_does_not_exist_is_none() -> None:
    group = get_command(app)
    assert isinstance(group, Commands)
    context = group.make_context("testbed", [], resilient_parsing=True)
    assert group.get_command(context, "nonsense") is None
    assert group.list_commands(context) == [entry.name for entry in COMMANDS]
