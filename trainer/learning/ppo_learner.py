"""Proximal policy optimisation inside RLlib's learner: settings, train batch, loss, KL stop.

RLlib's PPO learner with the paper's loss (section IV-C3: no KL term, no value clipping, no
entropy). ``trainer.learning.ppo`` drives it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from torch import Tensor

from testbed.errors import PermanentError, Problem, UsageError
from trainer.learning.gae import advantages_of


@dataclass(frozen=True, slots=True)
class PpoConfig:
    """Settings of the online updates; loss and constants are the paper's (section V-A).

    Raises:
        UsageError: a value outside its range; all of them are listed.
    """

    learning_rate: float = 3e-4
    """Adam step size of actor and value critic."""
    gamma: float = 0.99
    """Discount per slot, in [0, 1]."""
    gae_lambda: float = 0.95
    """lambda of the advantage estimation, in [0, 1]."""
    clip: float = 0.2
    """epsilon of equation 18."""
    epochs: int = 4
    """Passes over the collected trajectories per update."""
    minibatch_size: int = 2_000
    """Agent rows per gradient step. The paper gives none; small ones make large, noisy steps."""
    value_weight: float = 1.0
    """Weight of the value loss (equation 19)."""
    entropy_weight: float = 0.0
    """Weight of an entropy bonus; the paper has none."""
    kl_stop: float | None = 0.05
    """An update ends early once a minibatch shows a larger KL divergence (nats) between the
    policy that acted and the current one; None: never. Guards against one bad batch."""
    gradient_clip: float | None = None
    """Largest global gradient norm; None: not clipped."""
    standardise_advantages: bool = True
    """Give the advantages of an update mean 0 and deviation 1."""
    rewards: Literal["batch", "carried"] = "batch"
    """Scale of the rewards: measured on each collected batch (Algorithm 2), or the offline data
    set's, given when the learner is made."""
    seed: int = 0
    """Seed of the initial weights (without warm start) and of the order of minibatches."""
    num_learners: int = 0
    """Remote learners; 0 learns in this process and needs no Ray cluster."""
    threads: int = 1
    """Torch threads of a learner in this process."""

    def __post_init__(self) -> None:
        checks = [
            ("learning_rate", self.learning_rate, self.learning_rate > 0, "above 0"),
            ("gamma", self.gamma, 0 <= self.gamma <= 1, "0 to 1"),
            ("gae_lambda", self.gae_lambda, 0 <= self.gae_lambda <= 1, "0 to 1"),
            ("clip", self.clip, 0 < self.clip < 1, "between 0 and 1"),
            ("epochs", self.epochs, self.epochs >= 1, "at least 1"),
            ("minibatch_size", self.minibatch_size, self.minibatch_size >= 1, "at least 1"),
            ("value_weight", self.value_weight, self.value_weight >= 0, "0 or more"),
            ("entropy_weight", self.entropy_weight, self.entropy_weight >= 0, "0 or more"),
            ("kl_stop", self.kl_stop, self.kl_stop is None or self.kl_stop > 0, "above 0 or none"),
            (
                "gradient_clip",
                self.gradient_clip,
                self.gradient_clip is None or self.gradient_clip > 0,
                "above 0 or none",
            ),
            ("rewards", self.rewards, self.rewards in ("batch", "carried"), "batch or carried"),
            ("seed", self.seed, self.seed >= 0, "0 or more"),
            ("num_learners", self.num_learners, self.num_learners >= 0, "0 or more"),
            ("threads", self.threads, self.threads >= 1, "at least 1"),
        ]
        problems = [
            Problem(f"ppo.{name}", str(value), allowed)
            for name, value, fine, allowed in checks
            if not fine
        ]
        if problems:
            raise UsageError("invalid settings of the online training", problems)


