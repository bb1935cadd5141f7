"""Every command explains itself and stands in the docs."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from testbed import errors
from testbed.cli.exit_codes import MEANINGS
from testbed.cli.main import app
from testbed.cli.reference import reference, walk
from tests.cli.conftest import ROOT, Command

COMMANDS: list[tuple[str, Any]] = list(walk(typer.main.get_command(app), "testbed"))


@pytest.mark.parametrize("command", [each for _, each in COMMANDS], ids=[p for p, _ in COMMANDS])
def test_every_command_and_option_has_help(command: Any) -> None:
    assert command.help
    unexplained = [each.name for each in command.params if not each.help]
    assert unexplained == []


def test_the_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()

    assert page == reference(), "run `python -m testbed.cli.reference > docs/cli.md`"


def test_every_error_ends_with_a_documented_exit_code() -> None:
    kinds: list[type[errors.TestbedError]] = [
        errors.TestbedError,
        *errors.TestbedError.__subclasses__(),
    ]

    assert {kind.exit_code for kind in kinds} <= MEANINGS.keys()


def test_every_command_that_reads_can_print_json() -> None:
    without = {path for path, each in COMMANDS if "as_json" not in {p.name for p in each.params}}

    assert without == {
        "testbed init",
        "testbed credentials",
        "testbed up",
        "testbed kill",
        "testbed scale",
        "testbed ui",
        "testbed version",
        # Is JSON.
        "testbed scenario schema",
    }


@pytest.mark.parametrize("arguments", [(), ("--help",), ("runs",), ("run", "-h")])
def test_help(testbed: Command, arguments: tuple[str, ...]) -> None:
    said = testbed(*arguments)

    assert "Usage: testbed" in said.out + said.err
    assert said.code == (0 if any(each.startswith("-") for each in arguments) else 2)
