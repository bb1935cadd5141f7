"""Work that computes points together, and what the simulator's way and the network's share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from testbed.experiment.reproduce.methods import BOUND, label
from testbed.experiment.reproduce.points import (
    SIMULATOR,
    Learning,
    LearningMoment,
    Network,
    Point,
    PointResult,
    delays_of,
)

if TYPE_CHECKING:
    from trainer.o2o.recipe import Recipe
    from trainer.o2o.result import O2OResult
    from trainer.o2o.settings import StageProgress

Tell: TypeAlias = Callable[[str, float], None]
"""Hears what is being done, and which share of it is."""

UNFINISHED: Final = "unfinished"
"""Folder, among the points, of what interrupted work can go on from."""

_ONLINE_COST: Final = 3.0
"""Episodes of a baseline that take as long as one of the online phase."""
_OFFLINE_COST: Final = 0.2
"""Episodes of a baseline that take as long as a step of the offline phase."""


@dataclass(frozen=True, slots=True)
class Work:
    """Points of one network that are computed together: by one training, or with none.

    On a real network all of its points are.
    """

    network: Network
    points: tuple[Point, ...]

    @property
    def learning(self) -> Learning | None:
        """The training, if any."""
        return next((each.learning for each in self.points if each.learning is not None), None)

    @property
    def cost(self) -> float:
        """Return the expected duration, comparable among works of one driver."""
        episodes = float(sum(point.episodes for point in self.points))
        learning = self.learning
        if learning is not None:
            episodes += learning.log_episodes
            episodes += _ONLINE_COST * learning.online_episodes
            episodes += _OFFLINE_COST * learning.offline_steps
        return episodes * self.network.head().size

    @property
    def title(self) -> str:
        """Return a short description."""
        what = ", ".join(self.network.overrides) or "default"
        if self.network.driver != SIMULATOR:
            names = "everything on the real network"
        elif self.learning is None:
            names = f"{len(self.points)} baselines"
        else:
            names = " and ".join(label(point.method) for point in self.points)
            if self.learning.source not in (None, "ratc"):
                names += f" from {label(str(self.learning.source))}"
        seed = "" if self.network.seed is None else f", network {self.network.seed}"
        return f"{self.network.scenario} {what}{seed}: {names}"


def work_of(points: Iterable[Point]) -> list[Work]:
    """Return the points grouped so that nothing is trained twice; equal points are one.

    Baselines come first, because they take little; then one network after the other.
    """
    groups: dict[tuple[int, str, Learning | None], dict[str, Point]] = {}
    for point in points:
        plan = point.network.head()
        network = f"{plan.scenario_hash} {plan.seeds.schedulers} {point.network.driver}"
        network += f" {plan.objective}"
        if point.network.delayed:
            network += f" {delays_of(plan)}"
        training = point.learning if point.network.driver == SIMULATOR else None
        group = (point.network.seed or 0, network, training)
        groups.setdefault(group, {}).setdefault(f"{point.method} {point.options}", point)
    works = [
        Work(next(iter(group.values())).network, tuple(group.values())) for group in groups.values()
    ]
    return sorted(works, key=lambda each: (each.learning is not None, each.network.seed or 0))


def recipe_of(learning: Learning, evaluations: int | None = None) -> Recipe:
    """Return the training recipe; ``evaluations`` are the episodes by which policies are kept."""
    from trainer.o2o.recipe import recipe, sized

    return sized(
        recipe(learning.recipe),
        seed=learning.seed,
        offline_steps=learning.offline_steps or None,
        online_episodes=learning.online_episodes,
        episodes_per_update=learning.per_update,
        evaluate_every=learning.evaluate_every,
        evaluation_episodes=evaluations,
    )


def measured_of(result: O2OResult, method: str, notes: tuple[str, ...] = ()) -> PointResult:
    """Return a method's part of what the pipeline returned; ``notes`` are added to its own."""
    rates = result.bound if method == BOUND else result.rates[method]
    assert rates is not None
    return PointResult(
        rates=tuple(float(rate) for rate in rates),
        curve=tuple(
            LearningMoment(p.episodes, p.collected, p.evaluation)
            for p in result.curves.get(method, ())
        ),
        references=dict(result.validation),
        seconds=sum(result.durations.values()),
        notes=(*result.notes, *notes),
    )


def progress_of(tell: Tell) -> Callable[[StageProgress], None]:
    """Report the progress of an experiment."""

    def told(now: StageProgress) -> None:
        stage = now.message if now.stage == "network" else now.stage
        tell(f"{stage} {now.done}/{now.total}", now.done / max(1, now.total))

    return told
