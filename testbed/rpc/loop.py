"""The event loop of controllers and nodes, whose timers ring in time."""

from __future__ import annotations

import asyncio
import select
import selectors


class FineSelector(selectors.EpollSelector):
    """Waits as exactly as ``select`` does, for any number of descriptors."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """See ``selectors.BaseSelector``."""
        if timeout is None or timeout > 0:
            ready, _, _ = select.select([self.fileno()], [], [], timeout)
            if not ready:
                return []
        return super().select(0)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop whose timers ring within a fraction of a millisecond.

    The default selector rounds timeouts up to whole milliseconds, which arrivals would be late by.
    """
    return asyncio.SelectorEventLoop(FineSelector())
