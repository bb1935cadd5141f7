"""The catalogue is complete, and every list that shows methods is made from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from testbed.experiment.reproduce import definitions, drawing, methods
from testbed.model.hook import PLACE
from testbed.model.hooks import HOOKS
from testbed.model.serving.route import ROUTE
from testbed.schedulers import registry
from testbed.schedulers.catalogue import (
    BASELINES,
    EQUALS,
    HEURISTICS,
    METHODS,
    REFERENCES,
    SIMULATOR_ONLY,
    TARGETS,
    label,
    method,
    targets,
)
from testbed.sim import simulator
from testbed.sim.engine import heuristics
from testbed.sim.play import PER_DESTINATION, UNTRAINED
from trainer.o2o.logged import ASK_NO_BITS
from trainer.o2o.settings import O2O, OFFLINE, ON_NODES, ONLINE_ONLY
from trainer.o2o.venue import BOUND

ROOT = Path(__file__).resolve().parents[2]


def test_every_scheduler_has_an_entry_and_every_entry_is_something() -> None:
    own = {name for name in registry.names() if name in TARGETS}
    assert own == set(TARGETS)
    routers = targets(ROUTE)
    assert set(registry.names(ROUTE)) >= set(routers)
    assert {each.hook for each in METHODS.values()} == {PLACE, ROUTE} == set(HOOKS)
    assert set(simulator.names()) >= own | set(SIMULATOR_ONLY)
    learned = {O2O, OFFLINE, ONLINE_ONLY}
    assert set(METHODS) - set(simulator.names()) == {
        *learned,
        UNTRAINED,
        PER_DESTINATION,
        BOUND,
        *routers,
    }
    files = {path.stem for path in (ROOT / "testbed" / "schedulers").glob("*.py")}
    made = [*TARGETS.values(), *routers.values()]
    modules = {target.split(":")[0].rsplit(".", 1)[1] for target in made}
    assert files - modules == {"__init__", "asked", "catalogue", "estimates", "probing", "registry"}
    assert set(heuristics.METHODS) <= set(TARGETS)
    assert all(each.name == name and each.label and each.knows for name, each in METHODS.items())
    labels = [each.label for each in METHODS.values()]
    assert len(set(labels)) == len(labels)


def test_every_list_of_methods_comes_from_it() -> None:
    assert set(EQUALS) < set(REFERENCES) < set(HEURISTICS) < set(BASELINES)
    assert set(ON_NODES) == set(BASELINES) - set(SIMULATOR_ONLY)
    assert {name for name in TARGETS if name not in ASK_NO_BITS} == {
        "drl",
        "local-or-reliable",
        "ratc-masked",
        "rda-masked",
    }
    assert set(methods.METHODS) <= set(METHODS)
    assert set(drawing._DIFFERENCES) < set(methods.METHODS)
    settings = [setting for figure in definitions.FIGURES.values() for setting in figure.settings]
    assert {setting.source for setting in settings} <= set(HEURISTICS)


@pytest.mark.parametrize(
    "path",
    [
        "testbed/cli/policy.py",
        "testbed/experiment/evaluation.py",
        "testbed/experiment/o2o.py",
        "testbed/experiment/per_destination/evaluation.py",
        "testbed/experiment/reproduce/drawing.py",
        "testbed/experiment/reproduce/methods.py",
        "testbed/schedulers/registry.py",
        "trainer/o2o/logged.py",
        "trainer/o2o/settings.py",
    ],
)
def test_no_list_is_written_a_second_time(path: str) -> None:
    """A name may stand for itself (what a difference is from); three in a row are a list."""
    name = f'"(?:{"|".join(map(re.escape, METHODS))})"'
    text = (ROOT / path).read_text()
    assert re.findall(rf"{name}[,:]\s+{name}[,:]\s+{name}", text) == []


def test_methods_of_other_packages_are_shown_by_their_own_name() -> None:
    assert label("shortest_queue:ShortestQueue") == "shortest_queue:ShortestQueue"
    assert (method("mine").role, method("mine").group, method("mine").knows) == (
        "named",
        "other",
        "",
    )
    assert method("drl:mine-0123").knows == METHODS["drl"].knows
    assert label("drl:mine-0123") == "drl:mine-0123"
