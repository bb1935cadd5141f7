"""Behaviour cloning: the policy that logs were made by, as well as observations tell it.

The simplest peer of the offline learner: what it gains over the logs it owes to the mask alone, and
what others gain beyond it they owe to rewards. The value critic is that of the logged policy.
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
class CloningConfig:
    """Settings of behaviour cloning.

    Raises:
        UsageError: a value outside its range; all of them are listed.
    """

    name: ClassVar[str] = "cloning"
    twin_q: ClassVar[bool] = False

    learning_rate: float = 3e-4
    gamma: float = 0.99
    """Discount per slot of the value critic, in [0, 1]; the policy does not depend on it."""
    batch_size: int = 128

    def __post_init__(self) -> None:
        check_learner(self)

    def algorithm(self) -> AlgorithmConfig:
        """Return RLlib's description of the learner."""
        return described(self, CloningLearner)

    def handed_over(self, weights: Arrays) -> Arrays:
        """Return actor and value critic."""
        return actor_and_critic(weights)


def cloning_losses(
    logits: Tensor, value: Tensor, action: Tensor, target: Tensor
) -> dict[str, Tensor]:
    """Return the losses of masked ``logits`` [B, A] and ``value`` [B].

    ``actor_loss`` is -log pi of the logged ``action`` [B], ``value_loss`` the squared error from
    ``target`` [B].
    """
    log_prob = torch.log_softmax(logits, dim=-1).gather(-1, action.unsqueeze(-1)).squeeze(-1)
    return {
        "actor_loss": -log_prob.mean(),
        "value_loss": (value - target).square().mean(),
        "entropy": entropy(logits),
    }


class CloningLearner(StepLearner):
    """RLlib learner of the losses above."""

    TRAINED: ClassVar[tuple[str, ...]] = ("actor_loss", "value_loss")

    def losses(self, module: OffloadingModule, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses of one minibatch."""
        features, mask = module.split(batch[Columns.OBS])
        return cloning_losses(
            masked(module.pi(features), mask),
            module.vf(features).squeeze(-1),
            batch[Columns.ACTIONS],
            next_value(module, batch, self.settings.gamma),
        )
