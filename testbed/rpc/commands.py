"""State changes that others ask for, carried out one after another in tasks of their own.

gRPC cancels a handler when its caller goes away. A change that has begun is not the caller's any
more: cut off in the middle it would be at some nodes and not at others, or in the log and not in
the marker. So handlers hand the work over and wait for it; when they are cancelled it goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from testbed.errors import UsageError

_Result = TypeVar("_Result")


class Commands:
    """Owns the tasks of state changes; at most one is under way.

    ``log`` is given a line for people when something does not go the ordinary way.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def run(self, name: str, work: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
        """Carry ``work`` out when its turn comes; what it returns or raises.

        A caller that is cancelled before its turn has asked for nothing; after it, the work goes on
        to its end, and what it raises is logged.

        Raises: UsageError: ``close`` was called.
        """
        await self._turn.acquire()
        if self._closed:
            self._turn.release()
            raise UsageError(f"{name}: this process is ending, so nothing can be changed any more")
        # No await from here on: whoever has the turn begins.
        task = asyncio.get_running_loop().create_task(work(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        waiting = asyncio.shield(task)
        try:
            return await waiting
        except asyncio.CancelledError:
            if not task.done():
                self._log(f"the caller of {name} is gone; it is carried out all the same")
                task.add_done_callback(self._report)
            raise

    async def close(self, timeout: float) -> bool:
        """Begin nothing more, and wait for what is under way; whether it has ended in time.

        ``timeout`` in seconds. What has not ended by then is cancelled.
        """
        self._closed = True
        if not self._tasks:
            return True
        _, left = await asyncio.wait(set(self._tasks), timeout=timeout)
        for task in left:
            self._log(f"{task.get_name()} has not ended within {timeout:g} s and is given up")
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return not left

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._turn.release()

    def _report(self, task: asyncio.Task[Any]) -> None:
        """Log how a command ended that nobody waits for."""
        if not task.cancelled():
            error = task.exception()
            how = "is done" if error is None else f"has failed: {error!r}"
            self._log(f"{task.get_name()} {how}")
