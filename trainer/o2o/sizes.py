"""Default numbers of episodes and steps, by scenario."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from testbed.errors import Problem, UsageError
from testbed.model.units import SECOND
from testbed.scenario.plan import Plan

_SMALL: Final = 500
"""Below this many decisions (nodes x slots) an episode is a small one."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Episodes and steps of one experiment."""

    log_episodes: int
    offline_steps: int
    online_episodes: int
    evaluation_episodes: int


def refuse_too_few(log_episodes: int, evaluation_episodes: int, seed: int) -> None:
    """Check the sizes of an experiment.

    Raises:
        UsageError: no log episodes, fewer than two to evaluate with, or a seed below 0.
    """
    least = [
        ("log_episodes", log_episodes, 1),
        ("evaluation_episodes", evaluation_episodes, 2),
        ("seed", seed, 0),
    ]
    problems = [
        Problem(f"o2o.{name}", str(value), f"at least {low}")
        for name, value, low in least
        if value < low
    ]
    if problems:
        raise UsageError("invalid experiment settings", problems)


def of_simulation(plan: Plan) -> Sizes:
    """Return the sizes for the simulator: a minute for a small network, three for the paper's."""
    if plan.topology.size * plan.workload.slots < _SMALL:
        return Sizes(500, 1_500, 500, 40)
    return Sizes(500, 4_000, 1_000, 40)


def of_network(plan: Plan) -> Sizes:
    """Return the sizes for a network in real time: the paper's sizes (section VI-C) where they fit.

    A network with episodes of several seconds needs the paper's 200 and 50 episodes; where an
    episode takes longer than 10 s, fewer are usual, because they would take hours.
    """
    seconds = plan.episode_seconds + max(plan.workload.deadline.maximum / SECOND, 1.0)
    if plan.topology.size * plan.workload.slots < _SMALL:
        return Sizes(20, 1_000, 20, 5)
    if seconds > 10:
        return Sizes(20, 2_000, 20, 5)
    return Sizes(200, 4_000, 50, 10)
