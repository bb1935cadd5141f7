"""One question at a time, for as long as somebody looks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

from testbed.errors import TemporaryError
from testbed.rpc.operator import EpisodeCount, LiveState
from testbed.scenario.plan import PlanHead
from testbed.testing.runtime import small_plan
from testbed.ui.live.snapshot import Event, Snapshot
from testbed.ui.live.watcher import Watcher
from tests.ui.states import BUSY, NODES, progress, state

PATIENCE_S = 30.0


class Controller:
    """Answers with ``states``, one after the other, the last one again and again."""

    def __init__(self, *states: LiveState | Exception) -> None:
        self.states = list(states)
        self.asked: list[tuple[str, int]] = []
        self.connections = 0
        self.open = 0

    def connect(self) -> Connection:
        self.connections += 1
        self.open += 1
        return Connection(self)


class Connection:
    """A client of a ``Controller``."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def plan(self) -> PlanHead:
        return small_plan(NODES)

    def live(self, run: str = "", episodes: int = 0) -> LiveState:
        self._controller.asked.append((run, episodes))
        states = self._controller.states
        found = states.pop(0) if len(states) > 1 else states[0]
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        self._controller.open -= 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


async def until(watcher: Watcher, holds: Callable[[Snapshot], bool]) -> Snapshot:
    async with asyncio.timeout(PATIENCE_S):
        while not holds(watcher.snapshot):
            await watcher.changed()
    return watcher.snapshot


async def test_it_asks_only_while_somebody_looks() -> None:
    controller = Controller(state())
    watcher = Watcher(controller.connect, interval_s=0.01)
    with watcher.watching(), watcher.watching():
        await until(watcher, lambda snapshot: len(controller.asked) >= 3)
    await watcher.close()
    asked = len(controller.asked)

    await asyncio.sleep(0.1)

    assert len(controller.asked) == asked
    assert (controller.connections, controller.open) == (1, 0)


async def test_who_looks_again_sees_what_was_seen_before() -> None:
    controller = Controller(state(1.0), state(2.0), state(3.0))
    watcher = Watcher(controller.connect, interval_s=0.01)
    with watcher.watching():
        await until(watcher, lambda snapshot: len(snapshot.samples) == 2)
    with watcher.watching():
        snapshot = await until(watcher, lambda snapshot: len(snapshot.samples) == 3)
    await watcher.close()

    assert [each.at for each in snapshot.samples] == [1.0, 2.0, 3.0]
    assert controller.connections == 2


async def test_known_episodes_are_not_asked_for_again() -> None:
    first, second = EpisodeCount(0, 20, 10), EpisodeCount(1, 20, 12)
    controller = Controller(
        state(1.0, episodes=(first,)), state(2.0, episodes=(second,)), state(3.0)
    )
    watcher = Watcher(controller.connect, interval_s=0.01)
    with watcher.watching():
        snapshot = await until(watcher, lambda snapshot: len(snapshot.samples) == 3)
    await watcher.close()

    assert snapshot.episodes == (first, second)
    assert controller.asked[:3] == [("", 0), ("r1", 1), ("r1", 2)]


async def test_a_controller_that_is_away_for_a_while() -> None:
    controller = Controller(state(1.0), TemporaryError("it does not answer"), state(2.0))
    watcher = Watcher(controller.connect, interval_s=0.01)
    await watcher.look()
    await watcher.look()
    away = watcher.snapshot
    await watcher.look()
    await watcher.close()

    assert away.problem == "it does not answer"
    assert away.state == state(1.0)
    assert watcher.snapshot.problem == ""
    assert len(watcher.snapshot.samples) == 2
    assert controller.connections == 2


async def test_there_is_no_testbed() -> None:
    def connect() -> Connection:
        raise TemporaryError("no testbed is up")

    watcher = Watcher(connect, interval_s=0.01)
    await watcher.look()

    assert (watcher.snapshot.problem, watcher.snapshot.network) == ("no testbed is up", None)


async def test_what_happened_and_what_was_noted_are_in_order() -> None:
    dead = BUSY._replace(condition="dead", reason="gone")
    controller = Controller(state(1.0), state(2.0, nodes=(BUSY, BUSY, dead)))
    watcher = Watcher(controller.connect)
    await watcher.look()
    watcher.note([Event(1.5, "policy", "deployed")])
    await watcher.look()
    await watcher.close()

    assert [each.text for each in watcher.snapshot.events] == [
        "run r1 is in progress under ratc",
        "deployed",
        "node 2 is dead: gone",
    ]


async def test_numbers_of_snapshots_grow() -> None:
    watcher = Watcher(Controller(state(1.0), state(2.0, run=progress(run="r2"))).connect)
    numbers = [watcher.snapshot.number]
    for _ in range(3):
        await watcher.look()
        numbers.append(watcher.snapshot.number)
    await watcher.close()

    assert numbers == [0, 1, 2, 3]
