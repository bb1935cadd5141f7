"""From a URL to an open task log whose schema this version understands."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from testbed.errors import PermanentError, PrerequisiteMissing, Problem, TestbedError, UsageError
from testbed.plugins import Plugins
from testbed.scenario.secrets import without_password
from testbed.storage.folders import as_open_as
from testbed.storage.tasklog import versions
from testbed.storage.tasklog.base import TaskLog
from testbed.storage.tasklog.failures import CANNOT_BE_WRITTEN, explained
from testbed.storage.tasklog.server import FORM, Server
from testbed.storage.tasklog.sql import SqlTaskLog
from testbed.storage.tasklog.watching import FileWatch, count_connections

GROUP: Final = "edge_testbed.task_logs"
"""The entry point group in which other packages name what opens the task log of a URL scheme."""

_OTHERS: Final = Plugins(GROUP, "task log", {})
_OWN_SCHEMES: Final = ("sqlite", "mysql", "mariadb")

BUSY_TIMEOUT_S: Final = 15.0
"""Seconds that a writer waits for another one before it gives up; a batch takes milliseconds."""

PATIENCE_S: Final = 60.0
"""Seconds that a write waits for a server that is being restarted."""

_FORMS: Final = f"a path, sqlite:///PATH, or {FORM}"


def open_task_log(url: str | os.PathLike[str], *, create: bool = True) -> TaskLog:
    """Open the task log at ``url``: a path, or a URL that SQLAlchemy or another package knows.

    Another package names ``open(url, *, create) -> TaskLog`` as an entry point of ``GROUP``, under
    the scheme of its URLs (``name`` for ``name://...``).

    With ``create``, for who writes, a log (and the folders above it) that is not there yet is made,
    and one that cannot be written is an error before anything else is begun. Without, for commands
    that only read, it is the other way round.

    Raises:
        UsageError: the URL cannot be understood.
        PrerequisiteMissing: there is no log and ``create`` is False.
        PermanentError: it is damaged, not a task log, of another schema version, or access to it
            is denied.
        TemporaryError: another process keeps it locked, or its server does not answer.
    """
    scheme, separator, _ = os.fspath(url).partition("://")
    if separator and not scheme.startswith(_OWN_SCHEMES) and scheme in _OTHERS.names():
        opened: TaskLog = _OTHERS.find(scheme)(os.fspath(url), create=create)
        return opened
    found = connect(os.fspath(url), create=create)
    if create and not found.writable:
        found.engine.dispose()
        seen, fix = CANNOT_BE_WRITTEN
        raise PermanentError(f"task log {found.where}: {seen}", fix=fix)
    try:
        with explained(found.where, found.login):
            versions.prepare(found.engine, found.where, create=create)
    except BaseException:
        found.engine.dispose()
        if create and not found.is_server:
            _remove_if_empty(Path(found.where))
        raise
    return SqlTaskLog(
        found.engine,
        found.where,
        login=found.login,
        patience_s=PATIENCE_S if found.is_server else 0.0,
        watch=FileWatch(Path(found.where), found.engine) if create and found.is_file else None,
    )


class Database(NamedTuple):
    """A way to a database, whatever is in it; ``where`` and ``login`` are for messages."""

    engine: Engine
    where: str
    login: str = ""
    writable: bool = True
    is_server: bool = False
    is_file: bool = False


def connect(url: str, *, create: bool) -> Database:
    """Return the database at ``url``, as ``open_task_log`` does it; a server is not asked yet.

    Raises: UsageError, PrerequisiteMissing, PermanentError: as ``open_task_log``.
    """
    parsed = _parse(url)
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        return _open_file(Path(str(parsed.database)), create)
    if kind in ("mysql", "mariadb"):
        server = Server.of(parsed)
        return Database(server.engine(), server.where, server.login, is_server=True)
    where = parsed.set(query={}).render_as_string(hide_password=True)
    try:
        return Database(create_engine(parsed, pool_pre_ping=True), where)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise UsageError(
            "the task log cannot be opened", [Problem("storage", f"{where}: {error}", _FORMS)]
        ) from error


def _parse(url: str) -> URL:
    if "://" not in url:
        return URL.create("sqlite", database=url)
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise UsageError(
            "the task log cannot be opened",
            [Problem("storage", f"{without_password(url)!r} is not a URL", _FORMS)],
        ) from error
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise UsageError(
            "the task log cannot be opened",
            [Problem("storage", f"{url!r} names no file", "sqlite:///PATH")],
        )
    return parsed


def _open_file(path: Path, create: bool) -> Database:
    path = path.absolute()
    where = str(path)
    if path.is_dir():
        raise UsageError(
            "the task log cannot be opened",
            [Problem("storage", f"{where} is a folder", "name a file in it, such as tasks.db")],
        )
    if not path.exists():
        if not create:
            raise PrerequisiteMissing(
                f"there is no task log at {where}",
                "run a scenario first (`testbed run` or `testbed sim`), or name the log with "
                "--storage",
            )
        try:
            # A new folder, which a new home is, is its owner's alone.
            with as_open_as(path.parent):
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _not_made(path, "its folder", error) from error
    writable = _may_write(path)
    if create and writable and not path.exists():
        _make(path)
    return Database(_sqlite_engine(path, writable), where, writable=writable, is_file=True)


def _make(path: Path) -> None:
    """Make an empty file, which is an empty database. Later connections make none.

    A log that was removed while it was in use must not be there again, empty. What SQLite had
    beside it belongs to no file any more, and a new one cannot be opened next to it.
    """
    try:
        for ending in ("wal", "shm", "journal"):
            left = path.with_name(f"{path.name}-{ending}")
            if left.exists():
                left.replace(path.with_name(f"{path.name}-{ending}.left"))
        with as_open_as(path.parent):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
    except OSError as error:
        raise _not_made(path, "the file", error) from error


def _not_made(path: Path, what: str, error: OSError) -> TestbedError:
    """Return the error about a log that could not be made."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PrerequisiteMissing(
            f"task log {path}: {what} cannot be made ({error.strerror})",
            "name a folder that you may write: --home DIR, or --storage FILE",
        )
    return PermanentError(
        f"task log {path}: {what} cannot be made ({error.strerror})",
        fix="check the name and the space there, or name another with --storage",
    )


