"""A family of work is chosen in one table for each layer, and nowhere else."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from controller.process import RUNS
from edgenode.families import FAMILIES as NODES
from testbed.errors import UsageError
from testbed.experiment.metrics import METRICS_OF
from testbed.experiment.report import REPORTS
from testbed.experiment.summary import SUMMARIES
from testbed.model.later import later
from testbed.scenario import load
from testbed.scenario.check import FAMILIES as SCENARIOS
from testbed.scenario.families import MODELS
from testbed.scenario.plan import PLANS, Plan
from testbed.scenario.plan import load as load_plan
from testbed.scenario.plan.head import encode
from testbed.scenario.resolve import plan
from testbed.sim.families import SIMULATIONS
from testbed.storage.tasklog import TABLES_OF
from testbed.storage.trace.writing import TRACES

ROOT = Path(__file__).parents[2]
QUICKSTART = plan(load.load("quickstart"))


def test_every_layer_has_the_families_that_scenarios_may_name() -> None:
    tables: Iterable[Iterable[str]] = (
        PLANS,
        SIMULATIONS,
        NODES,
        RUNS,
        TABLES_OF,
        TRACES,
        METRICS_OF,
        SUMMARIES,
        REPORTS,
    )
    assert all(set(SCENARIOS) <= set(table) for table in tables)
    assert "tasks" in SCENARIOS


def test_nothing_else_asks_for_the_model() -> None:
    """Outside the tables, no code compares the model of a plan or scenario with a name."""
    asked = re.compile(rf"\bmodel\b[\"'\]]*\s*(==|!=|in)\s*\(?[\"'](?:{'|'.join(MODELS)})\b")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for package in ("testbed", "controller", "edgenode", "trainer")
        for path in (ROOT / package).rglob("*.py")
        for line in path.read_text("utf-8").splitlines()
        if asked.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("nothing", "model: 'nothing'; allowed: tasks, serving"),
        ("3", "model: 3; allowed: tasks, serving"),
    ],
)
def test_a_model_that_this_version_has_not_is_refused_by_name(model: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        load.load("quickstart", [f"model={model}"])
    assert said in str(refused.value)


def test_a_scenario_may_name_the_model_that_it_has_anyway() -> None:
    named = load.load("quickstart", ["model=tasks"])
    assert load.dumps(named) == load.dumps(load.load("quickstart"))
    assert load.draw(named) == QUICKSTART
    assert (QUICKSTART.model, QUICKSTART.hook, QUICKSTART.size) == ("tasks", "place", 5)


def test_the_text_of_a_plan_says_of_which_class_it_is() -> None:
    text = QUICKSTART.to_json()
    read = load_plan(text)
    assert type(read) is Plan
    assert read == QUICKSTART
    document = json.loads(text)
    assert "model" not in document
    for model, said in (("serving", "not a complete plan"), ("x", "model: 'x'")):
        other = json.dumps({**document, "model": model})
        with pytest.raises(ValueError, match=said):
            load_plan(other)
        with pytest.raises(ValueError, match="expected model 'tasks'"):
            Plan.from_json(other)


def test_the_text_of_a_plan_stays_what_it_is() -> None:
    """Stored runs hold it, and a testbed that is brought up again compares it."""
    text = QUICKSTART.to_json()
    assert hashlib.sha256(text.encode()).hexdigest() == TEXT


TEXT = "aaaae8298405882a61e4b163fde1a133385ea77de61e5916c6080287933f4c5f"


@dataclasses.dataclass(frozen=True)
class _Earlier:
    first: int


@dataclasses.dataclass(frozen=True)
class _Today:
    first: int
    second: tuple[int, ...] = later((1, 2))


def test_a_field_that_came_later_is_left_out_at_its_default() -> None:
    assert encode(_Today(7)) == encode(_Earlier(7)) == {"first": 7}
    assert encode(_Today(7, (3,))) == {"first": 7, "second": [3]}
