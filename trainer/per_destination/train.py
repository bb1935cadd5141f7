"""Training of the per-destination policy by difference rewards and clipped policy gradients.

Every iteration plays fresh episodes on fresh random networks in the compiled engine, gives each
decision its own credit (``trainer.credit``), and takes a few clipped steps (paper eq. 19 without
the value of a state: the advantage is the credit less a baseline of the deciding node's own row).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch

from testbed.errors import Problem, UsageError
from testbed.model.information import BITS, GIVEN, Asks, encoder_for, kind_of, read
from testbed.model.per_destination import COLUMNS_OF
from testbed.sim.engine.scoring import ScoringWeights, pack_for, record_scoring
from testbed.sim.engine.threads import Threads, success_rates
from trainer.credit.gains import gains_of
from trainer.credit.weight import BY_LOAD, LaterWeight
from trainer.learning.threads import torch_threads
from trainer.per_destination.improving import (
    Judged,
    Steps,
    improve,
    initialise,
    judged,
    new_baseline,
)
from trainer.per_destination.network import HIDDEN, ScoringNetwork, load_weights, weights_of
from trainer.per_destination.networks import LIGHT, PAPER, PAPER_SWEPT, SMALL, Family


class Group(NamedTuple):
    """Part of every iteration's episodes: ``episodes`` networks of ``family`` with N ``sizes``.

    One of ``sizes`` is drawn per iteration; each episode has a network of its own.
    """

    family: Family
    sizes: tuple[int, ...]
    episodes: int


DEFAULT_GROUPS = (
    Group(PAPER, (20,), 12),
    Group(PAPER_SWEPT, (10, 15, 20, 30), 8),
    Group(PAPER, (40, 50), 3),
    Group(LIGHT, (6, 10, 10, 16), 14),
    Group(SMALL, (4, 5, 5, 8), 8),
)
"""Mostly the paper's network, and enough of others that one policy serves them all."""


EXAMPLES: Final = ("bits", "state", "probe:2", "gossip:1slot")
"""What ``information`` may be, for people."""


@dataclass(frozen=True, slots=True)
class PerDestinationConfig:
    """Settings of ``train_per_destination``; the defaults are those of the shipped policy.

    ``information`` is what the policy asks its peers, as ``testbed.model.information.read`` takes
    it: ``bits``, ``state``, ``probe:2``; it tells the encoder.
    ``later_weight`` is that of ``trainer.credit.weight``.
    ``threads`` are those of the episodes, None for one per CPU; they change no weight.
    ``torch_threads`` are those of the gradient steps: sums depend on them, so the default does not
    depend on the machine. ``learning_rate`` falls linearly to ``final_rate`` of itself.
    """

    iterations: int = 110
    seed: int = 2
    groups: tuple[Group, ...] = DEFAULT_GROUPS
    information: str = BITS
    hidden: int = HIDDEN
    epochs: int = 2
    minibatch: int = 2048
    learning_rate: float = 2e-3
    final_rate: float = 0.05
    clip: float = 0.3
    gradient_norm: float = 1.0
    later_weight: LaterWeight = BY_LOAD
    threads: int | None = None
    torch_threads: int = 1

    def __post_init__(self) -> None:
        problems = [
            Problem(name, str(value), "at least 1")
            for name, value in (
                ("iterations", self.iterations),
                ("torch_threads", self.torch_threads),
                ("hidden", self.hidden),
                ("epochs", self.epochs),
                ("minibatch", self.minibatch),
                ("groups", len(self.groups)),
            )
            if value < 1
        ]
        try:
            given = kind_of(self.asks) in GIVEN
        except ValueError:
            given = False
        if not given:
            allowed = f"one of {', '.join(EXAMPLES)}"
            problems.append(Problem("information", repr(self.information), allowed))
        if problems:
            raise UsageError("invalid settings of the per-destination training", problems)

    @property
    def features(self) -> int:
        """F, the width of the rows."""
        return len(COLUMNS_OF[self.encoder])

    @property
    def asks(self) -> Asks:
        """What the policy asks its peers, as its card says it."""
        return read(self.information)

    @property
    def encoder(self) -> str:
        """Name of the encoder that makes the rows."""
        return encoder_for(self.asks)


