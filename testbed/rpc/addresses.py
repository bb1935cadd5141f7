"""Where a server listens: ``unix:/path`` on this machine, ``host:port`` between machines.

A Unix socket lies in a folder that only its owner can enter, which keeps other users of the machine
out before a byte is exchanged. Its path may have 107 bytes, so the folder is a short one below the
system's folder for temporary files, wherever the home is. Not below ``XDG_RUNTIME_DIR``: that goes
when the user logs out, and a testbed may run on.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from testbed.errors import PermanentError, PrerequisiteMissing, Problem, UsageError

LONGEST_PATH: Final = 107
"""Bytes of the path of a Unix socket, without the zero that ends it."""

_PREFIX: Final = "edge-testbed-run-"
_UNIX: Final = "unix:"
_LONGEST_NAME: Final = len("/controller.sock")


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A socket in the file system; ``path`` is absolute."""

    path: Path

    def __str__(self) -> str:
        return f"{_UNIX}{self.path}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """``host`` is a name or an IP address; one of version 6 has brackets. ``port`` 0: any."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


Address: TypeAlias = UnixAddress | TcpAddress

_HOST: Final = re.compile(r"[A-Za-z0-9_*]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?|\[[0-9A-Fa-f:.%a-z]+\]")


def parse(text: str) -> Address:
    """Return the address that ``text`` is.

    Raises: UsageError: it is none, or the path of the socket is too long.
    """
    if text.startswith(_UNIX):
        path = Path(text.removeprefix(_UNIX))
        if not path.is_absolute() or "\0" in text:
            raise _no_address(text)
        if len(os.fsencode(path)) > LONGEST_PATH:
            raise UsageError(
                "the path of a socket is too long",
                [Problem("address", str(path), f"at most {LONGEST_PATH} bytes")],
            )
        return UnixAddress(path)
    host, separator, port = text.rpartition(":")
    if (
        not separator
        or _HOST.fullmatch(host) is None
        or re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) is None
        or int(port) > 65535
    ):
        raise _no_address(text)
    return TcpAddress(host, int(port))


def _no_address(text: str) -> UsageError:
    shown = text if len(text) <= 200 else f"{text[:200]}..."
    return UsageError(
        "invalid address of a server",
        [Problem("address", repr(shown), "host:port, or unix:/path")],
    )


def new_socket_folder() -> Path:
    """Return the path of a folder for sockets, which nobody has made yet; see ``make_private``."""
    base = tempfile.gettempdir()
    name = f"{_PREFIX}{secrets.token_hex(6)}"
    if len(os.fsencode(base)) + 1 + len(name) + _LONGEST_NAME > LONGEST_PATH:
        base = "/tmp"
    return Path(base) / name


def make_private(folder: Path) -> None:
    """Make a folder that only its owner can enter; it must not exist.

    Raises: PrerequisiteMissing: it cannot be made there, or another process has made it.
    """
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise PrerequisiteMissing(
            f"the folder for sockets {folder} cannot be made: {error.strerror or error}",
            "let TMPDIR name a folder that you may write",
        ) from error
    check_private(folder)


def check_private(folder: Path) -> None:
    """Return if ``folder`` is a folder of this user that nobody else can enter.

    Raises: PrerequisiteMissing: it is not.
    """
    try:
        seen = folder.lstat()
    except OSError as error:
        raise PrerequisiteMissing(
            f"the folder for sockets {folder} cannot be used: {error.strerror or error}",
            "name a socket in a folder of your own",
        ) from error
    mode = stat.S_IMODE(seen.st_mode)
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid() or mode & 0o077:
        raise PrerequisiteMissing(
            f"{folder} belongs to user {seen.st_uid} and has mode {mode:04o}: a socket has to be "
            "in a folder that only its owner can enter",
            f"chmod 700 {folder}, or name a socket in another folder",
        )


def remove_sockets(folder: Path) -> None:
    """Remove a folder that ``new_socket_folder`` has named; no-op if it is gone or not ours."""
    if not folder.name.startswith(_PREFIX):
        return
    with contextlib.suppress(OSError, PrerequisiteMissing):
        check_private(folder)
        shutil.rmtree(folder, ignore_errors=True)


def free(address: UnixAddress) -> None:
    """Remove the socket that a process which has ended left at ``address``.

    Raises: PermanentError: a process listens there, or something else is in the way.
    """
    try:
        mode = address.path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise PermanentError(f"{address.path}: {error.strerror or error}") from error
    if not stat.S_ISSOCK(mode):
        raise PermanentError(f"{address.path} exists already and is not a socket; remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(str(address.path))
        except (ConnectionRefusedError, FileNotFoundError):
            address.path.unlink(missing_ok=True)
            return
        except OSError:
            # One whose queue of connections is full listens too.
            pass
    raise PermanentError(
        f"another process listens on {address.path}; end it, or name another socket"
    )
