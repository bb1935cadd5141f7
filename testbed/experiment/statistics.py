"""Intervals and paired comparisons of values by episode, usually success rates.

The unit of observation is the episode: tasks of one episode share queues and are not independent,
so an interval over single tasks would be too narrow. Runs that share seeds have the same arrivals
and fates episode by episode, so their difference is taken per episode, which removes most of the
noise (common random numbers).

Where several pairs are compared at once, their p values are adjusted by the method of Holm
(``corrected``): the probability that any of the differences called real is none stays below 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any, Final

from testbed.experiment import student_t

CONFIDENCE: Final = 0.95
MIN_PAIRS: Final = 4
"""Fewer shared episodes than this decide nothing: no test over them can reach the confidence."""
POWER: Final = 0.8
"""Probability with which a comparison shows the smallest difference that it is said to show."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over episodes with its confidence interval (Student's t).

    ``low`` and ``high`` are NaN with fewer than two values: one episode says nothing of the spread.
    ``deviation`` is the standard deviation of single episodes.
    """

    count: int
    mean: float
    low: float
    high: float
    deviation: float

    def __str__(self) -> str:
        return with_spread(self.mean, self.low, self.high, digits=3)

    @property
    def arms(self) -> tuple[float, float]:
        """Return how far it reaches below and above the mean; zeros where there is no interval."""
        if math.isnan(self.low):
            return 0.0, 0.0
        return self.mean - self.low, self.high - self.mean

    @property
    def in_percent(self) -> str:
        """A rate for a table, in per cent without the sign: see ``with_spread``."""
        return with_spread(self.mean, self.low, self.high)


def with_spread(mean: float, low: float, high: float, *, digits: int = 1) -> str:
    """Return a rate with its interval: ``93.7 ± 3.0``, or ``97.0 (92.2 .. 100.0)``.

    The second form is for an interval that is cut at an end, and would reach beyond it if it was
    written with half its width. Only the mean if ``low`` is NaN. With one digit rates are in per
    cent, with three they are not.
    """
    scale = 100.0 if digits == 1 else 1.0
    if math.isnan(low):
        return f"{scale * mean:.{digits}f}"
    low, high = max(0.0, low), min(1.0, high)
    shown, half = round(scale * mean, digits), round(scale * (high - low) / 2, digits)
    even = math.isclose(mean - low, high - mean, abs_tol=1e-9)
    if even and round(shown - half, digits) >= 0.0 and round(shown + half, digits) <= scale:
        return f"{shown:.{digits}f} ± {half:.{digits}f}"
    return f"{shown:.{digits}f} ({scale * low:.{digits}f} .. {scale * high:.{digits}f})"


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return mean of ``values`` with its t interval; for rates see ``rate_interval``.

    Raises: ValueError for no values.
    """
    if not len(values):
        raise ValueError("an interval needs at least one value")
    count = len(values)
    mean = fmean(values)
    if count == 1:
        return Interval(1, mean, math.nan, math.nan, math.nan)
    return _around(mean, stdev(values), count, confidence)


def _around(mean: float, deviation: float, count: int, confidence: float) -> Interval:
    """Return the t interval of a mean of ``count`` values with that standard deviation."""
    half = student_t.quantile((1 + confidence) / 2, count - 1) * deviation / math.sqrt(count)
    return Interval(count, mean, mean - half, mean + half, deviation)


