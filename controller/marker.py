"""A file that says which run is under way, so that the next controller knows what was cut short.

The task log may be shared with other testbeds, whose running runs must not be touched; only this
file says which one was this testbed's.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import structlog

from testbed.errors import TestbedError
from testbed.storage.tasklog import RunState, TaskLog

_log = structlog.get_logger("controller.marker")


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a small file so that readers see all of it or what was there before."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


class RunMarker:
    """The marker in ``directory``; ``scenario`` is the scenario file's text, for the log."""

    def __init__(self, directory: Path, scenario: str | None = None) -> None:
        self._path = directory / "active-run.json"
        self.scenario = scenario

    def begin(self, run: str) -> None:
        """A run is under way."""
        self._write(run, RunState.INTERRUPTED)

    def failed(self, run: str) -> None:
        """A run has failed and the log could not be told."""
        self._write(run, RunState.FAILED)

    def end(self) -> None:
        """No run is under way. No-op if none was."""
        self._path.unlink(missing_ok=True)

    @property
    def exists(self) -> bool:
        """Whether a run was left open, or is under way."""
        return self._path.exists()

    def settle(self, log: TaskLog) -> tuple[str, RunState] | None:
        """Tell the log about the run that a controller left open; which it was, None if none.

        Only for who knows that this controller has ended.
        """
        try:
            left = json.loads(self._path.read_text(encoding="utf-8"))
            run, state = str(left["run"]), RunState(left["state"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("marker", path=str(self._path), unreadable=repr(error))
            self.end()
            return None
        settled = None
        try:
            if log.run(run).state is RunState.RUNNING:
                log.end_run(run, state)
                settled = run, state
                _log.warning("run left open", run=run, state=state.value)
        except TestbedError as error:
            _log.warning("run left open", run=run, problem=str(error))
        self.end()
        return settled

    def _write(self, run: str, state: RunState) -> None:
        try:
            write_atomically(self._path, json.dumps({"run": run, "state": state.value}))
        except OSError as error:
            _log.warning("marker", path=str(self._path), problem=str(error))
