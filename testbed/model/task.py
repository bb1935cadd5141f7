"""Tasks and the ways they end (model sections 2 and 3)."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from testbed.model.units import Micros


class Outcome(StrEnum):
    """Outcome of a task; exactly one per task."""

    SUCCEEDED = "succeeded"
    DROPPED = "dropped"
    """Its deadline passed, or it could no longer finish in time."""
    REFUSED = "refused"
    """Its scheduler refused it, where the scenario allows that; it ended at once."""
    TRANSMISSION_FAILED = "transmission_failed"
    EXECUTION_FAILED = "execution_failed"
    LOST = "lost"
    """The node that held it died. Not a simulated outcome: the testbed itself had a failure."""


class Task(NamedTuple):
    """One task as generated; everything about it that no scheduler can change.

    ``id`` is unique in its run: ``(episode * slots + slot) * nodes + source``.
    ``cycles`` is ``8 * size_bytes * complexity`` (complexity in cycles per bit).
    ``deadline`` is relative to its arrival.
    """

    id: int
    episode: int
    slot: int
    source: int
    size_bytes: int
    cycles: int
    deadline: Micros
