"""Failures of code that is a user's own: what failed, where, and for which tasks.

A scheduler or an application of somebody else may raise or answer nonsense. That is no defect of
the toolkit, so messages name the code, file and line that a user can change. The task it happened
to ends as ``lost``, in every driver, and the end's record carries the reason.
"""

from __future__ import annotations

import opcode
from types import TracebackType
from typing import Any, Final

from testbed.errors import PermanentError

LONGEST_REASON: Final = 400
"""Characters of a reason that are kept; a log holds one for every task it happened to."""

_ROOT: Final = __file__.rsplit("/", 3)[0]

_OURS: Final = tuple(
    f"{_ROOT}/{package}/" for package in ("testbed", "controller", "edgenode", "trainer")
)
_LIBRARY: Final = opcode.__file__.rpartition("/")[0] + "/"
_PACKAGES: Final = ("/site-packages/", "/dist-packages/")
_RAISE: Final = opcode.opmap["RAISE_VARARGS"]


class SchedulerFailed(PermanentError):
    """A scheduler raised, or answered what is no answer; ``reason`` says which, what and where."""

    def __init__(self, scheduler: str, what: str, task: int, node: int) -> None:
        self.reason = shortened(f"scheduler '{scheduler}' {what}")
        super().__init__(f"node {node}, task {task}: {self.reason}")


def described(error: BaseException) -> str:
    """Return type and text of ``error`` on one line, with file and line of the user's frame."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a user's exception may have a broken __str__
        text = "(its text cannot be shown)"
    if isinstance(error, SyntaxError) and error.filename:
        text = error.msg
    place = raised_at(error)
    lines = text.splitlines()
    told = type(error).__name__ + (f": {lines[0]}" if lines and lines[0] else "")
    return shortened(told) + (f", at {place}" if place else "")


def defined_at(code: object) -> str:
    """Return `` (FILE:LINE)`` of a function, or of a class's method; empty if it has none."""
    found: Any = getattr(code, "__func__", code)
    found = getattr(getattr(found, "__wrapped__", found), "__code__", None)
    return "" if found is None else f" ({found.co_filename}:{found.co_firstlineno})"


def interrupted(error: BaseException) -> bool:
    """Return whether this is a Ctrl-C that came from outside and not from a ``raise``."""
    if not isinstance(error, KeyboardInterrupt):
        return False
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None or _is_ours(last.tb_frame.f_code.co_filename):
        return True
    return last.tb_frame.f_code.co_code[last.tb_lasti] != _RAISE


def shown(value: object) -> str:
    """Return a short form of what a user's code answered, with its type."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a user's object may have a broken __repr__
        text = "an object"
    text = text if len(text) <= 80 else f"{text[:77]}..."
    return f"{text} ({type(value).__name__})"


def shortened(text: str) -> str:
    """Return ``text`` as one printable line of at most ``LONGEST_REASON`` characters."""
    line = "".join(each if each.isprintable() else " " for each in text[: LONGEST_REASON + 1])
    return line if len(line) <= LONGEST_REASON else f"{line[: LONGEST_REASON - 3]}..."


def raised_at(error: BaseException) -> str:
    """Return ``FILE:LINE in FUNCTION`` of the frame that a user can change; empty if none is.

    Of a SyntaxError the line that cannot be read.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if place := _place(cause.__traceback__):
            return place
        cause = cause.__cause__ or cause.__context__
    return ""


def _place(last: TracebackType | None) -> str:
    own = installed = ""
    while last is not None:
        code = last.tb_frame.f_code
        place = f"{code.co_filename}:{last.tb_lineno} in {code.co_name}"
        if _is_ours(code.co_filename):
            pass
        elif any(each in code.co_filename for each in _PACKAGES):
            # Of an installed package the frame that was entered first: the scheduler's own.
            installed = installed or place
        elif not _is_library(code.co_filename):
            own = place
        last = last.tb_next
    return own or installed


def _is_ours(filename: str) -> bool:
    return filename.startswith(_OURS)


def _is_library(filename: str) -> bool:
    return filename.startswith((_LIBRARY, "<frozen"))
