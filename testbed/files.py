"""Files that appear whole or not at all, locks between processes, and folders that one works in."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from testbed.errors import Problem, UsageError

PRIVATE: Final = 0o600
"""Mode of a file for its owner only."""

ORDINARY: Final = 0o666
"""Mode of a file that the umask alone restricts."""

LOCK: Final = ".lock"
"""In a folder, held by the process that works there, whose id and machine it names."""


@contextmanager
def replacing(path: Path, mode: int = PRIVATE) -> Iterator[BinaryIO]:
    """Give a file to write, which becomes ``path`` when the block ends without an error.

    A reader sees the old content or the new one, never a part. ``mode`` is restricted by the umask.

    Raises:
        OSError: it cannot be written; ``path`` is as before and nothing is left of the attempt.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with open(os.open(temporary, flags, mode), "w+b") as file:
            yield file
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def write_atomically(path: Path, content: str | bytes, mode: int = PRIVATE) -> None:
    """Write a file so that readers see the old content or the new one; text is UTF-8.

    Raises:
        OSError: it cannot be written; ``path`` is as before and nothing is left of the attempt.
    """
    with replacing(path, mode) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def try_lock(file: int) -> bool:
    """Lock an open file for this process alone; return False if another one holds the lock.

    The lock ends when ``file`` is closed or the process ends.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def working_in(folder: Path, what: str) -> Iterator[None]:
    """Keep other processes out of ``folder``, which is made, until the end of this one at most.

    ``what`` is what is made there, for messages: an experiment.

    Raises:
        UsageError: another process works there already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _occupy(file, folder, what)
        os.truncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(file)


def refuse_if_busy(folder: Path, what: str) -> None:
    """Refuse a folder that another process works in, see ``working_in``; write nothing.

    Raises:
        UsageError: one does.
    """
    try:
        file = os.open(folder / LOCK, os.O_RDWR)
    except OSError:
        return
    try:
        _occupy(file, folder, what)
    finally:
        os.close(file)


def _occupy(file: int, folder: Path, what: str) -> None:
    try:
        if try_lock(file):
            return
    except OSError:
        # A file system without locks: there nothing keeps two processes apart.
        return
    owner = os.pread(file, 200, 0).decode(errors="replace") or "another process"
    raise UsageError(
        f"another {what} is working in {folder}",
        [Problem("--out", f"{owner} works there", "another folder, or this one once it has ended")],
    )
