"""Scenarios of requests: what may stand there, what is drawn from it, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from testbed.errors import UsageError
from testbed.model.serving.bus import Bus
from testbed.model.serving.node import Timetable
from testbed.model.serving.users import ConstantRate, SinusoidalRate, StepRate
from testbed.model.units import MILLISECOND, SECOND
from testbed.scenario.load import draw, dumps, load, loads, shipped_names, warnings
from testbed.scenario.plan import ServingPlan
from testbed.scenario.resolve import plan as tasks_plan
from testbed.sim.serving import ServingSimulation
from tests.sim.serving_plans import federation

NAMES = [name for name in shipped_names() if load(name).model == "serving"]


def drawn(name: str, settings: Sequence[str] = ()) -> ServingPlan:
    made = draw(load(name, settings))
    assert isinstance(made, ServingPlan)
    return made


def problems(settings: Sequence[str], name: str = "dfaas") -> list[str]:
    with pytest.raises(UsageError) as refused:
        load(name, settings)
    return [str(problem) for problem in refused.value.problems]


def test_the_papers_scenario() -> None:
    made = drawn("dfaas")
    paper = federation()
    assert (made.network, made.timetable, made.horizon) == (
        paper.network,
        paper.timetable,
        paper.horizon,
    )
    assert made.users == paper.users
    assert (made.scheduler.name, made.episodes) == ("slack", 1)
    split = drawn("dfaas-split")
    assert split.network.enforce_limits
    assert split.scheduler.options["advertise"] == "split"


def test_all_that_a_file_says_is_in_the_plan() -> None:
    made = drawn("dfaas-traces")
    assert [function.name for function in made.network.functions] == ["resize", "hash"]
    assert made.network.functions[1].max_rate == (15,) * 5
    assert made.network.neighbours == ((1, 4), (0, 2), (1, 3), (2, 4), (0, 3))
    assert made.network.expiry == 60 * SECOND
    assert made.bus == Bus(2 * MILLISECOND, 0.05, 1)
    assert made.timetable == Timetable(20 * SECOND, 5 * SECOND)
    assert [(each.node, each.function, each.trace) for each in made.users] == [
        (0, 0, ConstantRate(25.0)),
        (2, 0, SinusoidalRate(25.0, 20.0, 120 * SECOND, 0.75)),
        (3, 1, StepRate((0, 60 * SECOND, 180 * SECOND), (5.0, 40.0, 10.0))),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_and_its_plan_are_read_back_as_written(name: str) -> None:
    scenario = load(name)
    assert loads(dumps(scenario)) == scenario
    made = drawn(name)
    assert ServingPlan.from_json(made.to_json()) == made
    assert warnings(scenario) == []
    assert ServingSimulation(made).episode(0).statuses[200] > 0


def test_limits_may_be_drawn() -> None:
    settings = ["functions.f.maxRate={uniform: [5/s, 60/s]}", "nodes.count=40"]
    rates = drawn("dfaas", settings).network.functions[0].max_rate
    assert all(5 <= rate <= 60 for rate in rates)
    assert len(set(rates)) > 10
    again = drawn("dfaas", [*settings, "seeds.topology=2"]).network.functions[0].max_rate
    assert again != rates
    assert drawn("dfaas", [*settings, "nodes.count=50"]).network.functions[0].max_rate[:40] == rates


def test_a_scenario_of_requests_is_refused_where_only_tasks_are_known() -> None:
    with pytest.raises(UsageError, match="needed: a scenario with model: tasks"):
        tasks_plan(load("dfaas"))


def test_keys_of_the_other_family_are_named() -> None:
    found = problems(["links={rate: 1MB/s}", "nodes.cores=4", "payload=metadata"])
    assert [each.partition(";")[0] for each in sorted(found)] == [
        "links: a key of scenarios with model: tasks",
        "nodes.cores: a key of scenarios with model: tasks",
        "payload: a key of scenarios with model: tasks",
    ]
    [other] = problems(["users=[]"], "quickstart")
    assert other.startswith("users: a key of scenarios with model: serving; known keys with model")


def test_all_problems_are_told_at_once() -> None:
    found = problems(
        [
            "colour=red",
            "users.0.node=7",
            "users.0.function=g",
            "users.0.rate={sinusoidal: {mean: 1/s, amplitude: 2/s, period: 1s}}",
            "overlay.neighbours=[[1, 9], [0, 0], [2]]",
            "functions.Bad={time: 1s, maxRate: [1/s]}",
            "faults=[{kind: slow-node, nodes: 9, at: 1s, for: 2s, factor: 0.5}]",
        ]
    )
    for said in (
        "colour: unknown key; known keys: apiVersion, kind, model, metadata, nodes, functions",
        "users[0].node: 7; allowed: a node, 0 to 2",
        "users[0].function: 'g'; allowed: f, Bad",
        "users[0].rate.sinusoidal: an amplitude of 2/s about a mean of 1/s; allowed",
        "overlay.neighbours[0][1]: 9 is no node; allowed: a node, 0 to 2",
        "overlay.neighbours[1][1]: node 0 a second time; allowed: once",
        "overlay.neighbours[2][0]: node 2 itself; allowed: other nodes",
        "functions.Bad: 'Bad'; allowed: lower-case letters, digits and hyphens, at most 63",
        "functions.Bad.maxRate: 1 values for 3 nodes; allowed: 3 values, one per node",
        "faults[0].nodes: 9; allowed: a node, 0 to 2",
        "faults[0].kind: 'slow-node' is a fault of scenarios with model: tasks; allowed: node-down",
    ):
        assert any(each.startswith(said) for each in found), (said, found)
    assert len(found) == 11


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["overlay.expiry=30s"], "overlay.expiry: 30s is shorter than routing.period, 60s: what"),
        (["routing.offset=300s"], "routing.offset: routers are called first at 300s, when the"),
        (["routing.period=1ms", "overlay.expiry=1s"], "routing.period: 300000 periods in an epis"),
        (["horizon.window=100us", "functions.f.maxRate=0"], "horizon.window: 9000000 windows in"),
        (["users.0.rate=900000/s"], "users: 270000000 requests in an episode; allowed: up to"),
        (["functions.f.maxRate=1.5/s"], "functions.f.maxRate: 1.5/s is 1.5 requests in a window"),
        (["functions.f.time=6s"], "horizon.drain: 5s is shorter than a request for f takes at a n"),
        (["users.0.rate={steps: []}"], "users[0].rate: no step at 0; allowed: a first step with"),
        (["users.0.rate={}"], "users[0].rate: 0 of the three forms given; allowed: a rate, or"),
        (["users.0.rate=50"], "users[0].rate: 50 has no unit; allowed: a number with a unit (/s"),
        (["functions={}"], "functions: 0 values; allowed: at least 1"),
        (["users=[]"], "users: 0 values; allowed: at least 1"),
        (["faults=[{kind: node-down, nodes: 0, at: 300s, for: 1s}]"], "faults[0].at: begins 300 s"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: list[str], said: str) -> None:
    assert any(each.startswith(said) for each in problems(settings)), problems(settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["nodes.count=5", "functions.f.maxRate=9/s", "overlay.neighbours=[[1],[],[3],[],[3]]"],
         "in 2 parts that never hear of each other: nodes 0, 1; nodes 2, 3, 4"),
        (["overlay.loss=1"], "every message is lost"),
        (["horizon.length=80s"], "the first period ends at 90s, after the episode of 80s"),
    ],
)  # fmt: skip
def test_what_is_perhaps_not_meant_is_a_warning(settings: list[str], said: str) -> None:
    [line] = warnings(load("dfaas", settings))
    assert said in line
