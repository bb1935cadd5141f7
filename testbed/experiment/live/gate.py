"""The gate before a policy: is it worse than the one it would replace, beyond noise?

Both run the same episodes (common random numbers). The candidate runs them a few at a time, and
after each part its differences are tested: one that is clearly worse is refused after a few
episodes. The error probability is shared by all looks (Bonferroni), so looking often does not make
a refusal of an equal policy more likely.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from testbed.experiment.statistics import MIN_PAIRS, chance_of, mean_interval

ERROR: Final = 0.05
"""Probability with which a policy that is equal to the one before it is refused, at most."""

TOLERANCE: Final = 0.01
"""Success rate that a policy may be below the one before it at the end of its gate, whatever the
noise: what is not shown to be worse is not shown to be as good either."""

Rates: TypeAlias = Mapping[int, float]
"""Success rate by episode number; an episode without a task is left out."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a gate.

    ``difference`` is the mean of candidate less reference over ``episodes`` paired ones, ``low``
    and ``high`` its 95 % interval (NaN with fewer than two), ``p_worse`` the one-sided p value of
    "the candidate is worse", and ``reference`` names what it was refused by, or else the policy it
    would replace. ``looks`` counts the tests.
    """

    accepted: bool
    reference: str
    episodes: int
    difference: float
    low: float
    high: float
    p_worse: float
    looks: int

    def document(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "accepted": self.accepted,
            "reference": self.reference,
            "episodes": self.episodes,
            "difference": _known(self.difference),
            "low": _known(self.low),
            "high": _known(self.high),
            "p_worse": _known(self.p_worse),
            "looks": self.looks,
        }


def parts(episodes: int, at_once: int) -> list[int]:
    """Return the sizes of the parts that a gate of ``episodes`` is run in.

    None is smaller than ``MIN_PAIRS``, below which no test says anything.
    """
    count = max(1, episodes // max(at_once, MIN_PAIRS))
    whole, more = divmod(episodes, count)
    return [whole + (index < more) for index in range(count)]


def tested(
    run: Callable[[int, int], Rates],
    references: Mapping[str, Rates],
    first: int,
    sizes: Sequence[int],
    again: Callable[[str, int, int], Rates] | None,
) -> tuple[Verdict, Rates]:
    """Run the candidate in parts; return the verdict, and its success rates.

    Args:
        run: Runs the candidate for a number of episodes from a first one on.
        references: What it must not be worse than: first the policy it would replace.
        first: Number of the first episode.
        sizes: Sizes of the parts (``parts``).
        again: Runs a reference anew in the episodes that the candidate has run, before the
            candidate is refused by it; None: what is known of it counts.
    """
    found: dict[int, float] = {}
    known = {name: dict(rates) for name, rates in references.items()}
    verdict: Verdict | None = None
    for look, (start, size) in enumerate(_spans(first, sizes), 1):
        found |= run(start, size)
        test = _Test(look, ERROR / len(sizes), last=look == len(sizes))
        verdict = test.judged(found, known)
        if not verdict.accepted and again is not None:
            # What was measured before may have been measured under other conditions.
            known[verdict.reference] |= again(verdict.reference, first, start + size - first)
            verdict = test.judged(found, known)
        if not verdict.accepted:
            break
    assert verdict is not None, "a gate has at least one part"
    return verdict, found


def _spans(first: int, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    for size in sizes:
        yield first, size
        first += size


@dataclass(frozen=True, slots=True)
class _Test:
    """One look: its number, its share of the error probability, and whether it is the last."""

    look: int
    error: float
    last: bool

    def judged(self, found: Rates, known: Mapping[str, Rates]) -> Verdict:
        """Return the verdict of the first reference that refuses, else of the first one."""
        verdicts = [
            self._compared(name, found, rates, TOLERANCE if index == 0 else math.inf)
            for index, (name, rates) in enumerate(known.items())
        ]
        return next((each for each in verdicts if not each.accepted), verdicts[0])

    def _compared(self, name: str, candidate: Rates, reference: Rates, tolerance: float) -> Verdict:
        """Return the verdict by the episodes that both have."""
        shared = sorted(candidate.keys() & reference.keys())
        differences = [candidate[each] - reference[each] for each in shared]
        if not differences:
            return Verdict(True, name, 0, math.nan, math.nan, math.nan, math.nan, self.look)
        interval = mean_interval(differences)
        # Equal in every episode is not worse; the test does not know that.
        equal = interval.deviation == 0.0 and interval.mean == 0.0
        p_worse = 1.0 if equal else chance_of(interval)[1]
        worse = len(differences) >= MIN_PAIRS and p_worse < self.error
        below = self.last and interval.mean < -tolerance
        return Verdict(
            not (worse or below),
            name,
            len(differences),
            interval.mean,
            interval.low,
            interval.high,
            p_worse,
            self.look,
        )


def _known(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
