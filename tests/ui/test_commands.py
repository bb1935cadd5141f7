"""The command lines that the page shows are ones that can be typed."""

from __future__ import annotations

import shlex

import pytest

from testbed.ui.live.commands import Commands
from tests.docs.test_commands import parse

FAULT = {
    "kind": "slow-link",
    "for": "5s",
    "from": [0, 1],
    "to": "all",
    "factor": 0.2,
    "bothWays": True,
}


def lines(commands: Commands) -> list[str]:
    return [
        commands.run("", None),
        commands.run("ratc", 4, "a label", 3),
        commands.stop("20261129"),
        commands.scheduler("rda", ()),
        commands.scheduler("rda", (0, 2)),
        commands.deploy("shipped/x", ()),
        commands.deploy("policies/x", (1,)),
        commands.roll_back(),
        commands.kill(3),
        commands.inject(FAULT),
        commands.inject({"kind": "node-down", "for": "2s", "nodes": [1], "mode": "hung"}),
        commands.clear_faults(),
        commands.logs(2),
        commands.compare(),
        commands.up(),
    ]


@pytest.mark.parametrize(
    "commands", [Commands("default"), Commands("lab", "--home /tmp/x"), Commands("lab")]
)
def test_they_can_be_typed(commands: Commands) -> None:
    for line in lines(commands):
        parse(shlex.split(line)[1:])


def test_what_they_say() -> None:
    commands = Commands("lab", "--home /h")

    assert commands.run("ratc", 4, "a b") == (
        "testbed run --scheduler ratc --episodes 4 --label 'a b' --name lab --home /h"
    )
    assert commands.scheduler("rda", (0, 2)) == (
        "testbed scheduler set rda --nodes 0,2 --name lab --home /h"
    )
    assert Commands("default").inject(FAULT) == (
        "testbed fault inject slow-link --for 5s --from 0,1 --to all --factor 0.2 --both-ways"
    )
