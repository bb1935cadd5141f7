from __future__ import annotations

import statistics

import pytest

from testbed.model.distributions import Constant, Uniform
from testbed.model.topology import Overload, OverloadMeasure, Rules, Topology
from testbed.scenario.load import load, loads
from testbed.scenario.plan import Plan, SchedulerSpec, Seeds
from testbed.scenario.resolve import plan

EXPLICIT = """
apiVersion: edge-testbed/v1
kind: Scenario
metadata: {name: explicit}
nodes:
  count: 2
  cores: [4, 8]
  clock: [3GHz, 1.5GHz]
  arrivalProbability: [0.25, 100%]
  failureRate: 0.1
links:
  rate: [[null, 10MB/s], [5MB/s, 0]]
  failureRate: 0.02
  controlDelay: 2ms
  overrides: [{from: 1, to: 0, failureRate: 0.5}]
tasks: {size: 1MB, complexity: {uniform: [400, 800]}, deadline: 1s}
slots: {count: 50, length: 100ms}
rules:
  overload: {backlog: 1s}
  dropHopeless: false
  executionQueueLimit: 3
  probeTimeout: 20ms
"""


def paper(*overrides: str) -> Plan:
    return plan(load("paper-simulation", overrides))


def test_explicit_values_come_through_unchanged() -> None:
    made = plan(loads(EXPLICIT))
    assert made.topology == Topology(
        cores=(4, 8),
        capacity_hz=(12_000_000_000, 12_000_000_000),
        arrival_probability=(0.25, 1.0),
        execution_failure_rate=(0.1, 0.1),
        link_rate=((0, 10_000_000), (5_000_000, 0)),
        link_failure_rate=((0.0, 0.02), (0.5, 0.0)),
    )
    assert made.rules == Rules(
        overload=Overload(OverloadMeasure.BACKLOG, 1_000_000),
        drop_hopeless=False,
        execution_queue_limit=3,
        control_delay=2_000,
        probe_timeout=20_000,
    )
    assert made.workload.size_bytes == Constant(1e6)
    assert made.workload.complexity == Uniform(400.0, 800.0)
    assert made.workload.deadline == Constant(1e6)
    assert (made.workload.slots, made.workload.slot) == (50, 100_000)
    assert made.topology.link_rate[0][0] == 0


def test_integers_are_integers() -> None:
    topology = paper().topology
    for value in (*topology.cores, *topology.capacity_hz, *topology.link_rate[3]):
        assert type(value) is int


def test_more_nodes_leave_the_others_as_they_were() -> None:
    small, large = paper("nodes.count=7").topology, paper("nodes.count=20").topology
    assert small.size == 7
    assert large.cores[:7] == small.cores
    assert large.capacity_hz[:7] == small.capacity_hz
    assert large.arrival_probability[:7] == small.arrival_probability
    assert large.execution_failure_rate[:7] == small.execution_failure_rate
    for i in range(7):
        assert large.link_rate[i][:7] == small.link_rate[i]
        assert large.link_failure_rate[i][:7] == small.link_failure_rate[i]


def test_one_distribution_more_leaves_the_others_as_they_were() -> None:
    drawn = paper("nodes.clock.uniform=[1GHz, 3GHz]").topology
    assert drawn.cores == paper().topology.cores
    assert drawn.link_rate == paper().topology.link_rate
    assert drawn.capacity_hz != paper().topology.capacity_hz


def test_cores_and_clocks_are_drawn_independently() -> None:
    drawn = paper("nodes.count=400", "nodes.clock.uniform=[1GHz, 3GHz]").topology
    clocks = [f / c for f, c in zip(drawn.capacity_hz, drawn.cores, strict=True)]
    assert abs(statistics.correlation(drawn.cores, clocks)) < 0.15


