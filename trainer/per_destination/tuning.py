"""Fine-tuning of a per-destination policy by the decisions it made, on one network.

The same loss as in training, in smaller steps, from weights that are good already. What comes out
is compared with what went in by paired episodes of the simulator, and kept only if it is no worse.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from testbed.errors import Problem, UsageError, check_settings
from testbed.model.information import BITS, STATE, Asks, kind_of
from testbed.policies import PolicyCard
from testbed.scenario.plan import Plan
from testbed.sim.engine.arrays import problems_of, without_control_delay
from testbed.sim.engine.scoring import ScoringWeights
from testbed.sim.play import AnyPolicy, evaluate
from trainer.learning.threads import torch_threads
from trainer.per_destination.export import network_of, policy_of
from trainer.per_destination.from_logs import LoggedDecisions
from trainer.per_destination.improving import (
    Judged,
    Measures,
    Steps,
    fit_baseline,
    improve,
    initialise,
    new_baseline,
)
from trainer.per_destination.network import weights_of

FIRST_CHECK_EPISODE: Final = 900_000
"""Number of the first episode by which old and new are compared; no run has such numbers."""

MIN_EPISODES: Final = 10
"""Fewer episodes say more about chance than about decisions."""

_BASELINE_EPOCHS: Final = 20
_BASELINE_RATE: Final = 5e-3


@dataclass(frozen=True, slots=True)
class TuneConfig:
    """Settings of ``fine_tune``; smaller steps than in training.

    ``kl_limit`` in nats ends the steps (see ``Steps``). ``check_episodes`` 0 compares nothing and
    keeps the new policy. ``threads`` are those of the episodes that are compared, None for one per
    CPU, and ``torch_threads`` those of the steps, on which the weights depend.
    """

    seed: int = 0
    epochs: int = 4
    minibatch: int = 2048
    learning_rate: float = 1e-3
    clip: float = 0.2
    gradient_norm: float = 1.0
    kl_limit: float = 0.05
    check_episodes: int = 100
    threads: int | None = None
    torch_threads: int = 1

    def __post_init__(self) -> None:
        checks = (
            ("torch_threads", self.torch_threads >= 1, "at least 1"),
            ("epochs", self.epochs >= 1, "at least 1"),
            ("minibatch", self.minibatch >= 1, "at least 1"),
            ("learning_rate", self.learning_rate > 0, "above 0"),
            ("clip", self.clip > 0, "above 0"),
            ("kl_limit", self.kl_limit > 0, "above 0"),
            ("check_episodes", self.checks_well, "0, or at least 2"),
        )
        check_settings("invalid tuning settings", "", self, checks)

    @property
    def checks_well(self) -> bool:
        """Whether the check can tell a standard error, or there is none."""
        return self.check_episodes == 0 or self.check_episodes >= 2


@dataclass(frozen=True, slots=True)
class Check:
    """Mean success rates of old and new policy on the same simulated episodes.

    ``standard_error`` is that of the mean paired difference.
    """

    episodes: int
    before: float
    after: float
    difference: float
    standard_error: float


@dataclass(frozen=True, slots=True)
class TuneResult:
    """Result of tuning: ``weights`` are the new ones if they were ``kept``, else the old ones."""

    weights: ScoringWeights
    kept: bool
    check: Check | None
    measures: Measures
    config: TuneConfig
    seconds: float


def fine_tune(
    weights: ScoringWeights, logged: LoggedDecisions, config: TuneConfig | None = None
) -> TuneResult:
    """One update of the policy that made these decisions; the same input, the same weights.

    Raises:
        UsageError: fewer than ``MIN_EPISODES`` episodes.
    """
    config = config or TuneConfig()
    episodes = len(logged.success_rate)
    if episodes < MIN_EPISODES:
        raise UsageError(
            "not enough episodes to tune on",
            [Problem("episodes", f"{episodes} with a decision of the policy", f"{MIN_EPISODES}")],
        )
    began = time.perf_counter()
    with torch_threads(config.torch_threads):
        new, measures = stepped(weights, logged.batches, config)
    check = None
    if config.check_episodes:
        check = compare(logged.plan, weights, new, config, logged.asks)
    kept = check is None or check.difference >= 0.0
    return TuneResult(
        new if kept else weights, kept, check, measures, config, time.perf_counter() - began
    )


def compare(
    plan: Plan,
    old: ScoringWeights,
    new: ScoringWeights,
    config: TuneConfig,
    asks: Asks | None = None,
) -> Check:
    """Play the episodes of the check with both, in the simulator.

    The compiled engine plays them without control delay; the slower one plays what that one does
    not cover. ``asks`` is what both ask their peers, None where their encoder tells.
    """
    free = without_control_delay(plan)
    known: Mapping[str, AnyPolicy] = {"old": old, "new": new}
    covered = not problems_of(free)
    if not covered or kind_of(asks or BITS) not in (BITS, STATE):
        # As artifacts: the simulator runs no others, and their cards tell what they ask.
        known = {"old": policy_of(old, "old", asks), "new": policy_of(new, "new", asks)}
    free = free if covered else plan
    numbers = range(FIRST_CHECK_EPISODE, FIRST_CHECK_EPISODE + config.check_episodes)
    rates = evaluate(free, ["old", "new"], numbers, known, threads=config.threads)
    gap = rates["new"] - rates["old"]
    gap = gap[np.isfinite(gap)]
    error = float(gap.std(ddof=1)) / math.sqrt(len(gap)) if len(gap) > 1 else math.nan
    return Check(
        config.check_episodes,
        float(np.nanmean(rates["old"])),
        float(np.nanmean(rates["new"])),
        float(gap.mean()),
        error,
    )


def artifact_of(
    name: str, result: TuneResult, logged: LoggedDecisions, parent: PolicyCard
) -> tuple[PolicyCard, bytes]:
    """Card and ONNX file of the tuned policy; ``name`` begins its id."""
    config = result.config
    rates = list(logged.success_rate.values())
    evaluation: dict[str, Any] = {"logged_success_rate": round(float(np.nanmean(rates)), 4)}
    if result.check is not None:
        evaluation["check"] = check_document(result.check)
    policy = policy_of(
        result.weights,
        name,
        parent.asks,
        plan=logged.plan,
        parents=(parent.id,),
        evaluation=evaluation,
        training={
            "seed": config.seed,
            "learning_rate": config.learning_rate,
            "epochs": result.measures.epochs,
            "clip": config.clip,
            "kl_limit": config.kl_limit,
            "divergence": round(result.measures.divergence, 5),
            "logs": logged.counts.document(),
        },
    )
    return policy.card, policy.actor


def check_document(check: Check) -> dict[str, Any]:
    """Return the check as plain JSON values, success rates to 4 digits."""
    return {
        "episodes": check.episodes,
        "first_episode": FIRST_CHECK_EPISODE,
        "before": round(check.before, 4),
        "after": round(check.after, 4),
        "difference": round(check.difference, 5),
        "standard_error": None
        if math.isnan(check.standard_error)
        else round(check.standard_error, 5),
    }


def stepped(
    weights: ScoringWeights, batches: tuple[Judged, ...], config: TuneConfig
) -> tuple[ScoringWeights, Measures]:
    """Return the weights after one update by these decisions, and how the steps went."""
    generator = torch.Generator().manual_seed(config.seed)
    network = network_of(weights)
    baseline = new_baseline(len(weights.w1))
    initialise(baseline, generator)
    # In training it grows with the policy; here the policy is good before the first step.
    fit_baseline(baseline, batches, _BASELINE_EPOCHS, config.minibatch, _BASELINE_RATE, generator)
    optimiser = torch.optim.Adam(
        [*network.parameters(), *baseline.parameters()], lr=config.learning_rate
    )
    steps = Steps(
        config.epochs, config.minibatch, config.clip, config.gradient_norm, config.kl_limit
    )
    measures = improve(steps, network, baseline, optimiser, batches, generator)
    return weights_of(network), measures
