"""Computes points in the simulator, in whichever process; what is finished is stored at once."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from testbed.experiment.reproduce.methods import BOUND, OFFLINE, ONLINE_ONLY, label
from testbed.experiment.reproduce.points import (
    SIMULATOR,
    CurvePoint,
    Learning,
    Measured,
    Network,
    Point,
    PointStore,
)

if TYPE_CHECKING:
    from trainer.o2o.recipe import Recipe
    from trainer.o2o.result import O2OResult
    from trainer.o2o.settings import O2OConfig, Progress

Tell: TypeAlias = Callable[[str, float], None]
"""Hears what is being done, and which share of it is."""

UNFINISHED: Final = "unfinished"
"""Folder, among the points, of what interrupted work can go on from."""


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
    def title(self) -> str:
        """What it is, in a few words."""
        what = ", ".join(self.network.overrides) or "default"
        if self.network.driver != SIMULATOR:
            names = "everything on the real network"
        elif self.learning is None:
            names = f"{len(self.points)} baselines"
        else:
            names = " and ".join(label(point.method) for point in self.points)
            if self.learning.source not in (None, "ratc"):
                names += f" from {label(str(self.learning.source))}"
        return f"{self.network.scenario} {what}, network {self.network.seed}: {names}"


def work_of(points: Iterable[Point]) -> list[Work]:
    """The points grouped so that nothing is trained twice; equal points are one.

    Baselines come first, because they take little; then one network after the other.
    """
    groups: dict[tuple[int, str, Learning | None], dict[str, Point]] = {}
    for point in points:
        plan = point.network.plan()
        network = f"{plan.scenario_hash} {plan.seeds.schedulers} {point.network.driver}"
        training = point.learning if point.network.driver == SIMULATOR else None
        group = (point.network.seed, network, training)
        groups.setdefault(group, {}).setdefault(point.method, point)
    works = [
        Work(next(iter(group.values())).network, tuple(group.values())) for group in groups.values()
    ]
    return sorted(works, key=lambda each: (each.learning is not None, each.network.seed))


def compute(work: Work, store: PointStore, tell: Tell) -> None:
    """Compute and store the points of ``work``; what an interrupted training left is continued.

    Raises: UsageError: an impossible setting. PermanentError: a loss is no longer finite, or the
    folder cannot be written.
    """
    if work.network.driver != SIMULATOR:
        from testbed.experiment.reproduce.network import compute_on_network

        compute_on_network(work, store, tell)
    elif work.learning is None:
        _play(work, store, tell)
    else:
        _learn(work, work.learning, store, tell)


def _play(work: Work, store: PointStore, tell: Tell) -> None:
    from testbed.sim.bound import bound
    from testbed.sim.play import evaluate

    plan = work.network.plan()
    for done, point in enumerate(work.points):
        tell(label(point.method), done / len(work.points))
        began = time.perf_counter()
        numbers = range(point.episodes)
        if point.method == BOUND:
            rates = [bound(plan, number) for number in numbers]
        else:
            rates = evaluate(plan, [point.method], numbers, threads=1)[point.method].tolist()
        store.put(point, Measured(tuple(rates), seconds=time.perf_counter() - began))


def _learn(work: Work, learning: Learning, store: PointStore, tell: Tell) -> None:
    from trainer.o2o.pipeline import run
    from trainer.o2o.simulated import SimulatedVenue

    episodes = work.points[0].episodes
    methods = {point.method for point in work.points}
    folder = store.folder / UNFINISHED / work.points[0].key
    result = run(
        SimulatedVenue(work.network.plan(), threads=1),
        config_of(learning, methods, episodes),
        folder,
        progress=progress_of(tell),
    )
    for point in work.points:
        store.put(point, measured_of(result, point.method))
    shutil.rmtree(folder, ignore_errors=True)


def config_of(learning: Learning, methods: Iterable[str], episodes: int) -> O2OConfig:
    """Return the settings for the pipeline; importing it takes seconds."""
    from trainer.o2o.settings import O2OConfig

    wanted = set(methods)
    from_logs = learning.source is not None
    return O2OConfig(
        recipe=recipe_of(learning),
        source=learning.source or "ratc",
        log_episodes=max(1, learning.log_episodes),
        evaluation_episodes=episodes,
        methods=(),
        offline=from_logs,
        online=bool(wanted - {OFFLINE, ONLINE_ONLY}),
        online_only=ONLINE_ONLY in wanted,
        with_bound=False,
        seed=learning.seed,
    )


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


def measured_of(result: O2OResult, method: str, notes: tuple[str, ...] = ()) -> Measured:
    """A method's part of what the pipeline returned; ``notes`` are added to its own."""
    rates = result.bound if method == BOUND else result.rates[method]
    assert rates is not None
    return Measured(
        rates=tuple(float(rate) for rate in rates),
        curve=tuple(
            CurvePoint(p.episodes, p.collected, p.evaluation) for p in result.curves.get(method, ())
        ),
        references=dict(result.validation),
        seconds=sum(result.durations.values()),
        notes=(*result.notes, *notes),
    )


def progress_of(tell: Tell) -> Callable[[Progress], None]:
    """Report the progress of an experiment."""

    def told(now: Progress) -> None:
        stage = now.message if now.stage == "network" else now.stage
        tell(f"{stage} {now.done}/{now.total}", now.done / max(1, now.total))

    return told
