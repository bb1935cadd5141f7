"""A reproduction: which points the figures need at which effort, and what they show together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from testbed.errors import Problem, UsageError
from testbed.experiment.reproduce.definitions import Figure
from testbed.experiment.reproduce.methods import LEARNED, METHODS, NOT_ON_NODES, ONLINE_ONLY
from testbed.experiment.reproduce.points import (
    SIMULATOR,
    Learning,
    Network,
    Point,
    PointResult,
    PointStore,
)
from testbed.experiment.reproduce.results import MIN_NETWORKS, Results
from testbed.experiment.reproduce.setting import Setting

FIRST_SEED: Final = 500
"""Seed of the first network. No setting of this toolkit was chosen on networks from here on."""


@dataclass(frozen=True, slots=True)
class Effort:
    """Amount of training on each network."""

    log_episodes: int
    offline_steps: int
    online_episodes: int
    per_update: int | None = None
    evaluate_every: int | None = None


FULL: Final[Mapping[str, Effort]] = {
    # 500 episodes of 100 slots and 20 nodes are the paper's 10^6 transitions.
    "paper-simulation": Effort(500, 4_000, 1_000),
    # Section VI-C: 200 episodes of logs, 50 online.
    "paper-testbed": Effort(200, 4_000, 50, per_update=10, evaluate_every=1),
}
QUICK: Final[Mapping[str, Effort]] = {
    "paper-simulation": Effort(60, 800, 100),
    "paper-testbed": Effort(60, 800, 50, per_update=10, evaluate_every=1),
}


@dataclass(frozen=True, slots=True)
class Study:
    """Settings of a reproduction.

    ``networks`` is how many are drawn, with seeds from ``first_seed`` on; ``episodes`` how many are
    evaluated on each. What is None is that of the paper, or of a quick run with ``quick``, which
    also leaves out some settings of the x axis.

    Raises:
        UsageError: a value outside its range.
    """

    networks: int = 5
    episodes: int = 40
    first_seed: int = FIRST_SEED
    recipe: str = "paper"
    quick: bool = False
    log_episodes: int | None = None
    offline_steps: int | None = None
    online_episodes: int | None = None
    driver: str = SIMULATOR
    time_scale: float = 1.0
    """Real seconds per emulated second, on the real network."""
    include_invalid: bool = False
    """Take runs of the real network that are outside their limits of fidelity too."""
    methods: tuple[str, ...] = field(default=())
    """Only these; empty: all."""

    def __post_init__(self) -> None:
        least = [
            ("--topologies", self.networks, 1),
            ("--episodes", self.episodes, 2),
            ("--first-topology", self.first_seed, 0),
            ("--log-episodes", self.log_episodes, 1),
            ("--offline-steps", self.offline_steps, 1),
            ("--online-episodes", self.online_episodes, 10),
        ]
        problems = [
            Problem(name, str(value), f"at least {low}")
            for name, value, low in least
            if value is not None and value < low
        ]
        problems += [
            Problem("--method", repr(name), f"one of {', '.join(METHODS)}")
            for name in self.methods
            if name not in METHODS
        ]
        if not 0.05 <= self.time_scale <= 100:
            problems.append(Problem("--time-scale", str(self.time_scale), "0.05 to 100"))
        if problems:
            raise UsageError("this cannot be reproduced", problems)

    @property
    def seeds(self) -> tuple[int, ...]:
        """One per network."""
        return tuple(range(self.first_seed, self.first_seed + self.networks))

    def effort(self, figure: Figure) -> Effort:
        """Return the amount of training for a figure."""
        base = (QUICK if self.quick else FULL)[figure.scenario]
        return Effort(
            self.log_episodes or base.log_episodes,
            self.offline_steps or base.offline_steps,
            self.online_episodes or base.online_episodes,
            base.per_update,
            base.evaluate_every,
        )

    def shortened(self, figure: Figure) -> str:
        """Return what is less than a verdict needs; empty where it counts.

        Training below the paper's leaves policies that are worse than the paper's, and few networks
        say nothing of others.
        """
        less = []
        if not self.methods or set(self.methods) & set(LEARNED):
            mine, full = self.effort(figure), FULL[figure.scenario]
            less = [
                f"{have} instead of {need} {what}"
                for what, have, need in (
                    ("episodes of logs", mine.log_episodes, full.log_episodes),
                    ("offline steps", mine.offline_steps, full.offline_steps),
                    ("online episodes", mine.online_episodes, full.online_episodes),
                )
                if have < need
            ]
        if self.networks < MIN_NETWORKS:
            less.append(f"{self.networks} instead of at least {MIN_NETWORKS} networks")
        return ", ".join(less)

    def settings(self, figure: Figure) -> tuple[Setting, ...]:
        """Return the places on the x axis that are computed."""
        return tuple(each for each in figure.settings if not self.quick or each.x in figure.light)

    def points(self, figure: Figure) -> Iterator[tuple[Setting, Point]]:
        """Everything the figure shows."""
        effort = self.effort(figure)
        real = self.driver != SIMULATOR
        scale = (f"timeScale={self.time_scale!r}",) if real else ()
        left_out = NOT_ON_NODES if real else ()
        for setting in self.settings(figure):
            for seed in self.seeds:
                overrides = (*setting.overrides, *scale)
                network = Network(
                    figure.scenario, overrides, seed, self.driver, self.include_invalid
                )
                for method in figure.methods:
                    if method not in left_out and (not self.methods or method in self.methods):
                        learning = self._learning(method, setting, effort)
                        yield setting, Point(network, method, self.episodes, learning)

    def _learning(self, method: str, setting: Setting, effort: Effort) -> Learning | None:
        # On a real network one experiment runs everything, baselines too.
        if method not in LEARNED and self.driver == SIMULATOR:
            return None
        from_logs = method != ONLINE_ONLY
        return Learning(
            recipe=self.recipe,
            source=setting.source if from_logs else None,
            log_episodes=effort.log_episodes if from_logs else 0,
            offline_steps=effort.offline_steps if from_logs else 0,
            online_episodes=effort.online_episodes,
            per_update=effort.per_update,
            evaluate_every=effort.evaluate_every,
        )

    def results(self, figure: Figure, store: PointStore) -> Results:
        """Return the stored points of a figure; those that are not computed yet are left out."""
        measured: dict[tuple[str, str], dict[int, PointResult]] = {}
        for setting, point in self.points(figure):
            found = store.get(point)
            seed = point.network.seed
            if found is not None and seed is not None:
                measured.setdefault((setting.x, point.method), {})[seed] = found
        return Results(figure, self.settings(figure), measured)

    def document(self, figure: Figure) -> dict[str, Any]:
        """Return the settings as plain values for JSON."""
        return {
            "recipe": self.recipe,
            "driver": self.driver,
            "time_scale": self.time_scale,
            "quick": self.quick,
            "networks": self.networks,
            "first_seed": self.first_seed,
            "episodes": self.episodes,
            "scenario": figure.scenario,
            **asdict(self.effort(figure)),
        }


def all_points(study: Study, figures: Sequence[Figure]) -> list[Point]:
    """Return the work that all ``figures`` need."""
    return [point for figure in figures for _, point in study.points(figure)]


def default_jobs() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
