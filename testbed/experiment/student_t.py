"""Student's t distribution, as far as intervals and paired tests need it.

scipy has it too, but takes 0.3 to 0.5 s to load, which every command that prints a rate would pay.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

_TINY: Final = 1e-300
_PRECISION: Final = 1e-15
_TERMS: Final = 10_000


def two_sided(t: float, degrees: int) -> float:
    """Return the probability that |T| is at least ``t``, for ``degrees`` of freedom.

    Abramowitz and Stegun, eq. 26.5.27 and 26.7.1: the regularised incomplete beta function of
    degrees / (degrees + t^2).

    Raises: ValueError: fewer than one degree of freedom.
    """
    if degrees < 1:
        raise ValueError("Student's t needs at least one degree of freedom")
    if math.isinf(t):
        return 0.0
    square = t * t
    return _incomplete_beta(
        degrees / (degrees + square), square / (degrees + square), degrees / 2, 0.5
    )


@lru_cache
def quantile(probability: float, degrees: int) -> float:
    """Return the ``t`` that T stays below with ``probability``, at least 0.5.

    Raises: ValueError: the probability is below 0.5 or not below 1, or fewer than one degree of
    freedom.
    """
    if not 0.5 <= probability < 1:
        raise ValueError(f"{probability} is not a probability from 0.5 to below 1")
    wanted = 2 * (1 - probability)
    low, high = 0.0, 1.0
    while two_sided(high, degrees) > wanted:
        low, high = high, 2 * high
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        if two_sided(middle, degrees) > wanted:
            low = middle
        else:
            high = middle


def _incomplete_beta(x: float, rest: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function of ``x``; ``rest`` is 1 - x, exactly."""
    if x <= 0.0 or rest <= 0.0:
        return 0.0 if x <= 0.0 else 1.0
    # Its continued fraction converges fast below this point, and the mirrored one above.
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(rest, x, b, a)
    factor = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    )
    return factor * _continued_fraction(x, a, b) / a


def _continued_fraction(x: float, a: float, b: float) -> float:
    """Return the continued fraction of eq. 26.5.8, by the method of Lentz."""
    numerator, denominator = 1.0, 1.0 - (a + b) * x / (a + 1)
    denominator = 1.0 / (denominator or _TINY)
    value = denominator
    for m in range(1, _TERMS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            denominator = 1.0 / ((1.0 + term * denominator) or _TINY)
            numerator = (1.0 + term / numerator) or _TINY
            change = denominator * numerator
            value *= change
        if abs(change - 1.0) < _PRECISION:
            break
    return value
