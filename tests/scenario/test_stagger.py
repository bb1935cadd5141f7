"""``rules.stagger``: what may stand there, what it means, and what it leaves as it was."""

from __future__ import annotations

import pytest

from testbed.errors import UsageError
from testbed.scenario.load import load
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan


@pytest.mark.parametrize(
    ("given", "delay", "step"),
    [("false", "1ms", 0), ("true", "0s", 1), ("true", "1ms", 2001), ("5ms", "1ms", 5000)],
)
def test_a_step_or_a_switch(given: str, delay: str, step: int) -> None:
    scenario = load("quickstart", [f"rules.stagger={given}", f"links.controlDelay={delay}"])
    drawn = plan(scenario)
    assert drawn.rules.stagger == step
    assert drawn.rules.turn(3) == 3 * step
    assert Plan.from_json(drawn.to_json()) == drawn
    written = scenario.document()["rules"]["stagger"]
    assert written == {"false": False, "true": True, "5ms": "5ms"}[given]


def test_without_it_plans_and_hashes_are_those_of_earlier_releases() -> None:
    plain, staggered = plan(load("quickstart")), plan(load("quickstart", ["rules.stagger=true"]))
    assert "stagger" not in plain.to_json()
    assert plain.scenario_hash != staggered.scenario_hash


@pytest.mark.parametrize("given", ["0s", "-1ms", "sometimes"])
def test_other_values_are_refused(given: str) -> None:
    with pytest.raises(UsageError, match=r"rules\.stagger.*`true` or `false`"):
        load("quickstart", [f"rules.stagger={given}"])


def test_the_last_turn_has_to_begin_within_the_slot() -> None:
    with pytest.raises(UsageError, match=r"the last of 5 nodes would decide 100000 us after"):
        load("quickstart", ["rules.stagger=25ms"])
    load("quickstart", ["rules.stagger=24ms"])
