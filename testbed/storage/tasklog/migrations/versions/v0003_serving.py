"""Runs have a model, and serving runs tables of their own."""

from __future__ import annotations

from typing import Any, Final

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, String, Text, inspect
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

revision: Final = "0003"
down_revision: Final = "0002"

_TEXT: Final[TypeEngine[str]] = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


def upgrade() -> None:
    """Add the column and the tables that are not there yet."""
    found = inspect(op.get_bind())
    if "model" not in {column["name"] for column in found.get_columns("runs")}:
        op.add_column(
            "runs",
            Column(
                "model",
                String(16),
                nullable=False,
                server_default="tasks",
                comment="family of work: tasks or serving",
            ),
        )
    names = found.get_table_names()
    for name, columns in _tables().items():
        if name not in names:
            op.create_table(
                name,
                Column("run", Integer, primary_key=True, autoincrement=False, comment="runs.key"),
                *columns,
                sqlite_with_rowid=False,
                mysql_engine="InnoDB",
                mysql_charset="utf8mb4",
                mysql_collate="utf8mb4_bin",
            )


def _tables() -> dict[str, tuple[Column[Any], ...]]:
    """Return the columns of each new table."""
    return {
        "requests": (
            _key("episode", "episode"),
            _key("request", "id of the request, within its episode"),
            _count("source", "node that it came to"),
            _text("function", String(255), "name of the function it is for"),
            _count("at", "instant in the episode at which it came, on the node's clock"),
            _maybe("status", "HTTP status of the node's answer; null if it is not known"),
            _text("outcome", String(24), "what became of it"),
            _maybe("peer", "node that it was forwarded to; null if none"),
            _maybe("server", "node whose service answered it; null if none"),
            _maybe("elapsed", "from its coming to the node's answer"),
            _maybe("sent", "instant in the episode at which the client sent it, on its clock"),
            _maybe("answered", "from sent to the answer at the client"),
            _maybe("client_status", "HTTP status that the client got"),
        ),
        "windows": (
            _key("episode", "episode"),
            _key("node", "node that counted"),
            _key("window", "number of the window, from 0"),
            _text("counts", _TEXT, "number of requests by what became of them, for each function"),
            _count("said", "messages to neighbours, one for each receiver"),
            _count("said_bytes", "size of these messages"),
            _count("heard", "messages of neighbours that came"),
            _count("heard_bytes", "size of these messages"),
        ),
        "routings": (
            _key("episode", "episode"),
            _key("node", "node that decided"),
            _key("number", "number of the routing among those of its node, from 0"),
            _count("at", "instant in the episode on the node's clock"),
            _text("scheduler", String(255), "router that decided"),
            _text("observation", _TEXT, "what the router was told"),
            _text("routing", _TEXT, "what it answered: table and words to neighbours"),
        ),
    }


def _key(name: str, comment: str) -> Column[int]:
    return Column(name, BigInteger, primary_key=True, autoincrement=False, comment=comment)


def _count(name: str, comment: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, comment=comment)


def _maybe(name: str, comment: str) -> Column[int]:
    return Column(name, BigInteger, comment=comment)


def _text(name: str, kind: TypeEngine[str], comment: str) -> Column[str]:
    return Column(name, kind, nullable=False, comment=comment)
