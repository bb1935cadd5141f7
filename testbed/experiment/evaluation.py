"""A learned policy against heuristics in the simulator, on the same tasks and fates.

Every method plays the same episodes, so differences are taken per episode (common random numbers).
The heuristics are the paper's and those with the information that the policy's mask has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final

from testbed.errors import UsageError
from testbed.experiment.measured import none_if_nan
from testbed.experiment.statistics import (
    Interval,
    PairedComparison,
    compare,
    corrected,
    rate_interval,
)
from testbed.model.decision import Scheduler, SchedulerContext
from testbed.policies import Policy, check_fits
from testbed.scenario.plan import Plan
from testbed.schedulers.catalogue import REFERENCES, SIMULATOR_ONLY
from testbed.schedulers.probing import ASK_FIRST, asking_first
from testbed.schedulers.registry import create, declared_options, find
from testbed.sim.play import Player, player

POLICY: Final = "policy"
"""Name of the policy in a comparison."""


@dataclass(frozen=True)
class Evaluation:
    """Success rates by episode and method, with ``POLICY`` among the methods."""

    policy: str
    scenario: str
    scenario_hash: str
    by_episode: Mapping[str, Mapping[int, float]]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Return the methods that the heap simulator played, and why the compiled engine could not."""

    @property
    def success_rates(self) -> dict[str, Interval]:
        """Mean and interval over the episodes, by method, best first."""
        found = {name: rate_interval([*rates.values()]) for name, rates in self.by_episode.items()}
        return dict(sorted(found.items(), key=lambda each: -each[1].mean))

    @cached_property
    def comparisons(self) -> dict[str, PairedComparison]:
        """The policy less each other method, episode by episode.

        p values are adjusted for the number of methods.
        """
        own = self.by_episode[POLICY]
        others = [name for name in self.by_episode if name != POLICY]
        found = corrected([compare(own, self.by_episode[name]) for name in others])
        return dict(zip(others, found, strict=True))

    @property
    def document(self) -> dict[str, Any]:
        """The evaluation as plain values for JSON."""
        return {
            "policy": self.policy,
            "scenario": self.scenario,
            "scenario_hash": self.scenario_hash,
            "episodes": list(self.by_episode[POLICY]),
            "success_rate": {name: _interval(each) for name, each in self.success_rates.items()},
            "difference": {name: each.document for name, each in self.comparisons.items()},
            "warnings": list(self.warnings),
        }


def compare_policy(
    plan: Plan,
    policy: Policy,
    *,
    episodes: int,
    first_episode: int = 0,
    against: Sequence[str] = REFERENCES,
    deterministic: bool = False,
    equal_order: bool = False,
    progress: Callable[[str, int], None] = lambda method, done: None,
) -> Evaluation:
    """Play ``episodes`` episodes of ``plan`` under the policy and each of ``against``.

    With ``equal_order`` heuristics that could decide at once ask their peers first, as policies do,
    so that what both hear of them is of the same moment (``testbed.schedulers.probing.AtOnce``).
    ``progress`` is called with a method and how many of its episodes have been played.

    Raises: UsageError: the policy does not fit, or an unknown scheduler; nothing was played.
    """
    warnings = check_fits(policy.card, plan.topology.size, plan.scenario_hash)
    if POLICY in against:
        raise UsageError(f"'{POLICY}' is the policy itself; name other schedulers")
    players = {POLICY: player(plan, policy, deterministic=deterministic)}
    for name in against:
        if equal_order and name not in SIMULATOR_ONLY and _may_ask_first(name):
            players[asking_first(name)] = player(plan, partial(_create_asking_first, name))
        else:
            players[name] = player(plan, name)
    numbers = range(first_episode, first_episode + episodes)
    rates: dict[str, dict[int, float]] = {}
    for name, each in players.items():
        rates[name] = {}
        for start in range(0, episodes, each.at_once):
            part = numbers[start : start + each.at_once]
            for number, rate in zip(part, each.play(part).tolist(), strict=True):
                # An episode without a task says nothing of anybody.
                if not math.isnan(rate):
                    rates[name][number] = rate
            progress(name, start + len(part))
    if not rates[POLICY]:
        raise UsageError("these episodes have no tasks; evaluate more of them")
    failed = (f"{name}: {line}" for name, each in players.items() for line in each.failures.lines)
    told = (*warnings, *failed)
    return Evaluation(
        policy.card.id, plan.name, plan.scenario_hash, rates, told, _why_simulated(players)
    )


def _may_ask_first(name: str) -> bool:
    return ASK_FIRST in (declared_options(find(name)) or ())


def _create_asking_first(name: str, context: SchedulerContext) -> Scheduler:
    return create(name, context, {ASK_FIRST: True})


def _why_simulated(players: Mapping[str, Player]) -> tuple[str, ...]:
    by_reason: dict[str, list[str]] = {}
    for name, each in players.items():
        if each.simulated:
            by_reason.setdefault(each.simulated, []).append(name)
    return tuple(
        f"the slower simulator plays {', '.join(names)}: {reason}"
        for reason, names in by_reason.items()
    )


def _interval(interval: Interval) -> dict[str, float | None]:
    return {
        "mean": interval.mean,
        "low": none_if_nan(interval.low),
        "high": none_if_nan(interval.high),
    }
