"""Computes points in the simulator, in whichever process; what is finished is stored at once."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from testbed.experiment.reproduce.methods import BOUND, OFFLINE, ONLINE_ONLY
from testbed.experiment.reproduce.network import compute_on_network
from testbed.experiment.reproduce.points import SIMULATOR, Learning, PointResult, PointStore
from testbed.experiment.reproduce.work import (
    UNFINISHED,
    Tell,
    Work,
    measured_of,
    progress_of,
    recipe_of,
)
from testbed.experiment.scoring import scores
from testbed.sim.bound import bound

if TYPE_CHECKING:
    from trainer.o2o.settings import O2OConfig


def compute(work: Work, store: PointStore, tell: Tell) -> None:
    """Compute and store the points of ``work``; what an interrupted training left is continued.

    Raises: UsageError: an impossible setting. PermanentError: a loss is no longer finite, or the
    folder cannot be written.
    """
    if work.network.driver != SIMULATOR:
        compute_on_network(work, store, tell)
    elif work.learning is None:
        _play(work, store, tell)
    else:
        _learn(work, work.learning, store, tell)


def _play(work: Work, store: PointStore, tell: Tell) -> None:
    for done, point in enumerate(work.points):
        tell(point.title, done / len(work.points))
        began = time.perf_counter()
        if point.method == BOUND:
            plan = work.network.plan()
            rates = [bound(plan, number) for number in range(point.episodes)]
        else:
            played = work.network.head()
            rates = scores(played, point.method, dict(point.options), point.episodes)
        store.put(point, PointResult(tuple(rates), seconds=time.perf_counter() - began))


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
