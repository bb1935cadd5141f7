"""The errors a user can meet, and the exit code each one ends the CLI with.

A simulated fault (a failed task, a missed deadline) is a domain event and never an exception;
an infrastructure failure is never reported as the outcome of a task. Only ``TemporaryError`` is
retried, and only in adapters to the outside world.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final, Self


class TestbedError(Exception):
    """Base of all errors of this toolkit; the message says what was seen and what to do.

    Args:
        seen: what was seen; the whole message where it cannot be told from what to do.
        fix: what to do; empty if that stands in ``seen`` or nobody knows.
    """

    exit_code: ClassVar[int] = 1
    _separator: ClassVar[str] = "; "

    def __init__(self, seen: str, *, fix: str = "") -> None:
        self.seen = seen
        self.fix = fix
        super().__init__(f"{seen}{self._separator}{fix}" if fix else seen)

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], TestbedError], tuple[dict[str, Any]]]:
        """Pickle as a document, so that an error leaves a process pool whole."""
        return from_document, (self.to_document(),)

    def to_document(self) -> dict[str, Any]:
        """Return the error as JSON-able values, which `from_document` makes an error of again."""
        document = {"kind": _kind(type(self)), "seen": self.seen, "fix": self.fix}
        notes = [str(note) for note in getattr(self, "__notes__", ())]
        return {**document, "notes": notes} if notes else document

    @classmethod
    def _from_document(cls, document: Mapping[str, Any]) -> Self:
        return cls(str(document["seen"]), fix=str(document.get("fix", "")))


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

    def __init__(self, message: str, problems: Sequence[Problem] = (), *, fix: str = "") -> None:
        self.problems = tuple(problems)
        lines = [message, *(f"  - {problem}" for problem in self.problems)]
        super().__init__("\n".join(lines), fix=fix)
        self.message = message

    def to_document(self) -> dict[str, Any]:
        """Return the error with all its problems."""
        problems = [asdict(problem) for problem in self.problems]
        return {**super().to_document(), "seen": self.message, "problems": problems}

    @classmethod
    def _from_document(cls, document: Mapping[str, Any]) -> Self:
        problems = [
            Problem(str(each["path"]), str(each["seen"]), str(each["allowed"]))
            for each in document.get("problems", ())
        ]
        return cls(str(document["seen"]), problems, fix=str(document.get("fix", "")))


def differences(
    path: str,
    mine: Mapping[str, Any],
    theirs: Mapping[str, Any],
    shown: Callable[[Any], str] = str,
) -> list[Problem]:
    """Return what was stored (``theirs``) with other values than are asked for now (``mine``).

    The names follow ``path``; ``shown`` makes text of a value.
    """
    return [
        Problem(f"{path}{name}", shown(theirs.get(name)), f"{shown(value)}, as requested now")
        for name, value in mine.items()
        if theirs.get(name) != value
    ]


def check_settings(
    headline: str, path: str, settings: object, checks: Iterable[tuple[str, bool, str]]
) -> None:
    """Refuse ``settings`` of which a value is outside its range.

    Each of the ``checks`` has the name of an attribute, whether its value is fine, and what is
    allowed. ``path`` is where the settings stand, empty at the top.

    Raises:
        UsageError: with ``headline``; all values that are not fine are listed.
    """
    where = f"{path}." if path else ""
    problems = [
        Problem(f"{where}{name}", str(getattr(settings, name)), allowed)
        for name, fine, allowed in checks
        if not fine
    ]
    if problems:
        raise UsageError(headline, problems)


class PrerequisiteMissing(TestbedError):
    """Something this command needs is not there; names the tool or file and the fix."""

    exit_code = 3
    _separator = "\n  fix: "

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what, fix=fix)


class TemporaryError(TestbedError):
    """The outside world did not answer this time; the same call may succeed later."""

    exit_code = 4


class PermanentError(TestbedError):
    """The outside world said no, or answered something this version cannot use."""

    exit_code = 5


def from_document(document: Mapping[str, Any]) -> TestbedError:
    """Return the error of a document that `TestbedError.to_document` made.

    A subclass outside this module comes back as the class of this module that it extends. A kind
    that a later version has added comes back as a ``PermanentError``.

    Raises:
        ValueError: it is not the document of an error.
    """
    found: TestbedError
    try:
        found = _KINDS.get(document["kind"], PermanentError)._from_document(document)
        for note in document.get("notes", ()):
            found.add_note(str(note))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not the document of an error: {document!r:.200}") from error
    return found


def _kind(cls: type[TestbedError]) -> str:
    """Return the name of the class of this module that ``cls`` is or extends."""
    return next(each.__name__ for each in cls.__mro__ if each.__name__ in _KINDS)


_KINDS: Final[dict[str, type[TestbedError]]] = {
    each.__name__: each
    for each in (TestbedError, UsageError, PrerequisiteMissing, TemporaryError, PermanentError)
}
