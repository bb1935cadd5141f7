from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.model.distributions import Choice, Constant, Distribution, Uniform
from testbed.model.topology import Overload, OverloadMeasure, Rules, Topology
from testbed.model.workload import Workload
from testbed.scenario.load import draw, load, shipped_names
from testbed.scenario.plan import (
    ApplicationSpec,
    FidelityLimits,
    Plan,
    SchedulerSpec,
    Seeds,
)
from testbed.scenario.plan import load as load_plan
from testbed.scenario.resolve import plan

floats = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**63 - 1)
texts = st.text(max_size=20)
options = st.dictionaries(
    texts,
    st.recursive(
        st.none() | st.booleans() | st.integers() | floats | texts,
        lambda inside: st.lists(inside, max_size=3) | st.dictionaries(texts, inside, max_size=3),
        max_leaves=5,
    ),
    max_size=3,
)
distributions: st.SearchStrategy[Distribution] = st.one_of(
    st.builds(Constant, floats),
    st.builds(Uniform, floats, floats),
    st.builds(Choice, st.lists(floats, min_size=1, max_size=4).map(tuple)),
)


def tuples(values: st.SearchStrategy[float], size: int) -> st.SearchStrategy[tuple[float, ...]]:
    return st.lists(values, min_size=size, max_size=size).map(tuple)


def matrices(values: st.SearchStrategy[float], size: int) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(tuples(values, size), min_size=size, max_size=size).map(tuple)


topologies = st.integers(1, 4).flatmap(
    lambda n: st.builds(
        Topology,
        cores=tuples(counts, n),
        capacity_hz=tuples(counts, n),
        arrival_probability=tuples(floats, n),
        execution_failure_rate=tuples(floats, n),
        link_rate=matrices(counts, n),
        link_failure_rate=matrices(floats, n),
    )
)
plans = st.builds(
    Plan,
    name=texts,
    scenario_hash=texts,
    topology=topologies,
    workload=st.builds(
        Workload,
        slots=counts,
        slot=counts,
        size_bytes=distributions,
        complexity=distributions,
        deadline=distributions,
    ),
    rules=st.builds(
        Rules,
        overload=st.builds(Overload, st.sampled_from(OverloadMeasure), counts),
        drop_hopeless=st.booleans(),
        execution_queue_limit=st.none() | counts,
        control_delay=counts,
        probe_timeout=counts,
        link_delays=st.none() | matrices(counts, 3),
    ),
    seeds=st.builds(Seeds, counts, counts, counts, counts),
    scheduler=st.builds(SchedulerSpec, texts, options),
    episodes=counts,
    time_scale=floats,
    payload=st.sampled_from(["bytes", "metadata"]),
    chunk_bytes=counts,
    application=st.builds(ApplicationSpec, texts, options),
    log_idle_slots=st.booleans(),
    storage_url=st.none() | texts,
    artifacts_url=st.none() | texts,
    limits=st.builds(FidelityLimits, counts, floats, counts, floats, counts, counts),
)


@given(original=plans)
def test_json_gives_back_an_equal_plan(original: Plan) -> None:
    text = original.to_json()
    again = Plan.from_json(text)
    assert again == original
    # Equal is not the same: 1 == 1.0 and 0.0 == -0.0.
    assert again.to_json() == text
    assert "\n" not in text
    assert type(again.rules.overload.measure) is OverloadMeasure
    assert type(again.topology.link_rate[0]) is tuple


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_scenarios_survive_the_wire(name: str) -> None:
    original = draw(load(name))
    assert load_plan(original.to_json()) == original


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a plan"),
        ("[]", "no planVersion"),
        ("{}", "no planVersion"),
        ('{"planVersion": 99}', "plan version 99; this toolkit reads version 1"),
        ('{"planVersion": 1}', "not a complete plan"),
        ('{"planVersion": 1, "topology": null}', "not a complete plan"),
    ],
)
def test_what_is_no_plan_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan.from_json(text)


def test_an_unknown_field_is_refused() -> None:
    data = json.loads(plan(load("quickstart")).to_json())
    with pytest.raises(ValueError, match="not a complete plan"):
        Plan.from_json(json.dumps({**data, "colour": "red"}))


def test_a_number_that_json_cannot_hold_is_refused() -> None:
    broken = replace(plan(load("quickstart")), time_scale=math.nan)
    with pytest.raises(ValueError):
        broken.to_json()


def test_nodes_need_nothing_but_the_standard_library_to_read_a_plan() -> None:
    heavy = ("pydantic", "pydantic_core", "yaml", "numpy", "pandas", "jsonschema")
    code = (
        "import sys, testbed.scenario.plan\n"
        f"sys.exit(','.join(name for name in {heavy!r} if name in sys.modules) or 0)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=99)
    assert (found.returncode, found.stderr) == (0, "")


def test_an_error_limit_is_the_larger_of_both_parts() -> None:
    limits = FidelityLimits(transmission_error=4_000, transmission_error_share=0.02)
    assert limits.transmission_limit(100_000) == 4_000
    assert limits.transmission_limit(1_000_000) == 20_000
    assert limits.execution_limit(1_000_000) == 20_000
