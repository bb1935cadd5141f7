"""Rollouts on a Ray cluster that is there; without an address nothing of Ray is started."""

from __future__ import annotations

import atexit
import contextlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import ray
from numpy.typing import NDArray

from testbed.errors import PrerequisiteMissing
from testbed.scenario.plan import Plan
from testbed.sim.engine.arrays import without_control_delay
from testbed.sim.play import evaluate
from trainer.credit.weight import BY_LOAD, LaterWeight
from trainer.learning.actor import Actor
from trainer.learning.online import Collected
from trainer.o2o.logged import LoggedSequences, RewardKind, joined
from trainer.o2o.recipe import Recipe
from trainer.o2o.simulated import (
    SimulatedRollout,
    online_numbers,
    rollout_episodes,
)

PER_TASK: Final = 10
"""Episodes of one Ray task: fixed, so that results do not depend on the size of the cluster."""


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to the cluster at ``address``; with None do nothing.

    Its workers find this package in the folder it is imported from here, if they see that folder,
    or else where they have it installed.

    Raises:
        PrerequisiteMissing: no cluster answers there.
    """
    if address is None:
        # At the end Ray would load much of itself to see that it has nothing to end: seconds, in
        # which a process that was interrupted seems to hang.
        atexit.unregister(ray.shutdown)
        yield
        return
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    try:
        # Ray puts the folder one is in first on the import path of every worker, where a
        # `trainer.py` would hide this package.
        with warnings.catch_warnings(), contextlib.chdir(root):
            # Ray announces changes of its own defaults.
            warnings.simplefilter("ignore")
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"env_vars": {"PYTHONPATH": paths}},
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise PrerequisiteMissing(
            f"no Ray cluster answers at {address}: {error}",
            "start one with `ray start --head`, or leave --ray-address out",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


class ClusterRollout(SimulatedRollout):
    """Simulated episodes as Ray tasks; the same episodes with the same results as in one process.

    Raises:
        PrerequisiteMissing: no Ray cluster is connected.
    """

    def __init__(
        self,
        plan: Plan,
        reward: RewardKind,
        *,
        later_weight: LaterWeight = BY_LOAD,
    ) -> None:
        super().__init__(plan, reward, later_weight=later_weight)
        if not ray.is_initialized():
            raise PrerequisiteMissing(
                "no Ray cluster is connected", "give the address of one, or simulate in one process"
            )
        self._shared = ray.put(plan)
        self._play = ray.remote(_play)
        self._score = ray.remote(_score)

    def collect(self, actor: Actor, episodes: int, seed: int) -> Collected:
        """Return episodes whose numbers follow from ``seed``, played all over the cluster."""
        shared = ray.put(actor)
        parts: list[LoggedSequences] = ray.get(
            [
                self._play.remote(self._shared, shared, part, self._later_weight)
                for part in _parts(online_numbers(episodes, seed))
            ]
        )
        logged = joined(parts)
        return Collected(logged.trajectories(self._reward), logged.success_rate)

    def evaluate(self, actor: Actor, episodes: int) -> NDArray[np.float64]:
        """Return the success rates of the episodes kept for this purpose."""
        shared = ray.put(actor)
        parts = [
            self._score.remote(self._shared, shared, part)
            for part in _parts(self.evaluation_numbers(episodes))
        ]
        return np.concatenate(ray.get(parts))


def rollout_on(plan: Plan, recipe: Recipe) -> ClusterRollout:
    """Return the rollout of the online phase of ``recipe`` on the connected cluster.

    Control messages take no time in it, as in the experiment it is for.
    """
    plan = without_control_delay(plan)
    return ClusterRollout(plan, recipe.online_reward, later_weight=recipe.later_weight)


def _parts(numbers: range) -> list[range]:
    return [numbers[start : start + PER_TASK] for start in range(0, len(numbers), PER_TASK)]


def _play(plan: Plan, actor: Actor, numbers: range, later_weight: LaterWeight) -> Any:
    return rollout_episodes(plan, actor, numbers, later_weight=later_weight, threads=1)


def _score(plan: Plan, actor: Actor, numbers: range) -> NDArray[np.float64]:
    return evaluate(plan, ["policy"], numbers, {"policy": actor}, threads=1)["policy"]
