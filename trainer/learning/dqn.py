"""A plain DQN on logs: double Q-learning without anything that keeps it near them.

H. van Hasselt, A. Guez and D. Silver, "Deep Reinforcement Learning with Double Q-learning", AAAI
2016. It shows what the conservative terms of the other learners are for. RLlib's own replaces the
module and samples; here it learns from the same batches with the same networks as the others. What
is handed over is a softmax of Q, because nodes that all take the best destination choose the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.columns import Columns
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from trainer.learning.checkpoint import Arrays
from trainer.learning.module import ACTOR, CRITIC, Q1, OffloadingModule, masked
from trainer.learning.stepping import StepLearner, check_learner, described, entropy


@dataclass(frozen=True, slots=True)
class DqnConfig:
    """Settings of DQN.

    Raises:
        UsageError: a value outside its range; all of them are listed.
    """

    name: ClassVar[str] = "dqn"
    twin_q: ClassVar[bool] = True

    learning_rate: float = 3e-4
    gamma: float = 0.99
    tau: float = 5e-3
    """Share of the Q network that enters its target after every step, in (0, 1]."""
    batch_size: int = 128
    temperature: float = 0.1
    """Of the softmax over Q that is handed over, in standard deviations of the reward; above 0."""

    def __post_init__(self) -> None:
        check_learner(
            self,
            ("tau", 0 < self.tau <= 1, "above 0, at most 1"),
            ("temperature", self.temperature > 0, "above 0"),
        )

    def algorithm(self) -> AlgorithmConfig:
        """Return RLlib's description of the learner."""
        return described(self, DqnLearner)

    def handed_over(self, weights: Arrays) -> Arrays:
        """Return Q, its last layer divided by the temperature, as actor; and the value critic."""
        layers = sorted({int(n.split(".")[1]) for n in weights if n.startswith(f"{Q1}.")})
        found = {n: value for n, value in weights.items() if n.startswith(f"{CRITIC}.")}
        for layer in layers:
            scale = 1.0 / self.temperature if layer == layers[-1] else 1.0
            for part in ("weight", "bias"):
                value = weights[f"{Q1}.{layer}.{part}"]
                found[f"{ACTOR}.{layer}.{part}"] = (scale * value).astype(np.float32)
        return found


def dqn_losses(
    q: Tensor, value: Tensor, action: Tensor, y: Tensor, mask: Tensor, temperature: float
) -> dict[str, Tensor]:
    """Return the losses of ``q`` [B, A] and ``value`` [B] for targets ``y`` [B].

    ``entropy`` is that of the policy that would be handed over under ``mask`` [B, A].
    """
    chosen = q.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    return {
        "q1_loss": smooth_l1_loss(chosen, y),
        "value_loss": (value - y).square().mean(),
        "entropy": entropy(masked(q.detach() / temperature, mask)),
        "q_mean": chosen.detach().mean(),
    }


class DqnLearner(StepLearner):
    """RLlib learner of the losses above."""

    TRAINED: ClassVar[tuple[str, ...]] = ("q1_loss", "value_loss")

    def losses(self, module: OffloadingModule, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses of one minibatch."""
        features, mask = module.split(batch[Columns.OBS])
        y = batch[Columns.REWARDS]
        if self.settings.gamma:
            with torch.no_grad():
                following, allowed = module.split(batch[Columns.NEXT_OBS])
                best = masked(module.q1(following), allowed).argmax(-1, keepdim=True)
                later = module.tq1(following).gather(-1, best).squeeze(-1)
                later = torch.where(batch[Columns.TERMINATEDS], 0.0, later)
                y = y + self.settings.gamma * later
        return dqn_losses(
            module.q1(features),
            module.vf(features).squeeze(-1),
            batch[Columns.ACTIONS],
            y,
            mask,
            self.settings.temperature,
        )
