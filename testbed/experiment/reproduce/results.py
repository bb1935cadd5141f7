"""Results of the stored points of a figure: means, paired differences, and their intervals.

Networks differ much more from each other than methods do on one network, so differences are taken
per network, between episodes that met the same tasks and fates, and the interval is over networks:
it says what to expect on a network not seen yet. With fewer than ``MIN_NETWORKS`` networks it is
over the episodes of these networks, and says nothing of others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from testbed.experiment.metrics import Metric, objective
from testbed.experiment.reproduce.claims import At
from testbed.experiment.reproduce.definitions import Figure
from testbed.experiment.reproduce.methods import METHODS, label
from testbed.experiment.reproduce.points import Network, PointResult
from testbed.experiment.reproduce.setting import Setting
from testbed.experiment.statistics import Interval, mean_interval

MIN_NETWORKS: Final = 3
REFERENCE: Final = "ratc"
"""Reference of the differences in the table."""

Unit: TypeAlias = Literal["networks", "episodes"]


@dataclass(frozen=True)
class Results:
    """Everything measured for a figure, by setting and method, then by the network's seed."""

    figure: Figure
    settings: tuple[Setting, ...]
    measured: Mapping[At, Mapping[int, PointResult]]

    @cached_property
    def objective(self) -> Metric:
        """The metric that the scenario of the figure is scored by.

        Raises: UsageError: it is unknown.
        """
        return objective(Network(self.figure.scenario, (), None).head())

    @property
    def xs(self) -> tuple[str, ...]:
        """The places on the x axis, from left to right."""
        return tuple(setting.x for setting in self.settings)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The networks that have any point."""
        return tuple(sorted({seed for each in self.measured.values() for seed in each}))

    @property
    def unit(self) -> Unit:
        """Return the unit that intervals are taken over."""
        return "networks" if len(self.seeds) >= MIN_NETWORKS else "episodes"

    def comparable(self) -> Results:
        """Only what has a point on every network that its setting has, so that means are of equals.

        While a campaign is under way, methods are ahead of each other; means over different
        networks beside each other would show the networks, not the methods.
        """
        kept: dict[At, Mapping[int, PointResult]] = {}
        for x in self.xs:
            here = {at: found for at, found in self.measured.items() if at[0] == x}
            every = {seed for found in here.values() for seed in found}
            kept |= {at: found for at, found in here.items() if found.keys() == every}
        return replace(self, measured=kept)

    @property
    def incomplete(self) -> tuple[str, ...]:
        """Return the name in figures of what ``comparable`` leaves out."""
        kept = self.comparable().measured
        left = [at for at, found in self.measured.items() if found and at not in kept]
        several = len(self.xs) > 1
        return tuple(f"{label(name)} at {x}" if several else label(name) for x, name in left)

    def methods(self) -> tuple[str, ...]:
        """Return the methods that have a point, in the order of tables."""
        return tuple(name for name in METHODS if any(self.measured.get((x, name)) for x in self.xs))

    def rate(self, x: str, method: str) -> Interval | None:
        """Return the score of a method at a setting; None if there is no point of it."""
        found = self.measured.get((x, method), {})
        values = [_rates(each) for _, each in sorted(found.items())]
        return self._interval(values, self.objective.interval)

    def difference(self, first: At, second: At) -> Interval | None:
        """``first`` less ``second`` on the networks that both have; None if there are none."""
        mine, theirs = self.measured.get(first, {}), self.measured.get(second, {})
        return self._interval(
            [_gap(mine[seed], theirs[seed]) for seed in sorted(mine.keys() & theirs.keys())]
        )

    def fall(self, method: str, beyond: str | None = None) -> Interval | None:
        """Return how much the score falls from the first setting to the last, by their line.

        The least-squares line of an episode's scores over the settings, taken as equally far apart,
        on networks with a point at each; less that of ``beyond``, where named. None if no network
        has all of them, or there is one setting only.
        """
        wanted = [(x, name) for name in (method, beyond) if name is not None for x in self.xs]
        if len(self.xs) < 2 or any(at not in self.measured for at in wanted):
            return None
        shared = set.intersection(*(set(self.measured[at]) for at in wanted))
        return self._interval([self._fall(seed, method, beyond) for seed in sorted(shared)])

    def _fall(self, seed: int, method: str, beyond: str | None) -> NDArray[np.float64]:
        points = [self.measured[x, method][seed] for x in self.xs]
        places = np.arange(len(points)) - (len(points) - 1) / 2
        count = min(len(point.rates) for point in points)
        rates = np.array([_rates(point)[:count] for point in points])  # [settings, episodes]
        fallen: NDArray[np.float64] = -(len(points) - 1) * (places @ rates) / (places @ places)
        if beyond is None:
            return fallen
        other = self._fall(seed, beyond, None)
        both = min(count, len(other))
        beyond_that: NDArray[np.float64] = fallen[:both] - other[:both]
        return beyond_that

    def _interval(
        self,
        by_network: Sequence[NDArray[np.float64]],
        of: Callable[[Sequence[float]], Interval] = mean_interval,
    ) -> Interval | None:
        told = [values[np.isfinite(values)] for values in by_network]
        told = [values for values in told if len(values)]
        if not told:
            return None
        if self.unit == "episodes":
            return of(np.concatenate(told).tolist())
        return of([float(values.mean()) for values in told])

    def lead(self, x: str, first: str, second: str) -> dict[int, Interval]:
        """Return the evaluation of ``first`` less that of ``second``, by online episodes.

        Only moments at which both were evaluated on every network that has both; before the first
        update is 0.
        """
        mine, theirs = self.measured.get((x, first), {}), self.measured.get((x, second), {})
        gaps = [
            {
                episodes: of_mine[episodes] - of_theirs[episodes]
                for episodes in of_mine.keys() & of_theirs.keys()
            }
            for of_mine, of_theirs in (
                (mine[seed].evaluations, theirs[seed].evaluations)
                for seed in sorted(mine.keys() & theirs.keys())
            )
        ]
        shared = set.intersection(*map(set, gaps)) if gaps else set()
        found = {}
        for episodes in sorted(shared):
            value = self._interval([np.array([gap[episodes]]) for gap in gaps])
            if value is not None:
                found[episodes] = value
        return found

    def table(self) -> pd.DataFrame:
        """Return a row per setting and method; rates and differences as shares, not in per cent."""
        rows = []
        for x in self.xs:
            for method in self.methods():
                rate = self.rate(x, method)
                if rate is None:
                    continue
                gap = self.difference((x, method), (x, REFERENCE))
                found = self.measured[x, method]
                every = np.concatenate([_rates(each) for each in found.values()])
                rows.append(
                    {
                        "figure": self.figure.name,
                        "x": x,
                        "method": method,
                        "label": label(method),
                        "group": METHODS[method].group,
                        "networks": len(found),
                        "episodes": len(every),
                        "success_rate": rate.mean,
                        "low": rate.low,
                        "high": rate.high,
                        "episode_deviation": _deviation(every),
                        "above_ratc": None if gap is None else gap.mean,
                        "above_ratc_low": None if gap is None else gap.low,
                        "above_ratc_high": None if gap is None else gap.high,
                    }
                )
        return pd.DataFrame(rows, columns=COLUMNS)

    def episodes(self) -> pd.DataFrame:
        """Return a row per setting, method, network and episode: the raw figures."""
        rows = [
            (self.figure.name, x, method, seed, episode, rate)
            for (x, method), found in self.measured.items()
            for seed, each in sorted(found.items())
            for episode, rate in enumerate(each.rates)
        ]
        names = ["figure", "x", "method", "seed", "episode", "success_rate"]
        return pd.DataFrame(rows, columns=names)

    def curves(self) -> pd.DataFrame:
        """Return a row per setting, method, network and moment of the online phase."""
        rows = [
            (self.figure.name, x, method, seed, point.episodes, point.collected, point.evaluation)
            for (x, method), found in self.measured.items()
            for seed, each in sorted(found.items())
            for point in each.curve
        ]
        names = ["figure", "x", "method", "seed", "episodes", "collected", "evaluation"]
        return pd.DataFrame(rows, columns=names)


COLUMNS: Final = [
    "figure",
    "x",
    "method",
    "label",
    "group",
    "networks",
    "episodes",
    "success_rate",
    "low",
    "high",
    "episode_deviation",
    "above_ratc",
    "above_ratc_low",
    "above_ratc_high",
]


def _rates(measured: PointResult) -> NDArray[np.float64]:
    return np.asarray(measured.rates, dtype=np.float64)


def _gap(first: PointResult, second: PointResult) -> NDArray[np.float64]:
    count = min(len(first.rates), len(second.rates))
    return _rates(first)[:count] - _rates(second)[:count]


def _deviation(rates: NDArray[np.float64]) -> float:
    told = rates[np.isfinite(rates)]
    return float(told.std(ddof=1)) if len(told) > 1 else float("nan")
