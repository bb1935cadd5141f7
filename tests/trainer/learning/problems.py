"""A two-state problem with a known best policy, small enough to solve by hand.

State 0: action 0 pays 0.1 and stays, action 1 pays nothing and leads to state 1.
State 1: action 0 pays 1 and leads to state 0, action 1 pays nothing and stays.
Action 2 is masked everywhere. A greedy policy earns 0.1 per step, the best one (1 in state 0, 0 in
state 1) 0.5; so to find it is to look ahead and to respect the mask.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.learning.actor import Actor, NetworkSpec
from trainer.learning.online import Collected
from trainer.learning.transitions import (
    BoolArray,
    FloatArray,
    IntArray,
    Trajectory,
    Transitions,
    transitions_of,
)

SPEC = NetworkSpec(features=2, actions=3, hidden=(16, 16))
BEST = np.array([1, 0])
STEPS = 20


def observations(states: IntArray) -> FloatArray:
    return np.eye(2, dtype=np.float32)[states]


def masks(rows: int) -> BoolArray:
    mask = np.ones((rows, 3), dtype=np.bool_)
    mask[:, 2] = False
    return mask


def step(states: IntArray, actions: IntArray) -> tuple[NDArray[np.float64], IntArray]:
    pay = np.array([[0.1, 0.0], [1.0, 0.0]])
    following = np.array([[0, 1], [0, 1]])
    return pay[states, actions], following[states, actions]


def episodes_with(actor: Actor | None, count: int, seed: int) -> list[Trajectory]:
    """Run ``count`` episodes at once; without an actor, uniformly over allowed actions."""
    draw = np.random.default_rng(seed)
    states = draw.integers(0, 2, size=count)
    seen, acted, paid, said = [states], [], [], []
    for _ in range(STEPS):
        if actor is None:
            actions = draw.integers(0, 2, size=count)
            log_prob = np.full(count, np.log(0.5), dtype=np.float32)
        else:
            actions, log_prob = actor.sample(observations(states), masks(count), draw.random(count))
        pay, states = step(states, actions)
        seen.append(states)
        acted.append(actions)
        paid.append(pay)
        said.append(log_prob)
    visited, chosen = np.stack(seen, axis=1), np.stack(acted, axis=1)
    rewards, log_probs = np.stack(paid, axis=1), np.stack(said, axis=1)
    return [
        Trajectory(
            obs=observations(visited[row]),
            mask=masks(STEPS + 1),
            action=chosen[row].astype(np.int64),
            log_prob=log_probs[row].astype(np.float32),
            reward=rewards[row].astype(np.float32),
            run="two-states",
            episode=row,
        )
        for row in range(count)
    ]


def logged(count: int = 100, seed: int = 0) -> Transitions:
    return transitions_of(episodes_with(None, count, seed))


def success_of(trajectories: list[Trajectory]) -> NDArray[np.float64]:
    """Reward per episode as a share of the most possible (about 0.5 per step)."""
    return np.array([float(t.reward.sum()) / (0.5 * STEPS) for t in trajectories])


class TwoStates:
    """The rollout of this problem; deterministic in policy and seed."""

    def __init__(self) -> None:
        self.collected: list[tuple[int, int]] = []

    def collect(self, actor: Actor, episodes: int, seed: int) -> Collected:
        self.collected.append((episodes, seed))
        trajectories = episodes_with(actor, episodes, seed)
        return Collected(trajectories, success_of(trajectories))

    def evaluate(self, actor: Actor, episodes: int) -> NDArray[np.float64]:
        return success_of(episodes_with(actor, episodes, 10_000_019))
