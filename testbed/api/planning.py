"""Scenarios read and drawn."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.api import home, html, notices
from testbed.errors import Problem, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from testbed.scenario.plan import Plan, PlanHead, SchedulerSpec
    from testbed.scenario.schema import ScenarioFile


@dataclass(frozen=True, slots=True)
class LoadedPlan:
    """A scenario with every node, link and rule drawn: what is simulated or brought up.

    ``plan`` is the drawn plan (times in microseconds, sizes in bytes, rates in bytes and cycles per
    second); ``scenario`` is the checked content of the scenario file with what was set.
    """

    scenario: ScenarioFile
    plan: PlanHead

    @property
    def name(self) -> str:
        """The scenario's name."""
        return self.plan.name

    @property
    def nodes(self) -> int:
        """N, the number of edge nodes."""
        return self.plan.size

    @property
    def hash(self) -> str:
        """Identity of network, work, rules, seeds and faults; equal hashes can be compared."""
        return self.plan.scenario_hash

    @property
    def text(self) -> str:
        """The scenario as YAML, with what was set; without the section ``deployment``."""
        from testbed.scenario.load import dumps, without_deployment

        return dumps(without_deployment(self.scenario))

    def figure(self) -> Figure:
        """Draw the network: nodes by capacity and arrival probability, and the links' rates.

        Raises: UsageError: it is a network of another model than ``tasks``.
        """
        from testbed.experiment.figures import topology

        return topology(tasks_plan_of(self).topology)

    def _repr_html_(self) -> str:
        plan = self.plan
        seeds = ", ".join(f"{key} {value}" for key, value in dataclasses.asdict(plan.seeds).items())
        return html.facts(
            f"Plan of {plan.name}",
            [
                ("nodes", self.nodes),
                ("an episode", plan.episode_in_short),
                ("episodes", plan.episodes),
                ("scheduler", plan.scheduler.name),
                ("faults", len(plan.faults)),
                ("seeds", seeds),
                ("identity", self.hash[:12]),
            ],
        )


def load(
    scenario: str | Path,
    *,
    seed: int | None = None,
    set: Mapping[str, Any] | None = None,
    episodes: int | None = None,
) -> LoadedPlan:
    """Read a scenario, check it, and draw its network.

    Args:
        scenario: Name of a shipped scenario (``"quickstart"``, ``"paper-testbed"``), or the path of
            a scenario file.
        seed: Seed of all draws (topology, workload, faults, schedulers); None: the scenario's.
        set: Values of the scenario to replace, by key: ``{"nodes.count": 20}``.
        episodes: Number of episodes of a run; None: the scenario's.

    Raises:
        UsageError: unknown scenario, or something in it is wrong; names every problem.
    """
    from testbed.scenario.load import draw, warnings
    from testbed.scenario.load import load as read

    given = dict(set or {})
    if seed is not None:
        given = {"seeds": seed, **given}
    settings = [f"{key}={json.dumps(value)}" for key, value in given.items()]
    loaded = read(scenario, settings)
    for line in warnings(loaded):
        notices.warn(line)
    plan = draw(loaded, episodes=episodes, artifacts_url=home.artifacts_url(None, loaded.artifacts))
    check_objective(plan)
    return LoadedPlan(loaded, plan)


def check_objective(plan: PlanHead) -> None:
    """Find out before a run whether its results can be scored.

    Raises: UsageError: the objective of the scenario is unknown or cannot be loaded.
    """
    from testbed.scenario.plan import SUCCESS_RATE

    if plan.objective != SUCCESS_RATE:
        from testbed.experiment import metrics

        metrics.objective(plan)


def plan_of(plan: LoadedPlan | PlanHead) -> PlanHead:
    """Return the drawn plan of either."""
    return plan.plan if isinstance(plan, LoadedPlan) else plan


def tasks_plan_of(plan: LoadedPlan | PlanHead) -> Plan:
    """Return the drawn plan of either, for what works with tasks alone.

    Raises: UsageError: it is of another model.
    """
    from testbed.scenario.plan import Plan

    drawn = plan_of(plan)
    if not isinstance(drawn, Plan):
        raise UsageError(
            f"{drawn.name} cannot be used here",
            [Problem("model", repr(drawn.model), f"needed: a scenario with model: {Plan.model}")],
        )
    return drawn


def text_of(plan: LoadedPlan | PlanHead) -> str | None:
    """Return the scenario's text; None of a plan that came without."""
    return plan.text if isinstance(plan, LoadedPlan) else None


def under(plan: Plan, scheduler: SchedulerSpec) -> Plan:
    """Return ``plan`` with another scheduler."""
    return dataclasses.replace(plan, scheduler=scheduler)
