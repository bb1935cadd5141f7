"""Schedulers on a scenario whose values are varied: one table and one figure.

Points are computed and stored as those of ``reproduce``: in parallel, in the compiled engine where
it can, and what is stored is not computed again. All schedulers meet the same tasks or requests and
the same fates. They are scored by the objective of the scenario.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from testbed.errors import Problem, UsageError
from testbed.experiment.colours import colour
from testbed.experiment.figures import as_files, plain
from testbed.experiment.metrics import Metric, objective
from testbed.experiment.reproduce.page import Workplace
from testbed.experiment.reproduce.points import Network, Point, PointResult, PointStore, write_text
from testbed.experiment.statistics import Interval, PairedComparison, compare, corrected
from testbed.files import ORDINARY, write_atomically
from testbed.scenario.families import ByModel
from testbed.scenario.load import draw, load
from testbed.scenario.plan import SERVING, TASKS, PlanHead, SchedulerSpec
from testbed.schedulers import registry
from testbed.schedulers.catalogue import METHODS, SIMULATOR_ONLY
from testbed.sim.play import PER_DESTINATION

MARKER: Final = "sweep.json"
"""In the folder of a sweep."""
DRL: Final = "drl"
"""Stands for the policy that ships with the package, which the compiled engine plays."""
MOST: Final = 10_000
"""Points of a sweep."""


class Usual(NamedTuple):
    """What is played where nothing is asked for: schedulers, and how many episodes."""

    schedulers: tuple[str, ...]
    episodes: int


_USUAL: Final[ByModel[Callable[[PlanHead], Usual]]] = ByModel(
    "a sweep",
    {
        TASKS: lambda plan: Usual(("ratc", DRL), 40),
        # Where no message is lost, all episodes are alike: the scenario knows how many it needs.
        SERVING: lambda plan: Usual(("slack", "all-local"), plan.episodes),
    },
)


def usual(scenario: str, settings: Sequence[str]) -> Usual:
    """Return what is played of a scenario by itself. Raises: UsageError: it cannot be loaded."""
    plan = draw(load(scenario, settings))
    return _USUAL.of(plan)(plan)


@dataclass(frozen=True)
class Sweep:
    """What is varied: ``over`` has the values of each key, as they are written in ``--set``.

    Every combination of values is played by every scheduler, ``episodes`` episodes from number 0
    on. The first scheduler is the one that others are compared with. ``specs`` has those that are
    written with options.
    """

    scenario: str
    settings: tuple[str, ...]
    over: Mapping[str, tuple[str, ...]]
    schedulers: tuple[str, ...]
    episodes: int
    specs: Mapping[str, SchedulerSpec] = field(default_factory=dict)

    @property
    def places(self) -> list[tuple[str, ...]]:
        """The combinations of values, the last key varied fastest."""
        return list(itertools.product(*self.over.values()))

    def point(self, place: tuple[str, ...], scheduler: str) -> Point:
        """Return the point of a scheduler at a combination of values."""
        spec = self._spec(scheduler)
        method = PER_DESTINATION if spec.name == DRL else spec.name
        options = tuple(sorted(spec.options.items()))
        return Point(self._network(place), method, self.episodes, options=options)

    def _spec(self, scheduler: str) -> SchedulerSpec:
        return self.specs.get(scheduler) or SchedulerSpec(scheduler)

    def _network(self, place: tuple[str, ...]) -> Network:
        changed = (f"{key}={value}" for key, value in zip(self.over, place, strict=True))
        return Network(self.scenario, (*self.settings, *changed), None, delayed=True)

    @cached_property
    def plan(self) -> PlanHead:
        """The plan at the first combination of values.

        Raises: UsageError: it cannot be drawn.
        """
        return self._network(self.places[0]).head()

    @cached_property
    def objective(self) -> Metric:
        """The metric that all are scored by. Raises: UsageError: it is unknown."""
        return objective(self.plan)

    def points(self) -> list[Point]:
        """Return all points, after every combination of values was checked.

        Raises: UsageError: nothing is varied, too much is, or a value cannot be; a scheduler or
        option is unknown.
        """
        count = len(self.places) * len(self.schedulers)
        if not self.over or count > MOST:
            seen = f"{count} points" if self.over else "nothing"
            raise UsageError(
                "this sweep cannot be made",
                [Problem("--over", seen, f"KEY=VALUE,VALUE,... and at most {MOST} points")],
            )
        plans = [self._network(place).head() for place in self.places]
        self._check_schedulers()
        by = list(dict.fromkeys(plan.objective for plan in plans))
        if len(by) > 1:
            allowed = f"one for the whole sweep, as in --set objective={by[0]}"
            raise UsageError(
                "scores by several objectives cannot be compared",
                [Problem("objective", ", ".join(by), allowed)],
            )
        # An unknown one is told now, not after everything is played.
        objective(plans[0])
        return [self.point(place, name) for place in self.places for name in self.schedulers]

    def _check_schedulers(self) -> None:
        hook = self.plan.hook
        for spec in map(self._spec, self.schedulers):
            simulated = spec.name in SIMULATOR_ONLY and METHODS[spec.name].hook == hook
            if not simulated:
                registry.check(spec.name, spec.options, hook)
            if spec.options and (simulated or spec.name == DRL):
                seen = ", ".join(spec.options)
                raise UsageError(
                    f"in a sweep, {spec.name} has no options",
                    [Problem(f"--scheduler {spec.name}", seen, "leave them out")],
                )


@dataclass(frozen=True, slots=True)
class Cell:
    """A scheduler at a combination of values: its score, and that less the first scheduler's.

    ``gain`` is None of the first scheduler, and where the two share no episode. It is above 0 where
    the scheduler has more of the objective, which is worse if lower values are better. Its p value
    is adjusted for the number of gains of the sweep.
    """

    place: tuple[str, ...]
    scheduler: str
    rate: Interval
    gain: PairedComparison | None


def workplace(out: Path) -> Workplace:
    """Return the folder of a sweep; see ``Workplace.claim``."""
    return Workplace(out, MARKER, "sweep")


def cells(sweep: Sweep, store: PointStore) -> list[Cell]:
    """Return what is stored of ``sweep``, in the order of places and schedulers."""
    found: list[Cell] = []
    for place in sweep.places:
        reference: dict[int, float] = {}
        for number, scheduler in enumerate(sweep.schedulers):
            measured = store.get(sweep.point(place, scheduler))
            if measured is None:
                continue
            rates = _by_episode(measured)
            if number == 0:
                reference = rates
            shared = number > 0 and rates.keys() & reference.keys()
            gain = compare(rates, reference) if shared else None
            found.append(Cell(place, scheduler, sweep.objective.interval([*rates.values()]), gain))
    adjusted = iter(corrected(gains(found)))
    return [each if each.gain is None else replace(each, gain=next(adjusted)) for each in found]


def gains(found: Sequence[Cell]) -> list[PairedComparison]:
    """Return the comparisons of a sweep with its first scheduler."""
    return [cell.gain for cell in found if cell.gain is not None]


def _by_episode(measured: PointResult) -> dict[int, float]:
    """Return the scores of the episodes that have one."""
    return {n: rate for n, rate in enumerate(measured.rates) if not math.isnan(rate)}


def table(sweep: Sweep, found: Sequence[Cell]) -> pd.DataFrame:
    """Return a row for each scheduler and combination of values; rates are shares."""
    scored = _column(sweep.objective)
    return pd.DataFrame(
        [
            {
                **dict(zip(sweep.over, cell.place, strict=True)),
                "scheduler": cell.scheduler,
                "episodes": cell.rate.count,
                scored: cell.rate.mean,
                "low": cell.rate.low,
                "high": cell.rate.high,
                f"above {sweep.schedulers[0]}": cell.gain and cell.gain.difference.mean,
                "above, low": cell.gain and cell.gain.difference.low,
                "above, high": cell.gain and cell.gain.difference.high,
                "above, simultaneous low": cell.gain and cell.gain.simultaneous.low,
                "above, simultaneous high": cell.gain and cell.gain.simultaneous.high,
                "p": cell.gain and cell.gain.p_value,
                "adjusted p": cell.gain and cell.gain.p_adjusted,
                "significant": cell.gain and cell.gain.real,
            }
            for cell in found
        ]
    )


def _column(metric: Metric) -> str:
    return metric.name.replace("-", " ")


def drawn(sweep: Sweep, found: Sequence[Cell]) -> Figure:
    """Return the scores, and the gains over the first scheduler, over what is varied."""
    metric, first = sweep.objective, sweep.schedulers[0]
    figure = Figure(figsize=(11.0, 4.4), layout="constrained", dpi=120)
    rates, above = figure.subplots(1, 2)
    labels = [", ".join(place) for place in sweep.places]
    places = {place: number for number, place in enumerate(sweep.places)}
    for number, scheduler in enumerate(sweep.schedulers):
        # Side by side, so that intervals do not cover each other.
        shift = (number - (len(sweep.schedulers) - 1) / 2) * 0.04
        own = [cell for cell in found if cell.scheduler == scheduler]
        gained = [(cell.place, cell.gain) for cell in own if cell.gain is not None]
        for place, gain in gained:
            # Behind the interval of the gain alone, the one that holds with all the others.
            ends = [metric.scale * end for end in (gain.simultaneous.low, gain.simultaneous.high)]
            above.plot([places[place] + shift] * 2, ends, color=colour(number), linewidth=0.8)
        for axes, shown in (
            (rates, [(cell.place, cell.rate) for cell in own]),
            (above, [(place, gain.difference) for place, gain in gained]),
        ):
            if shown:
                axes.errorbar(
                    [places[place] + shift for place, _ in shown],
                    [metric.scale * value.mean for _, value in shown],
                    yerr=[
                        [metric.scale * value.arms[side] for _, value in shown] for side in (0, 1)
                    ],
                    color=colour(number),
                    marker="o",
                    markersize=5,
                    capsize=2,
                    label=scheduler,
                )
    above.axhline(0, color=colour(0), linewidth=1.5, zorder=1)
    for axes, y_label in (
        (rates, f"{_column(metric)}, {metric.unit}{_DIRECTIONS[metric.better]}"),
        (
            above,
            f"{'points' if metric.is_share else metric.unit} above {first}, "
            f"same {sweep.plan.work} and fates",
        ),
    ):
        plain(axes)
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlabel(", ".join(sweep.over))
        axes.set_ylabel(y_label)
    rates.legend(frameon=False)
    rates.set_title("Mean and 95 % interval over episodes", fontsize=10, loc="left")
    if (tests := max((each.tests for each in gains(found)), default=1)) > 1:
        above.set_title(f"Thin lines: all {tests} together with 95 %", fontsize=10, loc="left")
    return figure


_DIRECTIONS: Final[Mapping[str | None, str]] = {
    # The usual one, which needs no word.
    "higher": "",
    "lower": " (lower is better)",
    None: "",
}


def write(sweep: Sweep, place: Workplace) -> tuple[list[Cell], dict[str, Any]]:
    """Write table, figure and document of what is stored; return the cells and the document.

    Raises: PermanentError: the folder cannot be written.
    """
    found = cells(sweep, place.store)
    rows = table(sweep, found)
    document = {
        "sweep": 1,
        "scenario": sweep.scenario,
        "settings": list(sweep.settings),
        "over": {key: list(values) for key, values in sweep.over.items()},
        "schedulers": list(sweep.schedulers),
        "episodes": sweep.episodes,
        "objective": sweep.objective.document,
        "rows": json.loads(rows.to_json(orient="records")),
    }
    write_text(place.out / MARKER, json.dumps(document, indent=2) + "\n")
    write_text(place.out / "sweep.csv", rows.to_csv(index=False))
    for suffix, content in as_files(drawn(sweep, found))._asdict().items():
        write_atomically(place.out / f"sweep.{suffix}", content, ORDINARY)
    return found, document
