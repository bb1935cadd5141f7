"""Statements that results can bear out or contradict, and the verdicts on them.

A claim is a number of comparisons, each of which should be above minus its margin; where lower
values of the scenario's objective are better, they are turned round. It *agrees* if every
comparison is significantly above, *differs* if one is significantly below, and is *undecided*
otherwise. Where comparisons are missing, it *agrees so far* at best. Significance is corrected for
how many chances there are to be wrong:

* A claim agrees only if all of its comparisons do, so its p value is the largest of theirs, which
  needs no correction (intersection-union test). It differs if any one does, so the smallest of
  theirs is multiplied by their number.
* Of the claims of a figure, which are judged together, the p values are corrected by Holm's method.

The intervals that are shown are those of single comparisons, 95 %, uncorrected.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias

from testbed.experiment.metrics import SUCCESS_RATE, Metric
from testbed.experiment.reproduce.methods import O2O, OFFLINE, label
from testbed.experiment.reproduce.points import PointResult, none_or
from testbed.experiment.reproduce.setting import Setting
from testbed.experiment.statistics import CONFIDENCE, Interval, chance_of, holm

Verdict: TypeAlias = Literal["agrees", "agrees so far", "differs", "undecided", "not run"]

At: TypeAlias = tuple[str, str]
"""A setting by its x, and a method."""


class Measurements(Protocol):
    """Condition of a claim on the results of a figure."""

    @property
    def settings(self) -> tuple[Setting, ...]: ...

    @property
    def objective(self) -> Metric: ...

    @property
    def xs(self) -> tuple[str, ...]: ...

    @property
    def measured(self) -> Mapping[At, Mapping[int, PointResult]]: ...

    def rate(self, x: str, method: str) -> Interval | None: ...

    def difference(self, first: At, second: At) -> Interval | None: ...

    def fall(self, method: str, beyond: str | None = None) -> Interval | None: ...


_SHOWN: Final = 3
"""Comparisons that a verdict names at most."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One comparison of a claim, in the unit of ``metric``: positive is as claimed.

    Shares are from 0 to 1. What is ``only_against`` a claim need not be above for it to agree, but
    makes it differ where it is below. A ``fact`` happened on these networks and is not estimated.
    """

    what: str
    value: Interval
    metric: Metric = SUCCESS_RATE
    only_against: bool = False

    @property
    def fact(self) -> bool:
        """Whether there is nothing uncertain in it."""
        return math.isnan(self.value.deviation) and self.value.low == self.value.high

    def __str__(self) -> str:
        value = self.value
        unit = "points" if self.metric.is_share else self.metric.unit
        text = f"{self.what}: {self._shown(value.mean)} {unit}"
        if math.isnan(value.low) or value.low == value.high:
            return text
        return f"{text} ({self._shown(value.low)} to {self._shown(value.high)})"

    def _shown(self, value: float) -> str:
        digits = 1 if self.metric.is_share else self.metric.digits
        return f"{self.metric.scale * value:+.{digits}f}"


Found: TypeAlias = Cell | str
"""A comparison, or what it would be of where points are missing."""
Cells: TypeAlias = "Callable[[Measurements], list[Found]]"


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """A claim held against results.

    ``p_value`` is that of the verdict, corrected for the ``among`` claims that were judged together
    and are uncertain; NaN where nothing is.
    """

    claim: Claim
    verdict: Verdict
    cells: tuple[Cell, ...]
    missing: tuple[str, ...] = ()
    """Comparisons that could not be made: points they need are not there."""
    p_value: float = math.nan
    among: int = 1

    @property
    def sentence(self) -> str:
        """Return the finding with the comparisons that matter most."""
        if self.cells and self.missing:
            return f"{self._found} Not computed: {len(self.missing)} more."
        return self._found

    @property
    def _found(self) -> str:
        if not self.cells:
            return "The points that would decide it have not been computed."
        ordered = sorted(self.cells, key=lambda cell: cell.value.mean)
        needed = [cell for cell in ordered if not cell.only_against]
        count, margin = len(needed), self.claim.margin
        wrong = [cell for cell in ordered if _verdict(cell, margin) == "differs"]
        open_ = [cell for cell in needed if _verdict(cell, margin) == "undecided"]
        parts = []
        if count == 1 and len(ordered) == 1:
            parts.append(f"{ordered[0]}.")
        elif needed and not open_ and not any(cell in needed for cell in wrong):
            parts.append(f"In all {count}; least {needed[0]}." if count > 1 else f"{needed[0]}.")
        if wrong and len(ordered) > 1:
            parts.append(f"Not in {len(wrong)} of {len(ordered)}: {_named(wrong)}.")
        if open_ and len(ordered) > 1:
            parts.append(f"Not told apart in {len(open_)} of {count}: {_named(open_)}.")
        alone_undecided = bool(open_) and not wrong
        if self.verdict == "undecided" and not alone_undecided:
            p_value = f"(p = {self.p_value:.2g})"
            parts.append(f"Not significant with the correction for many comparisons {p_value}.")
        return " ".join(parts)

    @property
    def document(self) -> dict[str, Any]:
        """The finding as plain values for JSON."""
        return {
            "claim": self.claim.text,
            "source": self.claim.source,
            "verdict": self.verdict,
            "p_value": none_or(self.p_value),
            "claims_judged_together": self.among,
            "found": self.sentence,
            "comparisons": [
                {
                    "what": cell.what,
                    "difference": cell.value.mean,
                    "low": none_or(cell.value.low),
                    "high": none_or(cell.value.high),
                    "verdict": _verdict(cell, self.claim.margin),
                    "only_against": cell.only_against,
                }
                for cell in self.cells
            ],
            "not_computed": list(self.missing),
        }


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement with the comparisons that decide it.

    ``margin`` is how far below 0 a comparison may be and still be as claimed. ``source`` says who
    claims it: the paper, or this toolkit.
    """

    text: str
    cells: Cells
    margin: float = 0.0
    source: Literal["paper", "ours"] = "paper"

    def judge(self, results: Measurements) -> ClaimResult:
        """Hold the claim, and no other, against what was measured."""
        (found,) = judge([self], results)
        return found


