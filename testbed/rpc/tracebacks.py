"""Keeps what gRPC writes to the log bounded, whatever comes in.

gRPC prints a traceback for every call that ends in an exception. Who sends messages that cannot be
read could fill a disk with them, and would bury what matters.
"""

from __future__ import annotations

import asyncio
import logging
import time
from types import TracebackType
from typing import Final

from google.protobuf.message import DecodeError

_LOGGER: Final = logging.getLogger("grpc._cython.cygrpc")

INTERVAL_S: Final = 1.0
"""Shortest time between two lines about the same thing."""

PLACES: Final = 1000
"""Most tracebacks that are remembered; there are fewer places in the code that can fail."""


class OnceEach(logging.Filter):
    """Lets a traceback through once; again, it is one line a second that counts the others.

    A message that cannot be read is no defect of ours and has no traceback at all; nor has a call
    that ends because a process stops, which is not logged.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged; it may be shortened."""
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return True
        if isinstance(error, asyncio.CancelledError):
            return False
        where = f"{type(error).__name__} at {_place(error.__traceback__)}"
        now = time.monotonic()
        last, untold = self._seen.get(where, (-INTERVAL_S, 0))
        first = where not in self._seen
        if not first and now - last < INTERVAL_S:
            self._seen[where] = last, untold + 1
            return False
        if len(self._seen) >= PLACES and first:
            return False
        self._seen[where] = now, 0
        malformed = isinstance(error, DecodeError)
        if first and not malformed:
            return True
        what = "a message cannot be read" if malformed else "again"
        more = f" ({untold} more since the last such line)" if untold else ""
        record.msg = f"{record.getMessage():.200}: {what}: {error!s:.200}{more}"
        record.args = ()
        record.exc_info = record.exc_text = None
        return True


def _place(traceback: TracebackType | None) -> str:
    """Return where an exception was raised: the innermost place."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return "an unknown place"
    return f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"


def bound() -> None:
    """Bound what gRPC logs in this process. Idempotent."""
    if not any(isinstance(each, OnceEach) for each in _LOGGER.filters):
        _LOGGER.addFilter(OnceEach())
