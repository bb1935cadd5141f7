"""Intervals and paired comparisons of values by episode, usually success rates.

The unit of observation is the episode: tasks of one episode share queues and are not independent,
so an interval over single tasks would be too narrow. Runs that share seeds have the same arrivals
and fates episode by episode, so their difference is taken per episode, which removes most of the
noise (common random numbers).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Final

from testbed.experiment import student_t

CONFIDENCE: Final = 0.95
MIN_PAIRS: Final = 4
"""Fewer shared episodes than this decide nothing: no test over them can reach the confidence."""


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
    deviation = stdev(values)
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


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Episode-wise difference ``first - second`` of two runs that share seeds.

    ``p_value`` is that of the paired t test (1 if all differences are 0); ``real`` is True if the
    interval excludes 0, None if there are fewer than ``MIN_PAIRS`` shared episodes.
    """

    episodes: tuple[int, ...]
    differences: tuple[float, ...]
    difference: Interval
    p_value: float
    real: bool | None

    @property
    def verdict(self) -> str:
        """The result in words."""
        points = f"{100 * abs(self.difference.mean):.1f} points"
        if not self.real:
            return self.undecided(points)
        better = "better" if self.difference.mean > 0 else "worse"
        return f"{better} by {points} (p = {self.p_value:.2g})"

    def undecided(self, apart: str) -> str:
        """Return why the difference, whose size is ``apart``, is not shown to be real."""
        if self.real is None:
            return (
                f"{apart} apart, but {len(self.episodes)} shared episodes are too few to tell; "
                f"run at least {MIN_PAIRS}"
            )
        return f"no real difference ({apart} apart, p = {self.p_value:.2g})"


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
    return PairedComparison(shared, differences, interval, p_value, p_value < 1 - confidence)
