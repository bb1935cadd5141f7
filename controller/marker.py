"""A file that says which run is under way, so that the next controller knows what was cut short.

The task log may be shared with other testbeds, whose running runs must not be touched; only this
file says which one was this testbed's.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

from testbed.errors import PermanentError, UsageError
from testbed.files import write_atomically
from testbed.model.run_state import RunState
from testbed.storage.tasklog import TaskLog

# Not to standard output: commands settle runs too, and print documents there.
_log: Final = logging.getLogger("controller.marker")

CUT_SHORT: Final = "its controller ended without ending it"


def close(log: TaskLog, run: str, state: RunState, document: Mapping[str, Any]) -> int | None:
    """End a run that could not be written to its end, with all its tasks where they can be read.

    The number of tasks that had no end; None if the log is damaged and can take the state only.

    Raises: TestbedError: not even that.
    """
    try:
        return log.close_run(run, state, document)
    except PermanentError as error:
        log.end_run(run, state, document)
        _log.error("the tasks of run %s stay as they are: %s", run, error)
        return None


class Claiming(Protocol):
    """Keeps the runs that this process carries on where other processes see them."""

    def take(self, run: str, directory: Path) -> None: ...

    def release(self) -> None: ...


class RunMarker:
    """The marker in ``directory``; ``scenario`` is the scenario file's text, for the log.

    With ``claims``, the run is claimed too, for the case that the directory is removed.
    """

    def __init__(
        self, directory: Path, scenario: str | None = None, claims: Claiming | None = None
    ) -> None:
        self._claims = claims
        self._path = directory / "active-run.json"
        # On a full disk nothing can be written, but a file can be renamed.
        self._renamed = {
            state: directory / f"active-run.{state.value}.json"
            for state in (RunState.FAILED, RunState.STOPPED)
        }
        self._left: tuple[str, RunState, str] | None = None
        self.scenario = scenario

    def begin(self, run: str) -> None:
        """Write the marker before a run is entered in the log.

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
        for path in self._renamed.values():
            with suppress(OSError):
                path.unlink()
        if self._claims is not None:
            self._claims.take(run, self._path.parent)

    def ending(self, run: str) -> None:
        """Note that the controller was told to end while this run goes on."""
        self._change(run, RunState.STOPPED, "its controller was told to end")

    def failed(self, run: str, reason: str) -> None:
        """Note that a run has failed for this ``reason``, which could not be logged."""
        self._change(run, RunState.FAILED, reason)

    def end(self) -> None:
        """Remove the marker: no run is under way. No-op if none was."""
        self._left = None
        for path in (self._path, *self._renamed.values()):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                _log.warning("marker %s: %s", path, error)
        if self._claims is not None:
            self._claims.release()

    @property
    def run(self) -> str | None:
        """The run that was left open, or is under way; None if there is none."""
        left = self._read(end=False)
        return None if left is None else left[0]

    @property
    def exists(self) -> bool:
        """Whether a run was left open, or is under way."""
        return any(path.exists() for path in (self._path, *self._renamed.values()))

    def settle(self, log: TaskLog) -> tuple[str, RunState] | None:
        """End the run that a controller left open in the log; return it, None if there is none.

        Only for who knows that no controller carries this run on.

        Raises: TestbedError: the log cannot be written; the marker stays for the next attempt.
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
            _log.info("run %s was left open, and the task log does not know it", run)
            self.end()
            return None
        if still_open:
            document = {"failure": reason or CUT_SHORT, "tasks_closed": False}
            lost = close(log, run, state, document)
            _log.info("run %s was left open: %s, tasks lost: %s", run, state.value, lost)
        self.end()
        return (run, state) if still_open else None

    def _read(self, *, end: bool = True) -> tuple[str, RunState, str] | None:
        """Return what is written; ``end`` removes what is no marker."""
        if self._left is not None:
            return self._left
        path, renamed = next(
            ((path, state) for state, path in self._renamed.items() if path.exists()),
            (self._path, None),
        )
        try:
            left = json.loads(path.read_text(encoding="utf-8"))
            run, state = str(left["run"]), RunState(left["state"])
            if renamed is not None and renamed is not state:
                return run, renamed, "it could not be written why: the disk was full"
            return run, state, str(left.get("reason", ""))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("marker %s: %r", path, error)
            if end:
                self.end()
            return None

    def _change(self, run: str, state: RunState, reason: str) -> None:
        # Known here too: the file may be gone or damaged.
        self._left = run, state, reason
        try:
            write_atomically(self._path, _text(run, state, reason))
        except OSError as error:
            try:
                self._path.rename(self._renamed[state])
            except OSError:
                _log.warning("marker %s: %s", self._path, error)


def _text(run: str, state: RunState, reason: str) -> str:
    return json.dumps({"run": run, "state": state.value, "reason": reason})
