"""The tables of a log are brought to a new version with all that is in them, on both databases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, MetaData, Table, inspect, text

from testbed.errors import PermanentError, PrerequisiteMissing
from testbed.model.codec import encode_answers, encode_observation
from testbed.model.events import DecisionRecord, Record
from testbed.storage.tasklog import migrating, open_task_log, versions
from testbed.storage.tasklog.opening import connect
from testbed.storage.tasklog.packing import decision_rows, history_rows, task_row
from testbed.storage.tasklog.schema import REVISION, SCHEMA_VERSION, events, metadata, tasks
from testbed.testing.tasklog import (
    sample_episode,
    sample_requests,
    sample_rows,
    sample_run,
    sample_windows,
)

NEXT = SCHEMA_VERSION + 1
MIGRATION = f'''
from alembic import op
from sqlalchemy import Column, String

revision = "{NEXT:04d}"
down_revision = "{REVISION}"

def upgrade():
    with op.batch_alter_table("runs") as runs:
        runs.add_column(Column("place", String(32), comment="where"))
'''


@pytest.fixture(params=["sqlite", pytest.param("mysql", marks=pytest.mark.mysql)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "mysql":
        return str(request.getfixturevalue("mysql_url"))
    return str(tmp_path / "tasks.db")


@pytest.fixture
def coming(tmp_path: Path) -> Path:
    """A folder with the migration of the version after this one."""
    folder = tmp_path / "coming"
    folder.mkdir()
    (folder / f"v{NEXT:04d}_coming.py").write_text(MIGRATION)
    return folder


def execute(url: str, *statements: str) -> None:
    engine = connect(url, create=True).engine
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def write(url: str) -> None:
    with open_task_log(url) as log:
        log.begin_run(sample_run())
        log.append(sample_run().id, *sample_episode(0)[1:])
        log.write_tasks(sample_run().id, sample_rows(0))


def write_version_1(url: str, records: Sequence[Record], made: Sequence[DecisionRecord]) -> None:
    """Make a log as the first schema version had it, with a row for each event."""
    database = connect(url, create=True)
    info = sample_run()
    with versions.alone(database.engine, "here") as connection:
        config = migrating._config(())
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(text("INSERT INTO schema_info VALUES (1, 1, '0.1', 'now')"))
        names = ("id", "name", "scenario_hash", "scheduler", "driver", "label", "first_episode")
        values = {name: getattr(info, name) for name in names}
        values |= {"episodes": 2, "state": "completed", "started": info.started, "ended": "now"}
        values |= {"plan": info.plan, "seeds": json.dumps(info.seeds), "versions": "{}", "key": 1}
        connection.execute(metadata.tables["runs"].insert(), values)
        _insert(connection, events, [_event(each) for each in records])
        _insert(connection, metadata.tables["decisions"], [_decision(each) for each in made])
        _insert(connection, tasks, [task_row(1, row) for row in sample_rows(0)])
    database.engine.dispose()


def _insert(connection: Connection, table: Table, rows: Sequence[Sequence[Any]]) -> None:
    names = [column.name for column in table.columns]
    connection.execute(table.insert(), [dict(zip(names, row, strict=True)) for row in rows])


def _event(record: Record) -> Sequence[Any]:
    kind, (task, *about), seq, node, at, clock, data = record
    return (1, task, seq, kind, node, at, clock, json.dumps(data), *about)


def _decision(decision: DecisionRecord) -> Sequence[Any]:
    task, node, episode, slot, at, scheduler, observation, destination, odds, mask = decision
    allowed = None if mask is None else "".join(str(int(each)) for each in mask)
    seen = encode_observation(observation._replace(answers=()))
    probes = encode_answers(observation.answers)
    told = None if odds is None else json.dumps(odds)
    return (1, episode, node, slot, task, at, scheduler, destination, allowed, told, seen, probes)


def test_a_log_of_version_1_keeps_all_that_is_in_it(url: str) -> None:
    _, records, made = sample_episode(0)
    late = records[-1]._replace(seq=1_000_000)
    missing = records[3]
    records = sorted([*records, late], key=lambda each: (each.task.id, each.seq))
    records.remove(missing)
    write_version_1(url, records, made)
    with pytest.raises(PermanentError, match="testbed db upgrade"):
        open_task_log(url)
    migrating.upgrade(url)
    assert migrating.check(url).good
    with open_task_log(url) as log:
        run = log.run("latest")
        assert list(log.records(run.id)) == records
        assert list(log.decisions(run.id)) == sorted(
            made, key=lambda d: (d.episode, d.node, d.slot)
        )
        assert list(log.tasks(run.id)) == sample_rows(0)
        assert log.counts(run.id)["events"] == len(records)
        # What was sent before the upgrade may come again after it, and what was missing too.
        assert log.append(run.id, [*records, missing], made) == 1
        assert missing in list(log.records(run.id))


VERSION_2 = ("runs", "histories", "decisions", "tasks")


def write_version_2(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Make a log as the second schema version had it; return its rows by table."""
    database = connect(url, create=True)
    with versions.alone(database.engine, "here") as connection:
        config = migrating._config(())
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        connection.execute(text("INSERT INTO schema_info VALUES (1, 2, '0.2', 'now')"))
        found = MetaData()
        found.reflect(connection)
        values = {name: getattr(sample_run(), name) for name in ("id", "name", "scenario_hash")}
        values |= {"scheduler": "ratc", "driver": "network", "label": "ü", "first_episode": 0}
        values |= {"episodes": 2, "state": "completed", "started": "then", "ended": "now"}
        values |= {"plan": sample_run().plan, "seeds": "{}", "versions": "{}", "key": 1}
        connection.execute(found.tables["runs"].insert(), values)
        _, records, made = sample_episode(0)
        _insert(connection, found.tables["histories"], history_rows(1, records))
        _insert(connection, found.tables["decisions"], decision_rows(1, made, {})[0])
        _insert(connection, found.tables["tasks"], [task_row(1, row) for row in sample_rows(0)])
        rows = stored(connection, found)
    database.engine.dispose()
    return rows


