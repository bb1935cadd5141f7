"""A watch on the file of a task log: it may be replaced after it was opened.

SQLite goes on writing into a file that nobody can find any more, and believes its own pages where
others have written over them: what it stores then is lost without a word. So a writer looks at the
file around every transaction.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, defaultdict
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError

from testbed.errors import PermanentError

_MAGIC: Final = b"SQLite format 3\x00"
"""First bytes of every database; https://www.sqlite.org/fileformat.html."""

_AGAIN: Final = "restore it, or take the testbed down and up again to begin a new one"


class _Files:
    """Connections of this process to files, and descriptors that wait for the last of them.

    With any close of a file, POSIX drops all locks that the process has on it, those of SQLite for
    other logs on the same file too. Another program would then take itself for the last one that
    uses the log, and remove its journal: what is stored next is lost, or damages the file.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections: Counter[Path] = Counter()
        self._kept: defaultdict[Path, list[int]] = defaultdict(list)

    def count(self, path: Path, more: int) -> None:
        with self._lock:
            self._connections[path] += more

    def keep(self, path: Path, descriptor: int) -> None:
        with self._lock:
            self._kept[path].append(descriptor)

    def release(self, path: Path) -> None:
        with self._lock:
            kept = [] if self._connections[path] > 0 else self._kept.pop(path, [])
        for descriptor in kept:
            os.close(descriptor)


_FILES: Final = _Files()


def count_connections(engine: Engine, path: Path) -> None:
    """Count the connections of ``engine`` to the file at ``path``, before it has any."""
    event.listen(engine, "connect", lambda *_: _FILES.count(path, 1))
    event.listen(engine, "close", lambda *_: _FILES.count(path, -1))


def release(path: Path) -> None:
    """Close what watches have held open of the file at ``path``, if nothing here uses it now."""
    _FILES.release(path)


class FileWatch:
    """Watches the file at ``path`` that ``engine`` has open.

    It holds the file open itself, and closes it only when no connection of this process to the file
    is left: see ``_Files``.
    """

    def __init__(self, path: Path, engine: Engine) -> None:
        self._path = path
        self._wal = path.with_name(f"{path.name}-wal")
        self._engine = engine
        self._descriptor: int | None = None
        self._wal_file: tuple[int, int] | None = None
        self._size = 0

    def forget(self) -> None:
        """Forget the file: the next connections open what is there then."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            _FILES.keep(self._path, descriptor)
        _FILES.release(self._path)
        self._wal_file = None
        self._size = 0

    def check(self) -> None:
        """Look at the file; its connections are closed when something is wrong with it.

        Raises: PermanentError: it was removed, replaced, cut short or written over.
        """
        problem = self._problem()
        if problem:
            self._engine.dispose()
            self.forget()
            raise PermanentError(f"task log {self._path}: {problem}; {_AGAIN}")

    def _problem(self) -> str:
        try:
            here = self._path.stat()
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            found = os.fstat(self._descriptor)
            head = os.pread(self._descriptor, len(_MAGIC), 0)
        except FileNotFoundError:
            return "the file was removed while it was in use"
        except OSError as error:
            return f"the file cannot be read any more ({error.strerror})"
        if not os.path.samestat(here, found):
            return "the file was replaced by another one while it was in use"
        if self._size and not head:
            return "the file was emptied while it was in use"
        if head and head != _MAGIC:
            return "the file was written over by another program"
        if found.st_size < self._size and self._lacks(found.st_size):
            return "the file was cut short while it was in use"
        wal = _identity(self._wal)
        if self._wal_file is not None and wal != self._wal_file:
            return f"its file {self._wal.name} was removed or replaced while it was in use"
        self._wal_file, self._size = wal or self._wal_file, found.st_size
        return ""

    def _lacks(self, size: int) -> bool:
        """Return whether the database has more pages than the file; fewer after compacting."""
        try:
            with self._engine.connect() as connection:
                pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
                page = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
        except SQLAlchemyError:
            return True
        return bool(pages * page > size)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
