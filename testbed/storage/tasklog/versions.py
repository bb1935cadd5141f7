"""The version of a log's tables: they are made where there are none, refused where they differ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, Engine, func, insert, inspect, select
from sqlalchemy.exc import DBAPIError

from testbed.errors import PermanentError, TemporaryError
from testbed.storage.tasklog.base import utc_now
from testbed.storage.tasklog.schema import (
    REVISION,
    SCHEMA_VERSION,
    alembic_version,
    metadata,
    runs,
    schema_info,
)
from testbed.version import __version__

LOCK_TIMEOUT_S: Final = 15
_LOCK: Final = "edge_testbed_schema"


class NothingLogged(PermanentError):
    """The database of a task log that was to be read has no tables yet."""


def prepare(engine: Engine, where: str, *, create: bool) -> None:
    """Make the tables if there are none and ``create`` says so; else see that they are ours.

    Raises:
        PermanentError: there are none, or they are of another version or of something else.
        TemporaryError: another process is making them and does not end.
    """
    names = _names(engine)
    if create and (not names or (_is_server(engine) and _half_made(engine, names))):
        with alone(engine, where) as connection:
            # Another process may have been faster.
            found = set(inspect(connection).get_table_names())
            if not found or (_is_server(engine) and _half_made(engine, found)):
                _make(connection)
        names = _names(engine)
    if not names & set(metadata.tables):
        if names:
            raise PermanentError(
                f"task log {where}: not a task log, but a database with the tables "
                f"{', '.join(sorted(names)[:5])}",
                fix="name another",
            )
        raise NothingLogged(
            f"task log {where}: empty",
            fix="run a scenario into it first, or name another with --storage",
        )
    if "schema_info" not in names:
        raise PermanentError(
            f"task log {where}: has no schema version, so it is incomplete or was made by "
            "something else",
            fix="name another",
        )
    version, written_by = found_version(engine, where)
    here = f"this is {__version__}, which reads version {SCHEMA_VERSION}"
    if version > SCHEMA_VERSION:
        raise PermanentError(
            f"task log {where}: schema version {version}, written by edge-testbed {written_by}; "
            f"{here}",
            fix=f"update edge-testbed to {written_by} or later, or name another log",
        )
    if version < SCHEMA_VERSION:
        raise PermanentError(
            f"task log {where}: schema version {version}, written by edge-testbed {written_by}; "
            f"{here}",
            fix=f"bring it up to date, after a backup: testbed db upgrade --storage '{where}'",
        )


def found_version(engine: Engine, where: str) -> tuple[int, str]:
    """Return the version of the tables, and the version of this toolkit that made them.

    Raises: PermanentError: they do not say.
    """
    with engine.connect() as connection:
        found = connection.execute(
            select(schema_info.c.version, schema_info.c.written_by)
        ).one_or_none()
    if found is None:
        raise PermanentError(f"task log {where}: its schema version is missing", fix="name another")
    return found[0], found[1]


@contextmanager
def alone(engine: Engine, where: str) -> Iterator[Connection]:
    """Give a transaction that changes tables, while no other process does."""
    if _is_server(engine):
        # Tables are not changed in transactions here, so others are kept off by name.
        with engine.connect() as holder:
            if not holder.scalar(select(func.get_lock(_LOCK, LOCK_TIMEOUT_S))):
                raise TemporaryError(
                    f"task log {where}: another process is changing its tables", fix="try again"
                )
            try:
                with engine.begin() as connection:
                    yield connection
            finally:
                _let_go(holder)
        return
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            # The driver begins transactions for rows, not for tables; without one, whoever opens
            # the log at the same moment finds it half made.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection


def _let_go(holder: Connection) -> None:
    try:
        holder.execute(select(func.release_lock(_LOCK)))
    except DBAPIError as error:
        # The lock is gone with its connection; what went wrong first is what matters.
        if not error.connection_invalidated:
            raise


def _make(connection: Connection) -> None:
    metadata.create_all(connection)
    alembic_version.create(connection, checkfirst=True)
    if connection.scalar(select(func.count()).select_from(alembic_version)) == 0:
        connection.execute(insert(alembic_version), {"version_num": REVISION})
    # Last: what has a version is complete.
    connection.execute(
        insert(schema_info),
        {"id": 1, "version": SCHEMA_VERSION, "written_by": __version__, "created": utc_now()},
    )


def _names(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names())


def _is_server(engine: Engine) -> bool:
    return engine.dialect.name in ("mysql", "mariadb")


def _half_made(engine: Engine, names: set[str]) -> bool:
    """Return whether making them was cut short: only tables of ours, no version, and no run yet."""
    ours = {*metadata.tables, alembic_version.name}
    if not names <= ours:
        return False
    with engine.connect() as connection:
        for table in (schema_info, runs):
            if table.name in names and connection.scalar(select(func.count()).select_from(table)):
                return False
    return True
