"""The shipped files are the parameter sets of the paper (docs/model.md), to the last digit."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from testbed.model.distributions import Choice, Constant, Distribution, Uniform
from testbed.model.topology import Overload, OverloadMeasure
from testbed.model.units import MILLISECOND, SECOND, Micros
from testbed.scenario.load import load
from testbed.scenario.resolve import plan
from testbed.scenario.schema import Scenario

CORES = Choice((4.0, 8.0, 16.0, 20.0, 24.0, 28.0, 32.0))


@dataclass(frozen=True)
class Setting:
    """One column of the table of parameter sets."""

    name: str
    nodes: int
    slot: Micros
    slots: int
    size: Distribution
    complexity: Distribution
    deadline: Distribution
    alpha: Distribution
    overload: Overload
    control_delay: Micros


SETTINGS = [
    Setting(
        name="paper-simulation",
        nodes=20,
        slot=500 * MILLISECOND,
        slots=100,
        size=Uniform(1e6, 8e6),
        complexity=Uniform(800.0, 2400.0),
        deadline=Constant(4.0 * SECOND),
        alpha=Uniform(0.0, 0.1),
        overload=Overload(OverloadMeasure.QUEUE_LENGTH, 2),
        control_delay=0,
    ),
    Setting(
        name="paper-testbed",
        nodes=10,
        slot=100 * MILLISECOND,
        slots=50,
        size=Uniform(0.5e6, 2.5e6),
        complexity=Uniform(400.0, 800.0),
        deadline=Constant(1.0 * SECOND),
        alpha=Uniform(0.0, 0.4),
        overload=Overload(OverloadMeasure.QUEUE_LENGTH_PER_4_CORES, 3),
        control_delay=1 * MILLISECOND,
    ),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_papers_parameter_sets(setting: Setting) -> None:
    scenario = load(setting.name)
    assert isinstance(scenario, Scenario)
    made = plan(scenario)
    assert made.topology.size == setting.nodes
    assert made.workload.slot == setting.slot
    assert made.workload.slots == setting.slots
    assert made.workload.size_bytes == setting.size
    assert made.workload.complexity == setting.complexity
    assert made.workload.deadline == setting.deadline
    assert made.rules.overload == setting.overload
    assert made.rules.control_delay == setting.control_delay
    assert made.rules.drop_hopeless
    assert made.rules.execution_queue_limit is None
    assert scenario.nodes.cores == CORES
    assert scenario.nodes.clock == Constant(3e9)
    assert scenario.nodes.arrival_probability == Uniform(0.0, 1.0)
    assert scenario.nodes.failure_rate == setting.alpha
    assert scenario.links.rate == Uniform(10e6, 40e6)
    assert scenario.links.failure_rate == Uniform(0.0, 0.03)
    assert made.payload == "bytes"
    assert made.time_scale == 1.0


def test_quickstart_is_quick_and_light() -> None:
    made = plan(load("quickstart"))
    assert made.topology.size <= 5
    assert made.episode_seconds <= 5
    assert made.workload.size_bytes.maximum <= 200_000


def test_default_limits_are_those_of_a_valid_run() -> None:
    limits = plan(load("paper-testbed")).limits
    assert (limits.transmission_error, limits.transmission_error_share) == (4_000, 0.02)
    assert (limits.execution_error, limits.execution_error_share) == (4_000, 0.02)
    assert limits.generator_lateness == 10_000
    assert limits.lost_tasks == 0
