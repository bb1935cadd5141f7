"""What the API server keeps: objects, one counter of versions, and the history that watches read.

Every change is one entry of the history under one lock, so a watch sees each change once and in
order. Whoever waits for anything in the fake waits on ``Store.changed``.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable
from typing import NamedTuple, Self

from tests.api_server.resources import Object, Resource, key_of


class Change(NamedTuple):
    """One version. ``new`` is None for a deletion, whose last state is ``old``."""

    version: int
    resource: Resource
    old: Object | None
    new: Object | None


class Store:
    """Thread-safe; a read and the write that rests on it go inside one ``with store:``."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        """Notified of every change, and by ``poke``."""
        self.version = 1000
        self.compacted = 0
        """Versions below are forgotten: a watch cannot start from them."""
        self.closed = False
        self.pokes = 0
        """How often a switch has changed."""
        self.ticks = 0
        """How often anything has happened."""
        self._objects: dict[Resource, dict[tuple[str, str], Object]] = {}
        self._history: list[Change] = []

    def __enter__(self) -> Self:
        self.changed.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.changed.release()

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        with self:
            return self._objects.get(resource, {}).get((namespace, name))

    def all(
        self,
        resource: Resource,
        namespace: str = "",
        match: Callable[[Object], bool] = lambda _: True,
    ) -> list[Object]:
        """In order of namespace and name; of all namespaces if it is empty."""
        with self:
            found = self._objects.get(resource, {})
            return [
                found[key]
                for key in sorted(found)
                if (not namespace or key[0] == namespace) and match(found[key])
            ]

    def resources(self) -> list[Resource]:
        """Those of which there are objects, in the order in which they came."""
        with self:
            return [resource for resource, objects in self._objects.items() if objects]

    def put(self, resource: Resource, value: Object) -> Object:
        """Store ``value`` under its name, with a new version unless nothing but that differs.

        The caller may not change what is in ``value`` afterwards.
        """
        with self:
            key = key_of(value)
            objects = self._objects.setdefault(resource, {})
            old = objects.get(key)
            value = value | {"metadata": dict(value["metadata"])}
            if old is not None:
                value["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
                if value == old:
                    return old
            self.version += 1
            value["metadata"]["resourceVersion"] = str(self.version)
            objects[key] = value
            self._history.append(Change(self.version, resource, old, value))
            self.note()
            return value

    def remove(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """Forget an object; returns its last state, None if there was none."""
        with self:
            old = self._objects.get(resource, {}).pop((namespace, name), None)
            if old is None:
                return None
            self.version += 1
            metadata = old["metadata"] | {"resourceVersion": str(self.version)}
            last = old | {"metadata": metadata}
            self._history.append(Change(self.version, resource, last, None))
            self.note()
            return last

    def since(self, version: int) -> list[Change]:
        """Changes after ``version``."""
        with self:
            start = bisect.bisect_right(self._history, version, key=lambda each: each.version)
            return self._history[start:]

    def changed_since(self, version: int) -> bool:
        """Whether ``since`` has any."""
        with self:
            return bool(self._history) and self._history[-1].version > version

    def compact(self) -> None:
        """Forget all versions but the present one."""
        with self:
            self.version += 1
            self.compacted = self.version

    def poke(self) -> None:
        """Wake everybody who waits: a switch has changed."""
        with self:
            self.pokes += 1
            self.note()

    def note(self) -> None:
        """Wake who waits for something besides objects: a line of a log, a request."""
        with self:
            self.ticks += 1
            self.changed.notify_all()

    def close(self) -> None:
        """Nothing waits any more."""
        with self:
            self.closed = True
            self.changed.notify_all()
