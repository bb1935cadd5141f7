"""Rows of a batch, spread over threads: compiled code runs without the interpreter lock."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from testbed.sim.engine.compiled import Batch, compiled, row_of
from testbed.sim.engine.events import open_episode

_ROWS_PER_THREAD: Final = 8
"""Below this, handing rows to another thread costs more than it saves."""


class Threads:
    """Runs kernels on all ``count`` rows of batches; ``threads`` None takes one per CPU.

    A kernel takes a batch, the first row, the row after the last, and whatever else it is given.
    """

    def __init__(self, count: int, threads: int | None = None) -> None:
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        wanted = max(1, min(threads or available, count // _ROWS_PER_THREAD))
        bounds = np.linspace(0, count, wanted + 1).astype(int).tolist()
        self._chunks: list[tuple[int, int]] = list(itertools.pairwise(bounds))
        self._pool = ThreadPoolExecutor(wanted - 1) if wanted > 1 else None

    def each(self, kernel: Callable[..., None], batch: Batch, *arrays: Any) -> None:
        """Run ``kernel`` on all rows; returns when all are done."""
        futures: list[Future[None]] = []
        if self._pool is not None:
            futures = [
                self._pool.submit(kernel, batch, first, last, *arrays)
                for first, last in self._chunks[1:]
            ]
        kernel(batch, *self._chunks[0], *arrays)
        for future in futures:
            future.result()

    def open(self, batch: Batch, numbers: Sequence[int]) -> None:
        """Begin episodes ``numbers``, one per row.

        Raises:
            ValueError: not one number per row.
        """
        if len(numbers) != len(batch.episodes):
            raise ValueError(f"{len(numbers)} episode numbers for {len(batch.episodes)} episodes")
        self.each(_open, batch, np.asarray(numbers, np.int64))


def success_rates(batch: Batch) -> NDArray[np.float64]:
    """Share of the tasks that succeeded [E], of episodes that are over; NaN without a task."""
    with np.errstate(invalid="ignore"):
        rates: NDArray[np.float64] = batch.episodes["succeeded"] / batch.episodes["tasks"]
    return rates


@compiled
def _open(batch: Batch, first: int, last: int, numbers: NDArray[np.int64]) -> None:
    for e in range(first, last):
        row = row_of(batch, e)
        row.rewards[:] = np.float32(0.0)
        open_episode(row, numbers[e])
