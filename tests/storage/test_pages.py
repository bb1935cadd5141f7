"""docs/task-log.md and docs/data-sets.md name everything there is."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Table

from testbed.model.encoders import ENCODERS
from testbed.storage.dataset.format import Counts, schema
from testbed.storage.tasklog import RunState, open_task_log
from testbed.storage.tasklog.schema import TABLES, histories, runs
from testbed.testing.tasklog import sample_episode, sample_run

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize(
    ("heading", "table"),
    [
        ("Runs", runs),
        ("Stored form", histories),
        *((name.capitalize(), table) for name, table in TABLES.items()),
    ],
)
def test_every_column_of_the_log_is_described(heading: str, table: Table) -> None:
    page = (DOCS / "task-log.md").read_text()
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    for column in table.columns:
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


def test_the_statement_of_the_page_gives_the_events(tmp_path: Path) -> None:
    page = (DOCS / "task-log.md").read_text()
    statement = page.split("```sql\n")[1].split("```")[0]
    run = sample_run().id
    with open_task_log(tmp_path / "tasks.db") as log:
        log.begin_run(sample_run("another"))
        log.begin_run(sample_run())
        for each in ("another", run):
            log.append(each, *sample_episode(0)[1:])
        (events,) = log.rows("events", run)
    with closing(sqlite3.connect(tmp_path / "tasks.db")) as database:
        found = database.execute(statement, {"run": run}).fetchall()
    assert found == [row[:8] for row in events]
