"""Counter-based random draws: a draw is a pure function of its key.

The key names the purpose and the entity (seed, purpose, episode, task, ...), so the same task meets
the same fate at the same unit under every scheduler, every driver and every thread timing (common
random numbers), and drawing one thing more never shifts another. The mixing function is the
SplitMix64 finaliser (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014), chained over the words of the key. The compiled engine and the vectorised variant
below give the same bits.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Final

from testbed.model.units import NEVER, SECOND, Micros

_MASK: Final = 0xFFFF_FFFF_FFFF_FFFF
GOLDEN: Final = 0x9E37_79B9_7F4A_7C15
MIX_1: Final = 0xBF58_476D_1CE4_E5B9
MIX_2: Final = 0x94D0_49BB_1331_11EB
_TO_UNIT: Final = 2.0**-53


class Purpose(IntEnum):
    """The purpose of a draw; part of every key, so purposes never share a stream."""

    CAPACITY = 1
    ARRIVAL_PROBABILITY = 2
    EXECUTION_FAILURE_RATE = 3
    LINK_RATE = 4
    LINK_FAILURE_RATE = 5
    ARRIVAL = 6
    SIZE = 7
    COMPLEXITY = 8
    DEADLINE = 9
    EXECUTION_FATE = 10
    TRANSMISSION_FATE = 11
    SCHEDULER = 12
    PAYLOAD = 13
    FAULT = 14
    MESSAGE_LOSS = 18
    REQUEST_REJECTION = 22
    LINK_CONTROL_DELAY = 23


def mix(state: int) -> int:
    """One SplitMix64 output step of a 64-bit ``state``."""
    state = (state ^ (state >> 30)) * MIX_1 & _MASK
    state = (state ^ (state >> 27)) * MIX_2 & _MASK
    return state ^ (state >> 31)


def key(*words: int) -> int:
    """Fold non-negative integers into one 64-bit key; ``key(a, b)`` continues as ``extend``."""
    return extend(0, *words)


def extend(state: int, *words: int) -> int:
    """Continue a key: ``extend(key(a), b) == key(a, b)``. Lets hot paths fold a prefix once."""
    for word in words:
        # mix((state ^ word) + GOLDEN), written out: half of all draws' time was the call.
        state = (state ^ word) + GOLDEN & _MASK
        state = (state ^ (state >> 30)) * MIX_1 & _MASK
        state = (state ^ (state >> 27)) * MIX_2 & _MASK
        state ^= state >> 31
    return state


def to_unit(state: int) -> float:
    """Return a key as a float in the open interval (0, 1)."""
    return ((state >> 11) + 0.5) * _TO_UNIT


def uniform(*words: int) -> float:
    """Return a draw from U(0, 1) for the key ``words``."""
    return to_unit(key(*words))


def failure_after(rate_per_second: float, u: float) -> Micros:
    """Return the time until the first failure of a unit that works without pause (model section 3).

    Exponential with ``rate_per_second``, by inversion of ``u`` in (0, 1); ``NEVER`` for rate 0.
    A task of duration x fails exactly if the result is below x, which has probability
    ``1 - exp(-rate x)`` (complement of paper eq. 4 and 5).
    """
    if rate_per_second <= 0.0:
        return NEVER
    return hazard_after(rate_per_second, -math.log(u))


def hazard_after(rate_per_second: float, hazard: float) -> Micros:
    """Time until the failure rate, summed over time, has reached ``hazard``; ``NEVER`` for rate 0.

    A unit whose rate changes while it works fails when the sum reaches ``-log(u)``.
    """
    if rate_per_second <= 0.0:
        return NEVER
    after = hazard / rate_per_second * SECOND
    return NEVER if after >= NEVER else int(after)
