"""Traffic over the links, and durations of work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final, TypeAlias

from testbed.model.events import Record, RecordKind
from testbed.model.latencies import Latencies
from testbed.model.task import Outcome
from testbed.rpc.operator import LinkNow

Link: TypeAlias = tuple[int, int]
"""Source and destination."""

_SUCCEEDED: Final = Outcome.SUCCEEDED.value


class LinkTraffic:
    """Counts work, and its bytes, that came over each link completely."""

    def __init__(self) -> None:
        self.work: Counter[Link] = Counter()
        self.bytes: Counter[Link] = Counter()

    def sent(self, record: Record) -> None:
        """Take a record of a task that was sent."""
        link = (record.node, int(record.data["peer"]))
        self.work[link] += 1
        self.bytes[link] += record.task.size_bytes

    def so_far(self) -> tuple[LinkNow, ...]:
        """Return all links over which something went."""
        return tuple(LinkNow(*link, work, self.bytes[link]) for link, work in self.work.items())


class TaskTraffic:
    """Counts what the tasks of a run did: ways over links, and times of those that succeeded."""

    def __init__(self) -> None:
        self.links = LinkTraffic()
        self.latencies = Latencies()

    def add(self, records: Iterable[Record]) -> None:
        """Take records of nodes, each once."""
        for record in records:
            kind = record.kind
            if kind is RecordKind.SENT:
                self.links.sent(record)
            elif kind is RecordKind.ENDED and record.data["outcome"] == _SUCCEEDED:
                self.latencies.add(int(record.data["elapsed"]))
