"""Conservative discrete soft actor-critic: the offline learner (section IV-C2, Algorithm 1).

RLlib's own CQL knows continuous actions only, so this is a learner of ours on RLlib's torch
learner. The loss terms are plain functions of tensors, held to hand-computed values by the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.columns import Columns
from torch import Tensor

from trainer.learning.checkpoint import Arrays
from trainer.learning.module import (
    LOGITS,
    NEXT_LOGITS,
    NEXT_TARGET_Q,
    Q1,
    Q2,
    TARGET_Q,
    VALUE,
    OffloadingModule,
    exp,
    exp_in_range,
    masked,
    masked_logsumexp,
)
from trainer.learning.stepping import (
    StepLearner,
    actor_and_critic,
    check_learner,
    described,
)


@dataclass(frozen=True, slots=True)
class CqlConfig:
    """Settings of the offline loss and its optimiser; the defaults are the paper's (section V-A).

    Raises:
        UsageError: a value outside its range; all of them are listed.
    """

    name: ClassVar[str] = "cql"
    twin_q: ClassVar[bool] = True

    learning_rate: float = 3e-4
    """Adam step size of all networks."""
    gamma: float = 0.99
    """Discount per slot, in [0, 1]."""
    tau: float = 5e-4
    """Share of the Q network that enters its target after every gradient step, in (0, 1].
    The authors' released code uses 5e-3."""
    batch_size: int = 128
    """Agent rows per gradient step; rows of all nodes train the one shared policy."""
    alpha: float = 0.05
    """Weight of the entropy in the soft value, fixed."""
    cql_weight: float = 0.1
    """lambda_c, weight of the regulariser; 0 gives plain discrete SAC. 1 collapses."""
    actor_q: Literal["target", "online"] = "target"
    """Q networks in the soft value that the actor maximises: the targets, as the paper defines it
    below equation 8, or the networks themselves, as SAC does."""

    def __post_init__(self) -> None:
        check_learner(
            self,
            ("tau", 0 < self.tau <= 1, "above 0, at most 1"),
            ("alpha", self.alpha >= 0, "0 or more"),
            ("cql_weight", self.cql_weight >= 0, "0 or more"),
            ("actor_q", self.actor_q in ("target", "online"), "target or online"),
        )

    def algorithm(self) -> AlgorithmConfig:
        """Return RLlib's description of the learner."""
        return described(self, CqlLearner)

    def handed_over(self, weights: Arrays) -> Arrays:
        """Return actor and value critic."""
        return actor_and_critic(weights)


def soft_value(logits: Tensor, q: Tensor, alpha: float) -> Tensor:
    """V(o) = pi(o)^T (Q(o) - alpha log pi(o)) for masked logits and Q, both [B, A]; [B]."""
    log_prob = torch.log_softmax(logits, dim=-1)
    return (exp(log_prob) * (q - alpha * log_prob)).sum(-1)


def target_value(reward: Tensor, terminated: Tensor, next_value: Tensor, gamma: float) -> Tensor:
    """y = r + gamma V(o'), without V where the episode terminated; truncation keeps V. All [B]."""
    return reward + gamma * torch.where(terminated, 0.0, next_value)


def conservative_gap(q: Tensor, mask: Tensor, action: Tensor) -> Tensor:
    """R(o, a) = log sum exp Q(o, .) over allowed actions - Q(o, a), per row [B]; never negative."""
    return masked_logsumexp(q, mask) - q.gather(-1, action.unsqueeze(-1)).squeeze(-1)


def cql_losses(
    out: Mapping[str, Tensor],
    mask: Tensor,
    action: Tensor,
    reward: Tensor,
    terminated: Tensor,
    config: CqlConfig,
) -> dict[str, Tensor]:
    """Return the scalar losses of Algorithm 1 from one forward pass of the module.

    ``out`` is what `OffloadingModule` gives in training; ``mask`` [B, A], the others [B]. Keys:
    ``q1_loss``, ``q2_loss`` (each equation 10, with its regulariser), ``actor_loss`` (11),
    ``value_loss`` (12); besides, for the log, ``q1_mse``, ``q2_mse``, ``cql_gap``, ``entropy``,
    ``target_mean`` and ``q_mean``.
    """
    with torch.no_grad():
        following = soft_value(out[NEXT_LOGITS], out[NEXT_TARGET_Q], config.alpha)
        y = target_value(reward, terminated, following, config.gamma)
    return critic_losses(out, mask, action, y, config) | policy_losses(out, y, config)


