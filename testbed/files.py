"""Files that appear whole or not at all, and locks between processes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

PRIVATE: Final = 0o600
"""Mode of a file for its owner only."""

ORDINARY: Final = 0o666
"""Mode of a file that the umask alone restricts."""


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
