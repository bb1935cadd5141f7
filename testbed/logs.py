"""The logs of long-lived processes, bounded: repetitions are counted, files have a largest size.

``configure`` is called once by a process. Its log is what it writes to standard error; where that
is a file, as in a run directory, the file is cut in place when it has become too large. In a
container it is a pipe, and whoever reads it bounds it.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import io
import logging
import os
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Self, TextIO, cast

WINDOW_S: Final = 60.0
"""Repetitions are told at most this often, as one line with their number."""

MOST_ALIKE: Final = 200
"""Lines of one place in the code, with different contents, that are written in a window."""

MOST_KNOWN: Final = 1024
"""Different lines and tracebacks that are remembered; of more, the oldest is forgotten."""

LIMIT_BYTES: Final = 8 * 1024 * 1024
"""Largest size of a log file."""

KEPT_BYTES: Final = 2 * 1024 * 1024
"""Bytes kept of the end of a file that became too large."""

LINE_LIMIT: Final = 32 * 1024
"""Characters of the longest entry that is written whole."""

_FRAMES: Final = 12
_TITLE: Final = 200


class Take(Enum):
    """Treatment of an entry: it is new, has not come for a while, or is only counted."""

    FIRST = "first"
    AGAIN = "again"
    NOT = "not"


@dataclass(slots=True)
class _Seen:
    title: str
    until: float
    more: int = 0


class Repeats:
    """Decides what is written of entries that repeat. Safe to use from several threads.

    ``clock`` gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[Hashable, _Seen] = {}
        self._alike: dict[Hashable, _Seen] = {}
        self._due = 0.0
        self._lock = threading.Lock()

    def take(self, what: Hashable, place: Hashable, title: str) -> Take:
        """Return whether to write an entry, or count it. ``told`` comes before.

        Entries with equal ``what`` say the same; those with equal ``place`` come from the same
        place in the code. ``title`` is what the count is told with.
        """
        now = self._clock()
        with self._lock:
            known = self._seen.get(what)
            if known is not None:
                if now >= known.until:
                    known.until = now + WINDOW_S
                    return Take.AGAIN
                known.more += 1
                return Take.NOT
            alike = self._alike.setdefault(place, _Seen(f"entries like: {title}", now + WINDOW_S))
            alike.more += 1
            if alike.more > MOST_ALIKE:
                return Take.NOT
            if len(self._seen) < MOST_KNOWN:
                self._seen[what] = _Seen(title, now + WINDOW_S)
            self._due = min(self._due or now + WINDOW_S, now + WINDOW_S)
            return Take.FIRST

    def told(self, *, end: bool = False) -> list[str]:
        """Lines that tell how often entries have repeated, of windows that are over (or all)."""
        now = self._clock()
        with self._lock:
            if not end and now < self._due:
                return []
            lines = []
            for known in self._seen.values():
                if known.more and (end or now >= known.until):
                    lines.append(_count(known.more, known.title, now - known.until))
                    known.more, known.until = 0, now + WINDOW_S
            for known in self._alike.values():
                if known.more > MOST_ALIKE and (end or now >= known.until):
                    extra = known.more - MOST_ALIKE
                    lines.append(_count(extra, known.title, now - known.until))
            self._alike = {key: each for key, each in self._alike.items() if now < each.until}
            # A traceback that has not come for a while is remembered, to be written only once; of
            # too many, the oldest make room.
            for key in list(self._seen)[: max(0, len(self._seen) - MOST_KNOWN // 2)]:
                if not self._seen[key].more:
                    del self._seen[key]
            self._due = now + WINDOW_S
            return lines


def _count(more: int, title: str, over: float) -> str:
    times = "once more" if more == 1 else f"{more} more times"
    return f"{times} in {max(1.0, WINDOW_S + over):.0f} s: {title}"


class BoundedFile(io.TextIOBase):
    """A text stream into a log file that is cut when it becomes too large.

    Writing never fails: on a full disk an entry is lost, not its writer. ``limit`` and ``kept`` are
    bytes. A stream that is no file is passed through.
    """

    _cutting = threading.Lock()

    def __init__(self, stream: TextIO, *, limit: int = LIMIT_BYTES, kept: int = KEPT_BYTES) -> None:
        self._stream = stream
        self._limit = limit
        self._kept = kept

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the stream below."""
        return self._stream.encoding

    @property
    def buffer(self) -> io.BufferedIOBase:
        """The bytes of the stream below; what is written there is bounded with the next text."""
        return cast("io.BufferedIOBase", self._stream.buffer)

    def fileno(self) -> int:
        """Return the descriptor of the stream below."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """Return True: the stream can be written."""
        return True

    def write(self, text: str) -> int:
        """Write ``text``, without its middle if it is too long."""
        shown = text
        if len(text) > LINE_LIMIT:
            half = LINE_LIMIT // 2
            left_out = len(text) - 2 * half
            shown = f"{text[:half]} [... {left_out} characters left out ...] {text[-half:]}"
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(shown)
            self._stream.flush()
            self._cut()
        return len(text)

    def flush(self) -> None:
        """Flush the stream below, if that works."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def _cut(self) -> None:
        """Leave only the end of a file that has become too large, under the same name."""
        file = self._stream.fileno()
        if os.fstat(file).st_size <= self._limit:
            return
        with self._cutting:
            status = os.fstat(file)
            if status.st_size <= self._limit or not stat.S_ISREG(status.st_mode):
                return
            end = b""
            # It may be open for writing only.
            with contextlib.suppress(OSError), open(f"/proc/self/fd/{file}", "rb") as reading:
                reading.seek(status.st_size - self._kept)
                end = reading.read(self._kept).partition(b"\n")[2]
            os.ftruncate(file, 0)
            left_out = status.st_size - len(end)
            note = f"[... {left_out} bytes left out: the log had reached {self._limit} bytes ...]\n"
            left = memoryview(note.encode() + end)
            while left:
                left = left[os.write(file, left) :]


class BoundedHandler(logging.StreamHandler[TextIO]):
    """Writes entries to a stream; warnings and errors that repeat are counted instead.

    A traceback is written once; what raises it again later is one line.
    """

    def __init__(self, stream: TextIO, repeats: Repeats | None = None) -> None:
        super().__init__(stream)
        self._repeats = repeats or Repeats()

    def emit(self, record: logging.LogRecord) -> None:
        """Write or count an entry, and tell counts that are due."""
        self._tell()
        if record.levelno >= logging.WARNING:
            what, place, title = _keys(record)
            take = self._repeats.take(what, place, title)
            if take is Take.NOT:
                return
            if take is Take.AGAIN and record.exc_info:
                record = copy.copy(record)
                record.exc_info = record.exc_text = None
                record.msg, record.args = f"{title} (traceback above)", None
        super().emit(record)

    def close(self) -> None:
        """Write the counts that are left."""
        self._tell(end=True)
        super().close()

    def _tell(self, *, end: bool = False) -> None:
        for line in self._repeats.told(end=end):
            super().emit(
                logging.LogRecord("testbed.logs", logging.WARNING, "", 0, line, None, None)
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _keys(record: logging.LogRecord) -> tuple[Hashable, Hashable, str]:
    """Return what an entry says, the place in the code it comes from, and its first line."""
    place = (record.name, record.levelno, record.pathname, record.lineno)
    try:
        text = record.getMessage()
    except (TypeError, ValueError, KeyError):
        # Said by the handler, with the place.
        text = str(record.msg)
    title = text.splitlines()[0][:_TITLE] if text else ""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return (*place, text), place, title
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    raised = (type(error), *((frame.filename, frame.lineno) for frame in frames))
    name, text = _told(error)
    if name not in title:
        title = f"{title}: {name}: {text}"[:_TITLE]
    return (place, raised), place, title


def _told(error: BaseException) -> tuple[str, str]:
    """Return the name of an error and the first line of its text, which may be somebody's code."""
    try:
        lines = str(error)[: 10 * _TITLE].splitlines()
        return type(error).__name__[:_TITLE], lines[0] if lines else ""
    except (Exception, SystemExit):  # noqa: BLE001 - whoever logs is to go on
        return "an error", "(its text cannot be shown)"


def configure(format: logging.Formatter, level: int | str = logging.INFO) -> None:
    """Send this process's log to its standard error, bounded, with all else it prints.

    The last counts are told when the process ends in order.
    """
    sys.stdout = cast("TextIO", BoundedFile(sys.stdout))
    sys.stderr = cast("TextIO", BoundedFile(sys.stderr))
    handler = BoundedHandler(sys.stderr)
    handler.setFormatter(format)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    sys.unraisablehook = _log_unraisable
    atexit.register(handler.close)


def _log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Log what was raised where nobody can catch it, for instance while an object is removed."""
    error = unraisable.exc_value
    if error is not None:
        logging.getLogger("python").error(
            "%s in %.200r",
            unraisable.err_msg or "exception ignored",
            unraisable.object,
            exc_info=error,
        )