def stored(connection: Connection, tables: MetaData) -> dict[str, list[tuple[Any, ...]]]:
    return {
        name: [tuple(row) for row in connection.execute(tables.tables[name].select())]
        for name in VERSION_2
    }


def test_a_log_of_version_2_keeps_all_that_is_in_it_and_takes_serving_runs(url: str) -> None:
    before = write_version_2(url)
    with pytest.raises(PermanentError, match="testbed db upgrade"):
        open_task_log(url)
    # The first half of an upgrade that was cut short.
    told = " COMMENT 'family of work: tasks or serving'" if url.startswith("mysql") else ""
    execute(url, f"ALTER TABLE runs ADD COLUMN model VARCHAR(16) DEFAULT 'tasks' NOT NULL{told}")
    migrating.upgrade(url)
    assert migrating.check(url).good
    database = connect(url, create=True)
    with database.engine.connect() as connection:
        found = stored(connection, metadata)
    database.engine.dispose()
    assert found.pop("runs") == [(*row, "tasks") for row in before.pop("runs")]
    assert found == before
    with open_task_log(url) as log:
        run = log.run("latest")
        assert run.model == "tasks"
        assert list(log.records(run.id)) == sample_episode(0)[1]
        assert list(log.tasks(run.id)) == sample_rows(0)
        log.begin_run(sample_run("serving", model="serving"))
        log.append_serving("serving", sample_requests(0), sample_windows(0))
        assert list(log.requests("serving")) == sample_requests(0)


def test_an_upgrade_that_was_cut_short_is_repeated(url: str) -> None:
    _, records, made = sample_episode(0)
    write_version_1(url, records, made)
    database = connect(url, create=True)
    with versions.alone(database.engine, "here") as connection:
        metadata.tables["histories"].create(connection)
        # A part of it has been copied.
        first = (1, 0, 0, 1, 0, 0, 0, 4_000_000, 51_200_000_000, 4_000_000, '[["generated",0,0,3]]')
        _insert(connection, metadata.tables["histories"], [first])
    database.engine.dispose()
    migrating.upgrade(url)
    with open_task_log(url) as log:
        assert list(log.records(sample_run().id))[-1] == records[-1]


