"""``testbed fault``: kinds, and what is refused before anything is asked for."""

from __future__ import annotations

import json

import pytest

from testbed.model.faults import KINDS
from tests.cli.conftest import Command


def test_kinds_are_listed_with_what_they_take(testbed: Command) -> None:
    said = testbed("fault", "kinds")
    assert said.code == 0
    assert all(name in said.out for name in KINDS)
    listed = json.loads(testbed("fault", "kinds", "--json").out)
    assert [each["kind"] for each in listed] == list(KINDS)


def test_everything_that_is_wrong_is_said_at_once(testbed: Command) -> None:
    said = testbed("fault", "inject", "link-rate", "--from", "0", "--factor", "-1", "--for", "3")
    assert said.code == 2
    for words in ("--for: '3' has no unit", "--factor: '-1' is out of range", "--to: missing"):
        assert words in said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("link-rat", "--for", "1s"), "KIND: 'link-rat'"),
        (("node-down", "--for", "1s"), "--nodes: missing"),
        (("node-down", "--nodes", "0", "--for", "1s", "--mode", "tired"), "killed or hung"),
        (("slow-node", "--nodes", "x", "--factor", "1", "--for", "1s"), "numbers and ranges"),
        (("slow-node", "--nodes", "0", "--factor", "0", "--for", "1s"), "above 0"),
        (("partition", "--from", "0", "--to", "1", "--factor", "1", "--for", "1s"), "--factor"),
        (("arrivals", "--nodes", "0", "--factor", "2", "--for", "0s"), "--for"),
        (("arrivals", "--nodes", "0", "--factor", "2", "--both-ways", "--for", "1s"), "--both"),
    ],
)
def test_what_cannot_be_is_refused(
    testbed: Command, arguments: tuple[str, ...], words: str
) -> None:
    said = testbed("fault", "inject", *arguments)
    assert said.code == 2
    assert words in said.err


@pytest.mark.parametrize(
    "arguments",
    [("list",), ("clear",), ("inject", "node-down", "--nodes", "0", "--for", "1s")],
)
def test_where_nothing_is_up_that_is_said(testbed: Command, arguments: tuple[str, ...]) -> None:
    said = testbed("fault", *arguments)
    assert said.code != 0
    assert "Traceback" not in said.err
    assert "default" in said.err
