"""Errors of databases, as errors that say what to do.

The one place that knows the error codes of the databases.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from testbed.errors import PermanentError, Problem, TemporaryError, TestbedError, UsageError

CANNOT_BE_WRITTEN: Final = (
    "it cannot be written",
    "make the file and its folder writable, or name another with --storage",
)
"""Description of a failure and its remedy, as in the tables below."""

# https://www.sqlite.org/rescode.html, primary codes.
_SQLITE: Final[dict[int, tuple[str, str]]] = {
    sqlite3.SQLITE_READONLY: CANNOT_BE_WRITTEN,
    sqlite3.SQLITE_PERM: (
        "access is denied",
        "make the file and its folder readable and writable",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "the file cannot be opened",
        "check that its folder exists and that you may write there",
    ),
    sqlite3.SQLITE_FULL: (
        "no space is left on its disk",
        "free some and repeat the command: what is logged so far is kept",
    ),
    sqlite3.SQLITE_IOERR: (
        "its disk fails to read or write",
        "check the disk and the space on it",
    ),
    sqlite3.SQLITE_CORRUPT: (
        "the file is damaged",
        "restore a copy, or move it away to begin a new one (`sqlite3 FILE .recover` saves what "
        "can be read)",
    ),
    sqlite3.SQLITE_NOTADB: (
        "the file is not an SQLite database",
        "name another file, or move it away to begin a new one",
    ),
    sqlite3.SQLITE_SCHEMA: ("its tables were changed by another program", ""),
}
_SQLITE_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

# https://mariadb.com/kb/en/mariadb-error-codes/, https://dev.mysql.com/doc/mysql-errors/8.4/en/:
# too many connections, shutting down, network, lock wait, deadlock, killed, cannot connect, gone
# away, lost.
_MYSQL_TEMPORARY: Final = frozenset(
    {
        *(0, 1040, 1053, 1077, 1079, 1080, 1158, 1159, 1160, 1161, 1184, 1205, 1213, 1317),
        *(1203, 1226, 1927, 2002, 2003, 2005, 2006, 2012, 2013, 2014, 2055, 4031),
    }
)
_CONNECTING: Final = frozenset({2002, 2003, 2005})
_GRANT: Final = "GRANT ALL ON DATABASE.* TO 'USER'@'HOST'"
_NO_SPACE: Final = (
    "no space is left on the server's disk",
    "free some and repeat the command: what is logged so far is kept",
)
_READ_ONLY: Final = ("the server is read-only", "connect to the one that may be written")
_MYSQL: Final[dict[int, tuple[str, str]]] = {
    1021: _NO_SPACE,
    1026: _NO_SPACE,
    1044: ("this user may not use that database", f"as its administrator: {_GRANT}"),
    1049: (
        "there is no such database",
        "as its administrator: CREATE DATABASE NAME; or correct the URL",
    ),
    1054: ("its tables are not as this version makes them", "see `testbed db check`"),
    1114: _NO_SPACE,
    1130: ("the server takes no connection of this user from this machine", _GRANT),
    1142: ("this user may not do that", f"as its administrator: {_GRANT}"),
    1146: ("a table is missing", "see `testbed db check`"),
    1153: ("a row is larger than the server takes", "raise max_allowed_packet there to 64M"),
    1290: _READ_ONLY,
    1792: _READ_ONLY,
    1836: _READ_ONLY,
}
_MYSQL_LOGIN: Final = frozenset({1045, 1698, 1862, 2059})
_DISK_FULL: Final = ("error 28", "errno: 28", "no space left")


def _of_server(name: str, login: str, cause: BaseException) -> TestbedError:
    code = cause.args[0] if cause.args else None
    said = str(cause.args[1]) if len(cause.args) > 1 else ""
    if code in _MYSQL_TEMPORARY:
        what = "cannot be reached" if code in _CONNECTING else "did not answer"
        return TemporaryError(
            f"{name}: the server {what} ({said or 'connection lost'})",
            fix="see that it runs and that host and port are right, then repeat the command",
        )
    if code in _MYSQL_LOGIN:
        return PermanentError(
            f"{name}: user or password are wrong ({login or said})",
            fix="set TESTBED_MYSQL_PASSWORD, or name a file with the password: ?password_file=PATH",
        )
    if any(sign in said.lower() for sign in _DISK_FULL):
        seen, fix = _NO_SPACE
    else:
        seen, fix = _MYSQL.get(code, (said, "")) if code else (said, "")
    return PermanentError(f"{name}: {seen}", fix=fix)


def _explained(where: str, login: str, error: SQLAlchemyError) -> TestbedError:
    cause: BaseException = error
    if isinstance(error, DBAPIError) and error.orig is not None:
        cause = error.orig
    name = f"task log {where}"
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", None)
        primary = None if code is None else code & 0xFF
        if primary in _SQLITE_BUSY:
            return TemporaryError(
                f"{name}: another process has kept it locked",
                fix="wait for it to end, or use a task log of your own with --storage",
            )
        if "Could not decode to UTF-8" in str(cause):
            # The driver's own finding, with the whole column in its message.
            primary = sqlite3.SQLITE_CORRUPT
        seen, fix = str(cause), ""
        if primary in _SQLITE:
            seen, fix = _SQLITE[primary]
        elif "no such table" in seen or "no such column" in seen:
            fix = "it was not written by this toolkit: name another file"
        return PermanentError(f"{name}: {seen}", fix=fix)
    if login and cause is not error:
        # What the driver of a server raises, which is not loaded for a file.
        return _of_server(name, login, cause)
    return PermanentError(f"{name}: {cause}")


@contextmanager
def explained(where: str, login: str = "") -> Iterator[None]:
    """Turn what the database raises into an error of this toolkit about the log at ``where``.

    ``login`` says who asks a server, and where the password comes from.

    Raises: TemporaryError: locked or unreachable. UsageError: asked for a number that no column
    holds. PermanentError: anything else.
    """
    try:
        yield
    except SQLAlchemyError as error:
        raise _explained(where, login, error) from error
    except OverflowError as error:
        # The driver's own: a number that was asked for fits into no column.
        raise UsageError(
            "no task log holds a number that large", [Problem("", "too large", "up to 2^63 - 1")]
        ) from error
