"""Burns CPU for the modelled time, so that load on the host is real."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from testbed.model.task import Task

_WORK: Final = bytes(256 * 1024)
"""Hashing this much takes a fraction of a millisecond and leaves the interpreter to others."""


class Busy:
    """Keeps one core busy for the modelled time ``c / F``, in a thread."""

    modelled = True
    needs_payload = False

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="busy")

    async def execute(self, task: Task, payload: bytes | None, duration: float) -> None:
        """Hash until the time is over or the execution is stopped."""
        stopped = threading.Event()
        until = time.monotonic() + duration
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, _burn, until, stopped)
        finally:
            stopped.set()

    def close(self) -> None:
        """Stop the thread once its present work is done."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _burn(until: float, stopped: threading.Event) -> None:
    digest = hashlib.sha256()
    while time.monotonic() < until and not stopped.is_set():
        digest.update(_WORK)
