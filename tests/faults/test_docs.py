"""The examples of docs/faults.md are faults, and every kind stands there."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from testbed.model.faults import KINDS
from testbed.scenario.load import loads, shipped_text
from testbed.scenario.resolve import plan

PAGE = (Path(__file__).parents[2] / "docs" / "faults.md").read_text("utf-8")


def test_the_examples_are_read() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert blocks
    for block in blocks:
        data = {**yaml.safe_load(shipped_text("quickstart")), **yaml.safe_load(block)}
        assert plan(loads(yaml.safe_dump(data))).faults


def test_every_kind_and_mode_stands_on_the_page() -> None:
    for kind in KINDS.values():
        assert f"| `{kind.name}` |" in PAGE
        assert all(f"`mode: {mode}`" in PAGE for mode in kind.modes)
