"""Measure the error of ``testbed policy estimate``: estimates from logs against simulation.

``python -m benchmarks.policy_estimates paper-simulation 20-24`` trains policies on each network,
lets several sources make logs, estimates every policy from the logs of every source that it is not,
and plays the policy itself on other episodes. It prints a line per estimate, then the mean error,
the mean absolute error and how often the interval held the truth, by source and estimator. The
figures stand in docs/policy-estimates.md.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from testbed.scenario.load import load
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan as plan_of
from testbed.sim.engine.arrays import without_control_delay
from testbed.sim.play import evaluate
from trainer.estimation.estimate import EstimateConfig, estimate
from trainer.estimation.fqe import FqeConfig
from trainer.learning.actor import Actor
from trainer.o2o.logged import LoggedSequences
from trainer.o2o.network import untrained
from trainer.o2o.pipeline import run
from trainer.o2o.recipe import DEFAULT, sized
from trainer.o2o.settings import O2OConfig
from trainer.o2o.simulated import SimulatedVenue, log_episodes, rollout_episodes
from trainer.o2o.venue import spec_of

BASELINES = ("ratc", "rda-masked", "local-or-reliable")
"""Sources whose logs have no probabilities."""

LOG_EPISODES, TRUE_EPISODES = 40, 200
FIRST_LOG, FIRST_TRUE = 3_000_000, 4_000_000


class Error(NamedTuple):
    """An estimate against the truth, in points, and whether its interval held it."""

    error: float
    held: bool


def policies_of(plan: Plan, seed: int) -> dict[str, Actor]:
    """Return policies from bad to good, trained on ``plan`` for less long than usual."""
    recipe = sized(DEFAULT, seed=seed, offline_steps=1_000, online_episodes=200)
    config = O2OConfig(recipe=recipe, log_episodes=100, methods=(), with_bound=False)
    with tempfile.TemporaryDirectory(prefix="edge-testbed-") as folder:
        result = run(SimulatedVenue(plan), config, Path(folder))
    return {"untrained": untrained(spec_of(plan, config)), **result.actors}


def logs_of(plan: Plan, policies: dict[str, Actor]) -> dict[str, LoggedSequences]:
    """Return what each source decided in the episodes of the logs."""
    numbers = range(FIRST_LOG, FIRST_LOG + LOG_EPISODES)
    found = {name: rollout_episodes(plan, actor, numbers) for name, actor in policies.items()}
    return found | {name: log_episodes(plan, name, numbers) for name in BASELINES}


def errors_on(
    scenario: str, seed: int, config: EstimateConfig
) -> dict[tuple[str, str, str], Error]:
    """Return the errors on one network by source, policy and estimator; prints each."""
    plan = without_control_delay(plan_of(load(scenario, [f"seeds={seed}"])))
    policies = policies_of(plan, seed)
    numbers = range(FIRST_TRUE, FIRST_TRUE + TRUE_EPISODES)
    true = {
        name: float(np.nanmean(rates))
        for name, rates in evaluate(plan, list(policies), numbers, policies).items()
    }
    found: dict[tuple[str, str, str], Error] = {}
    for source, logged in logs_of(plan, policies).items():
        for policy, actor in policies.items():
            if policy == source:
                continue
            result = estimate(actor.probabilities, logged, config)
            line = [
                f"{scenario} {seed}: {policy} from logs of {source}: true {100 * true[policy]:.1f}",
                f"logs {100 * result.logged.rate:.1f}",
            ]
            for name, each in result.estimates.items():
                error = 100 * (each.rate - true[policy])
                held = each.low <= true[policy] <= each.high
                found[source, policy, name] = Error(error, held)
                line.append(f"{name} {100 * each.rate:.1f} ({error:+.1f})")
            # The guess that needs no estimator: the policy is as good as what made the logs.
            error = 100 * (result.logged.rate - true[policy])
            found[source, policy, "the logs' own rate"] = Error(error, False)
            if np.isfinite(result.effective):
                line.append(f"effective {result.effective:.0f} of {result.decisions}")
            print("  ".join(line), flush=True)
    return found


def main(scenario: str, seeds: Sequence[int], gamma: float) -> None:
    """Print the errors on all networks and what they come to."""
    config = EstimateConfig(FqeConfig(gamma=gamma))
    by_kind: defaultdict[tuple[str, str], list[Error]] = defaultdict(list)
    for seed in seeds:
        for (source, _, name), error in errors_on(scenario, seed, config).items():
            by_kind[source, name].append(error)
    print(f"\n{scenario}, discount {gamma:g}: mean error, mean absolute error in points, held")
    for (source, name), errors in by_kind.items():
        values = np.array([each.error for each in errors])
        held = np.mean([each.held for each in errors])
        print(
            f"{source:20} {name:20} {values.mean():+6.2f} {np.abs(values).mean():6.2f} "
            f"{100 * held:4.0f} %  ({len(errors)})"
        )


if __name__ == "__main__":
    first, _, last = (sys.argv[2] if len(sys.argv) > 2 else "20-24").partition("-")
    main(
        sys.argv[1] if len(sys.argv) > 1 else "paper-simulation",
        range(int(first), int(last or first) + 1),
        float(sys.argv[3]) if len(sys.argv) > 3 else 0.0,
    )
