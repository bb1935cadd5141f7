"""Refusal of tasks by the schedulers that ship: where it is allowed, and when a task is refused.

A task is refused if what it adds to the expected successes is not above the price of its work:
``price * fill**2 * cycles / mean cycles``. ``fill`` is how full the network is: the work that waits
at its nodes, over what they do until a deadline passes. So what no node can finish in time is
refused always, and where work is waiting the largest tasks first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from testbed.errors import Problem, UsageError
from testbed.model.per_destination import COLUMNS, COLUMNS_OF, STATE_NAME
from testbed.model.topology import Rules

CENTRAL_PRICE: Final = 0.25
"""For ``central-reject``, which sees all states; docs/per-destination.md has what both reach."""
OWN_PRICE: Final = 2.0
"""For what a node knows of the states of its peers."""

EXPOSURE: Final = COLUMNS.index("exposure")
IN_TIME: Final = COLUMNS.index("in_time")
CAPACITY: Final = COLUMNS.index("capacity")
KNOWN: Final = COLUMNS_OF[STATE_NAME].index("known")
BACKLOG: Final = COLUMNS_OF[STATE_NAME].index("backlog")
KNOWN_IN_TIME: Final = COLUMNS_OF[STATE_NAME].index("known_in_time")
SCALE: Final = 4.0
"""The column ``exposure`` is so many times the expected failures."""


def allow_refusal(rules: Rules, scheduler: str, encoder: str = STATE_NAME) -> None:
    """Check that ``rules`` let a scheduler refuse tasks, and that ``encoder`` tells when.

    Raises:
        UsageError: they do not, or it does not.
    """
    problems = []
    if not rules.reject:
        problems.append(Problem("rules.reject", "false", "true"))
    if encoder != STATE_NAME:
        allowed = f"a policy that asks for states ({STATE_NAME})"
        problems.append(Problem("policy", f"one with encoder {encoder}", allowed))
    if problems:
        raise UsageError(f"scheduler '{scheduler}' cannot refuse tasks here", problems)


def gain(rows: Sequence[Sequence[float]], mask: Sequence[bool]) -> float:
    """Return the largest chance of success at an unmasked destination; 0 if none can be in time.

    ``rows`` [N, F] are those of ``per-destination-v2``.
    """
    best = 0.0
    for row, allowed in zip(rows, mask, strict=True):
        if allowed and row[KNOWN_IN_TIME if row[KNOWN] > 0.0 else IN_TIME] > 0.0:
            best = max(best, math.exp(-row[EXPOSURE] / SCALE))
    return best


def fill(rows: Sequence[Sequence[float]]) -> float:
    """Return how full the network is by what ``rows`` [N, F] know of its nodes."""
    work = capacity = 0.0
    for row in rows:
        work += row[CAPACITY] * row[BACKLOG]
        capacity += row[CAPACITY]
    return work / capacity
