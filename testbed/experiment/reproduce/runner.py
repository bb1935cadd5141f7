"""From figures to stored points: what is missing is computed, in parallel, and can be interrupted.

Whatever is finished is on disk; the same call goes on where one before it stopped. A point that
cannot be computed does not stop the others; it is named at the end.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeAlias

from testbed.errors import PermanentError, TestbedError
from testbed.experiment.reproduce.compute import compute
from testbed.experiment.reproduce.points import Point, PointStore
from testbed.experiment.reproduce.work import Tell, Work, work_of

_LOOK_AGAIN: Final = 0.25
"""Seconds between two looks at what the workers say."""
_END_WITHIN: Final = 5.0
"""Seconds that an interrupted worker has to end."""


@dataclass(frozen=True, slots=True)
class ComputationStatus:
    """Progress of a computation: its points, and its ``share`` that is done.

    Some points take a hundred times as long as others, and ``share`` says by what they cost. Works
    count when they are finished. ``running`` has a description of each other work, and its share.
    """

    done: int
    total: int
    stored: int
    share: float
    running: dict[str, tuple[str, float]]
    finished: str | None = None
    failed: str | None = None


Report: TypeAlias = Callable[[ComputationStatus], None]


@dataclass(slots=True)
class _Account:
    """Counts points, and what they cost, while works come and go."""

    total: int
    stored: int
    cost: float
    report: Report
    done: int = 0
    paid: float = 0.0
    running: dict[str, tuple[str, float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def hear(self, title: str, stage: str, share: float) -> None:
        self.running[title] = (stage, share)
        self.tell()

    def finish(self, work: Work, error: str | None) -> None:
        self.running.pop(work.title, None)
        self.paid += work.cost
        if error is None:
            self.done += len(work.points)
            self.tell(finished=work.title)
        else:
            self.failures.append(f"{work.title}: {error}")
            self.tell(failed=self.failures[-1])

    def tell(self, *, finished: str | None = None, failed: str | None = None) -> None:
        self.report(
            ComputationStatus(
                self.done,
                self.total,
                self.stored,
                self.paid / self.cost if self.cost else 1.0,
                dict(self.running),
                finished,
                failed,
            )
        )


def complete(
    points: Sequence[Point], store: PointStore, jobs: int = 1, report: Report = lambda _: None
) -> None:
    """Compute those of ``points`` that are not stored yet, ``jobs`` works at a time.

    With one job everything happens in this process.

    Raises: PermanentError: some could not be computed; all others are stored. KeyboardInterrupt:
    as it comes, once the workers have ended.
    """
    missing = [point for point in points if store.get(point) is None]
    works = work_of(missing)
    total = sum(len(work.points) for work in works)
    distinct = len({point.key for point in points})
    account = _Account(total, distinct - total, sum(work.cost for work in works), report)
    account.tell()
    if jobs == 1 or len(works) < 2:
        _one_by_one(works, store, account)
    else:
        _in_parallel(works, store, min(jobs, len(works)), account)
    if account.failures:
        listed = "\n".join(f"  - {each}" for each in account.failures)
        raise PermanentError(
            f"{len(account.failures)} of {len(works)} parts could not be computed; the others "
            f"are stored, and the same command tries again\n{listed}"
        )


def _one_by_one(works: Sequence[Work], store: PointStore, account: _Account) -> None:
    for work in works:
        account.finish(work, _failure(work, store, partial(account.hear, work.title)))


def _in_parallel(works: Sequence[Work], store: PointStore, jobs: int, account: _Account) -> None:
    # Not fork: numerical libraries have threads, which a fork would leave behind locked.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    with _for_workers():
        said = context.Queue()
        pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(said,))
        try:
            futures = {pool.submit(_work, work, store): work for work in works}
            _follow(futures, said, account)
        except BaseException:
            # The pool is still open: only it can wait, below, for its thread, which waits for the
            # same processes. Whoever waits second is not told that a process has ended.
            _end([each for each in multiprocessing.active_children() if each not in others])
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            said.close()
            said.join_thread()


def _follow(futures: dict[Future[str | None], Work], said: Any, account: _Account) -> None:
    waiting = set(futures)
    while waiting:
        over, waiting = wait(waiting, timeout=_LOOK_AGAIN, return_when=FIRST_COMPLETED)
        with contextlib.suppress(queue.Empty):
            while True:
                account.hear(*said.get_nowait())
        for future in over:
            try:
                account.finish(futures[future], future.result())
            except BrokenProcessPool:
                raise PermanentError(
                    "a worker process was killed, perhaps for want of memory; what is finished is "
                    "stored: run the same command again, with fewer --jobs"
                ) from None


def _end(workers: Sequence[Any]) -> None:
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(_END_WITHIN)
        if worker.is_alive():
            worker.kill()
            # Until the system has seen it: who was told that all have ended may look.
            worker.join()


@contextlib.contextmanager
def _for_workers() -> Iterator[None]:
    """Set the environment of worker processes: one thread each, because there is one per CPU."""
    # PYTHONSAFEPATH: a process begins in the folder one is in, which may hold a `random.py`.
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONSAFEPATH")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: value or "1" for name, value in before.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]


_said: Any = None


def _begin(said: Any) -> None:
    """Prepare a worker process."""
    global _said
    _said = said
    # Ctrl-C reaches every process of the terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(work: Work, store: PointStore) -> str | None:
    return _failure(work, store, lambda stage, share: _said.put((work.title, stage, share)))


def _failure(work: Work, store: PointStore, tell: Tell) -> str | None:
    """Compute ``work``; why it could not be done, None if it was. Errors are not sent on as such:
    not all of them survive the way between processes."""
    try:
        compute(work, store, tell)
    except TestbedError as error:
        return str(error)
    return None
