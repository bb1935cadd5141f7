"""Clipped steps on decisions whose credit is known, for training and for fine-tuning alike.

The advantage of a decision is its credit less a baseline of the deciding node's own row; the loss
is the clipped policy gradient (paper eq. 19).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer.per_destination.network import ScoringNetwork


class Judged(NamedTuple):
    """D decisions of networks with C nodes each, and what they were worth."""

    rows: Tensor  # [D, C, F]
    mask: Tensor  # [D, C]
    chosen: Tensor  # [D]
    log_probability: Tensor  # [D], with which it was chosen
    own_row: Tensor  # [D, F], of the node that decided
    credit: Tensor  # [D]


def judged(
    rows: NDArray[np.float32],
    mask: NDArray[np.bool_],
    chosen: NDArray[np.int64],
    log_probability: NDArray[np.float32],
    node: NDArray[np.int64],
    credit: NDArray[np.float64],
) -> Judged:
    """Return the decisions as tensors; ``node`` [D] is who decided."""
    own_row = rows[np.arange(len(node)), node]
    return Judged(
        rows=torch.from_numpy(rows),
        mask=torch.from_numpy(mask),
        chosen=torch.from_numpy(chosen),
        log_probability=torch.from_numpy(log_probability),
        own_row=torch.from_numpy(own_row),
        credit=torch.from_numpy(credit.astype(np.float32)),
    )


@dataclass(frozen=True, slots=True)
class Steps:
    """Step sizes and limits of ``improve``.

    ``kl_limit`` ends it after the epoch that moved the policy further (mean divergence from what
    decided, in nats); None never does.
    """

    epochs: int
    minibatch: int
    clip: float
    gradient_norm: float
    kl_limit: float | None = None


class Measures(NamedTuple):
    """Means over all steps; epochs that were done, and the divergence then, NaN without a limit."""

    entropy: float
    clipped: float
    baseline_error: float
    divergence: float
    epochs: int


def new_baseline(features: int) -> nn.Sequential:
    """Return a network that estimates the value of a decision from the own row of the decider."""
    return nn.Sequential(nn.Linear(features, 32), nn.ReLU(), nn.Linear(32, 1))


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Uniform in 1 / sqrt(fan in), from ``generator`` alone."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            bound = 1.0 / math.sqrt(layer.in_features)
            with torch.no_grad():
                layer.weight.uniform_(-bound, bound, generator=generator)
                if layer.bias is not None:
                    layer.bias.uniform_(-bound, bound, generator=generator)


def improve(
    steps: Steps,
    network: ScoringNetwork,
    baseline: nn.Module,
    optimiser: torch.optim.Optimizer,
    batches: Sequence[Judged],
    generator: torch.Generator,
) -> Measures:
    """Return a few epochs of clipped steps on ``network``, and of squared error on ``baseline``."""
    with torch.no_grad():
        raw = [batch.credit - baseline(batch.own_row).squeeze(-1) for batch in batches]
    # Where most tasks succeed anyway credits hardly differ: there they are enlarged, but not so far
    # that chance speaks as loud as elsewhere differences do.
    spread = torch.cat(raw).std()
    advantages = [
        (advantage - advantage.mean()) / (torch.sqrt(advantage.std() * spread) + 1e-6)
        for advantage in raw
    ]
    totals = np.zeros(3)
    done = epochs = 0
    moved = math.nan
    for _ in range(steps.epochs):
        for index, part in _minibatches(batches, steps.minibatch, generator):
            batch, advantage = batches[index], advantages[index][part]
            log_probabilities = network(batch.rows[part], batch.mask[part])
            chosen = log_probabilities.gather(1, batch.chosen[part, None]).squeeze(1)
            ratio = torch.exp(chosen - batch.log_probability[part])
            bounded = ratio.clamp(1.0 - steps.clip, 1.0 + steps.clip)
            gain = torch.minimum(ratio * advantage, bounded * advantage).mean()
            error = (baseline(batch.own_row[part]).squeeze(-1) - batch.credit[part]).square().mean()
            optimiser.zero_grad(set_to_none=True)
            (error - gain).backward()
            nn.utils.clip_grad_norm_(network.parameters(), steps.gradient_norm)
            nn.utils.clip_grad_norm_(baseline.parameters(), steps.gradient_norm)
            optimiser.step()
            with torch.no_grad():
                entropy = -(log_probabilities.exp() * log_probabilities).sum(dim=1).mean()
                clipped = (ratio != bounded).float().mean()
            totals += (float(entropy), float(clipped), float(error.detach()))
            done += 1
        epochs += 1
        if steps.kl_limit is not None:
            moved = divergence(network, batches)
            if moved > steps.kl_limit:
                break
    entropy_, clipped_, error_ = (totals / done).tolist()
    return Measures(entropy_, clipped_, error_, moved, epochs)


def fit_baseline(
    baseline: nn.Module,
    batches: Sequence[Judged],
    epochs: int,
    minibatch: int,
    learning_rate: float,
    generator: torch.Generator,
) -> None:
    """Fit ``baseline`` to the credits by squared error."""
    optimiser = torch.optim.Adam(baseline.parameters(), lr=learning_rate)
    for _ in range(epochs):
        for index, part in _minibatches(batches, minibatch, generator):
            batch = batches[index]
            error = (baseline(batch.own_row[part]).squeeze(-1) - batch.credit[part]).square().mean()
            optimiser.zero_grad(set_to_none=True)
            error.backward()
            optimiser.step()


def log_ratios(network: ScoringNetwork, batch: Judged, at_once: int = 8192) -> Tensor:
    """ln of how much likelier than when it was made every decision [D] is to ``network``."""
    with torch.no_grad():
        found = [
            network(rows, mask).gather(1, chosen[:, None]).squeeze(1) - before
            for rows, mask, chosen, before in zip(
                batch.rows.split(at_once),
                batch.mask.split(at_once),
                batch.chosen.split(at_once),
                batch.log_probability.split(at_once),
                strict=True,
            )
        ]
    return torch.cat(found)


def divergence(network: ScoringNetwork, batches: Sequence[Judged]) -> float:
    """Mean Kullback-Leibler divergence of ``network`` from what decided, in nats, by samples."""
    ratios = torch.cat([log_ratios(network, batch) for batch in batches])
    return float((ratios.exp() - 1.0 - ratios).mean())


def _minibatches(
    batches: Sequence[Judged], size: int, generator: torch.Generator
) -> list[tuple[int, Tensor]]:
    """Indices of all decisions in random order, each minibatch from one group."""
    parts = [
        (index, part)
        for index, batch in enumerate(batches)
        for part in torch.randperm(len(batch.chosen), generator=generator).split(size)
    ]
    order = torch.randperm(len(parts), generator=generator)
    return [parts[int(position)] for position in order]