def _remove_if_empty(path: Path) -> None:
    """Leave no empty file where a log could not be made, for instance for want of space."""
    with suppress(OSError):
        if path.stat().st_size == 0:
            path.unlink()


def _may_write(path: Path) -> bool:
    # A log that is not there yet is tried, so that the database says why it cannot be made.
    return not path.exists() or (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))


def _sqlite_engine(path: Path, writable: bool) -> Engine:
    mode = "mode=rw" if writable else "mode=ro"
    if not writable and not path.with_name(f"{path.name}-wal").exists():
        # A log in WAL mode needs a file beside it to be read, unless nobody can write it.
        mode += "&immutable=1"
    engine = create_engine(
        URL.create("sqlite", database=f"file:{quote(str(path))}?{mode}", query={"uri": "true"}),
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
    )
    count_connections(engine, path)

    @event.listens_for(engine, "connect")
    def _settings(connection: Any, _: object) -> None:
        if writable:
            # Readers do not wait for the writer, nor it for them; a power cut may take the last
            # batches, never the file. SQLite does not wait for its lock here as it does elsewhere,
            # and whoever opens the log at the same moment has it.
            until = time.monotonic() + BUSY_TIMEOUT_S
            while True:
                try:
                    connection.execute("PRAGMA journal_mode=WAL")
                    break
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                        raise
                time.sleep(random.uniform(0.005, 0.05))
            connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA cache_size=-16000")

    return engine
