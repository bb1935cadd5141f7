"""A file that says which run is under way, so that the next controller knows what was cut short.

The task log may be shared with other testbeds, whose running runs must not be touched; only this
file says which one was this testbed's.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from testbed.errors import PermanentError, UsageError
from testbed.storage.tasklog import RunState, TaskLog

_log = structlog.get_logger("controller.marker")

CUT_SHORT: Final = "its controller ended without ending it"


RESERVED: Final = 1024
"""Bytes of a marker. It keeps its size, so that its state can be changed on a full disk."""


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a small file so that readers see all of it or what was there before.

    Raises: OSError: it cannot be written; nothing is left of the attempt.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


class RunMarker:
    """The marker in ``directory``; ``scenario`` is the scenario file's text, for the log."""

    def __init__(self, directory: Path, scenario: str | None = None) -> None:
        self._path = directory / "active-run.json"
        self._left: tuple[str, RunState, str] | None = None
        self.scenario = scenario

    def begin(self, run: str) -> None:
        """A run is about to be entered in the log.

        Raises: PermanentError: the marker cannot be written; nothing has changed.
        """
        try:
            write_atomically(self._path, _text(run, RunState.INTERRUPTED, CUT_SHORT))
        except OSError as error:
            raise PermanentError(
                f"the run cannot begin: {self._path.parent} cannot be written "
                f"({error.strerror or error}); free some space there or make it writable, then "
                "repeat the command; if the folder is gone, take the testbed down and up again"
            ) from error
        self._left = None

    def ending(self, run: str) -> None:
        """The controller was told to end while this run goes on; it may not get the time."""
        self._change(run, RunState.STOPPED, "its controller was told to end")

    def failed(self, run: str, reason: str) -> None:
        """A run has failed for this ``reason`` and the log could not be told."""
        self._change(run, RunState.FAILED, reason)

    def end(self) -> None:
        """No run is under way. No-op if none was."""
        self._left = None
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("marker", path=str(self._path), problem=str(error))

    @property
    def exists(self) -> bool:
        """Whether a run was left open, or is under way."""
        return self._path.exists()

    def settle(self, log: TaskLog) -> tuple[str, RunState] | None:
        """Tell the log about the run that a controller left open; which it was, None if none.

        Only for who knows that no controller carries this run on.

        Raises: TestbedError: the log cannot be told; the marker stays for the next attempt.
        """
        for stale in self._path.parent.glob(f".{self._path.name}.*"):
            with suppress(OSError):
                stale.unlink()
        left = self._read()
        if left is None:
            return None
        run, state, reason = left
        try:
            still_open = log.run(run).state is RunState.RUNNING
        except UsageError:
            # It was never entered, or this is another log.
            _log.warning("run left open", run=run, problem="the task log does not know it")
            self.end()
            return None
        if still_open:
            log.end_run(run, RunState(state))
            _log.warning("run left open", run=run, state=state.value, reason=reason)
        self.end()
        return (run, state) if still_open else None

    def _read(self) -> tuple[str, RunState, str] | None:
        try:
            left = json.loads(self._path.read_text(encoding="utf-8"))
            return str(left["run"]), RunState(left["state"]), str(left.get("reason", ""))
        except FileNotFoundError:
            return self._left
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("marker", path=str(self._path), unreadable=repr(error))
            if self._left is None:
                self.end()
            return self._left

    def _change(self, run: str, state: RunState, reason: str) -> None:
        # Known here too: the file may be gone or damaged.
        self._left = run, state, reason
        text = _text(run, state, reason)
        try:
            write_atomically(self._path, text)
        except OSError as error:
            try:
                descriptor = os.open(self._path, os.O_WRONLY)
                try:
                    os.pwrite(descriptor, text.encode("ascii"), 0)
                    os.ftruncate(descriptor, RESERVED)
                finally:
                    os.close(descriptor)
            except OSError:
                _log.warning("marker", path=str(self._path), problem=str(error))


def _text(run: str, state: RunState, reason: str) -> str:
    """A marker of ``RESERVED`` bytes."""
    while True:
        text = json.dumps({"run": run, "state": state.value, "reason": reason})
        if len(text) <= RESERVED or not reason:
            return text.ljust(RESERVED)
        reason = reason[: len(reason) // 2]
