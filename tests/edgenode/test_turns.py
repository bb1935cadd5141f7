"""What can wait is done after what is due, a little in each turn of the loop."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import Callable, Sequence

import pytest

from edgenode import turns
from edgenode.clock import EpisodeClock, Timers, Urgency
from edgenode.turns import Later, later
from testbed.model.units import Micros

_who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="")


async def test_arrivals_of_many_nodes_let_what_is_due_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "SLICE_S", 0.0)
    loop = asyncio.get_running_loop()
    done: list[str] = []
    clocks = [EpisodeClock() for _ in range(4)]
    timers = [Timers(clock, loop) for clock in clocks]
    for number, each in enumerate(timers):
        each.at(0, Urgency.ARRIVAL, noting(done, f"arrival {number}"))
    # In the first turn all arrivals are due; then this is, at a node whose arrival is the last.
    loop.call_soon(timers[3].at, 1, Urgency.EXECUTION, noting(done, "end"))
    loop.call_soon(loop.call_soon, done.append, "message")
    await until(done, 6)
    assert done.index("message") < done.index("arrival 2")
    assert done.index("end") < done.index("arrival 2")
    # An earlier instant of the same node comes first all the same.
    assert done.index("arrival 3") < done.index("end")


async def test_an_event_from_outside_finds_the_arrival_before_it_done() -> None:
    timers = Timers(EpisodeClock(), asyncio.get_running_loop())
    rung: list[int] = []
    timers.at(0, Urgency.ARRIVAL, rung.append)
    timers.ring_due()
    assert rung == [0]
    timers.at(1, Urgency.ARRIVAL, rung.append)
    await asyncio.sleep(0)
    await until(rung, 2)
    assert rung == [0, 1]


async def test_an_error_is_reported_and_the_rest_is_done() -> None:
    loop = asyncio.get_running_loop()
    done: list[object] = []
    loop.set_exception_handler(lambda _, context: done.append(type(context["exception"])))
    assert later(loop) is later(loop)
    waiting = Later(loop)

    def fail() -> None:
        raise LookupError

    for work in (fail, lambda: done.append(1)):
        waiting.add(work)
    await until(done, 2)
    assert done == [LookupError, 1]


async def test_each_piece_of_work_has_its_own_context() -> None:
    waiting = Later(asyncio.get_running_loop())
    seen: list[str] = []
    for name in ("a", "b"):
        context = contextvars.copy_context()
        context.run(_who.set, name)
        context.run(waiting.add, lambda: seen.append(_who.get()))
    await until(seen, 2)
    assert seen == ["a", "b"]


def noting(done: list[str], what: str) -> Callable[[Micros], None]:
    def note(_: Micros) -> None:
        done.append(what)

    return note


async def until(done: Sequence[object], count: int) -> None:
    for _ in range(100_000):
        if len(done) >= count:
            return
        await asyncio.sleep(0)
    raise AssertionError(done)


async def test_those_who_wait_for_a_turn_get_one_each() -> None:
    waiting = Later(asyncio.get_running_loop())
    done: list[str] = []

    async def take_turns(name: str) -> None:
        await waiting.turn()
        done.append(name)

    taking = [asyncio.create_task(take_turns(str(number))) for number in range(3)]
    given_up = asyncio.create_task(take_turns("given up"))
    await asyncio.sleep(0)
    given_up.cancel()
    seen = []
    while len(done) < 3:
        await asyncio.sleep(0)
        seen.append(len(done))
    assert done == ["0", "1", "2"]
    assert {after - before for before, after in itertools.pairwise(seen)} <= {0, 1}
    assert given_up.cancelled()
    await asyncio.gather(*taking)
