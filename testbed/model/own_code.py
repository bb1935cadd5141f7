"""Failures of code that is a user's own: what failed, where, and for which tasks.

A scheduler or an application of somebody else may raise or answer nonsense. That is no defect of
the toolkit, so messages name the code, file and line that a user can change. The task it happened
to ends as ``lost``, in every driver, and the end's record carries the reason.

What is asked for that may itself be somebody else's code: a text, a name, a repr. Whatever comes of
that, each function here answers with printable text of bounded length, the place whole.
"""

from __future__ import annotations

import opcode
import reprlib
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FrameType, TracebackType
from typing import Any, Final

from testbed.errors import PermanentError

LONGEST_REASON: Final = 400
"""Characters of a reason that are kept; a log holds one for every task it happened to."""

LONGEST_NAME: Final = 60
"""Characters of a name in it, and of the name of a function."""

LONGEST_CALLED: Final = 200
"""Characters of what a scheduler may call itself."""

_LONGEST_FILE: Final = 160
_READ: Final = 10_000
"""Characters of a text that are looked at; it may have millions."""

_ROOT: Final = __file__.rsplit("/", 3)[0]

_OURS: Final = tuple(
    f"{_ROOT}/{package}/" for package in ("testbed", "controller", "edgenode", "trainer")
)
_LIBRARY: Final = opcode.__file__.rpartition("/")[0] + "/"
_PACKAGES: Final = ("/site-packages/", "/dist-packages/")
_RAISE: Final = opcode.opmap["RAISE_VARARGS"]
_TYPE_NAME: Final = type.__dict__["__name__"].__get__


class _Repr(reprlib.Repr):
    """Looks at the first entries of what is large, and at numbers as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxarray = 12
        self.maxstring = self.maxother = self.maxlong = 80


_REPR: Final = _Repr()


class SchedulerFailed(PermanentError):
    """A scheduler raised, or gave an invalid answer; ``reason`` names which, what and where."""

    def __init__(self, scheduler: str, what: str, task: int, node: int) -> None:
        self.reason = shortened(f"scheduler '{shortened(scheduler, LONGEST_NAME)}' {what}")
        super().__init__(f"node {node}, task {task}: {self.reason}")


def described(error: BaseException) -> str:
    """Return type and text of ``error`` on one line, with file and line of the user's frame."""
    text = _asked(_text, error, "(its text cannot be shown)")
    place = _asked(raised_at, error, "")
    place = f", at {place}" if place else ""
    line = next(iter(text.lstrip().splitlines()), "").rstrip()
    told = shortened(type_name(error), LONGEST_NAME) + (f": {line}" if line else "")
    # The name of what failed, and a verb, come before it in a reason.
    return shortened(told, LONGEST_REASON - LONGEST_NAME - 40 - len(place)) + place


def _text(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return str(error.msg)
    return str(error)


def name_of(scheduler: object) -> str:
    """Return what a scheduler is called in logs and messages, as one short line."""
    try:
        name: Any = scheduler.name  # type: ignore[attr-defined]
    except BaseException as error:
        if interrupted(error):
            raise
        name = None
    if type(name) is str and len(name) <= LONGEST_CALLED and name.isprintable():
        return name
    return shortened(name if isinstance(name, str) else type_name(scheduler), LONGEST_CALLED)


def type_name(value: object) -> str:
    """Return the name of the type of ``value``, also where that type is misleading."""
    name: str = _TYPE_NAME(type(value))
    return name


def _asked(ask: Callable[[Any], str], value: object, otherwise: str) -> str:
    """Return the beginning of the text that a user's object gives, or ``otherwise``."""
    try:
        # A subclass of str may have methods of its own.
        return str.__getitem__(ask(value), slice(_READ))
    except BaseException as error:
        if interrupted(error):
            raise
        return otherwise


def defined_at(code: object) -> str:
    """Return `` (FILE:LINE)`` of a function, or of a class's method; empty if it has none."""
    found: Any = getattr(code, "__func__", code)
    found = getattr(getattr(found, "__wrapped__", found), "__code__", None)
    if not isinstance(found, CodeType):
        return ""
    return f" ({_file(found)}:{found.co_firstlineno})"


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
    text = shortened(_asked(_REPR.repr, value, "an object"), 80)
    return f"{text} ({shortened(type_name(value), LONGEST_NAME)})"


def shortened(text: str, longest: int = LONGEST_REASON) -> str:
    """Return ``text`` as one printable line of at most ``longest`` characters."""
    start = str.__getitem__(text, slice(longest + 1))
    line = "".join(each if each.isprintable() else " " for each in start)
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def _ending(text: str, longest: int) -> str:
    """Return the end of ``text`` as one printable line of at most ``longest`` characters."""
    end = text if len(text) <= longest else f"...{text[3 - longest :]}"
    return shortened(end, longest)


def raised_at(error: BaseException) -> str:
    """Return ``FILE:LINE in FUNCTION`` of the frame that a user can change; empty if none is.

    Of a SyntaxError the line that cannot be read.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_ending(str(error.filename), _LONGEST_FILE)}:{shortened(str(error.lineno), 9)}"
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if place := _place(_raised(cause.__traceback__)):
            return place
        cause = cause.__cause__ or cause.__context__
    return ""


def running_at(frame: FrameType | None) -> str:
    """Return the same for a running call, whose innermost frame is ``frame``."""
    frames = []
    while frame is not None:
        frames.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return _place(reversed(frames))


def _raised(last: TracebackType | None) -> Iterator[tuple[CodeType, int]]:
    while last is not None:
        yield last.tb_frame.f_code, last.tb_lineno
        last = last.tb_next


def _place(frames: Iterable[tuple[CodeType, int]]) -> str:
    """Return the place among frames that are given from the outermost on."""
    own = installed = ""
    for code, line in frames:
        place = f"{_file(code)}:{line} in {shortened(code.co_name, LONGEST_NAME)}"
        if _is_ours(code.co_filename):
            pass
        elif any(each in code.co_filename for each in _PACKAGES):
            # Of an installed package the frame that was entered first: the scheduler's own.
            installed = installed or place
        elif not _is_library(code.co_filename):
            own = place
    return own or installed


def _file(code: CodeType) -> str:
    return _ending(code.co_filename, _LONGEST_FILE)


def _is_ours(filename: str) -> bool:
    return filename.startswith(_OURS)


def _is_library(filename: str) -> bool:
    return filename.startswith((_LIBRARY, "<frozen"))
