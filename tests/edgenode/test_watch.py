"""Code that does not come back is left, and says where it was."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

import pytest

from edgenode import watch as watch_module
from edgenode.watch import (
    OVERRUNS,
    BoundedApplication,
    BoundedScheduler,
    CodeWatch,
    NotInTime,
    made_in_time,
    watch_tasks,
)
from testbed.errors import UsageError
from testbed.model.decision import Ask, Decision, Observation
from testbed.model.own_code import defined_at, described
from testbed.model.task import Task
from tests.edgenode.network import task

ANYTHING = cast("Observation", None)
SOME_TASK: Task = task(1)


class Own:
    """A scheduler whose ``decide`` is a function of the test."""

    name = "own"

    def __init__(self, decide: Callable[[Observation], Decision | Ask]) -> None:
        self._decide = decide
        self.asked = 0

    def decide(self, observation: Observation) -> Decision | Ask:
        self.asked += 1
        return self._decide(observation)


def wait(_: Observation) -> Decision:
    threading.Event().wait()
    raise AssertionError("nobody has set it")


def turn(_: Observation) -> Decision:
    while True:
        pass


def go_on(_: Observation) -> Decision:
    while True:
        try:
            threading.Event().wait()
        except Exception:  # noqa: BLE001 - as careless code does
            continue


def answer(_: Observation) -> Decision:
    return Decision(1)


@pytest.fixture
def watch() -> Iterator[CodeWatch]:
    with CodeWatch(0.02) as entered:
        yield entered


@pytest.mark.parametrize("decide", [wait, turn, go_on])
def test_a_decision_without_end_is_left(
    watch: CodeWatch, decide: Callable[[Observation], Decision]
) -> None:
    bounded = BoundedScheduler(Own(decide), watch)
    with pytest.raises(NotInTime) as raised:
        bounded.decide(ANYTHING)
    told = described(raised.value)
    assert "decide() had no answer after" in told
    assert "test_watch.py" in told
    assert f"in {decide.__name__}" in told
    assert BoundedScheduler(Own(answer), watch).decide(ANYTHING) == Decision(1)


def test_one_that_catches_everything_once_is_left_too(watch: CodeWatch) -> None:
    caught = []

    def stubborn(_: Observation) -> Decision:
        try:
            threading.Event().wait()
        except BaseException as error:  # noqa: BLE001 - as careless code does
            caught.append(error)
        return wait(ANYTHING)

    with pytest.raises(NotInTime):
        BoundedScheduler(Own(stubborn), watch).decide(ANYTHING)
    assert len(caught) == 1


def test_a_scheduler_without_answers_is_not_asked_for_ever(watch: CodeWatch) -> None:
    own = Own(wait)
    bounded = BoundedScheduler(own, watch)
    for _ in range(OVERRUNS + 2):
        with pytest.raises(NotInTime):
            bounded.decide(ANYTHING)
    assert own.asked == OVERRUNS
    with pytest.raises(NotInTime, match="not called any more"):
        bounded.decide(ANYTHING)


def test_what_stands_in_messages_is_the_scheduler_itself(watch: CodeWatch) -> None:
    bounded = BoundedScheduler(Own(answer), watch)
    assert bounded.name == "own"
    assert defined_at(bounded.decide) == defined_at(Own(answer).decide) != ""


class Routing:
    """A router whose ``route`` does not come back."""

    name = "routing"
    phases = (0.0, 0.5)

    def decide(self, observation: Observation) -> Decision:
        raise AssertionError("a router is not asked to decide")

    def route(self, observation: Observation) -> Decision:
        return wait(observation)


def test_the_method_of_another_hook_is_watched(watch: CodeWatch) -> None:
    bounded: Any = BoundedScheduler(Routing(), watch, "route")
    with pytest.raises(NotInTime, match=r"route\(\) had no answer after"):
        bounded.route(ANYTHING)
    assert (bounded.name, bounded.phases) == ("routing", (0.0, 0.5))
    with pytest.raises(AttributeError, match="colour"):
        _ = bounded.colour


class Doing:
    """An application whose ``execute`` is a function of the test."""

    modelled = False
    needs_payload = False

    def __init__(self, do: Callable[[], Awaitable[None]]) -> None:
        self._do = do
        self.started = 0

    async def execute(self, task: Task, payload: bytes | None, duration: float) -> None:
        self.started += 1
        await self._do()

    def close(self) -> None:
        time.sleep(60)


async def sleep() -> None:
    time.sleep(60)  # noqa: ASYNC251 - as careless code does


async def sleep_later() -> None:
    await asyncio.sleep(0)
    await sleep()


async def turn_in_a_task() -> None:
    async def busy() -> None:
        await asyncio.sleep(0)
        while True:
            pass

    await asyncio.gather(asyncio.sleep(0), busy())


async def sleep_when_cancelled() -> None:
    try:
        await asyncio.wait_for(asyncio.Event().wait(), 0.001)
    finally:
        time.sleep(60)  # noqa: ASYNC251 - as careless code does


@pytest.mark.parametrize("do", [sleep, sleep_later, turn_in_a_task, sleep_when_cancelled])
async def test_an_application_that_blocks_its_node_is_left(
    watch: CodeWatch, do: Callable[[], Awaitable[None]]
) -> None:
    watch_tasks(watch, asyncio.get_running_loop())
    own = Doing(do)
    bounded = BoundedApplication(own, watch)
    for _ in range(OVERRUNS):
        with pytest.raises(NotInTime) as raised:
            await bounded.execute(SOME_TASK, None, 1.0)
        told = described(raised.value)
        assert "execute() blocked its node for 0." in told
        assert "test_watch.py" in told
    with pytest.raises(NotInTime, match="not called any more") as last:
        await bounded.execute(SOME_TASK, None, 1.0)
    assert "test_watch.py" in described(last.value)
    assert own.started == OVERRUNS
    with pytest.raises(NotInTime, match=r"close\(\) had not returned"):
        bounded.close()


async def test_an_application_that_waits_is_let_be(watch: CodeWatch) -> None:
    """Whatever it awaits, and it is told of what comes of that as if nobody stood between."""
    watch_tasks(watch, asyncio.get_running_loop())
    seen = []

    async def fail() -> None:
        raise ZeroDivisionError

    async def do() -> None:
        await asyncio.sleep(0.5)
        seen.append(await asyncio.to_thread(lambda: "from a thread"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        with pytest.raises(ZeroDivisionError):
            await asyncio.gather(fail(), asyncio.sleep(0))
        seen.append("the end")

    await BoundedApplication(Doing(do), watch).execute(SOME_TASK, None, 1.0)
    assert seen == ["from a thread", "the end"]


async def test_tasks_of_an_application_cannot_end_the_node(watch: CodeWatch) -> None:
    watch_tasks(watch, asyncio.get_running_loop())

    async def leave() -> None:
        raise SystemExit(3)

    async def do() -> None:
        await asyncio.gather(leave())

    with pytest.raises(RuntimeError, match="a task raised SystemExit"):
        await BoundedApplication(Doing(do), watch).execute(SOME_TASK, None, 1.0)


async def test_an_application_can_be_cancelled(watch: CodeWatch) -> None:
    bounded = BoundedApplication(Doing(asyncio.Event().wait), watch)  # type: ignore[arg-type]
    executing = asyncio.ensure_future(bounded.execute(SOME_TASK, None, 1.0))
    await asyncio.sleep(0)
    executing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await executing


def sleeping() -> None:
    threading.Event().wait()


def turning() -> None:
    try:
        while True:
            pass
    finally:
        ENDED.set()


ENDED = threading.Event()


@pytest.mark.parametrize("make", [sleeping, turning])
async def test_what_is_never_made_is_named(
    make: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "MAKING_S", 0.2)
    with pytest.raises(UsageError) as raised:
        await made_in_time("scheduler 'mine'", make)
    assert re.fullmatch(
        rf"scheduler 'mine' was not made within 0.2 s, at .*test_watch\.py:\d+ in {make.__name__}",
        str(raised.value),
    )
    if make is turning:
        # It takes no processor time any more.
        assert await asyncio.to_thread(ENDED.wait, 20)


async def test_what_is_made_in_time_is_handed_over() -> None:
    assert await made_in_time("it", lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        await made_in_time("it", lambda: 1 // 0)
