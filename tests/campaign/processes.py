"""Commands as a user types them, with a bound on how long each may take."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

COMMAND_S: Final = 90.0
"""Most seconds that a command or a wait may take on a busy machine before it counts as a hang."""

_Found = TypeVar("_Found")


class Hang(Exception):
    """Something did not come to its end within its bound."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended: its exit code (negative: the signal) and what it wrote."""

    line: str
    code: int
    out: str
    err: str
    seconds: float


class Command:
    """A ``testbed`` command that runs in a session of its own; its output goes to files."""

    def __init__(
        self, arguments: list[str], environment: Mapping[str, str], folder: Path, number: int
    ) -> None:
        self.line = "testbed " + " ".join(arguments)
        self._files = [folder / f"{number}.{end}" for end in ("out", "err")]
        self._began = time.monotonic()
        with self._files[0].open("wb") as out, self._files[1].open("wb") as err:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).parent / "testbed"), *arguments],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=folder,
                start_new_session=True,
            )

    def wait(self, seconds: float = COMMAND_S) -> Finished:
        """Wait for its end. Raises: Hang: it takes longer; it is killed then."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self.process.wait()
            raise Hang(f"`{self.line}` ran for {seconds:g} s; it wrote: {self._tail()}") from None
        taken = time.monotonic() - self._began
        out, err = (path.read_text(errors="replace") for path in self._files)
        return Finished(self.line, code, out, err, taken)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it, and to what it has started in its session; no-op at its end."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def _tail(self) -> str:
        return " | ".join(path.read_text(errors="replace")[-300:] for path in self._files)


def until(what: str, look: Callable[[], _Found | None], seconds: float = COMMAND_S) -> _Found:
    """Look every few milliseconds until something is found.

    Raises: Hang: nothing was found within ``seconds``.
    """
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None:
            return found
        if time.monotonic() > end:
            raise Hang(f"{what}: not within {seconds:g} s")
        time.sleep(0.03)


def rest(seconds: float) -> None:
    """Let real time go by: instants and lengths of faults are drawn, not waited for."""
    time.sleep(max(0.0, seconds))
