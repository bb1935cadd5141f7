"""Units of the model: integer microseconds, bytes, cycles, hertz.

Integers make every driver (heap simulator, compiled engine, real node) agree to the microsecond.
"""

from __future__ import annotations

from typing import Final, TypeAlias

Micros: TypeAlias = int
"""A duration or an instant since the start of the episode, in microseconds."""

SECOND: Final[Micros] = 1_000_000
MILLISECOND: Final[Micros] = 1_000
NEVER: Final[Micros] = 2**62
"""An instant that is never reached."""


def duration(amount: int, per_second: int) -> Micros:
    """Time to work off ``amount`` units at ``per_second`` units a second, rounded half up.

    Used for ``c / F`` (paper eq. 1) and ``s / r`` (paper eq. 2).
    """
    return (2 * amount * SECOND + per_second) // (2 * per_second)


def counted(number: int, noun: str) -> str:
    """Return ``1 node`` or ``2 nodes``, for people."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def seconds(micros: Micros) -> float:
    """``micros`` as seconds, for people and for formulas that need a float."""
    return micros / SECOND
