"""The run directory: everything the local runtime knows, in files that anyone may read again.

::

    HOME/.NAME.lock          held while a command changes the testbed
    HOME/.running/           one file per run under way, held by its controller
    HOME/NAME/testbed.json   there from the beginning of `up` to the end of `down`
    HOME/NAME/plan.json      what the controller is given
    HOME/NAME/controller.json    the controller's address, written by itself
    HOME/NAME/policies.json  which policies its controller has deployed
    HOME/NAME/processes/     one file per process: its id and when it started
    HOME/NAME/credentials/   one file per process: what proves it to the others
    HOME/NAME/logs/          one file per process
    HOME/NAME/spool/         what nodes have not got stored yet
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from testbed.errors import PermanentError, PrerequisiteMissing, Problem, UsageError
from testbed.files import try_lock, write_atomically
from testbed.runtime.base import NAME

_DESCRIBED: Final[dict[str, type]] = {
    "token": str,
    "store": str,
    "scenario": str,
    "nodes": int,
}
"""Keys that a description needs so that the testbed can be used, with their types."""

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class RunDirectory:
    """Files of the testbed ``name`` in ``home``.

    Raises (every call that writes): PrerequisiteMissing: the folder cannot be written.
    PermanentError: the disk is full.
    """

    def __init__(self, home: Path, name: str) -> None:
        self.home = home
        self.name = name
        self.path = home / name
        self.claims = home / ".running"
        self.logs = self.path / "logs"
        self.spool = self.path / "spool"
        self.plan = self.path / "plan.json"
        self.scenario = self.path / "scenario.yaml"
        self._testbed = self.path / "testbed.json"
        self._address = self.path / "controller.json"
        self._policies = self.path / "policies.json"
        self._processes = self.path / "processes"
        self._credentials = self.path / "credentials"
        self._lock = home / f".{name}.lock"

    # --- the testbed ------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Whether a testbed is up here, or incomplete."""
        return self._testbed.exists()

    @property
    def untouched(self) -> bool:
        """Whether there is nothing of this name, and no command is busy making it."""
        return not self.path.exists() and not self._lock.exists()

    def create(self, description: dict[str, Any], plan: str, scenario: str | None) -> None:
        """Begin a testbed here; an earlier one's logs go, its spool stays."""
        with writing(self.path):
            private_folder(self.home)
            for folder in (self.path, self._processes, self._credentials, self.logs, self.spool):
                folder.mkdir(mode=0o700, exist_ok=True)
                folder.chmod(0o700)
            for stale in (
                *self.logs.glob("*.log"),
                *self._processes.glob("*.json"),
                *self._credentials.glob("*.json"),
            ):
                _discard(stale)
            for old in (self._address, self._policies, self.scenario, self._testbed, self.plan):
                _discard(old)
            write_atomically(self._testbed, json.dumps(description))
            write_atomically(self.plan, plan)
            if scenario is not None:
                write_atomically(self.scenario, scenario)

    def description(self) -> dict[str, Any] | None:
        """Return what ``create`` was given; None if nothing is here, or it is damaged."""
        found = _read(self._testbed) or {}
        whole = all(isinstance(found.get(key), kind) for key, kind in _DESCRIBED.items())
        return found if whole else None

    def address(self) -> str | None:
        """Return the address of the controller; None if it has not reported one."""
        address = (_read(self._address) or {}).get("address")
        return address if isinstance(address, str) else None

    def remove(self) -> Path | None:
        """Remove the testbed; return the folder of its logs and unstored events, None if empty."""
        if not self.path.is_dir():
            return None
        with writing(self.path):
            shutil.rmtree(self._processes, ignore_errors=True)
            shutil.rmtree(self._credentials, ignore_errors=True)
            for file in (
                self.plan,
                self.scenario,
                self._address,
                self._policies,
                self._testbed,
            ):
                _discard(file)
            # Only empty folders go.
            for folder in (*self.spool.glob("*"), self.spool, self.logs, self.path):
                try:
                    folder.rmdir()
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.ENOENT, errno.ENOTDIR):
                        raise
        return self.path if self.path.is_dir() else None

    # --- its processes ----------------------------------------------------------------------

    def enter(self, process: str, pid: int, created: float, host: str = "") -> None:
        """Note a process. ``created`` (``processes.created_at``) tells it from a later one with the
        same id. ``host`` is the name of the process that a node shares with others."""
        entry = {"pid": pid, "created": created, **({"host": host} if host else {})}
        with writing(self.path):
            write_atomically(self._processes / f"{process}.json", json.dumps(entry))

    def host(self, process: str) -> str:
        """Return the name of the process that a node shares with others; empty if it does not."""
        found = (_read(self._processes / f"{process}.json") or {}).get("host", "")
        return found if isinstance(found, str) else ""

    def hosted(self) -> dict[str, list[str]]:
        """Return the nodes that share a process, by the name of that, without those that ended."""
        found: dict[str, list[str]] = {}
        for file in sorted(self._processes.glob("*.json")):
            if host := self.host(file.stem):
                found.setdefault(host, []).append(file.stem)
        return found

    def strike(self, process: str) -> None:
        """Forget a process that has ended."""
        with writing(self.path):
            (self._processes / f"{process}.json").unlink(missing_ok=True)

    def credentials(self, process: str) -> Path:
        """Return the file with the credentials of a process."""
        return self._credentials / f"{process}.json"

    def write_credentials(self, process: str, text: str) -> None:
        """Write what proves a process to others."""
        with writing(self.path):
            write_atomically(self.credentials(process), text)

    def processes(self) -> dict[str, tuple[int, float]]:
        """Return id and creation time of the recorded processes by name; skips damaged records."""
        found = {}
        for file in self._processes.glob("*.json"):
            entry = _read(file) or {}
            pid, created = entry.get("pid"), entry.get("created")
            if isinstance(pid, int) and pid > 0 and isinstance(created, int | float):
                found[file.stem] = (pid, float(created))
        return found

    def log(self, process: str) -> Path:
        """Return the path of a process's log."""
        return self.logs / f"{process}.log"

    # --- one command at a time --------------------------------------------------------------

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other commands off this testbed; gone with the process, however it ends.

        Raises: UsageError: another command is busy with it.
        """
        with lock(self._lock, f"testbed '{self.name}'"):
            yield


@contextmanager
def lock(path: Path, what: str) -> Iterator[int]:
    """Keep other commands off ``what``; gone with the process, however it ends.

    Gives the descriptor that holds it: a program that inherits it holds it too.

    Raises: UsageError: another command is busy with it.
    """
    with _locked(path, what) as file:
        lock_note(file, os.getpid())
        try:
            yield file
        finally:
            # Unlinked while it is held, so that others who wait see that the name is another file.
            path.unlink(missing_ok=True)


def lock_note(file: int, pid: int) -> None:
    """Write the busy process into a lock that is held; nothing on a full disk."""
    with suppress(OSError):
        os.truncate(file, 0)
        os.write(file, str(pid).encode())


@contextmanager
def _locked(path: Path, what: str) -> Iterator[int]:
    while True:
        with writing(path.parent):
            private_folder(path.parent)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            if not try_lock(file):
                pid = os.pread(file, 20, 0).decode(errors="replace").strip()
                raise UsageError(
                    f"another command is busy with {what} "
                    f"(process {pid or 'unknown'}); wait for it, or stop it"
                )
            if _is_lock(file, path):
                yield file
                return
        finally:
            os.close(file)


def _is_lock(file: int, path: Path) -> bool:
    """Return whether ``file`` is still the one that the lock's name leads to."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def private_folder(path: Path) -> None:
    """Create ``path`` as a folder for its owner alone; an existing one is not changed."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def names(home: Path) -> tuple[str, ...]:
    """Return the names of the testbeds in ``home``, complete or not, in order."""
    if not home.is_dir():
        return ()
    return tuple(
        sorted(
            entry.name
            for entry in home.iterdir()
            if NAME.fullmatch(entry.name) and RunDirectory(home, entry.name).exists
        )
    )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a system error about a folder into an error that says what to do."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        if error.errno in _FULL:
            raise PermanentError(
                f"{path}: {reason}; free some space, or name another home: --home DIR or "
                "TESTBED_HOME"
            ) from error
        named = Path(os.fsdecode(error.filename)) if error.filename else path
        if not named.is_relative_to(path) and not path.is_relative_to(named):
            raise PrerequisiteMissing(
                f"{named}: {reason}", "let this user use it (read, write or run it)"
            ) from error
        raise PrerequisiteMissing(
            f"{path} cannot be written: {reason}",
            "name a folder that you may write: --home DIR or TESTBED_HOME",
        ) from error


def known(home: Path) -> str:
    """Return the names of the testbeds that exist, for messages."""
    return ", ".join(names(home)) or "none is up"


def no_testbed(home: Path, name: str) -> UsageError:
    """Return the error about a testbed that does not exist."""
    return UsageError(
        "no such testbed", [Problem("name", f"no testbed '{name}' in {home}", known(home))]
    )


def _discard(path: Path) -> None:
    """Remove a file, or a folder in its place. No-op if neither exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
