"""``links.controlDelay``: one time for all links, or one for each, drawn or given."""

from __future__ import annotations

import pytest

from testbed.errors import UsageError
from testbed.model.topology import Rules
from testbed.scenario.load import dumps, load, loads, warnings
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan

RANGE = "links.controlDelay={uniform: [5ms, 20ms]}"


def rules(*overrides: str) -> Rules:
    return plan(load("quickstart", overrides)).rules


def test_one_time_for_all_links_gives_the_plans_of_earlier_releases() -> None:
    made = plan(load("quickstart", ["links.controlDelay=12ms"]))
    assert (made.rules.control_delay, made.rules.link_delays) == (12_000, None)
    assert type(made.rules.control_delay) is int
    assert "link_delays" not in made.to_json()
    # From before links could differ: what was logged pairs with what is run now.
    assert made.scenario_hash[:16] == "a74b73405f0fe26d"
    assert plan(load("quickstart")).scenario_hash[:16] == "d0ebc88b733d4c25"


def test_times_that_are_drawn_equal_are_one_time_for_all_links() -> None:
    one = plan(load("quickstart", ["links.controlDelay=12ms"]))
    for same in (
        ["links.controlDelay={uniform: [12ms, 12ms]}"],
        ["links.controlDelay={choice: [12ms]}"],
        ["links.controlDelay=12ms", "links.overrides=[{from: 0, to: 1, controlDelay: 12ms}]"],
    ):
        assert plan(load("quickstart", same)) == one


def test_a_range_is_drawn_once_for_each_directed_link() -> None:
    made = plan(load("paper-testbed", [RANGE]))
    delays = made.rules.link_delays
    assert delays is not None
    assert plan(load("paper-testbed", [RANGE])) == made
    between = [delays[i][j] for i in range(10) for j in range(10) if i != j]
    assert all(5_000 <= delay <= 20_000 and type(delay) is int for delay in between)
    assert min(between) < 7_000
    assert max(between) > 18_000
    assert made.rules.control_delay == max(between)
    assert all(delays[i][i] == 0 for i in range(10))
    assert delays[0][1] != delays[1][0]
    assert made.rules.delay(0, 1) == delays[0][1]
    assert Plan.from_json(made.to_json()) == made


def test_the_draw_changes_nothing_else_and_nothing_else_changes_it() -> None:
    plain, drawn = plan(load("quickstart")), plan(load("quickstart", [RANGE]))
    assert drawn.topology == plain.topology
    assert drawn.tasks(3) == plain.tasks(3)
    assert drawn.scenario_hash != plain.scenario_hash
    others = ("links.rate={uniform: [1MB/s, 2MB/s]}", "seeds.workload=5", "nodes.failureRate=0")
    assert rules(RANGE, *others).link_delays == drawn.rules.link_delays
    assert rules(RANGE, "seeds.topology=5").link_delays != drawn.rules.link_delays
    more, fewer = rules(RANGE, "nodes.count=8").link_delays, drawn.rules.link_delays
    assert more is not None
    assert fewer is not None
    assert [row[: len(fewer)] for row in more[: len(fewer)]] == list(fewer)


def test_an_override_is_for_one_direction_of_one_link() -> None:
    entry = "links.overrides=[{from: 0, to: 2, controlDelay: 90ms}]"
    drawn, overridden = rules(RANGE).link_delays, rules(RANGE, entry)
    assert drawn is not None
    assert overridden.delay(0, 2) == overridden.control_delay == 90_000
    assert overridden.delay(2, 0) == drawn[2][0]
    constant = rules("links.controlDelay=1ms", entry)
    assert constant.delay(0, 2) == 90_000
    assert constant.delay(2, 0) == constant.delay(1, 2) == 1000


def test_a_matrix_has_a_row_for_each_node() -> None:
    small = "nodes={count: 2, capacity: 3GHz, arrivalProbability: 1}"
    given = "links.controlDelay=[[null, 5ms], [70us, 0]]"
    scenario = load("quickstart", [small, "rules.overload={queueLength: 2}", given])
    assert plan(scenario).rules.link_delays == ((0, 5000), (70, 0))
    assert loads(dumps(scenario)) == scenario


def test_one_node_has_no_links() -> None:
    alone = "nodes.count=1"
    assert (rules(RANGE, alone).control_delay, rules(RANGE, alone).link_delays) == (0, None)
    assert rules(alone).control_delay == 1000
    load("quickstart", [RANGE, alone, "rules.stagger=true"])


def test_turns_are_as_long_as_the_slowest_link_demands() -> None:
    made = rules("links.controlDelay={uniform: [1ms, 3ms]}", "rules.stagger=true")
    assert made.stagger == 2 * made.control_delay + 1
    assert 2000 < made.control_delay <= 3000


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("links.controlDelay={uniform: [5ms, 1ms]}", r"above the second"),
        ("links.controlDelay={uniform: [5, 20]}", r"links\.controlDelay\.uniform\[0\].*no unit"),
        ("links.controlDelay={uniform: [-5ms, 1ms]}", r"uniform\[0\].*out of range"),
        ("links.controlDelay={normal: [5ms, 1ms]}", r"or a matrix with one row per node"),
        ("links.controlDelay=[[0, 1ms]]", r"1 rows for 5 nodes"),
        ("links.controlDelay=[[0, 1ms], [null, 0]]", r"controlDelay\[1\]\[0\]: nothing"),
        (
            "links.overrides=[{from: 0, to: 5, controlDelay: 1ms}]",
            r"overrides\[0\]\.to: 5; allowed: a node, 0 to 4",
        ),
        ("links.overrides=[{from: 0, to: 1}]", r"needed: rate, failureRate or controlDelay"),
        ("links.overrides=[{from: 0, to: 1, controlDelay: soon}]", r"overrides\[0\]\.controlDelay"),
        ("links.controlDelay={choice: [200ms, 300ms]}", r"before any answer can come: the fastest"),
    ],
)
def test_other_values_are_refused(override: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        load("quickstart", [override])


def test_peers_that_never_answer_in_time_are_warned_of() -> None:
    slow = "links.overrides=[{from: 0, to: 2, controlDelay: 1s}, {from: 3, to: 4, rate: 1MB/s}]"
    (line,) = warnings(load("quickstart", [slow]))
    assert line.startswith("rules.probeTimeout: 1 pair of nodes")
    assert warnings(load("quickstart", [RANGE])) == []
