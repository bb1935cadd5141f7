"""Fitted Q evaluation: the value of logged actions under a policy that did not take them.

H. Le, C. Voloshin and Y. Yue, "Batch Policy Learning under Constraints", ICML 2019, section 4.2. A
network gives the success that a node can expect from each destination: of the task it decides
about, and of its later ones with a discount for every slot. With discount 0 it is a regression of
outcomes, and no later state counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from testbed.errors import check_settings
from trainer.learning.threads import torch_threads
from trainer.learning.transitions import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class FqeConfig:
    """Settings of a fit.

    Raises:
        UsageError: a value outside its range; all of them are listed.
    """

    steps: int = 3_000
    """Gradient steps of each fit."""
    batch_size: int = 512
    """Decisions per step."""
    learning_rate: float = 1e-3
    """Adam step size, which falls to a tenth of it."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers."""
    gamma: float = 0.0
    """Discount per slot, in [0, 1)."""
    tau: float = 5e-3
    """Share of the network that enters its target after every step, with a discount."""
    folds: int = 2
    """Parts of the episodes; the values of each come from a network that was fitted to the others,
    so that no decision is judged by its own outcome."""
    seed: int = 0
    """Seed of initial weights, minibatches and folds."""
    threads: int = 1
    """Torch threads; sums depend on them."""

    def __post_init__(self) -> None:
        checks = [
            ("steps", self.steps >= 1, "at least 1"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("learning_rate", self.learning_rate > 0, "above 0"),
            ("gamma", 0 <= self.gamma < 1, "0 to below 1"),
            ("tau", 0 < self.tau <= 1, "above 0, at most 1"),
            ("folds", self.folds >= 2, "at least 2"),
            ("seed", self.seed >= 0, "0 or more"),
            ("threads", self.threads >= 1, "at least 1"),
        ]
        check_settings("invalid settings of the estimate", "fqe", self, checks)


class Rows(NamedTuple):
    """M decisions to fit to, idle slots among them where later slots count."""

    obs: FloatArray  # [M, D]
    action: IntArray  # [M]
    reward: FloatArray  # [M], 1 for a success
    next_obs: FloatArray  # [M, D]
    next_policy: FloatArray  # [M, A], probabilities of the policy in the next state


def fit(rows: Rows, actions: int, config: FqeConfig, seed: int) -> nn.Sequential:
    """Return a network [., D] -> [., A] of the values under the policy; the same input, the same.

    ``actions`` is A. ``seed`` tells several fits with one setting apart.
    """
    with torch_threads(config.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed * 1_000 + seed)
        network = _perceptron(rows.obs.shape[1], config.hidden, actions)
        target = _perceptron(rows.obs.shape[1], config.hidden, actions)
        target.load_state_dict(network.state_dict())
        optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
        pace = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.1, total_iters=config.steps)
        draw = np.random.default_rng([config.seed, seed])
        for _ in range(config.steps):
            chosen = draw.integers(0, len(rows.action), config.batch_size)
            wanted = torch.from_numpy(rows.reward[chosen])
            if config.gamma:
                with torch.no_grad():
                    following = target(torch.from_numpy(rows.next_obs[chosen]))
                    policy = torch.from_numpy(rows.next_policy[chosen])
                    wanted = wanted + config.gamma * (policy * following).sum(-1)
            found = network(torch.from_numpy(rows.obs[chosen]))
            action = torch.from_numpy(rows.action[chosen])
            loss = (found.gather(1, action[:, None]).squeeze(1) - wanted).square().mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            pace.step()
            if config.gamma:
                _follow(target, network, config.tau)
    return network


def values(network: nn.Module, obs: FloatArray, at_once: int = 65_536) -> FloatArray:
    """Return the values [M, A] of observations [M, D]."""
    with torch.no_grad():
        parts: list[Tensor] = [
            network(torch.from_numpy(obs[first : first + at_once]))
            for first in range(0, len(obs), at_once)
        ]
    found: FloatArray = torch.cat(parts).numpy()
    return found


def expected(policy: FloatArray, values: FloatArray, mask: BoolArray) -> FloatArray:
    """Return the value [M] of states under a policy [M, A], of values [M, A] of what is allowed."""
    found: FloatArray = (policy * np.where(mask, values, 0.0)).sum(axis=1, dtype=np.float32)
    return found


def _perceptron(features: int, hidden: tuple[int, ...], actions: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = features
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU()]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, actions))


def _follow(target: nn.Module, network: nn.Module, tau: float) -> None:
    with torch.no_grad():
        torch._foreach_lerp_(list(target.parameters()), list(network.parameters()), tau)
