"""Watches a testbed for all pages that show it: one question at a time, and none without a page."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, Protocol, Self

from testbed.api import places
from testbed.api.running import client_of
from testbed.errors import TestbedError
from testbed.rpc.operator import LiveState
from testbed.scenario.plan import PlanHead
from testbed.ui.live.events import events_between
from testbed.ui.live.network import network_of
from testbed.ui.live.snapshot import (
    EVENTS,
    Event,
    Snapshot,
    sample_of,
    with_episodes,
    with_sample,
)

INTERVAL_S: Final = 0.5
"""Seconds between two questions."""

LARGE_INTERVAL_S: Final = 1.0
"""The same for networks of more than ``LARGE`` nodes."""

LARGE: Final = 40

RETRY_S: Final = 3.0
"""Seconds after which a testbed that does not answer is looked for again."""


class Client(Protocol):
    """The part of an ``OperatorClient`` that is needed to watch."""

    def plan(self) -> PlanHead: ...

    def live(self, run: str = "", episodes: int = 0) -> LiveState: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


def client_for(name: str) -> Client:
    """Return a client for the testbed ``name``, wherever it is up.

    Raises: TestbedError: there is none, or it does not answer.
    """
    return client_of(places.runtime(name).find(name))


class Watcher:
    """Asks one testbed again and again while somebody looks; ``snapshot`` is the last answer.

    Args:
        connect: Returns a new client; called in a thread, as all that the client does.
        interval_s: Seconds between two questions; None: by the size of the network.
    """

    def __init__(self, connect: Callable[[], Client], *, interval_s: float | None = None) -> None:
        self._connect = connect
        self._interval_s = interval_s
        self._client: Client | None = None
        # One, so that a client is never used by two at a time.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="watcher")
        self._task: asyncio.Task[None] | None = None
        self._viewers = 0
        self._changed = asyncio.Event()
        self.snapshot = Snapshot()

    @contextmanager
    def watching(self) -> Iterator[Self]:
        """Watch for as long as the block lasts; several may at the same time."""
        self._viewers += 1
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._watch())
        try:
            yield self
        finally:
            self._viewers -= 1
            if not self._viewers:
                self._task.cancel()
                self._task = None

    async def changed(self) -> None:
        """Return when there is another snapshot."""
        await self._changed.wait()

    def note(self, events: Sequence[Event]) -> None:
        """Add events that no state tells, such as what nodes have answered."""
        if events:
            kept = (*self.snapshot.events, *events)[-EVENTS:]
            self._tell(replace(self.snapshot, events=kept))

    async def look(self) -> None:
        """Ask once, now."""
        loop = asyncio.get_running_loop()
        try:
            snapshot, happened = await loop.run_in_executor(self._thread, self._ask, self.snapshot)
        except TestbedError as error:
            await self.close()
            if self.snapshot.problem != str(error):
                self._tell(replace(self.snapshot, problem=str(error)))
            return
        # Not those of the snapshot: others may have been noted meanwhile.
        events = (*self.snapshot.events, *happened)[-EVENTS:]
        self._tell(replace(snapshot, events=events))

    async def close(self) -> None:
        """Hang up."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._hang_up)

    async def _watch(self) -> None:
        try:
            while True:
                began = time.monotonic()
                await self.look()
                wait = self._pause_s() - (time.monotonic() - began)
                await asyncio.sleep(max(wait, 0.05))
        finally:
            # The next one who looks connects again. Behind a question under way, if there is one.
            self._thread.submit(self._hang_up)

    def _pause_s(self) -> float:
        if self.snapshot.problem:
            return RETRY_S
        if self._interval_s is not None:
            return self._interval_s
        network = self.snapshot.network
        return LARGE_INTERVAL_S if network is not None and network.size > LARGE else INTERVAL_S

    def _ask(self, last: Snapshot) -> tuple[Snapshot, tuple[Event, ...]]:
        """Return the next snapshot, and what happened. Raises: TestbedError: there is none."""
        network = last.network
        if self._client is None:
            self._client = self._connect()
            network = network_of(self._client.plan())
            if network != last.network:
                # Another testbed than the one seen before.
                last = Snapshot()
        before = last.state
        progress = None if before is None or before.run is None else before.run.progress
        run = "" if progress is None else progress.run
        state = self._client.live(run, len(last.episodes))
        snapshot = replace(
            last,
            problem="",
            network=network,
            state=state,
            samples=with_sample(last.samples, sample_of(state, before)),
            episodes=with_episodes(last.episodes, run, state),
        )
        return snapshot, events_between(before, state, time.time())

    def _hang_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _tell(self, snapshot: Snapshot) -> None:
        self.snapshot = replace(snapshot, number=self.snapshot.number + 1)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


_WATCHERS: Final[dict[str, Watcher]] = {}


def watcher_of(name: str) -> Watcher:
    """Return the watcher of the testbed ``name``, which all pages share."""
    if name not in _WATCHERS:
        _WATCHERS[name] = Watcher(lambda: client_for(name))
    return _WATCHERS[name]
