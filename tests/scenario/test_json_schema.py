from __future__ import annotations

from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from testbed.scenario.check import json_schema
from testbed.scenario.load import dumps, load, shipped_names, shipped_text


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_files_are_valid(validator: Draft202012Validator, name: str) -> None:
    validator.validate(yaml.safe_load(shipped_text(name)))
    validator.validate(yaml.safe_load(dumps(load(name))))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("apiVersion", "edge-testbed/v2"),
        ("kind", "Network"),
        ("colour", "red"),
        ("metadata.name", "No Spaces"),
        ("nodes.count", 0),
        ("nodes.count", "many"),
        ("nodes.clock", "3Ghz"),
        ("nodes.clock", 3),
        ("nodes.cores", {"normal": [1, 2]}),
        ("nodes.cores", {"choice": []}),
        ("nodes.arrivalProbability", 1.5),
        ("nodes.arrivalProbability", {"uniform": [0, 0.5, 1]}),
        ("links.rate", "10MB"),
        ("links.overrides", [{"from": 0}]),
        ("tasks.complexity", 0),
        ("tasks.size", ["1MB"]),
        ("slots.length", 100),
        ("rules.overload", {}),
        ("rules.overload", {"queueLength": 1, "backlog": "1s"}),
        ("seeds", -1),
        ("seeds", {"weather": 1}),
        ("scheduler", {"options": 3}),
        ("payload", "text"),
        ("timeScale", 0),
        ("log.idleSlots", "yes"),
        ("fidelity.transmission.error", "4"),
    ],
)
def test_wrong_values_are_refused(
    validator: Draft202012Validator, path: str, value: object
) -> None:
    data: Any = yaml.safe_load(shipped_text("quickstart"))
    place = data
    *above, last = path.split(".")
    for key in above:
        place = place.setdefault(key, {})
    place[last] = value
    assert not validator.is_valid(data)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("links", {"rate": "1MB/s"}),
        ("nodes.cores", 4),
        ("functions", {}),
        ("functions.f.maxRate", "20Hz"),
        ("overlay.neighbours", "some"),
        ("overlay.neighbours", [[0.5]]),
        ("overlay.loss", 2),
        ("users", [{"function": "f", "node": 0, "rate": {}}]),
        ("users", [{"function": "f", "node": 0, "rate": {"steps": [{"at": "0s"}]}}]),
        ("routing", {"offset": "1s"}),
        ("log.requests", "some"),
    ],
)
def test_wrong_values_of_requests_are_refused(
    validator: Draft202012Validator, path: str, value: object
) -> None:
    data: Any = yaml.safe_load(shipped_text("dfaas"))
    place = data
    *above, last = path.split(".")
    for key in above:
        place = place.setdefault(key, {})
    place[last] = value
    assert not validator.is_valid(data)


@pytest.mark.parametrize("key", ["nodes", "links", "tasks", "slots", "metadata"])
def test_missing_parts_are_refused(validator: Draft202012Validator, key: str) -> None:
    data = yaml.safe_load(shipped_text("quickstart"))
    del data[key]
    assert not validator.is_valid(data)


def test_every_key_is_explained(validator: Draft202012Validator) -> None:
    def unexplained(schema: Any, path: str) -> list[str]:
        found = []
        for key, below in schema.get("properties", {}).items():
            described = below.get("description") or "$ref" in below
            found += [] if described else [f"{path}.{key}"]
        return found

    schema = json_schema()
    parts = {"": schema["else"], "serving": schema["then"], **schema["$defs"]}
    assert [key for name, part in parts.items() for key in unexplained(part, name)] == []
