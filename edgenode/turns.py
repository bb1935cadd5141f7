"""The order of work in an event loop that several nodes share: what can wait comes last.

All nodes get the tasks of a slot at one instant. If their loop handled them in one go, whatever is
due meanwhile (ends of transmissions, messages) would be late at all nodes. So arrivals wait here,
and the loop handles a few of them in each turn, after timers and messages. Messages come first, but
only some in each turn, so that timers of other nodes do not wait for all of them.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Final

MESSAGES_S: Final = 0.0001
"""Seconds of work on messages from one place in one turn of the loop; the last is finished."""

SLICE_S: Final = 0.0001
"""Seconds of work that can wait in one turn of the loop; the last piece is finished."""


class Later:
    """Work of one event loop that can wait, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._work: deque[tuple[Context, Callable[[], None]]] = deque()
        self._one_more = True

    def add(self, work: Callable[[], None]) -> None:
        """Call ``work`` in the present context, when nothing more urgent is due."""
        self._work.append((copy_context(), work))
        if len(self._work) == 1:
            self._loop.call_soon(self._go_on)

    async def turn(self) -> None:
        """Return when nothing more urgent is due; of those who wait, one goes on at a time."""
        come: asyncio.Future[None] = self._loop.create_future()
        self.add(lambda: self._let(come))
        await come

    def _let(self, come: asyncio.Future[None]) -> None:
        if not come.done():
            come.set_result(None)
            # What it does now takes a turn of its own.
            self._one_more = False

    def _go_on(self) -> None:
        until = time.monotonic() + SLICE_S
        self._one_more = True
        try:
            while True:
                context, work = self._work[0]
                context.run(work)
                del self._work[0]
                if not self._work or not self._one_more or time.monotonic() >= until:
                    break
        except BaseException:
            # The loop reports it; the others are not to wait for ever.
            del self._work[0]
            raise
        finally:
            if self._work:
                self._loop.call_soon(self._go_on)


_OF_LOOP: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Later]] = (
    weakref.WeakKeyDictionary()
)


def later(loop: asyncio.AbstractEventLoop) -> Later:
    """Return the one of ``loop``."""
    found = _OF_LOOP.get(loop)
    if found is None:
        found = _OF_LOOP[loop] = Later(loop)
    return found
