"""The network as a PettingZoo parallel environment (https://pettingzoo.farama.org/api/parallel)."""

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from testbed.model.encoders import DEFAULT
from testbed.scenario.plan import Plan
from trainer.envs.episode import EpisodeGame

Observed: TypeAlias = dict[str, NDArray[Any]]
Actions: TypeAlias = "spaces.Discrete[np.int64]"


class NetworkParallelEnv(ParallelEnv):  # type: ignore[misc]
    """Agents are the nodes; the reward is the team's, the same for all (model section 6).

    An observation is ``observation`` [D] float32 by ``encoder``, and ``action_mask`` [N + 1] int8.
    Actions 0 to N - 1 are destinations, N is "no task"; one outside the mask is replaced by
    local execution or "no task", and ``infos[agent]["corrected"]`` says so. Episodes are truncated
    after the last slot; ``infos`` then hold ``success_rate``. ``reset(seed=n)`` plays episode n of
    the plan, ``reset()`` the next one.

    Raises:
        UsageError: a plan or an encoder the compiled engine does not cover.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "name": "edge_network_v1",
        "render_modes": [],
        "is_parallelizable": True,
    }
    render_mode = None

    def __init__(self, plan: Plan, encoder: str = DEFAULT) -> None:
        self._game = EpisodeGame(plan, encoder)
        self.possible_agents = list(self._game.agents)
        self.agents: list[str] = []
        actions = self._game.size + 1
        self.observation_spaces = {
            agent: spaces.Dict(
                {
                    "observation": spaces.Box(-np.inf, np.inf, (self._game.features,), np.float32),
                    "action_mask": spaces.Box(0, 1, (actions,), np.int8),
                }
            )
            for agent in self.possible_agents
        }
        self.action_spaces: dict[str, Actions] = {
            agent: spaces.Discrete(actions) for agent in self.possible_agents
        }

    def observation_space(self, agent: str) -> spaces.Dict:
        """Return the space of ``agent``'s observations."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Actions:
        """Return the space of ``agent``'s actions."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Observed], dict[str, dict[str, Any]]]:
        """Begin episode ``seed``, or the next."""
        self._game.begin(seed)
        self.agents = list(self.possible_agents)
        return self._observe(), {agent: {} for agent in self.agents}

    def step(
        self, actions: dict[str, int]
    ) -> tuple[
        dict[str, Observed],
        dict[str, float],
        dict[str, bool],
        dict[str, bool],
        dict[str, dict[str, Any]],
    ]:
        """Play one slot."""
        turn = self._game.play(actions)
        agents = self.agents
        infos: dict[str, dict[str, Any]] = {
            agent: {"corrected": bool(turn.corrected[self._game.index[agent]])} for agent in agents
        }
        if turn.over:
            for info in infos.values():
                info["success_rate"] = self._game.success_rate
            self.agents = []
        return (
            self._observe(),
            dict.fromkeys(agents, turn.reward),
            dict.fromkeys(agents, False),
            dict.fromkeys(agents, turn.over),
            infos,
        )

    def render(self) -> None:
        """Draws nothing."""

    def close(self) -> None:
        """Holds nothing that must be closed."""

    def _observe(self) -> dict[str, Observed]:
        features, mask = self._game.observation
        return {
            agent: {"observation": features[i].copy(), "action_mask": mask[i].astype(np.int8)}
            for agent, i in self._game.index.items()
        }
