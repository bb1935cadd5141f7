"""State changes that outlive their caller, one after another."""

from __future__ import annotations

import asyncio

import pytest

from testbed.errors import UsageError
from testbed.rpc.commands import Commands


class Gate:
    """Work that says when it has begun, waits, and says when it has ended."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.open = asyncio.Event()
        self.ended = False

    async def work(self) -> int:
        self.begun.set()
        await self.open.wait()
        self.ended = True
        return 7


async def test_the_caller_gets_what_the_work_returns_or_raises() -> None:
    commands = Commands(print)

    async def work() -> int:
        return 3

    async def broken() -> None:
        raise UsageError("not so")

    assert await commands.run("one", work) == 3
    with pytest.raises(UsageError, match="not so"):
        await commands.run("two", broken)
    assert await commands.run("three", work) == 3


async def test_work_that_has_begun_goes_on_without_its_caller() -> None:
    said: list[str] = []
    commands = Commands(said.append)
    gate = Gate()
    caller = asyncio.create_task(commands.run("a change", gate.work))
    await gate.begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    following = asyncio.create_task(commands.run("the next", gate.work))
    gate.begun.clear()
    await asyncio.sleep(0)
    assert not gate.begun.is_set(), "one after another"
    gate.open.set()
    assert await following == 7
    assert gate.ended
    assert "the caller of a change is gone" in said[0]
    assert "a change is done" in said[1]


async def test_who_goes_before_its_turn_has_asked_for_nothing() -> None:
    commands = Commands(print)
    first, second, third = Gate(), Gate(), Gate()
    callers = [
        asyncio.create_task(commands.run("a change", gate.work)) for gate in (first, second, third)
    ]
    await first.begun.wait()
    callers[1].cancel()
    third.open.set()
    first.open.set()
    assert await callers[0] == 7
    assert await callers[2] == 7
    assert not second.begun.is_set()


async def test_what_fails_without_a_caller_is_said() -> None:
    said: list[str] = []
    commands = Commands(said.append)
    gate = Gate()

    async def broken() -> None:
        await gate.work()
        raise UsageError("not so")

    caller = asyncio.create_task(commands.run("a change", broken))
    await gate.begun.wait()
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    gate.open.set()
    assert await commands.close(30.0)
    await asyncio.sleep(0)
    assert "a change has failed" in said[-1]
    assert "not so" in said[-1]


async def test_the_end_waits_for_what_is_under_way_and_begins_nothing_more() -> None:
    commands = Commands(print)
    gate, late = Gate(), Gate()
    caller = asyncio.create_task(commands.run("a change", gate.work))
    await gate.begun.wait()
    waiting = asyncio.create_task(commands.run("too late", late.work))
    await asyncio.sleep(0)
    ending = asyncio.create_task(commands.close(30.0))
    await asyncio.sleep(0)
    gate.open.set()
    assert await ending
    assert await caller == 7
    with pytest.raises(UsageError, match="is ending"):
        await waiting
    assert not late.begun.is_set()


async def test_what_does_not_end_is_given_up() -> None:
    said: list[str] = []
    commands = Commands(said.append)
    gate = Gate()
    caller = asyncio.create_task(commands.run("a change", gate.work))
    await gate.begun.wait()
    assert not await commands.close(0.0)
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert "a change has not ended within 0 s" in said[0]
