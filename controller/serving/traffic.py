"""Requests that went between nodes, and those that each node served last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from testbed.model.serving.record import WindowRecord
from testbed.rpc.operator import LinkNow


class RequestTraffic:
    """Counts what the nodes of a serving run of ``size`` nodes tell of their windows."""

    def __init__(self, size: int) -> None:
        self._forwarded: Counter[tuple[int, int]] = Counter()
        self.served: list[int | None] = [None] * size
        """Requests that each node served in its last window, whoever they came from."""

    def add(self, windows: Iterable[WindowRecord]) -> None:
        """Take windows that are over, each once."""
        for window in windows:
            served = 0
            for counts in window.counts:
                for what, count in counts.items():
                    kind, _, peer = what.partition(":")
                    if kind == "to":
                        self._forwarded[window.node, int(peer)] += count
                    elif kind in {"local", "from"}:
                        served += count
            self.served[window.node] = served

    def links(self) -> tuple[LinkNow, ...]:
        """Return what was forwarded, by link."""
        return tuple(LinkNow(*link, count, 0) for link, count in self._forwarded.items())
