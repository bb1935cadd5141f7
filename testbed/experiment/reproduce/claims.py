"""Statements that results can bear out or contradict, and the verdicts on them.

A claim is a number of comparisons, each of which should be above minus its margin; where lower
values of the scenario's objective are better, they are turned round. It *agrees* if every interval
is above, *differs* if one is wholly below, and is *undecided* otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol, TypeAlias

from testbed.experiment.metrics import SUCCESS_RATE, Metric
from testbed.experiment.reproduce.methods import O2O, label
from testbed.experiment.reproduce.points import PointResult, none_or
from testbed.experiment.reproduce.setting import Setting
from testbed.experiment.statistics import Interval

Verdict: TypeAlias = Literal["agrees", "differs", "undecided", "not run"]

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

    def double_difference(self, first: tuple[At, At], second: tuple[At, At]) -> Interval | None: ...


_SHOWN: Final = 3
"""Comparisons that a verdict names at most."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One comparison of a claim, in the unit of ``metric``: positive is as claimed.

    Shares are from 0 to 1.
    """

    what: str
    value: Interval
    metric: Metric = SUCCESS_RATE

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
    """A claim held against results."""

    claim: Claim
    verdict: Verdict
    cells: tuple[Cell, ...]
    missing: tuple[str, ...] = ()
    """Comparisons that could not be made: points they need are not there."""

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
        count = len(ordered)
        if self.verdict == "agrees":
            return f"{ordered[0]}." if count == 1 else f"In all {count}; least {ordered[0]}."
        margin = self.claim.margin
        wrong = [cell for cell in ordered if _verdict(cell, margin) == "differs"]
        open_ = [cell for cell in ordered if _verdict(cell, margin) == "undecided"]
        if count == 1:
            return f"{ordered[0]}."
        parts = []
        if wrong:
            parts.append(f"Not in {len(wrong)} of {count}: {_named(wrong)}.")
        if open_:
            parts.append(f"Not told apart in {len(open_)} of {count}: {_named(open_)}.")
        return " ".join(parts)

    @property
    def document(self) -> dict[str, Any]:
        """The finding as plain values for JSON."""
        return {
            "claim": self.claim.text,
            "source": self.claim.source,
            "verdict": self.verdict,
            "found": self.sentence,
            "comparisons": [
                {
                    "what": cell.what,
                    "difference": cell.value.mean,
                    "low": none_or(cell.value.low),
                    "high": none_or(cell.value.high),
                    "verdict": _verdict(cell, self.claim.margin),
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
        """Hold the claim against what was measured."""
        found = self.cells(results)
        cells = tuple(each for each in found if isinstance(each, Cell))
        missing = tuple(each for each in found if isinstance(each, str))
        verdicts = {_verdict(cell, self.margin) for cell in cells}
        verdict: Verdict = "not run"
        for each in ("differs", "undecided", "agrees"):
            if each in verdicts:
                verdict = each
                break
        return ClaimResult(self, verdict, cells, missing)


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


def above_best(first: str, among: Sequence[str]) -> Cells:
    """``first`` better than the best of ``among``, at every setting."""

    def cells(results: Measurements) -> list[Found]:
        found = []
        for x in results.xs:
            rates = {name: rate for name in among if (rate := results.rate(x, name)) is not None}
            if rates:
                best = max(rates, key=lambda name: _turned(results, rates[name]).mean)
                what = f"at {x}, over {label(best)}"
                found.append((what, results.difference((x, first), (x, best))))
        return _cells(results, found)

    return cells


def falls(*methods: str) -> Cells:
    """Check that each method is better at the first setting than at the last."""

    def cells(results: Measurements) -> list[Found]:
        first, last = results.xs[0], results.xs[-1]
        return _cells(
            results,
            [
                (
                    f"{label(method)} from {first} to {last}",
                    results.difference((first, method), (last, method)),
                )
                for method in methods
                if first != last
            ],
        )

    return cells


def falls_more(first: str, second: str) -> Cells:
    """``first`` loses more between the first and the last setting than ``second``."""

    def cells(results: Measurements) -> list[Found]:
        low, high = results.xs[0], results.xs[-1]
        if low == high:
            return []
        more = results.double_difference(
            ((low, first), (high, first)), ((low, second), (high, second))
        )
        return _cells(results, [(f"fall of {label(first)} beyond that of {label(second)}", more)])

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


def starts_where_offline_ended() -> Cells:
    """Return the first point of the online curve against the offline policy, same episodes."""

    def cells(results: Measurements) -> list[Found]:
        return [
            _fact(f"network {seed}", -abs(rates[0] - reference))
            for seed, rates, reference in _curves(results, "offline", 1.0)
        ]

    return cells


def curve_never_below(reference: str, share: float = 1.0) -> Cells:
    """Compare the lowest evaluation in the first ``share`` of fine-tuning with ``reference``."""

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
                point.evaluation
                for point in measured.curve
                if point.evaluation is not None and point.episodes <= until
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
    if cell.value.high <= -margin:
        return "differs"
    return "undecided"


def _named(cells: Sequence[Cell]) -> str:
    shown = "; ".join(map(str, cells[:_SHOWN]))
    return f"{shown}; ..." if len(cells) > _SHOWN else shown