class EpisodesToTrainBatch(ConnectorV2):  # type: ignore[misc]
    """Learner connector: complete episodes to one train batch with advantages and value targets.

    Stands in for RLlib's default pieces, which insert an artificial step after every episode and
    let it take part in the standardisation of the advantages; besides, it is several times faster.
    """

    def __init__(
        self,
        input_observation_space: Any = None,
        input_action_space: Any = None,
        *,
        gamma: float,
        lambda_: float,
        standardise: bool,
    ) -> None:
        super().__init__(input_observation_space, input_action_space)
        self._gamma, self._lambda, self._standardise = gamma, lambda_, standardise

    def __call__(
        self,
        *,
        rl_module: MultiRLModule,
        batch: dict[str, Any],
        episodes: list[SingleAgentEpisode],
        **_: Any,
    ) -> dict[str, Any]:
        """Fill ``batch`` with one row per decision, all episodes laid end to end."""
        module = rl_module[DEFAULT_MODULE_ID].unwrapped()
        lengths = np.array([len(episode) for episode in episodes], dtype=np.int64)
        states = np.concatenate([episode.get_observations() for episode in episodes])
        reward = np.concatenate([episode.get_rewards() for episode in episodes])
        # The last state of an episode is no decision; it only lends its value.
        last = np.cumsum(lengths + 1) - 1
        decided = np.ones(len(states), dtype=np.bool_)
        decided[last] = False
        obs = torch.from_numpy(states)
        with torch.no_grad():
            value = module.compute_values({Columns.OBS: obs}).numpy()
            obs = obs[torch.from_numpy(decided)]
            logits = module.forward_inference({Columns.OBS: obs})[Columns.ACTION_DIST_INPUTS]
        advantage = advantages_of(
            reward,
            value,
            lengths,
            np.array([episode.is_terminated for episode in episodes]),
            self._gamma,
            self._lambda,
        )
        targets = advantage + value[decided]
        if self._standardise:
            spread = max(1e-4, float(advantage.std()))
            advantage = (advantage - advantage.mean()) / np.float32(spread)
        action = np.concatenate([episode.get_actions() for episode in episodes])
        log_prob = np.concatenate(
            [episode.get_extra_model_outputs(Columns.ACTION_LOGP) for episode in episodes]
        )
        batch[DEFAULT_MODULE_ID] = {
            Columns.OBS: obs,
            Columns.ACTIONS: torch.from_numpy(action),
            Columns.ACTION_LOGP: torch.from_numpy(log_prob),
            Columns.ACTION_DIST_INPUTS: logits,
            Postprocessing.ADVANTAGES: torch.from_numpy(advantage),
            Postprocessing.VALUE_TARGETS: torch.from_numpy(targets),
        }
        return batch


