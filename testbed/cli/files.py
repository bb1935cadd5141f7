"""Writing a user's file completely or not at all, with a message that says what to do."""

from __future__ import annotations

import errno
from pathlib import Path

from testbed.errors import PermanentError, Problem, UsageError
from testbed.files import ORDINARY, write_atomically


def write_text(path: Path, text: str, *, overwrite: bool) -> None:
    """Write ``text`` to ``path``, making folders above it; a reader never sees half of it.

    Raises: UsageError: it exists and may not be overwritten. PermanentError: it cannot be written.
    """
    if path.exists() and not overwrite:
        raise UsageError(
            "nothing was written",
            [Problem(str(path), "exists already", "choose another path, or overwrite: --force")],
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text, ORDINARY)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> PermanentError:
    """Return the error for a failed write at ``path``."""
    advice = {
        errno.ENOSPC: "free some space there and repeat the command",
        errno.EDQUOT: "free some space there and repeat the command",
        errno.EROFS: "choose a folder that can be written",
        errno.EACCES: "choose a folder that you may write, or change its rights",
        errno.EPERM: "choose a folder that you may write, or change its rights",
        errno.ENOTDIR: "a part of this path is a file; choose another path",
        errno.EEXIST: "a part of this path is a file; choose another path",
        errno.EISDIR: "this is a folder; name a file in it",
    }.get(error.errno or 0, "choose another path")
    reason = (error.strerror or str(error)).lower()
    return PermanentError(f"{path} cannot be written: {reason}; {advice}")