def rate_interval(rates: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return the mean of success rates with its t interval, whose ends are cut to 0 and 1.

    Few episodes that differ much give an interval that is wider than what a rate can be.

    Raises: ValueError for no rates.
    """
    found = mean_interval(rates, confidence)
    if math.isnan(found.low):
        return found
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))


def chance_of(interval: Interval, above: float = 0.0) -> tuple[float, float]:
    """Return the one-sided p values of "the mean is above ``above``", and of "it is below".

    Of the t test; 0.5 or more speaks for the other side. Both are 1 where the spread is not known.
    """
    if math.isnan(interval.deviation):
        return 1.0, 1.0
    distance = interval.mean - above
    if interval.deviation == 0.0:
        return (0.0, 1.0) if distance > 0.0 else (1.0, 0.0)
    t = distance / (interval.deviation / math.sqrt(interval.count))
    tail = student_t.two_sided(t, interval.count - 1) / 2
    return (tail, 1.0 - tail) if t > 0 else (1.0 - tail, tail)


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Episode-wise difference ``first - second`` of two runs that share seeds.

    ``p_value`` is that of the paired t test (1 if all differences are 0), ``p_adjusted`` the same
    adjusted for the ``tests`` comparisons that were made at once. ``real`` is True if that is below
    5 %, None if there are fewer than ``MIN_PAIRS`` shared episodes.
    """

    episodes: tuple[int, ...]
    differences: tuple[float, ...]
    difference: Interval
    p_value: float
    real: bool | None
    p_adjusted: float = math.nan
    tests: int = 1

    @property
    def p_text(self) -> str:
        """The p value that decides: ``p = 0.012``, ``adjusted p = 0.036`` if it is adjusted."""
        return f"{'adjusted p' if self.tests > 1 else 'p'} = {self.p_adjusted:.2g}"

    @property
    def detectable(self) -> float:
        """The smallest difference that so many episodes show; see ``smallest_detectable``."""
        return smallest_detectable(self.difference, self.tests)

    @property
    def simultaneous(self) -> Interval:
        """The interval of the difference widened so that all ``tests`` hold together (Bonferroni).

        It is ``difference`` where there is one comparison, or no interval.
        """
        found = self.difference
        if self.tests == 1 or math.isnan(found.deviation):
            return found
        return _around(found.mean, found.deviation, found.count, 1 - (1 - CONFIDENCE) / self.tests)

    @property
    def document(self) -> dict[str, Any]:
        """The comparison as plain values for JSON; None where there is no interval or test.

        ``low`` and ``high`` are the interval of the difference alone, ``simultaneous_low`` and
        ``simultaneous_high`` the one that holds together with those of all ``tests``.
        """
        wide = self.simultaneous
        values = {
            "mean": self.difference.mean,
            "low": self.difference.low,
            "high": self.difference.high,
            "simultaneous_low": wide.low,
            "simultaneous_high": wide.high,
            "p_value": self.p_value,
            "p_adjusted": self.p_adjusted,
            "detectable": self.detectable,
        }
        told = {name: None if math.isnan(value) else value for name, value in values.items()}
        return {**told, "tests": self.tests, "real": self.real}

    @property
    def verdict(self) -> str:
        """The result in words."""
        points = f"{100 * abs(self.difference.mean):.1f} points"
        if not self.real:
            return self.undecided(points, f"{100 * self.detectable:.1f} points")
        better = "better" if self.difference.mean > 0 else "worse"
        return f"{better} by {points} ({self.p_text})"

    def undecided(self, apart: str, shown: str = "") -> str:
        """Return why the difference, whose size is ``apart``, is not shown to be real.

        ``shown`` is the size of the smallest difference that would have been, if it is known.
        """
        if self.real is None:
            return (
                f"{apart} apart, but {len(self.episodes)} shared episodes are too few to tell; "
                f"run at least {MIN_PAIRS}"
            )
        could = ""
        if shown and self.difference.deviation > 0:
            could = f"; {len(self.episodes)} episodes could show {shown} or more"
        return f"no real difference ({apart} apart, {self.p_text}{could})"


def compare(
    first: Mapping[int, float], second: Mapping[int, float], confidence: float = CONFIDENCE
) -> PairedComparison:
    """Compare values by episode over the episodes that both have.

    Raises: ValueError if they share none.
    """
    shared = tuple(sorted(first.keys() & second.keys()))
    if not shared:
        raise ValueError("the runs share no episode")
    differences = tuple(first[episode] - second[episode] for episode in shared)
    interval = mean_interval(differences, confidence)
    if len(shared) < MIN_PAIRS:
        return PairedComparison(shared, differences, interval, math.nan, None)
    if interval.deviation == 0.0:
        # Identical differences: the t statistic is 0/0 or infinite.
        p_value = 1.0 if interval.mean == 0.0 else 0.0
    else:
        error = interval.deviation / math.sqrt(interval.count)
        p_value = student_t.two_sided(interval.mean / error, interval.count - 1)
    real = p_value < 1 - confidence
    return PairedComparison(shared, differences, interval, p_value, real, p_value)


def smallest_detectable(difference: Interval, tests: int = 1) -> float:
    """Return the smallest true difference that a paired t test shows with probability ``POWER``.

    ``(t(1 - a / 2) + t(POWER)) * s / sqrt(n)`` with n - 1 degrees of freedom, where ``s`` is the
    standard deviation of the differences and ``a`` is 5 % divided by the number of ``tests``: a
    usual approximation, on the safe side of Holm's method. NaN with fewer than two values.

    Args:
        difference: the paired difference, whose deviation and count are taken.
        tests: number of comparisons that are made at once.
    """
    if difference.count < 2:
        return math.nan
    degrees = difference.count - 1
    level = (1 - CONFIDENCE) / tests
    reach = student_t.quantile(1 - level / 2, degrees) + student_t.quantile(POWER, degrees)
    return reach * difference.deviation / math.sqrt(difference.count)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number by the step-down method of Holm (1979).

    The smallest of m is multiplied by m, the next by m - 1, and so on; none becomes smaller than
    one before it, nor larger than 1. They are in the order in which they were given.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted = [0.0] * len(p_values)
    least = 0.0
    for before, place in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - before) * p_values[place]))
        adjusted[place] = least
    return adjusted


def corrected(comparisons: Sequence[PairedComparison]) -> list[PairedComparison]:
    """Return comparisons that were made at once, with p values adjusted for their number.

    Those with too few episodes for a test do not count, and stay as they are.
    """
    tested = [each for each in comparisons if each.real is not None]
    adjusted = iter(holm([each.p_value for each in tested]))
    return [
        each
        if each.real is None
        else replace(
            each,
            p_adjusted=(value := next(adjusted)),
            real=value < 1 - CONFIDENCE,
            tests=len(tested),
        )
        for each in comparisons
    ]


def adjustment(comparisons: Iterable[PairedComparison]) -> str:
    """Return how the p values of comparisons were adjusted, as a line; empty if they were not."""
    tests = max((each.tests for each in comparisons), default=1)
    if tests == 1:
        return ""
    return f"adjusted p: the {tests} p values of these comparisons together, by the method of Holm"


def in_per_cent(shares: Sequence[float]) -> list[float]:
    """Return shares of a whole in per cent with one digit, so that they add up to 100.0 as shown.

    The first is rounded as usual; the rounding errors of the others are evened out, each by 0.1 at
    most.

    Raises: ValueError: the shares are no parts of one whole.
    """
    if not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
        raise ValueError(f"shares add up to {sum(shares)}, not to 1")
    first = round(1000 * shares[0])
    exact = [1000 * share for share in shares[1:]]
    tenths = [math.floor(each + 1e-9) for each in exact]
    short = 1000 - first - sum(tenths)
    by_rest = sorted(range(len(exact)), key=lambda place: tenths[place] - exact[place])
    for place in by_rest[: max(0, short)]:
        tenths[place] += 1
    return [each / 10 for each in (first, *tenths)]
