"""Proximal policy optimisation on trajectories: the online learner (section IV-C3, Algorithm 2).

RLlib's PPO learner fed from episodes; no Algorithm, environment runner or Ray cluster. Given the
same weights, settings and trajectories an update is the same bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer

from testbed.errors import Problem, UsageError
from trainer.learning.actor import Actor, NetworkSpec
from trainer.learning.checkpoint import Arrays
from trainer.learning.groups import (
    learn_here,
    learner_group,
    read_metrics,
    read_state,
    read_weights,
    write_learning_rate,
    write_state,
    write_weights,
)
from trainer.learning.lean import Beside
from trainer.learning.module import ONLINE_PARTS, actor_of, flat_observations, module_spec
from trainer.learning.ppo_learner import Laid, PpoConfig, ppo_algorithm_config
from trainer.learning.threads import torch_threads
from trainer.learning.transitions import RewardScale, Trajectory, check_widths

__all__ = ["Ppo", "PpoConfig", "episodes_of"]


def episodes_of(trajectories: Sequence[Trajectory], scale: RewardScale) -> list[SingleAgentEpisode]:
    """RLlib episodes, one per trajectory, rewards normalised; arrays are shared, not copied."""
    return [_episode(trajectory, scale) for trajectory in trajectories]


def _episode(trajectory: Trajectory, scale: RewardScale) -> SingleAgentEpisode:
    name = f"{trajectory.run}/{trajectory.episode}/{trajectory.node}"
    return SingleAgentEpisode(
        id_=name,
        observations=_buffer(flat_observations(trajectory.obs, trajectory.mask)),
        infos=InfiniteLookbackBuffer([_NO_INFO] * (len(trajectory) + 1)),
        actions=_buffer(trajectory.action),
        rewards=_buffer(scale.apply(trajectory.reward)),
        terminated=trajectory.terminated,
        truncated=not trajectory.terminated,
        extra_model_outputs={Columns.ACTION_LOGP: _buffer(trajectory.log_prob)},
        len_lookback_buffer=0,
    )


def laid_out(trajectories: Sequence[Trajectory], scale: RewardScale) -> Laid:
    """Return the trajectories laid end to end, rewards normalised."""
    return Laid(
        states=flat_observations(
            np.concatenate([each.obs for each in trajectories]),
            np.concatenate([each.mask for each in trajectories]),
        ),
        action=np.concatenate([each.action for each in trajectories]),
        log_prob=np.concatenate([each.log_prob for each in trajectories]),
        reward=scale.apply(np.concatenate([each.reward for each in trajectories])),
        lengths=np.array([len(each) for each in trajectories], dtype=np.int64),
        terminated=np.array([each.terminated for each in trajectories]),
    )


_NO_INFO: dict[str, Any] = {}


def _buffer(values: NDArray[Any]) -> InfiniteLookbackBuffer:
    return InfiniteLookbackBuffer(values, lookback=0)


class Ppo:
    """The online learner: trajectories in, a better actor out; a context manager.

    ``weights`` (of `OfflineResult`) start actor *and* value critic; without them both start from
    ``config.seed``. ``reward_scale`` is needed for ``rewards="carried"`` only.

    Raises:
        UsageError: weights missing, superfluous or of another shape; no scale to carry.
        PrerequisiteMissing: remote learners asked for and no Ray cluster connected.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        config: PpoConfig,
        *,
        weights: Mapping[str, NDArray[Any]] | None = None,
        reward_scale: RewardScale | None = None,
    ) -> None:
        if config.rewards == "carried" and reward_scale is None:
            raise UsageError(
                "there is no reward scale to carry over",
                [Problem("ppo.rewards", "carried", "batch, or start from an offline training")],
            )
        self.spec = spec
        self.config = config
        self.updates = 0
        self._pace = 1.0
        self._reward_scale = reward_scale
        self._group = learner_group(
            ppo_algorithm_config(config),
            module_spec(self.spec, twin_q=False, seed=config.seed),
            config.num_learners,
        )
        # Both need the other network in the middle of an update.
        alone = config.kl_stop is None and config.gradient_clip is None
        self._here = self._group.is_local and alone
        if weights is not None:
            self._warm_start(weights)

    def __enter__(self) -> Ppo:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the learners; harmless when called again."""
        self._group.shutdown()

    def actor(self) -> Actor:
        """Return the current policy, as a copy."""
        return actor_of(self.spec, self.weights())

    def weights(self) -> Arrays:
        """Return weights of actor and value critic (``pi.*``, ``vf.*``), as copies."""
        return read_weights(self._group)

    def update(self, trajectories: Sequence[Trajectory]) -> dict[str, float]:
        """Improve actor and value critic on trajectories that the *current* actor produced.

        Returns means over the minibatches: ``loss``, ``value_loss``, ``kl``, ``entropy``,
        ``clipped_share``; besides ``kl_last``, ``minibatches``, ``stopped_by_kl``, ``reward_mean``.

        Raises:
            UsageError: no trajectories, or of another width than the network.
            PermanentError: the loss is no longer finite.
        """
        widths = check_widths(trajectories)
        if widths != (self.spec.features, self.spec.actions):
            seen = f"{widths[0]} features x {widths[1]} actions"
            allowed = f"{self.spec.features} features x {self.spec.actions} actions"
            raise UsageError(
                "these trajectories belong to a different policy",
                [Problem("trajectories", seen, allowed)],
            )
        config = self.config
        measured = RewardScale.of(np.concatenate([t.reward for t in trajectories]))
        scale = measured
        if config.rewards == "carried" and self._reward_scale is not None:
            scale = self._reward_scale
        steps = sum(len(trajectory) for trajectory in trajectories)
        splits, shuffle_seed = math.ceil(steps / config.minibatch_size), (config.seed, self.updates)
        with torch_threads(config.threads):
            if self._here:
                with Beside() as beside:
                    learn_here(
                        self._group,
                        laid=laid_out(trajectories, scale),
                        epochs=config.epochs,
                        splits=splits,
                        shuffle_seed=shuffle_seed,
                        beside=beside,
                    )
            else:
                self._group.update(
                    episodes=episodes_of(trajectories, scale),
                    num_epochs=config.epochs,
                    splits=splits,
                    shuffle_seed=shuffle_seed,
                )
        self.updates += 1
        return read_metrics(self._group) | {"reward_mean": measured.mean}

    def state(self) -> Arrays:
        """Everything an exact continuation needs: weights, Adam moments, updates done, pace."""
        own = {"updates": np.array(self.updates), "pace": np.array(self._pace)}
        return read_state(self._group) | own

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Return to what `state` gave, optimiser and learning rate included.

        Raises:
            UsageError: the state of another network; nothing is changed then.
        """
        rest = dict(state)
        updates, pace = rest.pop("updates", None), rest.pop("pace", None)
        if updates is None or pace is None:
            raise UsageError(
                "this is not a state of an online training",
                [Problem("updates, pace", "missing", "what `state` gave")],
            )
        write_state(self._group, rest)
        self.updates = int(updates)
        self._set_pace(float(pace))

    def roll_back(self, state: Mapping[str, NDArray[Any]], *, slow_down: float) -> None:
        """Return to an earlier policy, critic and optimiser, and take smaller steps from there.

        The learning rate becomes ``slow_down`` times the present one. The number of updates goes
        on, so that the next update draws other minibatches than the one taken back.

        Raises:
            UsageError: the state of another network; nothing is changed then.
        """
        updates, pace = self.updates, self._pace
        self.restore(state)
        self.updates = updates
        self._set_pace(pace * slow_down)

    @property
    def learning_rate(self) -> float:
        """Adam step size of the next update."""
        return self.config.learning_rate * self._pace

    def _set_pace(self, pace: float) -> None:
        self._pace = pace
        write_learning_rate(self._group, self.learning_rate)

    def _warm_start(self, weights: Mapping[str, NDArray[Any]]) -> None:
        # RLlib ignores names it does not know; a critic left out silently would be a cold one.
        own = self.weights()
        given = {k: v for k, v in weights.items() if k.split(".", 1)[0] in ONLINE_PARTS}
        problems = [
            Problem(name, "missing", "actor and value critic of the offline phase")
            for name in own
            if name not in given
        ]
        if problems:
            self.close()
            raise UsageError("these weights cannot start the online phase", problems)
        try:
            write_weights(self._group, given)
        except UsageError:
            self.close()
            raise
