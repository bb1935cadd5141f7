"""Time in which a process ran, with the clock handed in."""

from __future__ import annotations

import asyncio

import pytest

from testbed.rpc.pulse import TOLERANCE_S, Pulse


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pulse(clock: Clock) -> Pulse:
    return Pulse(0.1, clock=clock)


def test_time_counts_while_it_rings(clock: Clock, pulse: Pulse) -> None:
    for _ in range(10):
        clock.now += 0.1
        pulse.ring()
    clock.now += 0.05
    assert pulse.awake() == pytest.approx(1.05)
    assert pulse.paused == pulse.pauses_until_now() == 0
    assert not pulse.pauses


def test_a_ring_that_comes_late_is_a_pause(clock: Clock, pulse: Pulse) -> None:
    clock.now += 0.1
    pulse.ring()
    clock.now += 9.1
    before = pulse.awake()
    assert before == pytest.approx(0.1 + 0.1 + TOLERANCE_S)
    assert pulse.pauses_until_now() == pytest.approx(9.0), "before its ring too"
    pulse.ring()
    assert pulse.awake() == before, "never runs back"
    assert pulse.paused == pulse.pauses_until_now() == pytest.approx(9.0)
    (pause,) = pulse.pauses
    assert pause.at == pytest.approx(1000.1)
    assert pause.seconds == pytest.approx(9.0)


def test_a_ring_that_is_a_little_late_is_none(clock: Clock, pulse: Pulse) -> None:
    for _ in range(5):
        clock.now += 0.1 + TOLERANCE_S - 0.01
        pulse.ring()
    assert not pulse.pauses
    assert pulse.awake() == pytest.approx(clock.now - 1000.0)


async def test_it_rings_by_itself_until_it_is_stopped() -> None:
    pulse, rung = Pulse(0.001), asyncio.Event()
    pulse.start(rung.set)
    async with asyncio.timeout(30):
        await rung.wait()
    pulse.stop()
    rung.clear()
    assert pulse.awake() > 0
    pulse.stop()
