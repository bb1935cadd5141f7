"""Health of a task log's server: finds what would stop a run from writing to it."""

from __future__ import annotations

import os
import shutil
import socket
import time
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Final

from sqlalchemy import Connection, inspect, text

from testbed.errors import PermanentError
from testbed.storage.tasklog import versions
from testbed.storage.tasklog.failures import explained
from testbed.storage.tasklog.opening import Database, connect
from testbed.storage.tasklog.schema import histories, metadata, runs, tasks

_PROBE: Final = "edge_testbed_probe"


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """Result of the examination.

    ``runs`` is how many runs the log has, None where its tables are still to be made.
    ``free_bytes`` is known only of a server on this machine. ``clock_ahead_s`` is how far the
    server's clock is ahead of this machine's, with an error of at most ``clock_error_s``.
    ``refused`` is what the server does not allow; None if a run can be written.
    """

    where: str
    version: str
    runs: int | None
    used_bytes: int
    free_bytes: int | None
    clock_ahead_s: float
    clock_error_s: float
    packet_bytes: int
    refused: PermanentError | None


def is_server(url: str) -> bool:
    """Return whether the log at ``url`` is on a server, and not a file."""
    return url.startswith(("mysql", "mariadb"))


def examine(url: str) -> ServerHealth:
    """Ask the server of ``url``; what is made for it is gone afterwards.

    Raises: TemporaryError: it does not answer. PermanentError: it does not let in, or the tables
    are of another version. PrerequisiteMissing, UsageError: the URL.
    """
    found = connect(url, create=False)
    try:
        with explained(found.where, found.login):
            return _examined(found)
    finally:
        found.engine.dispose()


def _examined(found: Database) -> ServerHealth:
    made = bool(inspect(found.engine).get_table_names())
    if made:
        versions.prepare(found.engine, found.where, create=False)
    with found.engine.connect() as connection:
        version = str(connection.scalar(text("SELECT VERSION()")))
        packet = int(connection.scalar(text("SELECT @@max_allowed_packet")) or 0)
        used = connection.scalar(
            text(
                "SELECT SUM(data_length + index_length) FROM information_schema.tables "
                "WHERE table_schema = DATABASE()"
            )
        )
        ahead, error = _clock(connection)
        count = connection.scalar(text(f"SELECT COUNT(*) FROM {runs.name}")) if made else None
        free = _free(connection)
    return ServerHealth(
        where=found.where,
        version=version,
        runs=count,
        used_bytes=int(used or 0),
        free_bytes=free,
        clock_ahead_s=ahead,
        clock_error_s=error,
        packet_bytes=packet,
        refused=_refused(found, made),
    )


def _clock(connection: Connection) -> tuple[float, float]:
    before = time.time()
    at: Any = connection.scalar(text("SELECT UTC_TIMESTAMP(6)"))
    after = time.time()
    return at.replace(tzinfo=UTC).timestamp() - (before + after) / 2, (after - before) / 2


def _free(connection: Connection) -> int | None:
    """Free space where the server keeps its data; None if that is another machine's."""
    host, folder = connection.execute(text("SELECT @@hostname, @@datadir")).one()
    if host != socket.gethostname() or not os.path.isdir(folder):
        return None
    return shutil.disk_usage(folder).free


def _refused(found: Database, made: bool) -> PermanentError | None:
    """Return the error with which the server refuses what a run writes, without writing any."""
    if made:
        statements = [
            *(f"INSERT INTO {t} SELECT * FROM {t} WHERE 1 = 0" for t in metadata.tables),
            f"UPDATE {runs.name} SET state = state WHERE 1 = 0",
            f"UPDATE {histories.name} SET seq = seq WHERE 1 = 0",
            f"DELETE FROM {tasks.name} WHERE 1 = 0",
        ]
    else:
        statements = [f"CREATE TABLE {_PROBE} (id INT PRIMARY KEY)", f"DROP TABLE {_PROBE}"]
    try:
        with explained(found.where, found.login), found.engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))
    except PermanentError as error:
        return error
    return None