class _Compared(NamedTuple):
    """A claim with its comparisons, before it is known how many claims there are."""

    claim: Claim
    cells: tuple[Cell, ...]
    missing: tuple[str, ...]

    @property
    def certain(self) -> bool:
        return all(cell.fact for cell in self.cells)

    @property
    def chances(self) -> tuple[float, float]:
        """Return the two-sided p values of "it agrees" and of "it differs"."""
        each = [(cell, *_chances(cell, self.claim.margin)) for cell in self.cells]
        needed = [above for cell, above, _ in each if not cell.only_against]
        estimated = sum(not cell.fact for cell in self.cells)
        agrees = 2 * max(needed, default=1.0)
        differs = 2 * max(1, estimated) * min(below for *_, below in each)
        return min(1.0, agrees), min(1.0, differs)


def judge(claims: Sequence[Claim], results: Measurements) -> list[ClaimResult]:
    """Hold claims that are made together against what was measured; see the module."""
    compared = []
    for claim in claims:
        found = claim.cells(results)
        cells = tuple(each for each in found if isinstance(each, Cell))
        compared.append(_Compared(claim, cells, tuple(e for e in found if isinstance(e, str))))
    tested = [each for each in compared if not each.certain]
    adjusted = iter(holm([min(each.chances) for each in tested]))
    judged = []
    for each in compared:
        p_value = math.nan if each.certain else next(adjusted)
        verdict = _verdict_of(each, p_value, len(tested))
        judged.append(
            ClaimResult(each.claim, verdict, each.cells, each.missing, p_value, len(tested))
        )
    return judged


def _verdict_of(compared: _Compared, p_value: float, among: int) -> Verdict:
    if not compared.cells:
        return "not run"
    agrees, differs = compared.chances
    complete: Verdict = "agrees so far" if compared.missing else "agrees"
    if compared.certain:
        return "differs" if differs < agrees else complete
    level = 1 - CONFIDENCE
    # Where much speaks for a claim, one comparison that contradicts it still does.
    if among * differs < level or (p_value < level and differs < agrees):
        return "differs"
    return complete if p_value < level else "undecided"


def _chances(cell: Cell, margin: float) -> tuple[float, float]:
    """Return the one-sided p values of "it is as claimed", and of "it is not"."""
    if cell.fact:
        return (0.0, 1.0) if cell.value.mean > -margin else (1.0, 0.0)
    above, below = chance_of(cell.value, -margin)
    if cell.only_against and cell.value.mean > -margin - _ROUNDING:
        below = 1.0
    return above, below


