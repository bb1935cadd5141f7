"""A first per-destination policy from the decisions of RATC, without a simulator.

The score of a destination is fitted to two things at once: to what tasks that went there were worth
(their credit, by squared error), and to what RATC preferred of the two nodes it looked at (by cross
entropy, which is behaviour cloning with the two nodes as the only actions). The policy is the
softmax of the scores, in units of ``temperature`` tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from testbed.errors import check_settings
from testbed.model.per_destination import COLUMNS_OF
from testbed.sim.engine.scoring import ScoringWeights
from trainer.learning.threads import torch_threads
from trainer.per_destination.from_choices import Choices
from trainer.per_destination.improving import initialise, new_baseline
from trainer.per_destination.network import MASKED_SCORE, ScoringNetwork, weights_of

_UNLIKE: Final = ("overloaded_share", "unmasked", "overloaded_trend")
"""Columns about all nodes together, which RATC knows next to nothing of: they get no weight."""


@dataclass(frozen=True, slots=True)
class CloneConfig:
    """Settings of ``cloned``.

    ``imitation`` is the weight of what RATC preferred beside what tasks were worth. ``temperature``
    is in tasks: a destination that is better by so much is e times as likely.
    """

    seed: int = 0
    epochs: int = 60
    minibatch: int = 1024
    learning_rate: float = 3e-3
    imitation: float = 0.02
    temperature: float = 0.1
    torch_threads: int = 1

    def __post_init__(self) -> None:
        checks = (
            ("epochs", self.epochs > 0, "above 0"),
            ("minibatch", self.minibatch > 0, "above 0"),
            ("learning_rate", self.learning_rate > 0, "above 0"),
            ("temperature", self.temperature > 0, "above 0"),
            ("torch_threads", self.torch_threads > 0, "above 0"),
            ("imitation", self.imitation >= 0, "0 or more"),
        )
        check_settings("invalid cloning settings", "", self, checks)


def cloned(choices: Choices, config: CloneConfig | None = None) -> ScoringWeights:
    """Return a policy from the decisions of RATC; the same input gives the same weights."""
    config = config or CloneConfig()
    with torch_threads(config.torch_threads):
        return _cloned(choices, config)


def untrained(features: int, seed: int = 0) -> ScoringWeights:
    """Return random weights, with which all destinations are about equally likely."""
    return weights_of(_new(features, torch.Generator().manual_seed(seed)))


def _new(features: int, generator: torch.Generator) -> ScoringNetwork:
    network = ScoringNetwork(features)
    initialise(network, generator)
    with torch.no_grad():
        network.score.weight.mul_(0.1)
    return network


def _cloned(choices: Choices, config: CloneConfig) -> ScoringWeights:
    generator = torch.Generator().manual_seed(config.seed)
    features = choices.rows.shape[2]
    network, baseline = _new(features, generator), new_baseline(features)
    initialise(baseline, generator)
    [names] = [names for names in COLUMNS_OF.values() if len(names) == features]
    silent = [names.index(name) for name in _UNLIKE]
    with torch.no_grad():
        network.first.weight[:, silent] = 0.0
        # The mean over all nodes is one over nodes of which the states are not known here.
        network.context.weight.zero_()
    learned = [
        *network.first.parameters(),
        *network.second.parameters(),
        *network.score.parameters(),
        *baseline.parameters(),
    ]
    optimiser = torch.optim.Adam(learned, lr=config.learning_rate)
    steps = torch.optim.lr_scheduler.LinearLR(
        optimiser, 1.0, 0.1, total_iters=_steps(choices, config)
    )
    rows = choices.rows.clone()
    rows[:, :, silent] = 0.0
    for _ in range(config.epochs):
        for part in torch.randperm(len(rows), generator=generator).split(config.minibatch):
            loss = _loss(network, baseline, Choices(rows, *choices[1:]), part, config)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(learned, 1.0)
            optimiser.step()
            steps.step()
    return weights_of(network)


def _loss(
    network: ScoringNetwork, baseline: nn.Module, data: Choices, part: Tensor, config: CloneConfig
) -> Tensor:
    candidates, chosen = data.candidates[part], data.chosen[part, None]
    scores = network.scores(data.rows[part], torch.ones_like(candidates))
    of_chosen = scores.gather(1, chosen).squeeze(1)
    worth = baseline(data.own_row[part]).squeeze(-1) + config.temperature * of_chosen
    error = (worth - data.credit[part]).square().mean()
    among = torch.log_softmax(torch.where(candidates, scores, MASKED_SCORE), dim=-1)
    imitated = -among.gather(1, chosen).mean()
    loss: Tensor = error + config.imitation * imitated
    return loss


def _steps(choices: Choices, config: CloneConfig) -> int:
    return config.epochs * -(-len(choices.chosen) // config.minibatch)