class PpoLearner(PPOTorchLearner):  # type: ignore[misc]
    """RLlib's PPO learner with seeded minibatches, a KL stop, and no step on a loss that is NaN."""

    def build(self) -> None:
        """Build like RLlib's learner."""
        super().build()
        self._kl_stop: float | None = self.config.learner_config_dict["kl_stop"]
        self._stop = False
        self._seen: dict[str, list[float]] = {}
        self.last_metrics: dict[str, float] = {}

    def configure_optimizers_for_module(
        self, module_id: str, config: AlgorithmConfig | None = None
    ) -> None:
        """One Adam for actor and value critic, which have no parameter in common."""
        # Without a schedule of RLlib's, which would set the rate anew in every update.
        params = self.get_parameters(self._module[module_id])
        optimizer = torch.optim.Adam(params, lr=self.config.lr, fused=True)
        self.register_optimizer(module_id=module_id, optimizer=optimizer, params=params)

    def _create_iterator_if_necessary(
        self,
        *,
        training_data: Any,
        num_epochs: int = 1,
        splits: int = 1,
        shuffle_seed: Sequence[int] = (0,),
        **_: Any,
    ) -> Iterator[MultiAgentBatch]:
        # RLlib's own iterator leaves the first epoch in order of collection and shuffles with
        # numpy's global generator. As many minibatches for every learner, or they would wait for
        # each other for ever.
        whole = self._make_batch_if_necessary(training_data).policy_batches[DEFAULT_MODULE_ID]
        rows = len(whole)
        draw = np.random.default_rng([*shuffle_seed, self._learner_index])
        self._stop = False
        for _epoch in range(num_epochs):
            for chosen in np.array_split(draw.permutation(rows), min(splits, rows)):
                index = torch.from_numpy(chosen)
                batch = SampleBatch({name: column[index] for name, column in whole.items()})
                yield MultiAgentBatch({DEFAULT_MODULE_ID: batch}, env_steps=len(index))
                if self._stop:
                    return

    def compute_loss_for_module(
        self,
        *,
        module_id: str,
        config: PPOConfig,
        batch: dict[str, Tensor],
        fwd_out: dict[str, Tensor],
    ) -> Tensor:
        """RLlib's PPO loss; notes the KL divergence of the minibatch on the way."""
        loss: Tensor = super().compute_loss_for_module(
            module_id=module_id, config=config, batch=batch, fwd_out=fwd_out
        )
        with torch.no_grad():
            log_prob = torch.log_softmax(fwd_out[Columns.ACTION_DIST_INPUTS], dim=-1)
            taken = log_prob.gather(-1, batch[Columns.ACTIONS].unsqueeze(-1)).squeeze(-1)
            log_ratio = taken - batch[Columns.ACTION_LOGP]
            # Unbiased and never negative: E[r - 1 - log r] under the policy that acted.
            divergence = (log_ratio.expm1() - log_ratio).mean()
            error = fwd_out[Columns.EMBEDDINGS] - batch[Postprocessing.VALUE_TARGETS]
            entropy = -(log_prob.exp() * log_prob).sum(-1).mean()
            clipped = ((log_ratio.exp() - 1).abs() > config.clip_param).float().mean()
            if self.distributed:
                torch.distributed.all_reduce(divergence)
                divergence /= self.config.num_learners
        kl = float(divergence)
        self._note("kl", kl)
        self._note("value_loss", float(error.square().mean()))
        self._note("entropy", float(entropy))
        self._note("clipped_share", float(clipped))
        self._note("loss", float(loss.detach()))
        self._stop = self._kl_stop is not None and kl > self._kl_stop
        return loss

    def compute_gradients(
        self, loss_per_module: dict[str, Tensor], **kwargs: Any
    ) -> dict[Any, Tensor]:
        """Gradients of the loss.

        Raises:
            PermanentError: the loss is no longer finite.
        """
        if not all(bool(torch.isfinite(loss)) for loss in loss_per_module.values()):
            raise PermanentError(
                "online training diverged: the loss is no longer finite; "
                "use a smaller learning rate, or go back to an earlier policy"
            )
        gradients: dict[Any, Tensor] = super().compute_gradients(loss_per_module, **kwargs)
        return gradients

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Close the means over the minibatches of this update."""
        super().after_gradient_based_update(timesteps=timesteps)
        self.last_metrics = {name: float(np.mean(seen)) for name, seen in self._seen.items()}
        self.last_metrics["minibatches"] = float(len(self._seen["loss"]))
        self.last_metrics["kl_last"] = self._seen["kl"][-1]
        self.last_metrics["stopped_by_kl"] = float(self._stop)
        self._seen = {}

    def _note(self, name: str, value: float) -> None:
        self._seen.setdefault(name, []).append(value)


def ppo_algorithm_config(config: PpoConfig) -> PPOConfig:
    """RLlib's description of the paper's PPO loss; no Algorithm is ever made of it."""
    described = PPOConfig()
    described.framework("torch")
    described.training(
        lr=config.learning_rate,
        gamma=config.gamma,
        lambda_=config.gae_lambda,
        clip_param=config.clip,
        vf_loss_coeff=config.value_weight,
        vf_clip_param=math.inf,
        entropy_coeff=config.entropy_weight,
        use_kl_loss=False,
        kl_coeff=0.0,
        use_critic=True,
        use_gae=True,
        grad_clip=config.gradient_clip,
        grad_clip_by="global_norm",
    )
    described.learners(
        learner_class=PpoLearner,
        learner_config_dict={"kl_stop": config.kl_stop},
        learner_connector=partial(
            _connector, config.gamma, config.gae_lambda, config.standardise_advantages
        ),
        add_default_connectors_to_learner_pipeline=False,
    )
    return described


def _connector(
    gamma: float, lambda_: float, standardise: bool, observation_space: Any, action_space: Any
) -> ConnectorV2:
    return EpisodesToTrainBatch(
        observation_space, action_space, gamma=gamma, lambda_=lambda_, standardise=standardise
    )
