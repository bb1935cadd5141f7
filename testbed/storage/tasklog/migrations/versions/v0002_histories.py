"""Several records of a task in one row: ``events`` becomes ``histories``.

Observations of decisions stay as they are: both forms are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Final

from alembic import op
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    Text,
    and_,
    insert,
    inspect,
    or_,
    select,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

revision: Final = "0002"
down_revision: Final = "0001"

_TEXT: Final[TypeEngine[str]] = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
_PAGE: Final = 20_000
_OF_CONTROLLER: Final = 1_000_000
"""Records numbered from here are the controller's, each in a row of its own."""


def _key(name: str, comment: str) -> Column[int]:
    return Column(name, BigInteger, primary_key=True, autoincrement=False, comment=comment)


def _count(name: str, comment: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, comment=comment)


def upgrade() -> None:
    """Make the new table of the old one."""
    connection = op.get_bind()
    names = inspect(connection).get_table_names()
    if "histories" not in names:
        _create()
    if "events" in names:
        _copy(connection)
        op.drop_table("events")


def _create() -> None:
    op.create_table(
        "histories",
        Column("run", Integer, primary_key=True, autoincrement=False, comment="runs.key"),
        _key("task", "id of the task"),
        _key("seq", "number of the first of these records in the task's history, across nodes"),
        _count("records", "number of records here; their numbers follow one another"),
        _count("episode", "of the task"),
        _count("slot", "of the task, from 0"),
        _count("source", "node at which the task arrived"),
        _count("size_bytes", "size of the task"),
        _count("cycles", "work of the task"),
        _count("deadline", "of the task after its arrival"),
        Column(
            "steps",
            _TEXT,
            nullable=False,
            comment="[kind, node, at, clock - at, data] of each record; data only where there is "
            "some",
        ),
        sqlite_with_rowid=False,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )


def _copy(connection: Connection) -> None:
    """Enter all events; those that were entered before a migration was cut short are skipped."""
    metadata = MetaData()
    events = Table("events", metadata, autoload_with=connection)
    histories = Table("histories", metadata, autoload_with=connection)
    add = insert(histories).prefix_with("IGNORE", dialect="mysql")
    add = add.prefix_with("IGNORE", dialect="mariadb").prefix_with("OR IGNORE", dialect="sqlite")
    columns = events.c
    query = select(
        *(columns.run, columns.task, columns.seq, columns.kind, columns.node, columns.at),
        *(columns.clock, columns.data, columns.episode, columns.slot, columns.source),
        *(columns.size_bytes, columns.cycles, columns.deadline),
    ).order_by(columns.run, columns.task, columns.seq)
    page = query.limit(_PAGE)
    while rows := connection.execute(page).all():
        connection.execute(add, [_history(part) for part in _parts(rows)])
        run, task, seq = rows[-1][:3]
        behind = and_(columns.task == task, columns.seq > seq)
        behind = and_(columns.run == run, or_(columns.task > task, behind))
        page = query.where(columns.run >= run, or_(columns.run > run, behind)).limit(_PAGE)


def _parts(rows: Sequence[Any]) -> Iterator[list[Any]]:
    """Return the events of each task in pieces whose numbers follow one another."""
    for _, group in groupby(rows, lambda row: (row.run, row.task, *row[8:])):
        part: list[Any] = []
        for row in group:
            if part and (row.seq != part[-1].seq + 1 or row.seq >= _OF_CONTROLLER):
                yield part
                part = []
            part.append(row)
        yield part


def _history(part: Sequence[Any]) -> dict[str, Any]:
    steps = (
        f'["{row.kind}",{row.node},{row.at},{row.clock - row.at}'
        + ("]" if row.data == "{}" else f",{row.data}]")
        for row in part
    )
    first = part[0]
    return {
        "run": first.run,
        "task": first.task,
        "seq": first.seq,
        "records": len(part),
        "episode": first.episode,
        "slot": first.slot,
        "source": first.source,
        "size_bytes": first.size_bytes,
        "cycles": first.cycles,
        "deadline": first.deadline,
        "steps": f"[{','.join(steps)}]",
    }
