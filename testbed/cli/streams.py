"""Makes the standard streams fit to be written to, whatever the shell made of them.

A result is never lost to an encoding that lacks a character, and a message that cannot be written
never stops a command. Output that cannot be written ends as an ``OSError`` of whoever writes it.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from typing import Final

READABLE: Final = "testbed-readable"
"""Name of the error handler: what an encoding lacks is written in ASCII."""

_SIGNS: Final = {
    "±": "+/-",
    "×": "x",
    "µ": "u",
    "μ": "u",
    "λ": "lambda",
    "–": "-",
    "—": "-",
    "−": "-",
    "…": "...",
    "→": "->",
    "≤": "<=",
    "≥": ">=",
    "≈": "~",
    "·": ".",
    "•": "*",
    "✓": "ok",
    "✔": "ok",
    "✗": "x",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "\u00a0": " ",
    "\u202f": " ",
    **{bar: str(level) for level, bar in enumerate("▁▂▃▄▅▆▇█", start=1)},
    **dict.fromkeys("─━╌╍┄┅═╸╺", "-"),
    **dict.fromkeys("│┃┆┇║", "|"),
    **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╰╯┏┓┗┛┡┩╇╈", "+"),
}
_WIDTHS: Final = ("COLUMNS", "LINES", "TERMINAL_WIDTH")
_NARROWEST: Final = 20
_WIDEST: Final = 10_000


def prepare() -> None:
    """Repair the standard streams of this process, and what its environment says of its size."""
    for variable in _WIDTHS:
        _repair_size(variable)
    _open_closed()
    codecs.register_error(READABLE, _readable)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=READABLE)
    if sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        encoding = sys.stderr.encoding
        _set_stderr(
            Forgiving(sys.stderr.detach(), encoding=encoding, errors=READABLE, line_buffering=True)
        )


class Forgiving(io.TextIOWrapper):
    """A text stream that loses what cannot be written, instead of raising an ``OSError``."""

    def write(self, text: str) -> int:
        """Write ``text`` if that is possible."""
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered if that is possible."""
        with contextlib.suppress(OSError, ValueError):
            super().flush()


def _repair_size(variable: str) -> None:
    """Remove sizes from the environment that nothing could be printed in."""
    text = os.environ.get(variable)
    if text is None:
        return
    size = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
    if not 0 < size <= _WIDEST:
        del os.environ[variable]
    elif size < _NARROWEST and variable != "LINES":
        os.environ[variable] = str(_NARROWEST)


def _open_closed() -> None:
    """Open what the shell has closed, so that no file of ours gets the number of a stream.

    What is written to a closed standard output fails as it should; standard error is silent.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            flags = os.O_WRONLY if number == 2 else os.O_RDONLY
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    if sys.stdout is None:
        sys.stdout = _writer(1)
    if sys.stderr is None:
        _set_stderr(_writer(2))
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115


def _set_stderr(stream: io.TextIOWrapper) -> None:
    sys.stderr = stream
    # Else the interpreter would end with a stream that has nothing to write to.
    vars(sys)["__stderr__"] = stream


def _writer(number: int) -> io.TextIOWrapper:
    raw = io.FileIO(number, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors=READABLE)


def _readable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_SIGNS.get(each) or _escaped(each) for each in lacking), error.end


def _escaped(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode("ascii")
