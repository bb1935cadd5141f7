"""Applications that run in a thread of the node: one at a time, like the server they stand for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from testbed.model.task import Task


class Function:
    """A plain function ``f(task, payload, **options)``; the execution takes as long as it runs.

    A function that is running cannot be stopped: if its task fails or misses its deadline, the
    node's next execution begins when the function has returned.
    """

    modelled = False
    needs_payload = True

    def __init__(
        self, function: Callable[..., object], options: Mapping[str, Any] | None = None
    ) -> None:
        self._function = partial(function, **(options or {}))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="application")

    async def execute(self, task: Task, payload: bytes | None, duration: float) -> None:
        """Call the function in the thread and wait for it."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._call, task, payload)

    def _call(self, task: Task, payload: bytes | None) -> None:
        try:
            self._function(task, payload)
        except StopIteration as error:
            # A future does not carry it: whoever waits would wait for ever.
            raise RuntimeError("it raised StopIteration") from error

    def close(self) -> None:
        """Stop the thread once its present work is done."""
        self._thread.shutdown(wait=False, cancel_futures=True)