def test_the_migrations_lead_to_the_tables_of_this_version(url: str) -> None:
    database = connect(url, create=True)
    with versions.alone(database.engine, "here") as connection:
        migrating._migrate(connection, "here", ())
        connection.execute(
            text(f"INSERT INTO schema_info VALUES (1, {SCHEMA_VERSION}, 'test', 'now')")
        )
    tables = {name: inspect(database.engine).get_columns(name) for name in sorted(metadata.tables)}
    database.engine.dispose()
    assert migrating.check(url).good
    assert {name: [column["name"] for column in columns] for name, columns in tables.items()} == {
        name: list(table.columns.keys()) for name, table in sorted(metadata.tables.items())
    }
    write(url)


def test_a_new_log_is_made_and_left_alone(url: str) -> None:
    before, after = migrating.upgrade(url)
    assert (before.version, after.version, after.good) == (None, SCHEMA_VERSION, True)
    write(url)
    before, after = migrating.upgrade(url)
    assert (before.version, after.version, after.good) == (SCHEMA_VERSION, SCHEMA_VERSION, True)
    with open_task_log(url, create=False) as log:
        assert list(log.tasks(sample_run().id)) == sample_rows(0)


def test_a_log_from_before_the_first_migration_goes_on(url: str, coming: Path) -> None:
    write(url)
    execute(url, "DROP TABLE alembic_version")
    with open_task_log(url) as log:
        assert len(log.runs()) == 1
    migrating.upgrade(url)
    assert migrating.check(url).good
    execute(url, "DROP TABLE alembic_version")
    assert migrating.upgrade(url, more=[coming])[1].version == NEXT


def test_a_migration_keeps_what_is_in_the_log(url: str, coming: Path) -> None:
    write(url)
    before, after = migrating.upgrade(url, more=[coming])
    assert (before.version, after.version) == (SCHEMA_VERSION, NEXT)
    execute(url, "UPDATE runs SET place = 'here'", f"UPDATE schema_info SET version = {NEXT - 1}")
    with open_task_log(url) as log:
        assert list(log.records(sample_run().id)) == sample_episode(0)[1]
        assert list(log.tasks(sample_run().id)) == sample_rows(0)


def test_an_upgraded_log_is_refused_by_an_older_toolkit(url: str, coming: Path) -> None:
    write(url)
    migrating.upgrade(url, more=[coming])
    with pytest.raises(PermanentError, match="update edge-testbed"):
        open_task_log(url)
    with pytest.raises(PermanentError, match="newer than this toolkit"):
        migrating.upgrade(url)
    assert migrating.check(url).version == NEXT
    assert not migrating.check(url).good


def test_a_migration_that_fails_is_explained_and_loses_nothing(url: str, coming: Path) -> None:
    write(url)
    (file,) = coming.iterdir()
    file.write_text(MIGRATION + "    op.execute('DROP TABLE no_such_table')\n")
    with pytest.raises(PermanentError, match="no_such_table"):
        migrating.upgrade(url, more=[coming])
    with open_task_log(url) as log:
        assert list(log.tasks(sample_run().id)) == sample_rows(0)


def test_a_log_of_a_version_without_a_way_is_kept(url: str) -> None:
    write(url)
    execute(url, "UPDATE schema_info SET version = 0", "DELETE FROM alembic_version")
    with pytest.raises(PermanentError, match="testbed db upgrade"):
        open_task_log(url)
    with pytest.raises(PermanentError, match="no migration path"):
        migrating.upgrade(url)


def test_what_differs_is_told(url: str) -> None:
    write(url)
    execute(url, "DROP TABLE decisions", "ALTER TABLE runs ADD COLUMN colour VARCHAR(8)")
    found = migrating.check(url)
    assert not found.good
    assert "add table: decisions" in found.differences
    assert any("remove column" in each and "colour" in each for each in found.differences)


def test_what_is_no_log_is_not_touched(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteMissing, match="there is no task log"):
        migrating.check(str(tmp_path / "absent.db"))
    assert not (tmp_path / "absent.db").exists()
    execute(str(tmp_path / "other.db"), "CREATE TABLE songs (name TEXT)")
    for look in (migrating.check, migrating.upgrade):
        with pytest.raises(PermanentError, match=r"not a task log, but a database .* tables songs"):
            look(str(tmp_path / "other.db"))
