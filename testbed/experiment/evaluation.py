"""A learned policy against heuristics in the simulator, on the same tasks and fates.

Every method plays the same episodes, so differences are taken per episode (common random numbers).
The heuristics are the paper's and those with the information that the policy's mask has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from testbed.errors import UsageError
from testbed.experiment.statistics import Comparison, Interval, compare, rate_interval
from testbed.experiment.summary import none_if_nan
from testbed.model.decision import Scheduler, SchedulerContext
from testbed.model.failures import Failures
from testbed.policies import Policy, check_fits
from testbed.scenario.plan import Plan
from testbed.schedulers.drl import Drl
from testbed.sim.simulator import SchedulerChoice, Simulation

AGAINST: Final = ("ratc", "rda", "ratc-masked", "rda-masked", "local-or-reliable")
"""The schedulers a policy is compared with unless others are named."""

POLICY: Final = "policy"
"""What a comparison calls the policy."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Success rates by episode and method, with ``POLICY`` among the methods."""

    policy: str
    scenario: str
    scenario_hash: str
    by_episode: Mapping[str, Mapping[int, float]]
    warnings: tuple[str, ...] = ()

    @property
    def success_rates(self) -> dict[str, Interval]:
        """Mean and interval over the episodes, by method, best first."""
        found = {name: rate_interval([*rates.values()]) for name, rates in self.by_episode.items()}
        return dict(sorted(found.items(), key=lambda each: -each[1].mean))

    def against(self, method: str) -> Comparison:
        """The policy less ``method``, episode by episode."""
        return compare(self.by_episode[POLICY], self.by_episode[method])

    @property
    def document(self) -> dict[str, Any]:
        """The evaluation as plain values for JSON."""
        others = [name for name in self.by_episode if name != POLICY]
        return {
            "policy": self.policy,
            "scenario": self.scenario,
            "scenario_hash": self.scenario_hash,
            "episodes": list(self.by_episode[POLICY]),
            "success_rate": {name: _interval(each) for name, each in self.success_rates.items()},
            "difference": {name: _difference(self.against(name)) for name in others},
            "warnings": list(self.warnings),
        }


def evaluate(
    plan: Plan,
    policy: Policy,
    *,
    episodes: int,
    first_episode: int = 0,
    against: Sequence[str] = AGAINST,
    deterministic: bool = False,
    progress: Callable[[str, int], None] = lambda method, episode: None,
) -> Evaluation:
    """Play ``episodes`` episodes of ``plan`` under the policy and each of ``against``.

    ``progress`` hears of every episode that is over.

    Raises: UsageError: the policy does not fit, or an unknown scheduler; nothing was played.
    """
    warnings = check_fits(policy.card, plan.topology.size, plan.scenario_hash)
    if POLICY in against:
        raise UsageError(f"'{POLICY}' is the policy itself; name other schedulers")

    def decider(context: SchedulerContext) -> Scheduler:
        return Drl.of(context, policy)

    options = {"deterministic": True} if deterministic else {}
    methods: dict[str, tuple[SchedulerChoice, Mapping[str, object]]] = {
        POLICY: (decider, options),
        **{name: (name, {}) for name in against},
    }
    simulations = {
        name: Simulation(plan, choice, chosen, keep=False)
        for name, (choice, chosen) in methods.items()
    }
    rates: dict[str, dict[int, float]] = {name: {} for name in simulations}
    failures = {name: Failures() for name in simulations}
    for episode in range(first_episode, first_episode + episodes):
        for name, simulation in simulations.items():
            result = simulation.episode(episode)
            for record in result.failed:
                failures[name].add(record)
            # An episode without a task says nothing of anybody.
            if result.outcomes:
                rates[name][episode] = result.success_rate
            progress(name, episode)
    if not rates[POLICY]:
        raise UsageError("these episodes have no tasks; evaluate more of them")
    failed = (f"{name}: {line}" for name, each in failures.items() for line in each.lines)
    told = (*warnings, *failed)
    return Evaluation(policy.card.id, plan.name, plan.scenario_hash, rates, told)


def _interval(interval: Interval) -> dict[str, float | None]:
    return {
        "mean": interval.mean,
        "low": none_if_nan(interval.low),
        "high": none_if_nan(interval.high),
    }


def _difference(comparison: Comparison) -> dict[str, Any]:
    return {
        **_interval(comparison.difference),
        "p_value": none_if_nan(comparison.p_value),
        "real": comparison.real,
    }
