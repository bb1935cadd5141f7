"""docs/task-log.md and docs/data-sets.md name everything there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.model.encoders import ENCODERS
from testbed.storage.dataset.format import Counts, schema
from testbed.storage.export import TABLES
from testbed.storage.tasklog import RunState
from testbed.storage.tasklog.schema import metadata

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("table", ["runs", *TABLES])
def test_every_column_of_the_log_is_described(table: str) -> None:
    page = (DOCS / "task-log.md").read_text()
    section = page.split(f"\n## {table.capitalize()}\n")[1].split("\n## ")[0]
    for column in metadata.tables[table].columns:
        assert f"| `{column.name}` |" in section


def test_every_state_of_a_run_is_described() -> None:
    page = (DOCS / "task-log.md").read_text()
    for state in RunState:
        assert f"`{state.value}`" in page


def test_every_column_and_count_of_a_data_set_is_described() -> None:
    page = (DOCS / "data-sets.md").read_text()
    for field in schema(7, 3):
        assert f"| `{field.name}` |" in page
    for name in (*Counts.__slots__, *ENCODERS):
        assert f"`{name}`" in page
