"""Computes points on the real network: brought up on this machine, used, and taken down again.

Slow by nature, an episode takes as long as it lasts, and one after the other: two networks at a
time would disturb each other's times.
"""

from __future__ import annotations

import dataclasses
import shutil
from typing import Final

from testbed.experiment.reproduce.methods import BOUND, LEARNED
from testbed.experiment.reproduce.points import PointStore
from testbed.experiment.reproduce.work import (
    UNFINISHED,
    Tell,
    Work,
    measured_of,
    progress_of,
    recipe_of,
)
from testbed.scenario.load import dumps, load
from testbed.storage.tasklog import open_task_log

NAME: Final = "reproduce"
"""Name of the testbeds."""

EVALUATIONS: Final = 5
"""Episodes by which policies are kept or rolled back while learning."""

_UNFAITHFUL: Final = "Runs outside their limits of fidelity were not refused."


def compute_on_network(work: Work, store: PointStore, tell: Tell) -> None:
    """Compute and store the points of ``work``, all by one experiment on one network.

    What an interrupted one has run is not run again. Nothing is left running.

    Raises: as ``trainer.o2o.pipeline.run`` and ``LocalRuntime.up``.
    """
    from testbed.rpc.operator import OperatorClient
    from testbed.runtime.local import LocalRuntime
    from trainer.o2o.network import NetworkVenue
    from trainer.o2o.pipeline import run
    from trainer.o2o.settings import O2OConfig

    learning = next(point.learning for point in work.points if point.learning is not None)
    episodes = work.points[0].episodes
    folder = (store.folder / UNFINISHED / work.points[0].key).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    network = work.network
    scenario = load(network.scenario, [*network.overrides, f"seeds={network.seed}"])
    artifacts = str(folder / "artifacts")
    plan = dataclasses.replace(
        network.plan(), storage_url=str(folder / "tasklog.sqlite"), artifacts_url=artifacts
    )
    methods = [point.method for point in work.points]
    config = O2OConfig(
        recipe=recipe_of(learning, evaluations=EVALUATIONS),
        source=learning.source or "ratc",
        log_episodes=learning.log_episodes,
        evaluation_episodes=episodes,
        methods=tuple(name for name in methods if name not in LEARNED and name != BOUND),
        include_invalid=network.include_invalid,
        seed=learning.seed,
    )
    runtime = LocalRuntime(folder / "home")
    runtime.down(NAME)
    try:
        tell("bringing the network up", 0.0)
        up = runtime.up(plan, NAME, scenario=dumps(scenario))
        with OperatorClient(up.address, up.token) as client, open_task_log(up.store) as log:
            result = run(
                NetworkVenue(client, log, artifacts, plan),
                config,
                folder / "story",
                progress=progress_of(tell),
            )
    finally:
        runtime.down(NAME)
    notes = (_UNFAITHFUL,) if network.include_invalid else ()
    for point in work.points:
        store.put(point, measured_of(result, point.method, notes))
    shutil.rmtree(folder, ignore_errors=True)
