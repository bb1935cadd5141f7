"""Filters what gRPC logs about calls that end in an exception: defects only.

How often the rest is written is bounded by ``testbed.logs``, as for all of a process's log.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from google.protobuf.message import DecodeError

_LOGGER: Final = logging.getLogger("grpc._cython.cygrpc")


class OnlyDefects(logging.Filter):
    """Shortens what a message that cannot be read leaves in the log, and drops cancelled calls.

    Who sends such messages could bury what matters. A call is cancelled when a process stops.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is logged; it may be shortened."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, asyncio.CancelledError):
            return False
        if isinstance(error, DecodeError):
            record.msg = f"{record.getMessage():.200}: a message cannot be read: {error!s:.200}"
            record.args = ()
            record.exc_info = record.exc_text = None
        return True


def bound() -> None:
    """Bound what gRPC logs in this process. Idempotent."""
    if not any(isinstance(each, OnlyDefects) for each in _LOGGER.filters):
        _LOGGER.addFilter(OnlyDefects())
