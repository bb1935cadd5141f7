"""Claims on runs: the process that carries one on holds a lock that the system itself lets go of.

A run's marker lies in the folder of its testbed, and a folder can be removed. So the controller
also holds a locked file per run elsewhere in the home. As long as it lives nobody else gets the
lock; once it has ended, however it ended, anybody may end its run in the log.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from controller.marker import CUT_SHORT, RunMarker, close
from testbed.errors import UsageError
from testbed.files import try_lock
from testbed.model.run_state import RunState
from testbed.scenario.secrets import without_password
from testbed.storage.tasklog import TaskLog

_log: Final = logging.getLogger("controller.claims")

CLAIMS: Final = ".running"
"""Folder of a home with the claims of all its testbeds."""

_LARGEST: Final = 64 * 1024
_SUFFIX: Final = ".json"


class Claims:
    """The claims in ``folder``, which need not exist, of runs in the task log ``store``."""

    def __init__(self, folder: Path, store: str = "") -> None:
        self._folder = folder
        self._store = _plain(store)
        self._held: dict[str, int] = {}

    def take(self, run: str, directory: Path) -> None:
        """Claim a run, whose marker is in ``directory``.

        Without a claim a run goes on as well; what cannot be written is logged only.
        """
        text = json.dumps({"directory": str(directory), "store": self._store})
        new = self._folder / f".{run}.{os.getpid()}"
        file = None
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            # Locked before it has its name: nobody ever finds it without its owner.
            try_lock(file)
            os.write(file, text.encode())
            new.rename(self._path(run))
        except OSError as error:
            _log.warning("run %s is not claimed in %s: %s", run, self._folder, error)
            with suppress(OSError):
                new.unlink(missing_ok=True)
            if file is not None:
                os.close(file)
            return
        self._held[run] = file

    def release(self) -> None:
        """Nobody has to end any more what is claimed here."""
        while self._held:
            run, file = self._held.popitem()
            with suppress(OSError):
                self._path(run).unlink(missing_ok=True)
            os.close(file)

    def abandoned(self) -> dict[str, str]:
        """Return the runs whose controller has ended without ending them, with their task logs."""
        found = {}
        for run in self._runs():
            with self._dead(run) as claim:
                if claim is not None:
                    found[run] = str(claim.get("store", ""))
        return found

    def settle(self, log: TaskLog) -> list[tuple[str, RunState]]:
        """End the log's runs that nobody carries on; return those it called running.

        Raises: TestbedError: the log cannot be written; the claims stay for the next attempt.
        """
        settled = []
        for run in self._runs():
            with self._dead(run) as claim:
                if claim is None or claim.get("store") != self._store:
                    continue
                state = _settle(log, run, Path(str(claim.get("directory", ""))))
                if state is not None:
                    settled.append((run, state))
                with suppress(OSError):
                    self._path(run).unlink(missing_ok=True)
        return settled

    def _runs(self) -> list[str]:
        with suppress(OSError):
            names = (path for path in self._folder.iterdir() if not path.name.startswith("."))
            return sorted(path.stem for path in names if path.suffix == _SUFFIX)
        return []

    def _path(self, run: str) -> Path:
        return self._folder / f"{run}{_SUFFIX}"

    @contextmanager
    def _dead(self, run: str) -> Iterator[dict[str, Any] | None]:
        """Give the claim of a run whose controller has ended, held meanwhile; None of others."""
        try:
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            file = os.open(self._path(run), flags)
        except OSError:
            yield None
            return
        with contextlib.closing(os.fdopen(file, "rb")):
            try:
                # None while its controller holds it.
                claim = json.loads(os.pread(file, _LARGEST, 0)) if try_lock(file) else None
            except (OSError, ValueError, RecursionError):
                claim = None
            yield claim if isinstance(claim, dict) else None


def _settle(log: TaskLog, run: str, directory: Path) -> RunState | None:
    """End one run as its marker says, if that is still there; None if it had ended."""
    try:
        if log.run(run).state is not RunState.RUNNING:
            return None
    except UsageError:
        return None
    marker = RunMarker(directory)
    if marker.run == run:
        settled = marker.settle(log)
        return None if settled is None else settled[1]
    state = RunState.INTERRUPTED
    close(log, run, state, {"failure": CUT_SHORT, "tasks_closed": False})
    _log.info("run %s was left open by its controller", run)
    return state


def _plain(store: str) -> str:
    return without_password(store).removeprefix("sqlite:///")
