"""Implicit Q-learning for discrete actions: no value of an action that the logs do not have.

I. Kostrikov, A. Nair and S. Levine, "Offline Reinforcement Learning with Implicit Q-Learning", ICLR
2022. RLlib's own takes continuous actions, so the losses are here; they are its equations 5 to 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.columns import Columns
from torch import Tensor

from trainer.learning.checkpoint import Arrays
from trainer.learning.module import OffloadingModule, masked
from trainer.learning.stepping import (
    StepLearner,
    actor_and_critic,
    check_learner,
    described,
    entropy,
    next_value,
)


@dataclass(frozen=True, slots=True)
class IqlConfig:
    """Settings of implicit Q-learning.

    Raises:
        UsageError: a value outside its range; all of them are listed.
    """

    name: ClassVar[str] = "iql"
    twin_q: ClassVar[bool] = True

    learning_rate: float = 3e-4
    gamma: float = 0.99
    tau: float = 5e-3
    """Share of the Q networks that enters their targets after every step, in (0, 1]."""
    batch_size: int = 128
    expectile: float = 0.7
    """Of the logged actions' values that a state's value is, in (0.5, 1): higher is greedier."""
    sharpness: float = 3.0
    """Weight exp(sharpness * advantage) of a logged action in the policy; 0 clones the logs."""
    largest_weight: float = 100.0
    """Weights are cut here."""

    def __post_init__(self) -> None:
        check_learner(
            self,
            ("tau", 0 < self.tau <= 1, "above 0, at most 1"),
            ("expectile", 0.5 <= self.expectile < 1, "0.5 to below 1"),
            ("sharpness", self.sharpness >= 0, "0 or more"),
            ("largest_weight", self.largest_weight >= 1, "at least 1"),
        )

    def algorithm(self) -> AlgorithmConfig:
        """Return RLlib's description of the learner."""
        return described(self, IqlLearner)

    def handed_over(self, weights: Arrays) -> Arrays:
        """Return actor and value critic."""
        return actor_and_critic(weights)


def iql_losses(
    logits: Tensor,
    value: Tensor,
    q: tuple[Tensor, Tensor],
    target_q: Tensor,
    action: Tensor,
    y: Tensor,
    config: IqlConfig,
) -> dict[str, Tensor]:
    """Return the losses of masked ``logits`` [B, A], ``value`` [B] and both ``q`` [B, A].

    ``target_q`` [B] is the smaller target of the logged ``action`` [B], ``y`` [B] is r + gamma V.
    """
    chosen = action.unsqueeze(-1)
    gap = target_q - value
    weight = torch.where(gap < 0, 1.0 - config.expectile, config.expectile)
    advantage = (config.sharpness * gap.detach()).exp().clamp(max=config.largest_weight)
    log_prob = torch.log_softmax(logits, dim=-1).gather(-1, chosen).squeeze(-1)
    errors = [(each.gather(-1, chosen).squeeze(-1) - y).square().mean() for each in q]
    return {
        "q1_loss": errors[0],
        "q2_loss": errors[1],
        "value_loss": (weight * gap.square()).mean(),
        "actor_loss": -(advantage * log_prob).mean(),
        "entropy": entropy(logits),
        "advantage": gap.detach().mean(),
    }


class IqlLearner(StepLearner):
    """RLlib learner of the losses above."""

    TRAINED: ClassVar[tuple[str, ...]] = ("q1_loss", "q2_loss", "value_loss", "actor_loss")

    def losses(self, module: OffloadingModule, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses of one minibatch."""
        features, mask = module.split(batch[Columns.OBS])
        action = batch[Columns.ACTIONS]
        with torch.no_grad():
            targets = torch.minimum(module.tq1(features), module.tq2(features))
        return iql_losses(
            masked(module.pi(features), mask),
            module.vf(features).squeeze(-1),
            (module.q1(features), module.q2(features)),
            targets.gather(-1, action.unsqueeze(-1)).squeeze(-1),
            action,
            next_value(module, batch, self.settings.gamma),
            self.settings,
        )
