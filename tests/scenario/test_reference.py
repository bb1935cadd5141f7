"""docs/scenario.md says what the schema says, and its examples are scenarios."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from testbed.scenario.load import loads, shipped, shipped_text
from testbed.scenario.plan import Plan
from testbed.scenario.reference import keys, updated
from testbed.scenario.resolve import plan
from testbed.scenario.schema import Scenario, ScenarioFile
from testbed.scenario.serving.schema import ServingScenario

DOCS = Path(__file__).parents[2] / "docs"
PAGE, OTHER = DOCS / "scenario.md", DOCS / "serving-scenario.md"
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("path", [PAGE, OTHER], ids=lambda path: path.stem)
def test_the_tables_are_those_of_the_schema(path: Path) -> None:
    page = path.read_text("utf-8")
    assert page == updated(page), f"python -m testbed.scenario.reference docs/{path.name}"


@pytest.mark.parametrize(("path", "schema"), [(PAGE, Scenario), (OTHER, ServingScenario)])
def test_every_key_stands_on_the_page(path: Path, schema: type[ScenarioFile]) -> None:
    page = path.read_text("utf-8")
    missing = [
        key for key, field in keys(schema) if not field.annotation and f"`{key}`" not in page
    ]
    leaves = [key for key, _ in keys(schema)]
    missing += [
        key
        for key in leaves
        if not any(other.startswith((f"{key}.", f"{key}[")) for other in leaves)
        and f"`{key}`" not in page
    ]
    assert missing == []


def test_the_shortest_file_is_complete() -> None:
    shortest = BLOCKS[0]
    made = plan(loads(shortest))
    assert made.topology.size == 2
    assert Plan.from_json(made.to_json()) == made


@pytest.mark.parametrize("path", [PAGE, OTHER], ids=lambda path: path.stem)
def test_the_other_examples_fit_into_it(path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
    whole = yaml.safe_load(blocks[0])
    assert len(blocks) > 1
    for block in blocks[1:]:
        loads(yaml.safe_dump({**whole, **yaml.safe_load(block)}))


def test_the_forms_of_a_value_are_read() -> None:
    page = PAGE.read_text("utf-8")
    examples = re.findall(r"^\| (?:constant|uniform|choice|list|matrix) \| `(.*?)` ", page, re.M)
    assert len(examples) == 5
    for example in examples:
        whole = yaml.safe_load(BLOCKS[0])
        ((key, value),) = yaml.safe_load(example).items()
        part = next(name for name in ("nodes", "links", "tasks") if key in whole[name])
        whole[part][key] = value
        plan(loads(yaml.safe_dump(whole)))


def test_all_shipped_scenarios_are_named() -> None:
    page = PAGE.read_text("utf-8")
    assert all(f"`{name}`" in page for name, _ in shipped())


def test_overrides_of_the_page_work() -> None:
    text = PAGE.read_text("utf-8")
    settings = re.findall(r"--set (?:'([^']+)'|([a-zA-Z0-9.]+=[^\s`)]+))", text)
    assert len(settings) >= 4
    for quoted, bare in settings:
        setting = quoted or bare
        if setting != "key=value":
            indexed = re.search(r"\.\d", setting)
            loads(BLOCKS[0] if indexed else shipped_text("paper-testbed"), [setting])
