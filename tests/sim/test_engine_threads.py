"""How many threads the engine takes, and that nothing depends on it."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor

import pytest

from testbed import environment
from testbed.errors import UsageError
from testbed.sim.engine.threads import Threads, usual_threads
from testbed.sim.play import evaluate
from tests.sim.plans import random_plan


def test_one_thread_per_processor_one_in_a_pool_and_the_variable_above_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(environment.THREADS, raising=False)
    assert usual_threads() == len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(usual_threads).result() == 1
    monkeypatch.setenv(environment.THREADS, "3")
    assert usual_threads() == 3
    for wrong in ("0", "-1", "many", "1.5"):
        monkeypatch.setenv(environment.THREADS, wrong)
        with pytest.raises(UsageError, match="at least 1"):
            usual_threads()


@pytest.mark.parametrize("by_slot", [True, False])
@pytest.mark.parametrize(("count", "threads"), [(1, 4), (2, 2), (7, 3), (40, 2), (40, 5)])
def test_every_row_is_run_once(count: int, threads: int, by_slot: bool) -> None:
    seen: list[int] = []
    rows = Threads(count, threads, by_slot=by_slot)
    for _ in range(2):
        rows.each(lambda _, first, last: seen.extend(range(first, last)), None)  # type: ignore[arg-type]
    assert sorted(seen) == sorted([*range(count)] * 2)


def test_an_error_in_any_thread_is_raised() -> None:
    def fail(_: object, first: int, last: int) -> None:
        if last == 8:
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        Threads(8, 3).each(fail, None)  # type: ignore[arg-type]


def test_after_an_interrupt_no_thread_begins_another_part() -> None:
    begun: list[int] = []
    other, over = threading.Event(), threading.Event()
    here = threading.current_thread()

    def kernel(_: object, first: int, last: int) -> None:
        begun.append(first)
        if threading.current_thread() is here:
            other.wait()
            raise KeyboardInterrupt
        other.set()
        over.wait()

    rows = Threads(40, 2)
    with pytest.raises(KeyboardInterrupt):
        rows.each(kernel, None)  # type: ignore[arg-type]
    over.set()
    # Returns once the other thread is done with what it had begun.
    rows.each(lambda *_: None, None)  # type: ignore[arg-type]
    assert rows.parts > 2
    assert len(begun) == 2


def test_no_score_depends_on_the_number_of_threads() -> None:
    plan = random_plan(5, size=5, slots=12)
    methods = ["ratc", "oracle", "untrained", "per-destination"]
    one, three = (evaluate(plan, methods, 20, threads=threads) for threads in (1, 3))
    assert {name: rates.tolist() for name, rates in one.items()} == {
        name: rates.tolist() for name, rates in three.items()
    }
