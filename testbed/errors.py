"""The errors a user can meet, and the exit code each one ends the CLI with.

A simulated fault (a failed task, a missed deadline) is a domain event and never an exception;
an infrastructure failure is never reported as the outcome of a task. Only ``TemporaryError`` is
retried, and only in adapters to the outside world.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class TestbedError(Exception):
    """Base of all errors of this toolkit; the message says what was seen and what to do."""

    exit_code: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with what the user gave.

    ``path`` is where it stands (``nodes.count``, ``tasks.jsonl:12``), ``seen`` what was found
    there and ``allowed`` what may stand there instead.
    """

    path: str
    seen: str
    allowed: str

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{where}{self.seen}; {self.allowed}" if self.allowed else f"{where}{self.seen}"


class UsageError(TestbedError):
    """The user asked for something impossible; carries every problem found, not only the first."""

    exit_code = 2

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        self.problems = tuple(problems)
        lines = [message, *(f"  - {problem}" for problem in self.problems)]
        super().__init__("\n".join(lines))


class PrerequisiteMissing(TestbedError):
    """Something this command needs is not there; names the tool or file and the fix."""

    exit_code = 3

    def __init__(self, what: str, fix: str) -> None:
        self.what = what
        self.fix = fix
        super().__init__(f"{what}\n  fix: {fix}")


class TemporaryError(TestbedError):
    """The outside world did not answer this time; the same call may succeed later."""

    exit_code = 4


class PermanentError(TestbedError):
    """The outside world said no, or answered something this version cannot use."""

    exit_code = 5
