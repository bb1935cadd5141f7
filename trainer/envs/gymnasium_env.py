"""One node of a network as a Gymnasium environment, registered as ``edge-testbed/Node-v0``."""

from __future__ import annotations

from typing import Any, Final

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from testbed.model.encoders import DEFAULT
from testbed.scenario.plan import Plan
from testbed.sim.engine.arrays import without_control_delay
from trainer.envs.episode import EpisodeGame

ID: Final = "edge-testbed/Node-v0"


class NodeEnv(gymnasium.Env[Any, Any]):
    """A node decides where its tasks are executed; every other node executes its own tasks.

    ``plan`` is the JSON of a plan. An observation is ``observation`` [D] float32 by ``encoder`` and
    ``action_mask`` [N + 1] int8, or, ``flat``, the first alone. Actions 0 to N - 1 are
    destinations, N is "no task"; one outside the mask is replaced by local execution or "no task",
    and ``infos["corrected"]`` says so. The reward is the team's. Episodes are truncated after the
    last slot; ``infos`` then hold ``success_rate``. ``reset(seed=n)`` plays episode n of the plan,
    ``reset()`` the next one. Control messages take no time.

    Raises: UsageError: a plan or an encoder that the compiled engine does not cover. ValueError: a
    plan that cannot be read.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - not a class variable of the base class

    def __init__(
        self,
        plan: str,
        node: int = 0,
        encoder: str = DEFAULT,
        flat: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self._game = EpisodeGame(without_control_delay(Plan.from_json(plan)), encoder)
        self._node, self._flat, self.render_mode = node, flat, render_mode
        seen = spaces.Box(-np.inf, np.inf, (self._game.features,), np.float32)
        mask = spaces.MultiBinary(self._game.size + 1)
        self.observation_space: spaces.Space[Any] = (
            seen if flat else spaces.Dict({"observation": seen, "action_mask": mask})
        )
        self.action_space: spaces.Space[Any] = spaces.Discrete(self._game.size + 1)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        self._game.begin(seed)
        return self._seen()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Play one slot."""
        turn = self._game.play({f"node_{self._node}": int(action)})
        seen, infos = self._seen()
        infos["corrected"] = bool(turn.corrected[self._node])
        if turn.over:
            infos["success_rate"] = self._game.success_rate
        return seen, turn.reward, False, turn.over, infos

    def _seen(self) -> tuple[Any, dict[str, Any]]:
        """Return the observation, and the mask also among the infos."""
        features, masks = self._game.observation
        mask = masks[self._node].astype(np.int8)
        if self._flat:
            return features[self._node].copy(), {"action_mask": mask}
        seen = {"observation": features[self._node].copy(), "action_mask": mask}
        return seen, {"action_mask": mask}


def spec_of(plan: str, encoder: str, *, flat: bool) -> EnvSpec:
    """Return what makes the environment of node 0 in which such data may be evaluated."""
    return EnvSpec(
        ID,
        entry_point=f"{NodeEnv.__module__}:{NodeEnv.__name__}",
        max_episode_steps=Plan.from_json(plan).workload.slots,
        kwargs={"plan": plan, "node": 0, "encoder": encoder, "flat": flat},
        disable_env_checker=True,
    )


if ID not in gymnasium.registry:
    gymnasium.register(
        ID, entry_point=f"{NodeEnv.__module__}:{NodeEnv.__name__}", disable_env_checker=True
    )
