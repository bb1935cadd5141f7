"""What a node counts by window, put together for drivers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from testbed.model.serving.record import WindowRecord
from testbed.model.units import Micros


def counted_since(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    """Return by how much each count has grown, of those that have."""
    return {
        name: count - before.get(name, 0)
        for name, count in now.items()
        if count > before.get(name, 0)
    }


class Windows:
    """The windows of one node in one episode, the first of which begins at or before ``begin``.

    Requests are counted by the node (``ServingState.counts``), words by the driver, here.
    """

    def __init__(self, node: int, episode: int, window: Micros, begin: Micros = 0) -> None:
        self._node = node
        self._episode = episode
        self._length = window
        self._window = begin // window
        self._before: tuple[Mapping[str, int], ...] | None = None
        self._words = [0, 0, 0, 0]

    @property
    def end(self) -> Micros:
        """The instant at which the present window ends."""
        return (self._window + 1) * self._length

    def said(self, messages: int, size: int) -> None:
        """Count something of ``size`` bytes that was said to as many neighbours."""
        self._words[0] += messages
        self._words[1] += messages * size

    def heard(self, size: int) -> None:
        """Count something of ``size`` bytes that a neighbour said."""
        self._words[2] += 1
        self._words[3] += size

    def until(self, now: Micros, counts: Sequence[Mapping[str, int]]) -> list[WindowRecord]:
        """Return the windows that have ended by ``now``, before anything of ``now`` is counted.

        ``counts`` are what the node has counted so far, by function.
        """
        ended = []
        while self.end <= now:
            ended.append(self.present(counts))
            self._window += 1
            self._before = tuple(dict(each) for each in counts)
            self._words = [0, 0, 0, 0]
        return ended

    def present(self, counts: Sequence[Mapping[str, int]]) -> WindowRecord:
        """Return what has been counted so far in the present window."""
        before = self._before or ({},) * len(counts)
        counted = tuple(
            {
                name: count - was.get(name, 0)
                for name, count in now.items()
                if count > was.get(name, 0)
            }
            for now, was in zip(counts, before, strict=True)
        )
        return WindowRecord(self._node, self._episode, self._window, counted, *self._words)
