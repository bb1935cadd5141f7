"""Proximal policy optimisation inside RLlib's learner: settings, train batch, loss, KL stop.

RLlib's PPO learner with the paper's loss (section IV-C3: no KL term, no value clipping, no
entropy). ``trainer.learning.ppo`` drives it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

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

from testbed.errors import PermanentError, check_settings
from trainer.learning.gae import advantages_of
from trainer.learning.lean import Adam, Beside, descend
from trainer.learning.module import OffloadingModule, exp_in_range, logsumexp, masked
from trainer.learning.transitions import BoolArray, FloatArray, IntArray


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
            ("learning_rate", self.learning_rate > 0, "above 0"),
            ("gamma", 0 <= self.gamma <= 1, "0 to 1"),
            ("gae_lambda", 0 <= self.gae_lambda <= 1, "0 to 1"),
            ("clip", 0 < self.clip < 1, "between 0 and 1"),
            ("epochs", self.epochs >= 1, "at least 1"),
            ("minibatch_size", self.minibatch_size >= 1, "at least 1"),
            ("value_weight", self.value_weight >= 0, "0 or more"),
            ("entropy_weight", self.entropy_weight >= 0, "0 or more"),
            ("kl_stop", self.kl_stop is None or self.kl_stop > 0, "above 0 or none"),
            (
                "gradient_clip",
                self.gradient_clip is None or self.gradient_clip > 0,
                "above 0 or none",
            ),
            ("rewards", self.rewards in ("batch", "carried"), "batch or carried"),
            ("seed", self.seed >= 0, "0 or more"),
            ("num_learners", self.num_learners >= 0, "0 or more"),
            ("threads", self.threads >= 1, "at least 1"),
        ]
        check_settings("invalid settings of the online training", "ppo", self, checks)


class Laid(NamedTuple):
    """S trajectories laid end to end: M decisions, and one state more per trajectory."""

    states: FloatArray  # [M + S, D + A], flat
    action: IntArray  # [M]
    log_prob: FloatArray  # [M]
    reward: FloatArray  # [M], normalised
    lengths: IntArray  # [S]
    terminated: BoolArray  # [S]


def train_columns(
    module: OffloadingModule, laid: Laid, gamma: float, lambda_: float, standardise: bool
) -> dict[str, Tensor]:
    """Return one row per decision [M], with advantages and value targets by the present critic."""
    # The last state of an episode is no decision; it only lends its value.
    last = np.cumsum(laid.lengths + 1) - 1
    decided = np.ones(len(laid.states), dtype=np.bool_)
    decided[last] = False
    obs = torch.from_numpy(laid.states)
    with torch.no_grad():
        value = module.compute_values({Columns.OBS: obs}).numpy()
        obs = obs[torch.from_numpy(decided)]
    advantage = advantages_of(laid.reward, value, laid.lengths, laid.terminated, gamma, lambda_)
    targets = advantage + value[decided]
    if standardise:
        spread = max(1e-4, float(advantage.std()))
        advantage = (advantage - advantage.mean()) / np.float32(spread)
    return {
        Columns.OBS: obs,
        Columns.ACTIONS: torch.from_numpy(laid.action),
        Columns.ACTION_LOGP: torch.from_numpy(laid.log_prob),
        Postprocessing.ADVANTAGES: torch.from_numpy(advantage),
        Postprocessing.VALUE_TARGETS: torch.from_numpy(targets),
    }


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
        laid = Laid(
            states=np.concatenate([episode.get_observations() for episode in episodes]),
            action=np.concatenate([episode.get_actions() for episode in episodes]),
            log_prob=np.concatenate(
                [episode.get_extra_model_outputs(Columns.ACTION_LOGP) for episode in episodes]
            ),
            reward=np.concatenate([episode.get_rewards() for episode in episodes]),
            lengths=np.array([len(episode) for episode in episodes], dtype=np.int64),
            terminated=np.array([episode.is_terminated for episode in episodes]),
        )
        columns = train_columns(module, laid, self._gamma, self._lambda, self._standardise)
        with torch.no_grad():
            logits = module.forward_inference(columns)[Columns.ACTION_DIST_INPUTS]
        batch[DEFAULT_MODULE_ID] = {**columns, Columns.ACTION_DIST_INPUTS: logits}
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
        optimizer = Adam(params, lr=self.config.lr, fused=True)
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
        self._stop = False
        for index in self._minibatches(len(whole), num_epochs, splits, shuffle_seed):
            batch = SampleBatch({name: column[index] for name, column in whole.items()})
            yield MultiAgentBatch({DEFAULT_MODULE_ID: batch}, env_steps=len(index))
            if self._stop:
                return

    def _minibatches(
        self, rows: int, epochs: int, splits: int, shuffle_seed: Sequence[int]
    ) -> Iterator[Tensor]:
        draw = np.random.default_rng([*shuffle_seed, self._learner_index])
        for _epoch in range(epochs):
            for chosen in np.array_split(draw.permutation(rows), min(splits, rows)):
                yield torch.from_numpy(chosen)

    def learn(
        self, laid: Laid, epochs: int, splits: int, shuffle_seed: Sequence[int], beside: Beside
    ) -> None:
        """Do what ``update`` does with episodes, for settings without KL stop or gradient clip.

        Actor and value critic learn side by side, each through all its minibatches: they have
        nothing in common but the rows.
        """
        module = self.module[DEFAULT_MODULE_ID].unwrapped()
        ((_, optimizer),) = self.get_optimizers_for_module(DEFAULT_MODULE_ID)
        settings = self.config.learner_config_dict
        columns = train_columns(
            module,
            laid,
            self.config.gamma,
            self.config.lambda_,
            settings["standardise_advantages"],
        )
        rows = len(columns[Columns.ACTIONS])
        indices = list(self._minibatches(rows, epochs, splits, shuffle_seed))
        surrogates: list[tuple[Tensor, Tensor | None]] = []
        errors: list[Tensor] = []

        def act() -> None:
            for index in indices:
                batch = {
                    name: column[index]
                    for name, column in columns.items()
                    if name != Postprocessing.VALUE_TARGETS
                }
                surrogates.append(self._improve_actor(module, optimizer, batch))

        def judge() -> None:
            targets, obs = columns[Postprocessing.VALUE_TARGETS], columns[Columns.OBS]
            parameters = list(module.vf.parameters())
            for index in indices:
                if beside.given_up.is_set():
                    return
                value = module.vf(module.split(obs[index])[0]).squeeze(-1)
                error = torch.pow(value - targets[index], 2.0)
                weighted = self.config.vf_loss_coeff * error
                descend(weighted.mean(), parameters, optimizer, _diverged())
                errors.append(error.detach())

        beside.both(act, judge)
        for (surrogate, bonus), error in zip(surrogates, errors, strict=True):
            self._note("value_loss", float(error.mean()))
            loss = surrogate + self.config.vf_loss_coeff * error
            loss = loss if bonus is None else loss - bonus
            self._note("loss", float(loss.mean()))
        self._close()

    def _improve_actor(
        self, module: OffloadingModule, optimizer: Adam, batch: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Take one gradient step of the actor; return loss and, if any, entropy bonus by row."""
        features, mask = module.split(batch[Columns.OBS])
        logits = masked(module.pi(features), mask)
        # As torch.distributions.Categorical has it.
        normalised = logits - logsumexp(logits).unsqueeze(-1)
        chosen = batch[Columns.ACTIONS].unsqueeze(-1)
        taken = normalised.gather(-1, chosen).squeeze(-1)
        ratio = torch.exp(taken - batch[Columns.ACTION_LOGP])
        advantage, clip = batch[Postprocessing.ADVANTAGES], self.config.clip_param
        loss = -torch.min(advantage * ratio, advantage * torch.clamp(ratio, 1 - clip, 1 + clip))
        whole, bonus = loss, None
        weight = self.config.entropy_coeff
        if weight:
            least = torch.finfo(normalised.dtype).min
            terms = torch.clamp(normalised, min=least) * torch.softmax(normalised, dim=-1)
            bonus = weight * -terms.sum(-1)
            whole, bonus = loss - bonus, bonus.detach()
        descend(whole.mean(), list(module.pi.parameters()), optimizer, _diverged())
        with torch.no_grad():
            self._measure(logits.detach(), batch)
        return loss.detach(), bonus

    def _measure(self, logits: Tensor, batch: Mapping[str, Tensor]) -> float:
        """Note how far the policy has moved; return the KL divergence of the minibatch."""
        log_prob = torch.log_softmax(logits, dim=-1)
        taken = log_prob.gather(-1, batch[Columns.ACTIONS].unsqueeze(-1)).squeeze(-1)
        log_ratio = taken - batch[Columns.ACTION_LOGP]
        # Unbiased and never negative: E[r - 1 - log r] under the policy that acted.
        divergence = (log_ratio.expm1() - log_ratio).mean()
        entropy = -(exp_in_range(log_prob) * log_prob).sum(-1).mean()
        clipped = ((log_ratio.exp() - 1).abs() > self.config.clip_param).float().mean()
        if self.distributed:
            torch.distributed.all_reduce(divergence)
            divergence /= self.config.num_learners
        kl = float(divergence)
        self._note("kl", kl)
        self._note("entropy", float(entropy))
        self._note("clipped_share", float(clipped))
        return kl

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
            kl = self._measure(fwd_out[Columns.ACTION_DIST_INPUTS], batch)
            error = fwd_out[Columns.EMBEDDINGS] - batch[Postprocessing.VALUE_TARGETS]
        self._note("value_loss", float(error.square().mean()))
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
            raise _diverged()
        gradients: dict[Any, Tensor] = super().compute_gradients(loss_per_module, **kwargs)
        return gradients

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Close the means over the minibatches of this update."""
        super().after_gradient_based_update(timesteps=timesteps)
        self._close()

    def _close(self) -> None:
        self.last_metrics = {name: float(np.mean(seen)) for name, seen in self._seen.items()}
        self.last_metrics["minibatches"] = float(len(self._seen["loss"]))
        self.last_metrics["kl_last"] = self._seen["kl"][-1]
        self.last_metrics["stopped_by_kl"] = float(self._stop)
        self._seen = {}

    def _note(self, name: str, value: float) -> None:
        self._seen.setdefault(name, []).append(value)


def _diverged() -> PermanentError:
    return PermanentError(
        "online training diverged: the loss is no longer finite; "
        "use a smaller learning rate, or go back to an earlier policy"
    )


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
        learner_config_dict={
            "kl_stop": config.kl_stop,
            "standardise_advantages": config.standardise_advantages,
        },
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
