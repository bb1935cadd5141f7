"""One episode at a time, node by node: what the environments of both libraries share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from testbed.errors import Problem, UsageError
from testbed.model.encoders import DEFAULT
from testbed.scenario.plan import Plan
from testbed.sim.engine.vector import Seen, VectorEnv


class Turn(NamedTuple):
    """The result of one slot: the team reward, whether it was the last, who was corrected."""

    reward: float
    over: bool
    corrected: NDArray[np.bool_]  # [N]


class EpisodeGame:
    """Plays the episodes of ``plan`` one after another, with one action per node and slot.

    Agents are called ``node_0`` to ``node_<N-1>``. An action outside the mask is corrected, because
    both libraries try any action of the space: a node with a task executes it itself, one without
    does nothing. ``corrected`` marks it.

    Raises:
        UsageError: a plan or an encoder the compiled engine does not cover.
    """

    def __init__(self, plan: Plan, encoder: str = DEFAULT) -> None:
        self._env = VectorEnv([plan], threads=1, encoder=encoder)
        self.size = self._env.size
        self.slots = self._env.slots
        self.features = self._env.features
        self.agents = tuple(f"node_{i}" for i in range(self.size))
        self.index = {agent: i for i, agent in enumerate(self.agents)}
        self._next = 0
        self._seen: Seen | None = None

    def begin(self, episode: int | None = None) -> None:
        """Begin ``episode``; None takes the one after the last, from 0."""
        number = self._next if episode is None else episode
        self._env.reset([number])
        self._next = number + 1
        self._seen = self._env.observe()

    @property
    def observation(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Features [N, D] and mask [N, N + 1] of the present slot."""
        if self._seen is None:
            raise UsageError("no episode has begun", [Problem("", "step", "reset first")])
        return self._seen.features[0], self._seen.mask[0]

    @property
    def success_rate(self) -> float:
        """Share of the tasks that succeeded, of an episode that is over."""
        return float(self._env.success_rates()[0])

    def play(self, actions: Mapping[str, int]) -> Turn:
        """Play one slot; an agent without an action does as one with a forbidden action."""
        mask = self.observation[1]
        chosen = np.full(self.size, -1, np.int64)
        for agent, action in actions.items():
            chosen[self.index[agent]] = int(action)
        inside = (chosen >= 0) & (chosen <= self.size)
        allowed = inside & mask[np.arange(self.size), np.where(inside, chosen, 0)]
        stay = np.where(mask[:, self.size], self.size, np.arange(self.size))
        result = self._env.step(np.where(allowed, chosen, stay)[None])
        self._seen = self._env.observe()
        return Turn(float(result.rewards[0]), result.done, ~allowed)
