"""``faults:`` of a scenario file: what may stand there, what is drawn from it, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from testbed.errors import UsageError
from testbed.model.distributions import Constant, Uniform
from testbed.model.faults import KINDS, Exponential, FaultSpec
from testbed.scenario.check import json_schema
from testbed.scenario.load import dumps, load, loads, shipped_text
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan

EVERYTHING = """
- {kind: node-down, nodes: any, mode: hung, every: {exponential: 2s}, for: {uniform: [10ms, 1s]}}
- {kind: slow-node, nodes: [0, 2], slot: 5, for: 1s, factor: 25%}
- {kind: node-failures, nodes: all, perSlot: 1%, for: 100ms, failureRate: 2/s, together: false}
- {kind: link-rate, from: 0, to: [1, 2], bothWays: true, at: 1s, for: 1s, factor: 0.1}
- {kind: link-failures, from: any, to: any, every: 1s, for: 1s, failureRate: 3}
- {kind: partition, from: [0, 1], to: [2, 3, 4], at: {choice: [1s, 2s]}, for: 500ms}
- {kind: arrivals, nodes: all, at: 0, for: 1s, factor: 3}
"""


def scenario_with(faults: Any, **more: Any) -> str:
    data = yaml.safe_load(shipped_text("quickstart"))
    return yaml.safe_dump({**data, "faults": faults, **more})


@pytest.fixture
def everything() -> str:
    return scenario_with(yaml.safe_load(EVERYTHING))


def test_every_kind_is_read_and_written(everything: str) -> None:
    scenario = loads(everything)
    assert [fault.kind for fault in scenario.faults] == list(KINDS)
    assert loads(dumps(scenario)) == scenario
    Draft202012Validator(json_schema()).validate(yaml.safe_load(everything))


def test_a_plan_names_every_value(everything: str) -> None:
    made = plan(loads(everything))
    down, slow, failures, rate, risky, cut, crowd = made.faults
    assert down == FaultSpec(
        "node-down",
        Uniform(10_000, 1_000_000),
        every=Exponential(2_000_000),
        nodes="any",
        mode="hung",
    )
    assert slow.at == Constant(5 * made.workload.slot)
    assert (slow.factor, slow.nodes) == (0.25, (0, 2))
    assert (failures.nodes, failures.per_slot, failures.together) == ((0, 1, 2, 3, 4), 0.01, False)
    assert (rate.sources, rate.destinations, rate.both_ways) == ((0,), (1, 2), True)
    assert (risky.sources, risky.failure_rate) == ("any", 3.0)
    assert cut.at is not None
    assert crowd.factor == 3.0
    assert Plan.from_json(made.to_json()) == made


def test_a_scenario_without_faults_has_the_plan_it_had() -> None:
    made = plan(load("quickstart"))
    assert '"faults"' not in made.to_json().replace('"faults":1', "")
    none = plan(loads(scenario_with([])))
    assert none == made
    assert made.scenario_hash == (
        "d0ebc88b733d4c25451831f4a8de4cc14f9dbf00e4529e1fb804a0a2f253cf98"
    )


def test_faults_are_part_of_what_is_emulated(everything: str) -> None:
    made = plan(loads(everything))
    assert made.scenario_hash != plan(load("quickstart")).scenario_hash
    other = everything.replace("25%", "26%")
    assert made.scenario_hash != plan(loads(other)).scenario_hash


def test_killed_is_what_a_node_is_when_nothing_is_said() -> None:
    text = scenario_with([{"kind": "node-down", "nodes": 1, "at": "1s", "for": "1s"}])
    assert plan(loads(text)).faults[0].mode == "killed"


BASE = {"kind": "link-rate", "from": 0, "to": 1, "at": "1s", "for": "1s", "factor": 0.5}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"kind": "link-rat"}, "faults[0].kind"),
        ({"at": None}, "faults[0]"),
        ({"slot": 3}, "faults[0]"),
        ({"at": None, "slot": 4000}, "faults[0].slot"),
        ({"at": "1h"}, "faults[0].at"),
        ({"at": None, "every": "1us", "for": "1us"}, "faults[0].every"),
        ({"at": None, "every": {"normal": "1s"}}, "faults[0].every"),
        ({"for": None}, "faults[0].for"),
        ({"for": "0s"}, "faults[0].for"),
        ({"for": 3}, "faults[0].for"),
        ({"from": 7}, "faults[0].from"),
        ({"from": [0, 0]}, "faults[0].from"),
        ({"from": []}, "faults[0].from"),
        ({"from": "some"}, "faults[0].from"),
        ({"from": 1}, "faults[0]"),
        ({"to": None}, "faults[0].to"),
        ({"nodes": 1}, "faults[0].nodes"),
        ({"factor": None}, "faults[0].factor"),
        ({"factor": 0}, "faults[0].factor"),
        ({"factor": "-1"}, "faults[0].factor"),
        ({"failureRate": 1}, "faults[0].failureRate"),
        ({"mode": "hung"}, "faults[0].mode"),
        ({"kind": "node-down", "nodes": 0, "from": None, "to": None, "factor": None, "mode": "x"},
         "faults[0].mode"),
        ({"kind": "arrivals", "nodes": 0, "from": None, "to": None, "bothWays": True},
         "faults[0].bothWays"),
        ({"colour": "red"}, "faults[0].colour"),
        ({"together": "yes"}, "faults[0].together"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_path(change: dict[str, Any], path: str) -> None:
    with pytest.raises(UsageError) as caught:
        loads(scenario_with([{**BASE, **change}]))
    assert path in [problem.path for problem in caught.value.problems]


def test_all_problems_are_told_at_once() -> None:
    wrong = [
        {**BASE, "from": 9, "factor": -1},
        {"kind": "node-down", "at": "1s", "for": "1s", "slot": 3},
    ]
    with pytest.raises(UsageError) as caught:
        loads(scenario_with(wrong, colour="red"))
    told = {problem.path for problem in caught.value.problems}
    assert {"faults[0].from", "faults[0].factor", "faults[1].nodes", "faults[1]", "colour"} <= told


def test_single_values_are_set() -> None:
    text = scenario_with([BASE])
    assert loads(text, ["faults.0.factor=0.25"]).faults[0].factor == 0.25
    assert loads(text, ["faults=[]"]).faults == []
