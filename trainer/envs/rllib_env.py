"""The network as an RLlib ``MultiAgentEnv``, for RLlib algorithms other than ours.

Our own training does not go through it: sampling by RLlib's EnvRunners is some seventy times slower
than ``testbed.sim.engine.episodes.record``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from testbed.errors import Problem, UsageError
from testbed.model.encoders import DEFAULT
from testbed.scenario.plan import Plan
from trainer.envs.episode import EpisodeGame


class NetworkMultiAgentEnv(MultiAgentEnv):  # type: ignore[misc]
    """Agents are the nodes; the reward is the team's, the same for all (model section 6).

    ``config`` holds ``plan``: a ``Plan`` or its JSON; and ``encoder``, a name, if not the default.
    An observation is flat: the features [D] followed by the action mask [N + 1], as
    ``trainer.learning.module`` takes it. Actions
    and their correction, truncation, and the meaning of ``seed`` are as in ``NetworkParallelEnv``.

    Raises:
        UsageError: no plan, or a plan or an encoder the compiled engine does not cover.
    """

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        plan = (config or {}).get("plan")
        if isinstance(plan, str):
            plan = Plan.from_json(plan)
        if not isinstance(plan, Plan):
            seen = f"a {type(plan).__name__}"
            raise UsageError(
                "invalid environment settings",
                [Problem("env_config.plan", seen, "a Plan or its JSON")],
            )
        self._game = EpisodeGame(plan, (config or {}).get("encoder", DEFAULT))
        width = self._game.features + self._game.size + 1
        self.possible_agents = list(self._game.agents)
        self.agents = list(self.possible_agents)
        box = spaces.Box(-np.inf, np.inf, (width,), np.float32)
        self.observation_spaces = dict.fromkeys(self.possible_agents, box)
        self.action_spaces: dict[str, spaces.Discrete[np.int64]] = {
            agent: spaces.Discrete(self._game.size + 1) for agent in self.possible_agents
        }

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[np.float32]], dict[str, dict[str, Any]]]:
        """Begin episode ``seed``, or the next."""
        self._game.begin(seed)
        self.agents = list(self.possible_agents)
        return self._observe(), {agent: {} for agent in self.agents}

    def step(
        self, action_dict: dict[str, int]
    ) -> tuple[
        dict[str, NDArray[np.float32]],
        dict[str, float],
        dict[str, bool],
        dict[str, bool],
        dict[str, dict[str, Any]],
    ]:
        """Play one slot."""
        turn = self._game.play(action_dict)
        infos: dict[str, dict[str, Any]] = {
            agent: {"corrected": bool(turn.corrected[i])} for agent, i in self._game.index.items()
        }
        if turn.over:
            for info in infos.values():
                info["success_rate"] = self._game.success_rate
            self.agents = []
        everyone = [*self.possible_agents, "__all__"]
        return (
            self._observe(),
            dict.fromkeys(self.possible_agents, turn.reward),
            dict.fromkeys(everyone, False),
            dict.fromkeys(everyone, turn.over),
            infos,
        )

    def _observe(self) -> dict[str, NDArray[np.float32]]:
        features, mask = self._game.observation
        flat = np.concatenate([features, mask.astype(np.float32)], axis=1)
        return {agent: flat[i] for agent, i in self._game.index.items()}
