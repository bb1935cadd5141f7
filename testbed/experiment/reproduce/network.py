"""Computes points on the real network: brought up on this machine, used, and taken down again.

Slow by nature, an episode takes as long as it lasts, and one after the other: two networks at a
time would disturb each other's times.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from testbed.experiment.reproduce.compute import UNFINISHED, Tell, Work, recipe_of
from testbed.experiment.reproduce.methods import BOUND, LEARNED, OFFLINE
from testbed.experiment.reproduce.points import CurvePoint, Measured, PointStore

if TYPE_CHECKING:
    from testbed.experiment.o2o import Story
    from trainer.o2o.pipeline import Progress

NAME: Final = "reproduce"
"""What the testbeds are called."""

EVALUATIONS: Final = 5
"""Episodes by which policies are kept or rolled back while learning."""

_UNFAITHFUL: Final = "Runs outside their limits of fidelity were not refused."


def compute_on_network(work: Work, store: PointStore, tell: Tell) -> None:
    """Compute and store the points of ``work``, all by one story on one network.

    What an interrupted one has run is not run again. Nothing is left running.

    Raises: as ``testbed.experiment.o2o_network.run_on_network`` and ``LocalRuntime.up``.
    """
    from testbed.experiment.o2o_network import NetworkConfig, run_on_network
    from testbed.rpc.operator import OperatorClient
    from testbed.runtime.local import LocalRuntime
    from testbed.scenario.load import dumps, load
    from testbed.storage.tasklog import open_task_log

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
    config = NetworkConfig(
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
            story = run_on_network(
                client, log, artifacts, plan, config, folder / "story", progress=_progress(tell)
            )
    finally:
        runtime.down(NAME)
    notes = (_UNFAITHFUL,) if network.include_invalid else ()
    for point in work.points:
        store.put(point, _measured(story, point.method, notes))
    shutil.rmtree(folder, ignore_errors=True)


def _measured(story: Story, method: str, notes: tuple[str, ...]) -> Measured:
    rates = story.bound if method == BOUND else story.rates[method]
    assert rates is not None
    learned = method in LEARNED and method != OFFLINE
    return Measured(
        rates=tuple(float(rate) for rate in rates),
        curve=tuple(
            CurvePoint(point.episodes, point.collected, point.evaluation)
            for point in (story.curves.get(method, ()) if learned else ())
        ),
        references=dict(story.reference_lines),
        seconds=sum(story.durations.values()),
        notes=notes,
    )


def _progress(tell: Tell) -> Callable[[Progress], None]:
    def told(now: Progress) -> None:
        tell(f"{now.message} {now.done}/{now.total}", now.done / max(1, now.total))

    return told
