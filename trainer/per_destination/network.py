"""The network that scores destinations, in torch; equal to ``testbed.sim.engine.scoring``."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from testbed.sim.engine.features import WIDTH
from testbed.sim.engine.scoring import ScoringWeights

HIDDEN = 48
MASKED_SCORE = -1e9


class ScoringNetwork(nn.Module):
    """Scores [B, C] of rows [B, C, F] under masks [B, C]; any number C of candidates."""

    def __init__(self, features: int = WIDTH, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.first = nn.Linear(features, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.context = nn.Linear(hidden, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)
        with torch.no_grad():
            self.score.weight.mul_(0.1)

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Log-probabilities [B, C]; masked ones are so low that their exponential is 0."""
        scores = self.scores(rows, mask)
        return torch.log_softmax(torch.where(mask, scores, MASKED_SCORE), dim=-1)

    def scores(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Scores [B, C], also of candidates that are masked; the context is of the others."""
        allowed = mask.to(rows.dtype).unsqueeze(-1)
        hidden = torch.relu(self.first(rows))
        mean = (hidden * allowed).sum(dim=1) / allowed.sum(dim=1)
        second = torch.relu(self.second(hidden) + self.context(mean).unsqueeze(1))
        found: Tensor = self.score(second).squeeze(-1)
        return found


def weights_of(network: ScoringNetwork) -> ScoringWeights:
    """Return a copy of the weights for the compiled engine."""

    def array(tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return np.ascontiguousarray(tensor.detach().numpy(), np.float32).copy()

    return ScoringWeights(
        w1=array(network.first.weight.T),
        b1=array(network.first.bias),
        w2=array(network.second.weight.T),
        wc=array(network.context.weight.T),
        b2=array(network.second.bias),
        w3=array(network.score.weight[0]),
    )


def load_weights(network: ScoringNetwork, weights: ScoringWeights) -> None:
    """Set the weights of ``network``."""
    with torch.no_grad():
        network.first.weight.copy_(torch.from_numpy(weights.w1.T.copy()))
        network.first.bias.copy_(torch.from_numpy(weights.b1.copy()))
        network.second.weight.copy_(torch.from_numpy(weights.w2.T.copy()))
        network.second.bias.copy_(torch.from_numpy(weights.b2.copy()))
        network.context.weight.copy_(torch.from_numpy(weights.wc.T.copy()))
        network.score.weight.copy_(torch.from_numpy(weights.w3[None].copy()))
