"""The tables of the task log, for every database that SQLAlchemy speaks to.

``metadata`` has the tables as they are stored, ``TABLES`` those that readers get: events are stored
several to a row, and of what a node knew only what is neither unknown nor zero (``packing``).
Column types are those all databases have: keys of text have a length, JSON is stored as text. The
comment of a column is its documentation: exports and docs/task-log.md take it from here.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateTable
from sqlalchemy.sql.compiler import DDLCompiler
from sqlalchemy.types import TypeEngine

from testbed.scenario.plan import TASKS

SCHEMA_VERSION: Final = 3
"""Raised with every change of the tables; each has a migration in ``migrations/versions``."""


class _MediumText(Text):
    """MEDIUMTEXT of MySQL, without that dialect, which a log in a file does not need."""

    __visit_name__ = "MEDIUMTEXT"


_TEXT: Final[TypeEngine[str]] = Text().with_variant(_MediumText(), "mysql", "mariadb")

REVISION: Final = f"{SCHEMA_VERSION:04d}"
"""The migration that leads to these tables."""

# Text is compared as it is, in every language, whatever the server's own default.
_ON_SERVER: Final = " ENGINE=InnoDB CHARSET=utf8mb4 COLLATE utf8mb4_bin"
_OF_LOG: Final = {"of_log": True}

metadata = MetaData()

schema_info = Table(
    "schema_info",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False, comment="always 1"),
    Column("version", Integer, nullable=False, comment="version of these tables"),
    Column("written_by", String(64), nullable=False, comment="version that made the tables"),
    Column("created", String(32), nullable=False, comment="when, UTC, ISO 8601"),
    info=_OF_LOG,
)

alembic_version = Table(
    # Alembic's own; not among the task log's tables, which it compares with the database.
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), primary_key=True),
    info=_OF_LOG,
)

runs = Table(
    "runs",
    metadata,
    Column("key", Integer, primary_key=True, comment="number of the run, in order of beginning"),
    Column("id", String(64), nullable=False, unique=True, comment="the run's id"),
    Column("name", String(255), nullable=False, comment="name of the scenario"),
    Column("scenario_hash", String(64), nullable=False, comment="of what is emulated"),
    Column("scheduler", String(255), nullable=False, comment="scheduler the run began with"),
    Column("driver", String(16), nullable=False, comment="network or simulator"),
    Column("label", String(255), nullable=False, comment="free text of the user"),
    Column("first_episode", Integer, nullable=False, comment="number of the first episode"),
    Column("episodes", Integer, nullable=False, comment="number of episodes asked for"),
    Column("state", String(16), nullable=False, comment="running, completed, degraded, ..."),
    Column("started", String(32), nullable=False, comment="UTC, ISO 8601"),
    Column("ended", String(32), comment="UTC, ISO 8601"),
    Column("seeds", Text, nullable=False, comment="JSON: seed by purpose"),
    Column("versions", Text, nullable=False, comment="JSON: versions by name"),
    Column("plan", _TEXT, nullable=False, comment="JSON: everything drawn and resolved"),
    Column("scenario", _TEXT, comment="the scenario file as the user wrote it"),
    Column("certificate", _TEXT, comment="JSON: fidelity certificate"),
    Column(
        "model",
        String(16),
        nullable=False,
        server_default=TASKS,
        comment="family of work: tasks or serving",
    ),
    info=_OF_LOG,
)


def _of_run() -> Column[int]:
    """Part of the primary key. No foreign key: it would cost every one of a million inserts."""
    return Column("run", Integer, primary_key=True, autoincrement=False, comment="runs.key")


def _key(name: str, comment: str) -> Column[int]:
    return Column(name, BigInteger, primary_key=True, autoincrement=False, comment=comment)


def _count(name: str, comment: str, unit: str = "") -> Column[int]:
    return Column(name, BigInteger, nullable=False, comment=comment, info={"unit": unit})


def _maybe(name: str, comment: str, unit: str = "") -> Column[int]:
    return Column(name, BigInteger, comment=comment, info={"unit": unit})


histories = Table(
    "histories",
    metadata,
    _of_run(),
    _key("task", "id of the task"),
    _key("seq", "number of the first of these records in the task's history, across nodes"),
    _count("records", "number of records here; their numbers follow one another"),
    _count("episode", "of the task"),
    _count("slot", "of the task, from 0"),
    _count("source", "node at which the task arrived"),
    _count("size_bytes", "size of the task", "bytes"),
    _count("cycles", "work of the task", "cycles"),
    _count("deadline", "of the task after its arrival", "us"),
    Column(
        "steps",
        _TEXT,
        nullable=False,
        comment="[kind, node, at, clock - at, data] of each record; data only where there is some",
        info={"format": "json"},
    ),
    sqlite_with_rowid=False,
    info=_OF_LOG,
)

decisions = Table(
    "decisions",
    metadata,
    _of_run(),
    _key("episode", "episode"),
    _key("node", "node that decided"),
    _key("slot", "slot, from 0"),
    _maybe("task", "id of the task; null in a slot without one"),
    _count("at", "instant in the episode on the node's model clock", "us"),
    Column("scheduler", String(255), nullable=False, comment="what decided; a policy with its id"),
    _maybe("destination", "node chosen; null if nothing was decided"),
    Column("mask", Text, comment="1 per node that was allowed, else 0; null without a mask"),
    Column(
        "probabilities",
        Text,
        comment="probability by node it was sampled with",
        info={"format": "json"},
    ),
    Column(
        "observation", _TEXT, nullable=False, comment="what the node knew", info={"format": "json"}
    ),
    Column(
        "probes",
        _TEXT,
        nullable=False,
        comment="what peers answered for this task",
        info={"format": "json"},
    ),
    sqlite_with_rowid=False,
    info=_OF_LOG,
)

tasks = Table(
    "tasks",
    metadata,
    _of_run(),
    _key("task", "id of the task"),
    _count("episode", "episode"),
    _count("slot", "slot it arrived in, from 0"),
    _count("source", "node at which it arrived"),
    _maybe("destination", "node it was to be executed at; null if undecided"),
    Column("outcome", String(24), nullable=False, comment="how it ended"),
    _count("size_bytes", "size", "bytes"),
    _count("cycles", "work", "cycles"),
    _count("deadline", "after its arrival", "us"),
    Column("scheduler", String(255), comment="what decided; a policy with its id"),
    Column("stage", String(24), comment="where it was when it ended"),
    _maybe("elapsed", "from generated to ended", "us"),
    _maybe("transmission_waiting", "measured", "us"),
    _maybe("transmission", "measured", "us"),
    _maybe("execution_waiting", "measured", "us"),
    _maybe("execution", "measured", "us"),
    _maybe("nominal_transmission_waiting", "by the model's instants", "us"),
    _maybe("nominal_transmission", "size / link rate", "us"),
    _maybe("nominal_execution_waiting", "by the model's instants", "us"),
    _maybe("nominal_execution", "cycles / capacity", "us"),
    sqlite_with_rowid=False,
    info=_OF_LOG,
)

requests = Table(
    "requests",
    metadata,
    _of_run(),
    _key("episode", "episode"),
    _key("request", "id of the request, within its episode"),
    _count("source", "node that it came to"),
    Column("function", String(255), nullable=False, comment="name of the function it is for"),
    _count("at", "instant in the episode at which it came, on the node's clock", "us"),
    _maybe("status", "HTTP status of the node's answer; null if it is not known"),
    Column("outcome", String(24), nullable=False, comment="what became of it"),
    _maybe("peer", "node that it was forwarded to; null if none"),
    _maybe("server", "node whose service answered it; null if none"),
    _maybe("elapsed", "from its coming to the node's answer", "us"),
    _maybe("sent", "instant in the episode at which the client sent it, on its clock", "us"),
    _maybe("answered", "from sent to the answer at the client", "us"),
    _maybe("client_status", "HTTP status that the client got"),
    sqlite_with_rowid=False,
    info=_OF_LOG,
)

windows = Table(
    "windows",
    metadata,
    _of_run(),
    _key("episode", "episode"),
    _key("node", "node that counted"),
    _key("window", "number of the window, from 0"),
    Column(
        "counts",
        _TEXT,
        nullable=False,
        comment="number of requests by what became of them, for each function",
        info={"format": "json"},
    ),
    _count("said", "messages to neighbours, one for each receiver"),
    _count("said_bytes", "size of these messages", "bytes"),
    _count("heard", "messages of neighbours that came"),
    _count("heard_bytes", "size of these messages", "bytes"),
    sqlite_with_rowid=False,
    info=_OF_LOG,
)

routings = Table(
    "routings",
    metadata,
    _of_run(),
    _key("episode", "episode"),
    _key("node", "node that decided"),
    _key("number", "number of the routing among those of its node, from 0"),
    _count("at", "instant in the episode on the node's clock", "us"),
    Column("scheduler", String(255), nullable=False, comment="router that decided"),
    Column(
        "observation",
        _TEXT,
        nullable=False,
        comment="what the router was told",
        info={"format": "json"},
    ),
    Column(
        "routing",
        _TEXT,
        nullable=False,
        comment="what it answered: table and words to neighbours",
        info={"format": "json"},
    ),
    sqlite_with_rowid=False,
    info=_OF_LOG,
)

events: Final = Table(
    "events",
    MetaData(),
    _of_run(),
    _key("task", "id of the task"),
    _key("seq", "number of the record in the task's history, across nodes"),
    Column("kind", String(24), nullable=False, comment="what happened"),
    _count("node", "where"),
    _count("at", "instant in the episode on the node's model clock", "us"),
    _count("clock", "what the node's real clock said, emulated time", "us"),
    Column(
        "data", Text, nullable=False, comment="what belongs to this kind", info={"format": "json"}
    ),
    _count("episode", "of the task"),
    _count("slot", "of the task, from 0"),
    _count("source", "node at which the task arrived"),
    _count("size_bytes", "size of the task", "bytes"),
    _count("cycles", "work of the task", "cycles"),
    _count("deadline", "of the task after its arrival", "us"),
)
"""Events as readers get them: a row for each record."""

TABLES: Final[dict[str, Table]] = {
    table.name: table for table in (tasks, events, decisions, requests, windows, routings)
}
"""The tables of runs as readers get them."""


@compiles(CreateTable, "mysql", "mariadb")
def _create_on_server(statement: CreateTable, compiler: DDLCompiler, **settings: Any) -> str:
    """Return the statement that makes a table on a server.

    Its options stand here: as arguments of a table they would load that dialect for every log.
    """
    made: str = compiler.visit_create_table(statement, **settings)  # type: ignore[no-untyped-call]
    return made + _ON_SERVER if "of_log" in statement.element.info else made
