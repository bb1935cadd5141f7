"""The tables as they were when migrations began.

Logs that were made before are of this version too, without Alembic's own table.
"""

from __future__ import annotations

from typing import Any, Final

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, String, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

revision: Final = "0001"
down_revision: Final = None

_TEXT: Final[TypeEngine[str]] = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
_ON_SERVER: Final[dict[str, Any]] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}


def _run() -> Column[int]:
    return Column("run", Integer, primary_key=True, autoincrement=False, comment="runs.key")


def _key(name: str, comment: str) -> Column[int]:
    return Column(name, BigInteger, primary_key=True, autoincrement=False, comment=comment)


def _count(name: str, comment: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, comment=comment)


def _maybe(name: str, comment: str) -> Column[int]:
    return Column(name, BigInteger, comment=comment)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "schema_info",
        Column("id", Integer, primary_key=True, autoincrement=False, comment="always 1"),
        Column("version", Integer, nullable=False, comment="version of these tables"),
        Column("written_by", String(64), nullable=False, comment="version that made the tables"),
        Column("created", String(32), nullable=False, comment="when, UTC, ISO 8601"),
        **_ON_SERVER,
    )
    op.create_table(
        "runs",
        Column(
            "key", Integer, primary_key=True, comment="number of the run, in order of beginning"
        ),
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
        **_ON_SERVER,
    )
    op.create_table(
        "events",
        _run(),
        _key("task", "id of the task"),
        _key("seq", "number of the record in the task's story, across nodes"),
        Column("kind", String(24), nullable=False, comment="what happened"),
        _count("node", "where"),
        _count("at", "instant in the episode on the node's model clock"),
        _count("clock", "what the node's real clock said, emulated time"),
        Column("data", Text, nullable=False, comment="what belongs to this kind"),
        _count("episode", "of the task"),
        _count("slot", "of the task, from 0"),
        _count("source", "node at which the task arrived"),
        _count("size_bytes", "size of the task"),
        _count("cycles", "work of the task"),
        _count("deadline", "of the task after its arrival"),
        sqlite_with_rowid=False,
        **_ON_SERVER,
    )
    op.create_table(
        "decisions",
        _run(),
        _key("episode", "episode"),
        _key("node", "node that decided"),
        _key("slot", "slot, from 0"),
        _maybe("task", "id of the task; null in a slot without one"),
        _count("at", "instant in the episode on the node's model clock"),
        Column(
            "scheduler", String(255), nullable=False, comment="what decided; a policy with its id"
        ),
        _maybe("destination", "node chosen; null if nothing was decided"),
        Column("mask", Text, comment="1 per node that was allowed, else 0; null without a mask"),
        Column("probabilities", Text, comment="probability by node it was sampled with"),
        Column("observation", _TEXT, nullable=False, comment="what the node knew"),
        Column("probes", _TEXT, nullable=False, comment="what peers answered for this task"),
        sqlite_with_rowid=False,
        **_ON_SERVER,
    )
    op.create_table(
        "tasks",
        _run(),
        _key("task", "id of the task"),
        _count("episode", "episode"),
        _count("slot", "slot it arrived in, from 0"),
        _count("source", "node at which it arrived"),
        _maybe("destination", "node it was to be executed at; null if undecided"),
        Column("outcome", String(24), nullable=False, comment="how it ended"),
        _count("size_bytes", "size"),
        _count("cycles", "work"),
        _count("deadline", "after its arrival"),
        Column("scheduler", String(255), comment="what decided; a policy with its id"),
        Column("stage", String(24), comment="where it was when it ended"),
        _maybe("elapsed", "from generated to ended"),
        _maybe("transmission_waiting", "measured"),
        _maybe("transmission", "measured"),
        _maybe("execution_waiting", "measured"),
        _maybe("execution", "measured"),
        _maybe("nominal_transmission_waiting", "by the model's instants"),
        _maybe("nominal_transmission", "size / link rate"),
        _maybe("nominal_execution_waiting", "by the model's instants"),
        _maybe("nominal_execution", "cycles / capacity"),
        sqlite_with_rowid=False,
        **_ON_SERVER,
    )
