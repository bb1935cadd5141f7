"""Which node of this process is at work: its context, and the log that its entries go to."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Mapping
from contextvars import Context, ContextVar, copy_context
from pathlib import Path
from typing import Final, TextIO, cast

from testbed.logs import BoundedFile, BoundedHandler

_node: Final[ContextVar[int | None]] = ContextVar("node", default=None)


def context_of(node: int) -> Context:
    """Return a context in which ``node`` is at work; what is started in it belongs to the node."""
    context = copy_context()
    context.run(_node.set, node)
    return context


def formatter(who: str) -> logging.Formatter:
    """Return how an entry of the log of ``who`` is written."""
    return logging.Formatter(f"%(asctime)s %(levelname)-7s {who} %(name)s: %(message)s")


class LogPerNode(logging.Handler):
    """Writes each entry into the log of the node that is at work, else into that of the process.

    Each log is bounded and counts repetitions on its own, as that of a process does.
    """

    def __init__(self, logs: Mapping[int, Path], own: logging.Handler) -> None:
        super().__init__()
        self._own = own
        self._handlers: dict[int | None, logging.Handler] = {}
        for node, path in logs.items():
            # Open as long as the process lives.
            file = path.open("a", encoding="utf-8", errors="backslashreplace")
            handler = BoundedHandler(cast("TextIO", BoundedFile(file)))
            handler.setFormatter(formatter(f"node {node}"))
            self._handlers[node] = handler
            atexit.register(handler.close)

    def emit(self, record: logging.LogRecord) -> None:
        """Hand an entry on."""
        self._handlers.get(_node.get(), self._own).handle(record)