_ROUNDING: Final = 1e-9
"""Largest difference of sums of equal numbers: values that do not change contradict nothing."""


def above(first: str, *others: str, at: Sequence[str] | None = None) -> Cells:
    """``first`` better than each of ``others`` at every setting, or at those named.

    Among others, ``source`` is the heuristic whose logs were learned from at that setting.
    """

    def cells(results: Measurements) -> list[Found]:
        return _cells(
            results,
            [
                (
                    f"at {setting.x}, over {label(second)}",
                    results.difference((setting.x, first), (setting.x, second)),
                )
                for setting in results.settings
                if at is None or setting.x in at
                for second in (setting.source if other == "source" else other for other in others)
            ],
        )

    return cells


def falls(*methods: str) -> Cells:
    """Check over all settings that each method gets worse from the first to the last.

    The line through all settings has to fall, and no step from one setting to the next may rise.
    """

    def cells(results: Measurements) -> list[Found]:
        if len(results.xs) < 2:
            return []
        lines = [
            (
                f"{label(method)}, line through {len(results.xs)} settings, "
                f"{results.xs[0]} to {results.xs[-1]}",
                results.fall(method),
            )
            for method in methods
        ]
        steps = [
            (
                f"{label(method)} from {first} to {second}",
                results.difference((first, method), (second, method)),
            )
            for method in methods
            for first, second in pairwise(results.xs)
        ]
        against = [
            replace(each, only_against=True)
            for each in _cells(results, steps)
            if isinstance(each, Cell)
        ]
        return [*_cells(results, lines), *against]

    return cells


def falls_more(first: str, second: str) -> Cells:
    """Check that the line through all settings falls more for ``first`` than for ``second``."""

    def cells(results: Measurements) -> list[Found]:
        if len(results.xs) < 2:
            return []
        what = f"fall of {label(first)} beyond that of {label(second)}"
        return _cells(results, [(what, results.fall(first, second))])

    return cells


def source_above(method: str, best: str, others: Sequence[str]) -> Cells:
    """``method`` learned from the logs of ``best`` above the same learned from others' logs."""

    def cells(results: Measurements) -> list[Found]:
        return _cells(
            results,
            [
                (
                    f"over logs of {label(other)}",
                    results.difference((best, method), (other, method)),
                )
                for other in others
            ],
        )

    return cells


def curve_never_below(reference: str, share: float = 1.0) -> Cells:
    """Compare the lowest evaluation in the first ``share`` of fine-tuning with ``reference``.

    The evaluation before the first update is of the offline policy: it is not held against itself.
    """

    def cells(results: Measurements) -> list[Found]:
        return [
            _fact(f"lowest evaluation on network {seed}", min(rates) - level)
            for seed, rates, level in _curves(results, reference, share)
        ]

    return cells


def _curves(
    results: Measurements, reference: str, share: float
) -> list[tuple[int, list[float], float]]:
    found = []
    for x in results.xs:
        for seed, measured in sorted(results.measured.get((x, O2O), {}).items()):
            if not measured.curve or reference not in measured.references:
                continue
            until = share * measured.curve[-1].episodes
            rates = [
                rate
                for episodes, rate in measured.evaluations.items()
                if episodes <= until and (episodes > 0 or reference != OFFLINE)
            ]
            if rates:
                found.append((seed, rates, measured.references[reference]))
    return found


def _fact(what: str, value: float) -> Cell:
    """Something that happened, and is not estimated."""
    return Cell(what, Interval(1, value, value, value, math.nan))


def _turned(results: Measurements, value: Interval) -> Interval:
    """Return a value of the objective, or a difference, so that a better one is above."""
    if results.objective.better != "lower":
        return value
    return replace(value, mean=-value.mean, low=-value.high, high=-value.low)


def _cells(results: Measurements, found: Iterable[tuple[str, Interval | None]]) -> list[Found]:
    return [
        what if value is None else Cell(what, _turned(results, value), results.objective)
        for what, value in found
    ]


def _verdict(cell: Cell, margin: float) -> Verdict:
    if cell.value.low > -margin:
        return "agrees"
    flat = cell.only_against and cell.value.mean > -margin - _ROUNDING
    return "differs" if cell.value.high <= -margin and not flat else "undecided"


def _named(cells: Sequence[Cell]) -> str:
    shown = "; ".join(map(str, cells[:_SHOWN]))
    return f"{shown}; ..." if len(cells) > _SHOWN else shown
