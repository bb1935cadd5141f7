"""Output of commands: results to stdout, everything else to stderr.

Colours and live displays are for terminals only and respect ``NO_COLOR``; elsewhere the same facts
come as plain lines that need no terminal to be read, and tables that are never cut to a width.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TextIO

from testbed.api import notices
from testbed.errors import TemporaryError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

WIDE: Final = 10_000
"""Width of what is no terminal: a table in a file or a pipe is not cut."""


@dataclass(slots=True)
class Voice:
    """Settings of the running command's output; the root command sets them before each command."""

    quiet: bool = False
    debug: bool = False


voice: Final = Voice()


def out(text: str) -> None:
    """Print one line (or several) of the result."""
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """Print one line of progress; not with ``--quiet``."""
    if not voice.quiet:
        _err(text)


def warn(text: str) -> None:
    """Print one line that the user must see, with ``--quiet`` too."""
    terminal(sys.stderr).print(f"[yellow]warning:[/] {plain(text)}")


# Messages of code that is shared with the Python API are printed as those of commands.
notices.use(note=note, warn=warn)


def error(text: str) -> None:
    """Print the message of an error to stderr."""
    first, _, rest = text.partition("\n")
    console = terminal(sys.stderr)
    console.print(f"[bold red]error:[/] {plain(first)}")
    if rest:
        console.print(plain(rest))


def next_command(*commands: str) -> None:
    """Suggest the next command; not with ``--quiet``."""
    if voice.quiet or not commands:
        return
    console = terminal(sys.stderr)
    for index, command in enumerate(commands):
        lead = "next: " if index == 0 else "      "
        console.print(f"[dim]{lead}[/][cyan]{plain(command)}[/]", soft_wrap=True)


def emit(document: object, *, line: bool = False) -> None:
    """Print the result as one JSON document; NaN and infinities become null.

    It is indented, or one ``line`` of several documents.
    """
    out(json.dumps(_finite(document), indent=None if line else 2, default=str))


@dataclass(slots=True)
class Rows:
    """A table to be printed.

    A column is its name: with ``>`` before it, aligned right; with ``~``, text that may be wrapped
    where the terminal is narrow. All others are never cut, so that what they hold can be copied.
    """

    columns: Sequence[str]
    rows: list[Sequence[str | Text]] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """Add a row; None shows as a dash. Foreign text has to go through ``plain`` or ``mark``."""
        self.rows.append([_cell(each) for each in cells])

    def rendered(self) -> Table:
        """Return the table for a rich console."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for index, name in enumerate(self.columns):
            cells = [name.lstrip(">~"), *(row[index] for row in self.rows)]
            longest = max(_text(cell).cell_len for cell in cells)
            table.add_column(
                cells[0],
                justify="right" if name.startswith(">") else "left",
                overflow="fold",
                min_width=None if name.startswith("~") else longest,
            )
        for row in self.rows:
            table.add_row(*row)
        return table

    def lines(self) -> list[str] | None:
        """Return the table as it is printed without a terminal; None if it needs a layout.

        The same as ``rendered`` gives there, many times faster.
        """
        from rich.cells import cell_len

        widths = []
        columns = []
        for index, name in enumerate(self.columns):
            cells = [_bare(name.lstrip(">~")), *(_bare(row[index]) for row in self.rows)]
            lengths = [*map(cell_len, cells)]
            widths.append(max(lengths))
            right = name.startswith(">")
            fill = [" " * (widths[-1] - length) for length in lengths]
            columns.append(
                [f"{f}{c}" if right else f"{c}{f}" for f, c in zip(fill, cells, strict=True)]
            )
        if sum(widths) + 2 * len(widths) > WIDE:
            return None
        lines = ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]
        return None if any("\n" in line or "\t" in line for line in lines) else lines


def show(what: Rows | str, *, stream: TextIO | None = None) -> None:
    """Print a table or a line with markup, as part of the result unless ``stream`` says so."""
    console = terminal(stream or sys.stdout)
    if isinstance(what, str):
        console.print(what)
        return
    lines = None if console.is_terminal else what.lines()
    if lines is not None:
        for line in lines:
            console.file.write(f"{line}\n")
        return
    table = what.rendered()
    needed = console.measure(table, options=console.options.update(width=WIDE)).minimum
    console.width = max(console.width, needed)
    if console.is_terminal:
        console.print(table)
        return
    # Without the blanks that fill the last column.
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        console.file.write(f"{line.rstrip()}\n")


@contextlib.contextmanager
def if_interrupted(told: str) -> Iterator[None]:
    """Say ``told`` if Ctrl-C ends the block: what of its work was kept."""
    try:
        yield
    except KeyboardInterrupt:
        note(f"stopped; {told}")
        raise


WATCH_S: Final = 1.0
"""Seconds between two frames of what is watched."""


class _Frame(io.StringIO):
    """What is drawn for a terminal, to be shown at once."""

    def isatty(self) -> bool:
        return True


def watch(draw: Callable[[], None]) -> None:
    """Call ``draw``, which prints a result, again and again until Ctrl-C.

    On a terminal each replaces the one before; elsewhere they follow each other. A controller that
    does not answer for a while is no reason to end.
    """
    in_place = sys.stdout.isatty()
    if in_place:
        sys.stdout.write("\x1b[2J")
    while True:
        frame = _Frame()
        try:
            with contextlib.redirect_stdout(frame) if in_place else contextlib.nullcontext():
                draw()
        except TemporaryError as error:
            warn(str(error))
        else:
            if in_place:
                height = max(2, shutil.get_terminal_size().lines) - 1
                lines = frame.getvalue().splitlines()[:height]
                shown = "".join(f"{line}\x1b[K\n" for line in lines)
                sys.stdout.write(f"\x1b[H{shown}\x1b[J")
        flush()
        time.sleep(WATCH_S)


def flush() -> None:
    """Give what was printed so far to the reader now, through a pipe too."""
    sys.stdout.flush()


def terminal(stream: TextIO) -> Console:
    """Return a new rich console on ``stream``, as tests and pipes replace the streams."""
    from rich.console import Console

    width = None if stream.isatty() else WIDE
    return Console(file=stream, width=width, highlight=False, emoji=False)


def mark(text: object, style: str) -> str:
    """Return ``text`` in a style of rich (``red``, ``bold``), without reading markup in it."""
    return f"[{style}]{plain(str(text))}[/]"


def plain(text: str) -> str:
    """Return ``text`` so that nothing in it is taken for markup."""
    from rich.markup import escape

    return escape(text)


def _cell(value: object) -> str | Text:
    from rich.text import Text

    return "-" if value is None else value if isinstance(value, Text) else str(value)


def _text(cell: str | Text) -> Text:
    from rich.text import Text

    return cell if isinstance(cell, Text) else Text.from_markup(cell)


def _bare(cell: str | Text) -> str:
    """Return the text of a cell without its styles."""
    from rich.control import strip_control_codes
    from rich.markup import render

    if not isinstance(cell, str):
        return cell.plain
    # Nothing else in a text is markup.
    return render(cell, emoji=False).plain if "[" in cell else strip_control_codes(cell)


def _err(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _finite(value: Any) -> Any:
    """Return ``value`` without NaN and infinities, which JSON does not know."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
