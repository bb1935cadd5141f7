"""Schedulers on a scenario whose values are varied: one table and one figure.

Points are computed and stored as those of ``reproduce``: in parallel, in the compiled engine where
it can, and what is stored is not computed again. All schedulers meet the same tasks and fates.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
from matplotlib.figure import Figure

from testbed.errors import Problem, UsageError
from testbed.experiment.figures import as_files, colour, plain
from testbed.experiment.reproduce.page import Workplace
from testbed.experiment.reproduce.points import Network, Point, PointResult, PointStore, write_text
from testbed.experiment.statistics import Interval, PairedComparison, compare, rate_interval
from testbed.files import ORDINARY, write_atomically
from testbed.sim.play import PER_DESTINATION

MARKER: Final = "sweep.json"
"""In the folder of a sweep."""
DRL: Final = "drl"
"""Stands for the policy that ships with the package, which the compiled engine plays."""
MOST: Final = 10_000
"""Points of a sweep."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What is varied: ``over`` has the values of each key, as they are written in ``--set``.

    Every combination of values is played by every scheduler, ``episodes`` episodes from number 0
    on. The first scheduler is the one that others are compared with.
    """

    scenario: str
    settings: tuple[str, ...]
    over: Mapping[str, tuple[str, ...]]
    schedulers: tuple[str, ...]
    episodes: int

    @property
    def places(self) -> list[tuple[str, ...]]:
        """The combinations of values, the last key varied fastest."""
        return list(itertools.product(*self.over.values()))

    def point(self, place: tuple[str, ...], scheduler: str) -> Point:
        """Return the point of a scheduler at a combination of values."""
        changed = (f"{key}={value}" for key, value in zip(self.over, place, strict=True))
        network = Network(self.scenario, (*self.settings, *changed), None, delayed=True)
        method = PER_DESTINATION if scheduler == DRL else scheduler
        return Point(network, method, self.episodes)

    def points(self) -> list[Point]:
        """Return all points, after every combination of values was checked.

        Raises: UsageError: nothing is varied, too much is, or a value cannot be.
        """
        count = len(self.places) * len(self.schedulers)
        if not self.over or count > MOST:
            seen = f"{count} points" if self.over else "nothing"
            raise UsageError(
                "this sweep cannot be made",
                [Problem("--over", seen, f"KEY=VALUE,VALUE,... and at most {MOST} points")],
            )
        found = [self.point(place, name) for place in self.places for name in self.schedulers]
        for point in found:
            point.network.plan()
        return found


@dataclass(frozen=True, slots=True)
class Cell:
    """A scheduler at a combination of values, and what it gains over the first scheduler.

    ``gain`` is None of the first scheduler, and where the two share no episode.
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
    found = []
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
            found.append(Cell(place, scheduler, rate_interval([*rates.values()]), gain))
    return found


def _by_episode(measured: PointResult) -> dict[int, float]:
    """Return the success rates of the episodes that have a task."""
    return {n: rate for n, rate in enumerate(measured.rates) if not math.isnan(rate)}


def table(sweep: Sweep, found: Sequence[Cell]) -> pd.DataFrame:
    """Return a row for each scheduler and combination of values; rates are shares."""
    return pd.DataFrame(
        [
            {
                **dict(zip(sweep.over, cell.place, strict=True)),
                "scheduler": cell.scheduler,
                "episodes": cell.rate.count,
                "success rate": cell.rate.mean,
                "low": cell.rate.low,
                "high": cell.rate.high,
                f"above {sweep.schedulers[0]}": cell.gain and cell.gain.difference.mean,
                "above, low": cell.gain and cell.gain.difference.low,
                "above, high": cell.gain and cell.gain.difference.high,
                "p": cell.gain and cell.gain.p_value,
            }
            for cell in found
        ]
    )


def draw(sweep: Sweep, found: Sequence[Cell]) -> Figure:
    """Return the success rates, and the gains over the first scheduler, over what is varied."""
    figure = Figure(figsize=(11.0, 4.4), layout="constrained", dpi=120)
    rates, gains = figure.subplots(1, 2)
    labels = [", ".join(place) for place in sweep.places]
    places = {place: number for number, place in enumerate(sweep.places)}
    for number, scheduler in enumerate(sweep.schedulers):
        # Side by side, so that intervals do not cover each other.
        shift = (number - (len(sweep.schedulers) - 1) / 2) * 0.04
        own = [cell for cell in found if cell.scheduler == scheduler]
        gained = [(cell.place, cell.gain.difference) for cell in own if cell.gain is not None]
        for axes, drawn in ((rates, [(cell.place, cell.rate) for cell in own]), (gains, gained)):
            if drawn:
                axes.errorbar(
                    [places[place] + shift for place, _ in drawn],
                    [100 * value.mean for _, value in drawn],
                    yerr=[[100 * value.arms[side] for _, value in drawn] for side in (0, 1)],
                    color=colour(number),
                    marker="o",
                    markersize=5,
                    capsize=2,
                    label=scheduler,
                )
    gains.axhline(0, color=colour(0), linewidth=1.5, zorder=1)
    for axes, y_label in (
        (rates, "success rate, %"),
        (gains, f"points above {sweep.schedulers[0]}, same tasks and fates"),
    ):
        plain(axes)
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlabel(", ".join(sweep.over))
        axes.set_ylabel(y_label)
    rates.legend(frameon=False)
    rates.set_title("Mean and 95 % interval over episodes", fontsize=10, loc="left")
    return figure


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
        "rows": json.loads(rows.to_json(orient="records")),
    }
    write_text(place.out / MARKER, json.dumps(document, indent=2) + "\n")
    write_text(place.out / "sweep.csv", rows.to_csv(index=False))
    for suffix, content in as_files(draw(sweep, found))._asdict().items():
        write_atomically(place.out / f"sweep.{suffix}", content, ORDINARY)
    return found, document