def critic_losses(
    out: Mapping[str, Tensor], mask: Tensor, action: Tensor, y: Tensor, config: CqlConfig
) -> dict[str, Tensor]:
    """Return what `cql_losses` has of the Q networks, for targets ``y`` [B]."""
    losses: dict[str, Tensor] = {}
    gaps, chosen = [], action.unsqueeze(-1)
    for name in (Q1, Q2):
        mse = (out[name].gather(-1, chosen).squeeze(-1) - y).square().mean()
        gap = conservative_gap(out[name], mask, action).mean()
        losses[f"{name}_loss"] = mse + config.cql_weight * gap
        losses[f"{name}_mse"] = mse
        gaps.append(gap)
    with torch.no_grad():
        losses["cql_gap"] = (gaps[0] + gaps[1]) / 2
        losses["q_mean"] = (out[Q1].gather(-1, chosen) + out[Q2].gather(-1, chosen)).mean() / 2
    return losses


def policy_losses(out: Mapping[str, Tensor], y: Tensor, config: CqlConfig) -> dict[str, Tensor]:
    """Return what `cql_losses` has of actor and value critic, for targets ``y`` [B]."""
    if config.actor_q == "target":
        judged = out[TARGET_Q]
    else:
        judged = torch.minimum(out[Q1], out[Q2]).detach()
    losses = {
        "actor_loss": -soft_value(out[LOGITS], judged, config.alpha).mean(),
        "value_loss": (out[VALUE] - y).square().mean(),
    }
    with torch.no_grad():
        log_prob = torch.log_softmax(out[LOGITS], dim=-1)
        losses["entropy"] = -(exp_in_range(log_prob) * log_prob).sum(-1).mean()
        losses["target_mean"] = y.mean()
    return losses


class CqlLearner(StepLearner):
    """RLlib learner of the losses above."""

    TRAINED: ClassVar[tuple[str, ...]] = ("q1_loss", "q2_loss", "actor_loss", "value_loss")

    def compute_loss_for_module(
        self,
        *,
        module_id: str,
        config: AlgorithmConfig,
        batch: dict[str, Tensor],
        fwd_out: dict[str, Tensor],
    ) -> Tensor:
        """Return the sum of the trained losses, of the forward pass that several learners share."""
        _, mask = self.module[module_id].unwrapped().split(batch[Columns.OBS])
        losses = cql_losses(
            fwd_out,
            mask,
            batch[Columns.ACTIONS],
            batch[Columns.REWARDS],
            batch[Columns.TERMINATEDS],
            self.settings,
        )
        return self._noted(losses)

    def losses(self, module: OffloadingModule, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the same losses; only what these settings need is computed."""
        config, action = self.settings, batch[Columns.ACTIONS]
        features, mask = module.split(batch[Columns.OBS])
        following, next_mask = features, mask
        # Without a discount nothing that follows counts, and ``batch`` need not have it.
        if config.gamma:
            following, next_mask = module.split(batch[Columns.NEXT_OBS])
        out = {
            LOGITS: masked(module.pi(features), mask),
            VALUE: module.vf(features).squeeze(-1),
            Q1: module.q1(features),
            Q2: module.q2(features),
        }
        y = batch[Columns.REWARDS]
        with torch.no_grad():
            if config.actor_q == "target":
                out[TARGET_Q] = torch.minimum(module.tq1(features), module.tq2(features))
            if config.gamma:
                next_logits = masked(module.pi(following), next_mask)
                next_q = torch.minimum(module.tq1(following), module.tq2(following))
                value = soft_value(next_logits, next_q, config.alpha)
                y = target_value(y, batch[Columns.TERMINATEDS], value, config.gamma)
        return critic_losses(out, mask, action, y, config) | policy_losses(out, y, config)
