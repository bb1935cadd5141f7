"""Tags and notes: what a user says of a run afterwards, beside what the log says of it.

They are in two small tables that a log gets with its first tag or note, and no part of its schema:
no result depends on them, a log without them needs no upgrade, and earlier releases read a log that
has them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Final, NamedTuple

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    delete,
    inspect,
    select,
)

from testbed.errors import Problem, UsageError
from testbed.storage.tasklog import versions
from testbed.storage.tasklog.statements import Statements

LONGEST_TAG: Final = 64
"""Characters of a tag."""
LONGEST_NOTE: Final = 10_000
"""Characters of a note; in UTF-8 it fits into a text of every database."""

_NO_TEXT: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
_LINES: Final = frozenset("\n\t")

_metadata: Final = MetaData()


def _of_run() -> Column[int]:
    return Column("run", Integer, primary_key=True, autoincrement=False, comment="runs.key")


run_tags: Final = Table(
    "run_tags",
    _metadata,
    _of_run(),
    Column("tag", String(LONGEST_TAG), primary_key=True, comment="one of the run's tags"),
    sqlite_with_rowid=False,
    info={"of_log": True},
)

run_notes: Final = Table(
    "run_notes",
    _metadata,
    _of_run(),
    Column("note", Text, nullable=False, comment="free text of the user, of any number of lines"),
    info={"of_log": True},
)

TABLES: Final = (run_tags, run_notes)


class Said(NamedTuple):
    """What a user said of a run: its tags in their order, and its note, which may be empty."""

    tags: tuple[str, ...] = ()
    note: str = ""


NOTHING: Final = Said()


def checked_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Return tags in order, each once.

    Raises: UsageError: one is empty or too long, begins with a hyphen, or has a space, a comma or
    a control character.
    """
    found = tuple(sorted(set(tags)))
    allowed = (
        f"1 to {LONGEST_TAG} characters without spaces, commas and control characters, the first "
        "of them no hyphen"
    )
    problems = [
        Problem("tag", ascii(tag[: LONGEST_TAG + 1]), allowed) for tag in found if not _is_tag(tag)
    ]
    if problems:
        raise UsageError("a run cannot be tagged like this", problems)
    return found


def _is_tag(tag: str) -> bool:
    plain = not any(
        each.isspace() or each == "," or unicodedata.category(each) in _NO_TEXT for each in tag
    )
    return plain and 1 <= len(tag) <= LONGEST_TAG and not tag.startswith("-")


def checked_note(note: str) -> str:
    """Return a note without space at its ends.

    Raises: UsageError: it is too long, or has a control character that is no end of a line.
    """
    text = note.replace("\r\n", "\n").strip()
    if len(text) > LONGEST_NOTE:
        problem = Problem("note", f"{len(text)} characters", f"up to {LONGEST_NOTE}")
        raise UsageError("a run cannot have this note", [problem])
    if any(unicodedata.category(each) in _NO_TEXT and each not in _LINES for each in text):
        problem = Problem("note", ascii(text[:80]), "text in UTF-8 without control characters")
        raise UsageError("a run cannot have this note", [problem])
    return text


class Annotations:
    """Tags and notes of the runs of the log on ``engine``, by the keys of the runs.

    ``where`` names the log in messages.
    """

    def __init__(self, engine: Engine, where: str, statements: Statements) -> None:
        self._engine = engine
        self._where = where
        self._statements = statements
        self._there: set[str] = set()

    def read(self, connection: Connection, run: int | None = None) -> dict[int, Said]:
        """Return what was said of runs, or of one; a run of which nothing was said is not in it."""
        tags: dict[int, list[str]] = {}
        notes: dict[int, str] = {}
        if self._has(connection, run_tags):
            query = select(run_tags)
            if run is not None:
                query = query.where(run_tags.c.run == run)
            for key, tag in connection.execute(query):
                tags.setdefault(key, []).append(tag)
        if self._has(connection, run_notes):
            query = select(run_notes)
            if run is not None:
                query = query.where(run_notes.c.run == run)
            notes = {row.run: row.note for row in connection.execute(query)}
        # Databases order text in different ways.
        return {
            key: Said(tuple(sorted(tags.get(key, ()))), notes.get(key, ""))
            for key in tags.keys() | notes.keys()
        }

    def make(self) -> None:
        """Make the tables that are not there yet."""
        with self._engine.connect() as connection:
            missing = [table for table in TABLES if not self._has(connection, table)]
        if missing:
            with versions.alone(self._engine, self._where) as connection:
                for table in missing:
                    table.create(connection, checkfirst=True)

    def tag(self, connection: Connection, run: int, tags: Iterable[str]) -> None:
        """Add tags, of which the run may have some already. The tables are there."""
        self._statements.add(connection, run_tags, [(run, tag) for tag in tags])

    def untag(self, connection: Connection, run: int, tags: Iterable[str]) -> None:
        """Remove tags, which the run need not have."""
        named = run_tags.c.tag.in_(list(tags))
        connection.execute(delete(run_tags).where(run_tags.c.run == run, named))

    def note(self, connection: Connection, run: int, note: str) -> None:
        """Replace the note of a run; an empty one removes it. The tables are there."""
        if note:
            self._statements.put(connection, run_notes, [(run, note)])
        else:
            connection.execute(delete(run_notes).where(run_notes.c.run == run))

    def forget(self, connection: Connection, run: int) -> None:
        """Remove all that was said of a run."""
        for table in TABLES:
            if self._has(connection, table):
                connection.execute(delete(table).where(table.c.run == run))

    def close(self) -> None:
        """Look for the tables again when they are needed next; it may be another file by then."""
        self._there.clear()

    def _has(self, connection: Connection, table: Table) -> bool:
        if table.name not in self._there and inspect(connection).has_table(table.name):
            self._there.add(table.name)
        return table.name in self._there
