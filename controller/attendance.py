"""Attendance: the nodes that take part in a run, and when and why some did not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from testbed.model.faults.seam import named_nodes


@dataclass(slots=True)
class Absence:
    """Node ``node`` was out of the run from episode ``first`` on.

    ``back`` is the episode in which it took part again, None if it did not.
    """

    node: int
    first: int
    reason: str
    back: int | None = None

    @property
    def told(self) -> str:
        """Return when and why, without the node."""
        if self.back is None:
            return f"out of the run from episode {self.first} on: {self.reason}"
        return f"out of the run from episode {self.first}, back in {self.back}: {self.reason}"


class Attendance:
    """The nodes of one run; all take part at first.

    ``silences`` by episode and node: what was seen of nodes that were not heard for a while.
    """

    def __init__(self) -> None:
        self._out: dict[int, Absence] = {}
        self.absences: list[Absence] = []
        self.late: list[str] = []
        self.silences: dict[int, dict[int, str]] = {}

    @property
    def out(self) -> dict[int, str]:
        """Return why nodes are out of the run now, by node."""
        return {node: absence.reason for node, absence in self._out.items()}

    @property
    def reasons(self) -> dict[int, str]:
        """Return why nodes were out of the run at any time, by node; the last reason of each."""
        return {absence.node: absence.reason for absence in self.absences}

    @property
    def complete(self) -> bool:
        """Whether every node has taken part in all of the run so far.

        One whose log came late has; if that cost tasks, they are lost and counted.
        """
        return not self.absences

    def told(self) -> tuple[str, ...]:
        """Return a line for each thing seen of nodes that were out of the run or late."""
        lines: dict[str, list[int]] = {}
        for absence in self.absences:
            lines.setdefault(absence.told, []).append(absence.node)
        return (*(f"{named(nodes)}: {line}" for line, nodes in lines.items()), *self.late)

    def leave(self, node: int, episode: int, reason: str) -> bool:
        """Note that a node is out of the run; return False if it was already."""
        if node in self._out:
            return False
        absence = Absence(node, episode, reason)
        self._out[node] = absence
        self.absences.append(absence)
        return True

    def come_back(self, node: int, episode: int) -> bool:
        """Note that a node takes part again; return False if it did before."""
        absence = self._out.pop(node, None)
        if absence is None:
            return False
        absence.back = episode
        return True

    def silent(self, node: int, episode: int, seen: str) -> None:
        """Note that a node was silent for a while in an episode; it may have answered since."""
        self.silences.setdefault(episode, {})[node] = seen

    def was_late(self, node: int, episode: int, reason: str) -> None:
        """Note that not all a node logged of an episode came in time."""
        self.late.append(f"node {node}: {reason} of episode {episode}")


def named(nodes: Sequence[int]) -> str:
    """``node 3``, ``nodes 0, 2, 5``."""
    return named_nodes(tuple(sorted(nodes)))


def by_reason(reasons: Mapping[int, str]) -> list[str]:
    """Reasons by node as lines; nodes with the same reason stand together."""
    nodes: dict[str, list[int]] = {}
    for node, reason in sorted(reasons.items()):
        nodes.setdefault(reason, []).append(node)
    return [f"{named(those)}: {reason}" for reason, those in nodes.items()]