def test_only_the_topology_seed_draws_the_topology() -> None:
    other = paper("seeds.workload=9", "seeds.faults=9", "seeds.schedulers=9")
    assert other.topology == paper().topology
    assert paper("seeds.topology=9").topology != paper().topology


def test_links_differ_by_direction() -> None:
    rate = paper().topology.link_rate
    assert rate[0][1] != rate[1][0]
    assert all(rate[i][i] == 0 for i in range(20))


def test_cores_drawn_uniformly_are_whole_numbers_with_both_ends() -> None:
    cores = paper("nodes.count=300", "nodes.cores.uniform=[2, 4]").topology.cores
    assert set(cores) == {2, 3, 4}


def test_capacity_may_stand_for_cores_and_clock() -> None:
    made = paper("nodes.cores=null", "nodes.clock=null", "nodes.capacity=24GHz").topology
    assert set(made.capacity_hz) == {24_000_000_000}
    assert set(made.cores) == {1}


def test_capacity_is_not_multiplied_by_cores() -> None:
    made = paper("nodes.cores=8", "nodes.clock=null", "nodes.capacity=24GHz").topology
    assert set(made.capacity_hz) == {24_000_000_000}
    assert set(made.cores) == {8}


@pytest.mark.parametrize(
    ("rule", "overload"),
    [
        ("queueLength=5", Overload(OverloadMeasure.QUEUE_LENGTH, 5)),
        ("queueLengthPer4Cores=3", Overload(OverloadMeasure.QUEUE_LENGTH_PER_4_CORES, 3)),
        ("backlog=1s", Overload(OverloadMeasure.BACKLOG, 1_000_000)),
    ],
)
def test_each_overload_measure_can_be_chosen(rule: str, overload: Overload) -> None:
    assert paper(f"rules.overload.{rule}").rules.overload == overload


@pytest.mark.parametrize(
    "override",
    [
        "metadata.name=other",
        "metadata.description=other",
        "episodes=3",
        "scheduler=rda",
        "seeds.schedulers=9",
        "payload=metadata",
        "timeScale=2",
        "application=busy",
        "storage=sqlite:///other.db",
        "artifacts=/tmp/other",
        "log.idleSlots=false",
        "fidelity.lostTasks=3",
        "tasks.deadline=4000ms",
    ],
)
def test_the_hash_does_not_see_what_changes_no_fate(override: str) -> None:
    assert paper(override).scenario_hash == paper().scenario_hash


@pytest.mark.parametrize(
    "override",
    [
        "nodes.count=19",
        "nodes.clock=2GHz",
        "nodes.failureRate=0",
        "links.controlDelay=1ms",
        "tasks.deadline=3s",
        "slots.count=99",
        "rules.dropHopeless=false",
        "rules.overload.queueLength=3",
        "rules.probeTimeout=100ms",
        "seeds.topology=2",
        "seeds.workload=2",
        "seeds.faults=2",
    ],
)
def test_the_hash_sees_what_changes_a_fate(override: str) -> None:
    assert paper(override).scenario_hash != paper().scenario_hash


def test_what_is_given_goes_before_the_file() -> None:
    scenario = load("quickstart", ["storage=sqlite:///file.db"])
    made = plan(
        scenario,
        scheduler=SchedulerSpec("rda", {"probes": 2}),
        episodes=7,
        time_scale=0.5,
        storage_url="sqlite:///given.db",
    )
    assert made.scheduler == SchedulerSpec("rda", {"probes": 2})
    assert (made.episodes, made.time_scale) == (7, 0.5)
    assert made.storage_url == "sqlite:///given.db"
    assert plan(scenario).storage_url == "sqlite:///file.db"
    assert plan(scenario).artifacts_url is None


def test_one_seed_stands_for_all() -> None:
    assert paper("seeds=7").seeds == Seeds(7, 7, 7, 7)


def test_episode_seconds_are_real_seconds() -> None:
    assert paper().episode_seconds == 50.0
    assert paper("timeScale=2").episode_seconds == 100.0
