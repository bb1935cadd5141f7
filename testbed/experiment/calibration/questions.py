"""The questions of a calibration: what is increased until a run is no longer faithful.

All are asked with ``paper-testbed``, whose nodes get a task in every second slot of 100 ms on
average, under RATC, which asks its peers before it decides. So the levels of nodes hold for
networks that are about as busy, and the rates for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from testbed.scenario.schema import LARGEST_NETWORK

SCENARIO: Final = "paper-testbed"
SHARING: Final = "deployment.nodesPerProcess"
"""Key of a scenario that lets nodes share processes."""


@dataclass(frozen=True, slots=True)
class Question:
    """Something that is increased, from ``first`` to at most ``most``.

    ``settings`` gives the overrides of ``SCENARIO`` at a level on a machine with so many cores;
    ``nodes`` the number of nodes they make.
    """

    name: str
    title: str
    unit: str
    first: int
    most: int
    settings: Callable[[int, int], tuple[str, ...]]
    nodes: Callable[[int], int]
    bytes_move: bool = False
    shared: bool = False

    def at(self, level: int) -> str:
        """Return a level in words: ``20 nodes``; of the unit ``x``, ``time scale 0.25``."""
        return f"time scale {1 / level:g}" if self.unit == "x" else f"{level:,} {self.unit}"


def per_process(nodes: int, cores: int) -> int:
    """Return how many nodes share a process, if there is one process for each core."""
    return max(1, math.ceil(nodes / cores))


def _network(payload: str, shared: bool) -> Callable[[int, int], tuple[str, ...]]:
    def settings(level: int, cores: int) -> tuple[str, ...]:
        return (f"nodes.count={level}", f"payload={payload}", *_hosts(level, cores, shared))

    return settings


def _hosts(nodes: int, cores: int, shared: bool) -> tuple[str, ...]:
    # Given in both cases: the default may be either.
    return (f"{SHARING}={per_process(nodes, cores) if shared else 1}",)


_TASK_NODES: Final = 4
_TASK_SLOTS_S: Final = 5.0


def _tasks(level: int, cores: int) -> tuple[str, ...]:
    """``level`` tasks per second, small ones, by ever shorter slots of four nodes."""
    slot_us = round(1e6 * _TASK_NODES / level)
    return (
        f"nodes.count={_TASK_NODES}",
        "nodes.arrivalProbability=1",
        "nodes.failureRate=0",
        "links.failureRate=0",
        "tasks.size=10KB",
        "tasks.complexity=10",
        f"slots.length={slot_us}us",
        f"slots.count={max(1, round(_TASK_SLOTS_S * 1e6 / slot_us))}",
        "payload=metadata",
        *_hosts(_TASK_NODES, cores, shared=True),
    )


_LINK_SLOT_S: Final = 0.05
_LINK_USE: Final = 0.9


def _link(level: int, cores: int) -> tuple[str, ...]:
    """A link of ``level`` MB/s that is busy for nine tenths of the time: a task per slot."""
    size = round(level * 1e6 * _LINK_SLOT_S * _LINK_USE)
    return (
        "nodes.count=2",
        "nodes.arrivalProbability=[1, 0]",
        "nodes.failureRate=0",
        # The first is so slow that everything goes to the second.
        "nodes.cores=1",
        "nodes.clock=[1MHz, 1000GHz]",
        "links.failureRate=0",
        f"links.rate={level}MB/s",
        f"tasks.size={size}B",
        "tasks.complexity=1",
        "rules.overload={queueLength: 3}",
        "scheduler=least-completion",
        f"slots.length={_LINK_SLOT_S * 1000:g}ms",
        "slots.count=60",
        "payload={mode: bytes, chunk: 1MB}",
        # Two processes: within one nothing would cross a link.
        *_hosts(2, cores, shared=False),
    )


_FAST_NODES: Final = 4


def _fast(level: int, cores: int) -> tuple[str, ...]:
    """A small network, ``level`` times faster than real time."""
    return (
        f"nodes.count={_FAST_NODES}",
        "payload=metadata",
        f"timeScale={1 / level:.6g}",
        *_hosts(_FAST_NODES, cores, shared=True),
    )


def _itself(level: int) -> int:
    return level


QUESTIONS: Final[Mapping[str, Question]] = {
    question.name: question
    for question in (
        Question(
            "nodes-metadata",
            "nodes with metadata, one process each",
            "nodes",
            5,
            LARGEST_NETWORK,
            _network("metadata", shared=False),
            _itself,
        ),
        Question(
            "nodes-metadata-shared",
            "nodes with metadata, shared processes",
            "nodes",
            20,
            LARGEST_NETWORK,
            _network("metadata", shared=True),
            _itself,
            shared=True,
        ),
        Question(
            "nodes-bytes",
            "nodes with real bytes, one process each",
            "nodes",
            5,
            LARGEST_NETWORK,
            _network("bytes", shared=False),
            _itself,
            bytes_move=True,
        ),
        Question(
            "nodes-bytes-shared",
            "nodes with real bytes, shared processes",
            "nodes",
            10,
            LARGEST_NETWORK,
            _network("bytes", shared=True),
            _itself,
            bytes_move=True,
            shared=True,
        ),
        Question(
            "tasks",
            "small tasks on four nodes",
            "tasks/s",
            100,
            100_000,
            _tasks,
            lambda _: _TASK_NODES,
        ),
        Question(
            "link",
            "bytes from one node to another",
            "MB/s",
            25,
            10_000,
            _link,
            lambda _: 2,
            bytes_move=True,
        ),
        Question(
            "time-scale",
            "faster than real time, four nodes with metadata",
            "x",
            1,
            100,
            _fast,
            lambda _: _FAST_NODES,
        ),
    )
}


def chosen(names: Sequence[str] = ()) -> list[Question]:
    """Return the questions of these names; none: all."""
    return [each for name, each in QUESTIONS.items() if not names or name in names]
