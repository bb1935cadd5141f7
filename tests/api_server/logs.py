"""What containers have written, and reading it as ``pods/log`` does."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.api_server.store import Store


class Line(NamedTuple):
    at: datetime.datetime
    text: str


class Logs:
    """Logs of all pods by their uid; a container that restarts begins a new one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lines: dict[tuple[str, str], list[list[Line]]] = {}
        self._ended: set[str] = set()

    def write(self, uid: str, container: str, lines: Sequence[str]) -> None:
        """Add lines to the log of the container that runs now."""
        at = datetime.datetime.now(datetime.UTC)
        with self._store as store:
            self._runs(uid, container)[-1].extend(Line(at, line) for line in lines)
            store.note()

    def restart(self, uid: str, container: str) -> None:
        """What is there becomes the log of the previous container."""
        with self._store as store:
            self._runs(uid, container).append([])
            store.note()

    def end(self, uid: str) -> None:
        """No more comes: the pod has ended or is gone."""
        with self._store as store:
            self._ended.add(uid)
            store.note()

    def has_previous(self, uid: str, container: str) -> bool:
        with self._store:
            return len(self._runs(uid, container)) > 1

    def read(
        self,
        uid: str,
        container: str,
        *,
        tail: int | None = None,
        since: datetime.datetime | None = None,
        previous: bool = False,
        follow: bool = False,
    ) -> Iterator[Line]:
        """Lines that are there, and with ``follow`` those that come until this container ends."""
        with self._store:
            runs = self._runs(uid, container)
            number = len(runs) - (2 if previous else 1)
            lines = runs[number]
            read = len(lines)
            first = lines if tail is None else lines[len(lines) - min(tail, len(lines)) :]
            first = [line for line in first if since is None or line.at >= since]
        yield from first
        while follow and (new := self._more(uid, runs, number, read)):
            read += len(new)
            yield from new

    def _more(self, uid: str, runs: list[list[Line]], number: int, read: int) -> list[Line]:
        """Wait for lines after the first ``read``; empty when no more come."""
        with self._store as store:
            store.changed.wait_for(
                lambda: (
                    len(runs[number]) > read
                    or store.closed
                    or uid in self._ended
                    or len(runs) > number + 1
                )
            )
            return runs[number][read:]

    def _runs(self, uid: str, container: str) -> list[list[Line]]:
        return self._lines.setdefault((uid, container), [[]])
