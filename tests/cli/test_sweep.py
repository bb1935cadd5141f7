"""``sweep``: schedulers while values of the scenario are varied."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Command

SET = ("slots.count=12",)


def test_the_command(testbed: Command, home: Path) -> None:
    sweep = ("sweep", "quickstart", "--set", *SET, "--over", "nodes.count=3,4", "-s", "ratc")
    said = testbed(*sweep, "-s", "local", "-e", "4", "--jobs", "1")
    again = testbed(*sweep, "-s", "local", "-e", "4", "--jobs", "1", "--json")

    assert said.code == 0, said.err
    header, *rows = said.out.splitlines()
    assert header.split()[:3] == ["nodes.count", "ratc", "local"]
    assert [row.split()[0] for row in rows[:2]] == ["3", "4"]
    assert "4 points are stored already" in again.err
    assert len(again.document["rows"]) == 4
    assert testbed(*sweep, "--over", "nodes.count=5").code == 2
    assert testbed(*sweep, "-s", "nosuch").code == 2
