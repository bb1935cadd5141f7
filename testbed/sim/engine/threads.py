"""Rows of a batch, spread over threads: compiled code runs without the interpreter lock."""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from testbed import environment
from testbed.errors import Problem, UsageError
from testbed.sim.engine.compiled import Batch, compiled
from testbed.sim.engine.events import open_episode

_ROWS_PER_THREAD: Final = 8
"""Below this, handing single slots of rows to another thread costs more than it saves."""
_PARTS_PER_THREAD: Final = 4
"""Parts of whole episodes: a thread that is done, or has a processor to itself, takes another."""


def usual_threads() -> int:
    """Return the number of threads where no option says it.

    That of the variable ``TESTBED_THREADS``, else one in a process that shares the processors with
    others of its pool, else one per processor.

    Raises:
        UsageError: the variable is not a number from 1 on.
    """
    if given := environment.read(environment.THREADS):
        if given.isascii() and given.isdigit() and int(given) >= 1:
            return int(given)
        problem = Problem(environment.THREADS, repr(given), "a number of threads, at least 1")
        raise UsageError("invalid number of threads", [problem])
    if multiprocessing.parent_process() is not None:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


class Threads:
    """Runs kernels on all ``count`` rows of batches; ``threads`` None takes ``usual_threads``.

    A kernel takes a batch, the first row, the row after the last, and whatever else it is given.
    ``by_slot`` is for kernels that take rows one slot further, others play whole episodes. Results
    do not depend on the number of threads.

    Raises:
        UsageError: see ``usual_threads``.
    """

    def __init__(self, count: int, threads: int | None = None, *, by_slot: bool = False) -> None:
        most = count // _ROWS_PER_THREAD if by_slot else count
        wanted = max(1, min(threads or usual_threads(), most))
        parts = wanted if by_slot or wanted == 1 else min(count, wanted * _PARTS_PER_THREAD)
        bounds = np.linspace(0, count, parts + 1).astype(int).tolist()
        self._parts: list[tuple[int, int]] = list(itertools.pairwise(bounds))
        self._pool = ThreadPoolExecutor(wanted - 1) if wanted > 1 else None
        self._others = wanted - 1

    @property
    def parts(self) -> int:
        """Number of parts that the rows are divided into; each is done by one thread."""
        return len(self._parts)

    def each(self, kernel: Callable[..., None], batch: Batch, *arrays: Any) -> None:
        """Run ``kernel`` on all rows; returns when all are done."""
        self._run(kernel, [(batch, *part, *arrays) for part in self._parts])

    def each_part(self, kernel: Callable[..., None], batch: Batch, *arrays: Any) -> None:
        """As ``each``, for kernels that do the work of a part in one row of a batch of ``parts``.

        They take the number of that row after the batch.
        """
        self._run(kernel, [(batch, k, *part, *arrays) for k, part in enumerate(self._parts)])

    def _run(self, kernel: Callable[..., None], calls: Sequence[tuple[Any, ...]]) -> None:
        left = iter(calls)

        def work() -> None:
            for call in left:
                kernel(*call)

        pool = self._pool
        futures = [] if pool is None else [pool.submit(work) for _ in range(self._others)]
        try:
            work()
            for future in futures:
                future.result()
        except BaseException:
            # Of what failed or was interrupted the other threads begin no further part.
            for _ in left:
                pass
            raise

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
        open_episode(batch.episodes[e], numbers[e])
