"""Bringing the tables of a log up to this version, and telling how they differ from it.

A migration is a file in ``migrations/versions``. On MySQL tables are not changed in transactions:
each migration there must be able to follow itself, having been cut short.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, func, insert, inspect, select, update

from testbed.errors import PermanentError
from testbed.storage.tasklog import versions
from testbed.storage.tasklog.failures import explained
from testbed.storage.tasklog.opening import Database, connect
from testbed.storage.tasklog.schema import SCHEMA_VERSION, alembic_version, metadata, schema_info
from testbed.version import __version__

FOLDER: Final = Path(__file__).parent / "migrations"


@dataclass(frozen=True, slots=True)
class Condition:
    """State of a log's tables: their ``version``, None where there are none.

    ``current`` is the version of this toolkit, ``differences`` says what is not as that version
    makes it, and is empty for a log of another version.
    """

    where: str
    version: int | None
    written_by: str | None
    current: int
    differences: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether this toolkit can work with them."""
        return self.version == self.current and not self.differences


def check(url: str) -> Condition:
    """Look at the tables of the log at ``url``; changes nothing.

    Raises: PrerequisiteMissing: there is no file. PermanentError: it is no task log, or cannot be
    read. TemporaryError: it does not answer.
    """
    with _opened(url, create=False) as found:
        return _condition(found)


def upgrade(url: str, *, more: Sequence[Path] = ()) -> tuple[Condition, Condition]:
    """Bring the log at ``url`` up to date, or make it: how it was, and how it is now.

    No-op for one that is. ``more`` are folders with further migrations.

    Raises: as ``check``; PermanentError: it is newer than this toolkit, or a migration failed.
    """
    with _opened(url, create=True) as found:
        before = _condition(found, missing_is_none=True)
        if before.version is None:
            versions.prepare(found.engine, found.where, create=found.writable)
        head = int(_head(more))
        if before.version is not None and before.version > head:
            raise PermanentError(
                f"task log {found.where}: schema version {before.version} is newer than this "
                f"toolkit, which has {head}",
                fix=f"update edge-testbed to {before.written_by} or later",
            )
        with versions.alone(found.engine, found.where) as connection:
            _adopt(connection)
            _migrate(connection, found.where, more)
            if connection.scalar(select(schema_info.c.version)) != head:
                connection.execute(update(schema_info).values(version=head, written_by=__version__))
        return before, _condition(found, head)


def _migrate(connection: Connection, where: str, more: Sequence[Path]) -> None:
    config = _config(more)
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise PermanentError(
            f"task log {where}: no migration path from its schema version ({error})",
            fix="export it with the version that wrote it, and name another log",
        ) from error


def _adopt(connection: Connection) -> None:
    """Register tables with Alembic that were made without it."""
    alembic_version.create(connection, checkfirst=True)
    if connection.scalar(select(func.count()).select_from(alembic_version)) == 0:
        version = connection.scalar(select(schema_info.c.version))
        connection.execute(insert(alembic_version), {"version_num": f"{version:04d}"})


def _condition(
    found: Database, current: int = SCHEMA_VERSION, *, missing_is_none: bool = False
) -> Condition:
    with found.engine.connect() as connection:
        names = set(inspect(connection).get_table_names())
        if missing_is_none and not names:
            return Condition(found.where, None, None, current, ())
    if schema_info.name not in names:
        # Says what is wrong.
        versions.prepare(found.engine, found.where, create=False)
    version, written_by = versions.found_version(found.engine, found.where)
    if version != SCHEMA_VERSION:
        return Condition(found.where, version, written_by, current, ())
    with found.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": _is_ours})
        differences = compare_metadata(context, metadata)
    return Condition(
        found.where, version, written_by, current, tuple(_told(each) for each in differences)
    )


def _is_ours(name: str | None, kind: str, _: Any) -> bool:
    return kind != "table" or name in metadata.tables


def _told(difference: Any) -> str:
    """Return a difference that Alembic found, in words."""
    if isinstance(difference, list):
        return "; ".join(_told(each) for each in difference)
    kind, *rest = difference
    names = [str(getattr(each, "name", each)) for each in rest if each is not None]
    return f"{kind.replace('_', ' ')}: {' '.join(names)}"


def _head(more: Sequence[Path]) -> str:
    return str(ScriptDirectory.from_config(_config(more)).get_current_head())


def _config(more: Sequence[Path]) -> Config:
    config = Config()
    config.set_main_option("script_location", _quoted(FOLDER))
    folders = (FOLDER / "versions", *more)
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", "\n".join(map(_quoted, folders)))
    return config


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%%")


@contextmanager
def _opened(url: str, *, create: bool) -> Iterator[Database]:
    found = connect(url, create=create)
    try:
        with explained(found.where, found.login):
            yield found
    finally:
        found.engine.dispose()
