"""Watches: the history of a collection as a stream of events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.api_server.registry import Place
from tests.api_server.resources import Object
from tests.api_server.selectors import Match
from tests.api_server.status import expired
from tests.api_server.store import Change, Store


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """Of the query. ``version`` is empty or ``0`` for what is there now, and then on."""

    version: str = ""
    timeout_s: float | None = None
    bookmarks: bool = False
    initial_events: bool = False


class Watches:
    """Makes the streams, and ends or disturbs those under way."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cut = 0
        self._expired = 0
        self._marks = 0

    def cut(self) -> None:
        """Break off those under way, without a last event."""
        with self._store:
            self._cut += 1
            self._store.poke()

    def expire(self) -> None:
        """End those under way with the event that says that they are too old."""
        with self._store:
            self._expired += 1
            self._store.poke()

    def mark(self) -> None:
        """Send a bookmark to all who want them."""
        with self._store:
            self._marks += 1
            self._store.poke()

    def events(self, place: Place, match: Match, options: WatchOptions) -> Iterator[Object]:
        """Events in order, from this call on, until the time is up or the watch is broken.

        Raises (on the way): ConnectionAbortedError: it was cut.
        """
        with self._store as store:
            initial: list[Object] = []
            if options.version in {"", "0"} or options.initial_events:
                initial = store.all(place.resource, place.namespace, match)
                read = oldest = store.version
            else:
                read, oldest = int(options.version), store.compacted
            began = (self._cut, self._expired, self._marks)
        if read < oldest:
            problem = expired(f"too old resource version: {read} ({oldest})")
            return iter([{"type": "ERROR", "object": problem.body()}])
        return self._follow(place, match, options, initial, read, began)

    def _follow(
        self,
        place: Place,
        match: Match,
        options: WatchOptions,
        initial: list[Object],
        read: int,
        began: tuple[int, int, int],
    ) -> Iterator[Object]:
        deadline = None if options.timeout_s is None else time.monotonic() + options.timeout_s
        cut, gone, marks = began
        for value in initial:
            yield {"type": "ADDED", "object": value}
        if options.initial_events:
            yield self._bookmark(place, read, {"k8s.io/initial-events-end": "true"})
        while True:
            with self._store as store:
                left = None if deadline is None else max(deadline - time.monotonic(), 0.0)

                def awake(read: int = read, marks: int = marks) -> bool:
                    return (
                        store.changed_since(read)
                        or store.closed
                        or (self._cut, self._expired, self._marks) != (cut, gone, marks)
                    )

                in_time = store.changed.wait_for(awake, left) and left != 0.0
                changes = store.since(read)
                broken, too_old = self._cut != cut, self._expired != gone
                marked, marks = self._marks != marks, self._marks
                closed, now = store.closed, store.version
            if broken:
                raise ConnectionAbortedError("the watch was cut")
            for change in changes:
                read = change.version
                if (event := _event(place, match, change)) is not None:
                    yield event
            if too_old:
                problem = expired(f"too old resource version: {read} ({now})")
                yield {"type": "ERROR", "object": problem.body()}
                return
            if options.bookmarks and (marked or not in_time):
                yield self._bookmark(place, now if not changes else read, {})
            if closed or not in_time:
                return

    @staticmethod
    def _bookmark(place: Place, version: int, annotations: dict[str, str]) -> Object:
        metadata: Object = {"resourceVersion": str(version)}
        if annotations:
            metadata["annotations"] = annotations
        value = {"kind": place.resource.kind, "apiVersion": place.resource.api_version}
        return {"type": "BOOKMARK", "object": value | {"metadata": metadata}}


def _event(place: Place, match: Match, change: Change) -> Object | None:
    """How a change looks to one who watches a selection of a collection."""
    version, resource, old, new = change
    if resource is not place.resource:
        return None
    value = new or old
    assert value is not None
    if place.namespace and value["metadata"].get("namespace") != place.namespace:
        return None
    was, is_now = old is not None and match(old), new is not None and match(new)
    if is_now:
        return {"type": "MODIFIED" if was else "ADDED", "object": new}
    if was and old is not None:
        metadata = old["metadata"] | {"resourceVersion": str(version)}
        return {"type": "DELETED", "object": old | {"metadata": metadata}}
    return None
