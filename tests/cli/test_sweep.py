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
    assert "* significant: adjusted p below 5 %; adjusted p: the 2 p values of these" in said.out
    assert "4 points are stored already" in again.err
    assert len(again.document["rows"]) == 4
    assert testbed(*sweep, "--over", "nodes.count=5").code == 2
    assert testbed(*sweep, "-s", "nosuch").code == 2


def test_requests(testbed: Command, home: Path) -> None:
    settings = ("--set", "horizon.length=20s", "--set", "routing.offset=5s")
    sweep = ("sweep", "dfaas", *settings, "--over", "routing.period=5s,10s", "--jobs", "1")

    said = testbed(*sweep)
    split = testbed(*sweep, "-s", "slack", "-s", "slack,advertise=split", "--json")

    assert said.code == 0, said.err
    header, *rows = said.out.splitlines()
    assert header.split()[:3] == ["routing.period", "slack", "all-local"]
    assert "refused-rate: share of requests that were not served; lower is better" in rows
    assert "2 points are stored already" in split.err
    assert {row["scheduler"] for row in split.document["rows"]} == {
        "slack",
        "slack,advertise=split",
    }
    assert testbed(*sweep, "-s", "ratc").code == 2
