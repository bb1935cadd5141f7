"""Timers ring in order and never early."""

from __future__ import annotations

import asyncio
import time

from edgenode.clock import EpisodeClock, Timers, Urgency
from testbed.rpc.loop import new_event_loop


async def test_timers_ring_in_order_of_instant_urgency_and_setting() -> None:
    clock = EpisodeClock()
    timers = Timers(clock, asyncio.get_running_loop())
    rang: list[str] = []
    done = asyncio.Event()
    at = clock.now() + 5_000
    timers.at(at + 1, Urgency.EXECUTION, lambda _: done.set())
    timers.at(at, Urgency.MESSAGE, lambda _: rang.append("message"))
    timers.at(at, Urgency.DEADLINE, lambda _: rang.append("deadline"))
    timers.at(at, Urgency.EXECUTION, lambda _: rang.append("first end"))
    timers.at(at, Urgency.EXECUTION, lambda _: rang.append("second end"))
    timers.at(at - 1, Urgency.MESSAGE, lambda _: rang.append("before"))
    async with asyncio.timeout(30):
        await done.wait()
    assert rang == ["before", "first end", "second end", "deadline", "message"]


async def test_a_late_timer_is_told_the_instant_it_was_set_for() -> None:
    clock = EpisodeClock()
    timers = Timers(clock, asyncio.get_running_loop())
    told: list[int] = []
    timers.at(1_000, Urgency.DEADLINE, told.append)
    time.sleep(0.02)  # noqa: ASYNC251  # the event loop has to be late
    timers.ring_due()
    assert told == [1_000]
    assert timers.worst_lateness >= 19_000


async def test_what_a_timer_sets_for_the_past_rings_in_the_same_round() -> None:
    clock = EpisodeClock()
    timers = Timers(clock, asyncio.get_running_loop())
    rang: list[int] = []
    timers.at(0, Urgency.MESSAGE, lambda _: timers.at(0, Urgency.MESSAGE, rang.append))
    timers.ring_due()
    assert rang == [0]


async def test_closed_timers_do_not_ring() -> None:
    clock = EpisodeClock()
    timers = Timers(clock, asyncio.get_running_loop())
    rang: list[int] = []
    timers.at(0, Urgency.MESSAGE, rang.append)
    timers.close()
    timers.ring_due()
    await asyncio.sleep(0)
    assert rang == []


def test_the_clock_is_scaled() -> None:
    slow = EpisodeClock(scale=1000.0)
    fast = EpisodeClock(scale=0.001)
    time.sleep(0.002)
    assert slow.now() < 1_000_000
    assert fast.now() >= 2_000_000
    assert slow.emulated(5_000) == 5


def test_timers_of_the_node_are_not_rounded_to_milliseconds() -> None:
    async def best() -> int:
        clock = EpisodeClock()
        timers = Timers(clock, asyncio.get_running_loop())
        lateness: list[int] = []
        for _ in range(20):
            rang = asyncio.Event()

            def ring(at: int, rang: asyncio.Event = rang) -> None:
                lateness.append(clock.now() - at)
                rang.set()

            timers.at(clock.now() + 1_050, Urgency.MESSAGE, ring)
            await rang.wait()
        return min(lateness)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        lateness = runner.run(best())
    # A loop that rounds 1.05 ms up to 2 ms is never less than 0.95 ms late.
    assert 0 <= lateness < 900