@dataclass(frozen=True, slots=True)
class Iteration:
    """Result of one iteration; success rates by family are those of the sampled policy."""

    number: int
    success_rate: dict[str, float]
    episodes: int
    decisions: int
    entropy: float
    clipped: float
    baseline_error: float
    seconds: float


@dataclass(frozen=True, slots=True)
class PerDestinationResult:
    """The trained policy and how it came about; ``processor_seconds`` are those of all threads."""

    weights: ScoringWeights
    config: PerDestinationConfig
    history: tuple[Iteration, ...]
    seconds: float
    processor_seconds: float


def train_per_destination(
    config: PerDestinationConfig | None = None,
    progress: Callable[[Iteration], None] | None = None,
    start: ScoringWeights | None = None,
) -> PerDestinationResult:
    """Train a policy from nothing, or from ``start``; ``progress`` is called after every iteration.

    The same settings give the same weights, however many CPUs there are.

    Raises:
        UsageError: settings that make no sense, or a start with other information.
    """
    config = config or PerDestinationConfig()
    with torch_threads(config.torch_threads):
        return _train(config, progress, start)


def _train(
    config: PerDestinationConfig,
    progress: Callable[[Iteration], None] | None,
    start: ScoringWeights | None,
) -> PerDestinationResult:
    began, used = time.perf_counter(), time.process_time()
    rng = np.random.default_rng(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    network = ScoringNetwork(config.features, config.hidden)
    baseline = new_baseline(config.features)
    initialise(network, generator)
    initialise(baseline, generator)
    with torch.no_grad():
        network.score.weight.mul_(0.1)
    if start is not None:
        if len(start.w1) != config.features:
            known = f"a policy for {config.encoder}"
            raise UsageError("this start does not fit", [Problem("start", start.encoder, known)])
        load_weights(network, start)
    optimiser = torch.optim.Adam(
        [*network.parameters(), *baseline.parameters()], lr=config.learning_rate
    )
    pools = [Threads(group.episodes, config.threads) for group in config.groups]
    history = []
    for number in range(config.iterations):
        started = time.perf_counter()
        done = number / max(1, config.iterations - 1)
        for parameters in optimiser.param_groups:
            parameters["lr"] = config.learning_rate * (1.0 - (1.0 - config.final_rate) * done)
        batches, rates = _collect(config, pools, network, rng)
        steps = Steps(config.epochs, config.minibatch, config.clip, config.gradient_norm)
        measures = improve(steps, network, baseline, optimiser, batches, generator)
        iteration = Iteration(
            number=number,
            success_rate=rates,
            episodes=sum(group.episodes for group in config.groups),
            decisions=sum(len(batch.chosen) for batch in batches),
            entropy=measures.entropy,
            clipped=measures.clipped,
            baseline_error=measures.baseline_error,
            seconds=time.perf_counter() - started,
        )
        history.append(iteration)
        if progress is not None:
            progress(iteration)
    return PerDestinationResult(
        weights_of(network),
        config,
        tuple(history),
        seconds=time.perf_counter() - began,
        processor_seconds=time.process_time() - used,
    )


def _collect(
    config: PerDestinationConfig,
    pools: Sequence[Threads],
    network: ScoringNetwork,
    rng: np.random.Generator,
) -> tuple[list[Judged], dict[str, float]]:
    """Play one iteration's episodes; the decisions with their credit, success rates by family."""
    weights = weights_of(network)
    batches: list[Judged] = []
    rates: dict[str, list[float]] = {}
    for group, pool in zip(config.groups, pools, strict=True):
        size = int(rng.choice(group.sizes))
        plans = [group.family.draw(rng, size) for _ in range(group.episodes)]
        batch = pack_for(plans, weights, config.asks)
        decisions = record_scoring(batch, pool, weights, [0] * len(plans))
        gain = gains_of(plans, batch, pool, config.later_weight)
        gains = gain[decisions.episode, decisions.task]
        told = np.isfinite(gains)
        rates.setdefault(group.family.name, []).append(float(np.nanmean(success_rates(batch))))
        batches.append(
            judged(
                decisions.rows[told],
                decisions.mask[told],
                decisions.chosen[told],
                decisions.log_probability[told],
                decisions.task[told] % size,
                gains[told],
            )
        )
    return batches, {name: float(np.mean(values)) for name, values in rates.items()}
