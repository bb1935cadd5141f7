"""The simulator as a venue, to try out in minutes what takes hours on a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final

from testbed.experiment.live.venue import Driver, Order, rates_in
from testbed.scenario.plan import Plan, SchedulerSpec
from testbed.sim.record import About, record_run
from testbed.storage.tasklog import TaskLog


class SimulatedVenue:
    """A simulated network; ``log`` and ``store`` are where runs and policies are kept."""

    driver: Final[Driver] = "simulator"

    def __init__(self, plan: Plan, log: TaskLog, store: str, scenario: str | None = None) -> None:
        self.plan = dataclasses.replace(plan, artifacts_url=store)
        self.log, self.store = log, store
        self._scenario = scenario

    def deploy(self, policy: str | None) -> None:
        """Do nothing: every run names its policy."""

    def run(self, order: Order, tell: Callable[[int, str], None]) -> str:
        """Simulate the episodes, and return the id of the run."""
        options = {} if order.policy is None else {"policy": order.policy}
        done = succeeded = ended = 0

        def told(result: Any) -> None:
            nonlocal done, succeeded, ended
            done += 1
            counts = {outcome.value: count for outcome, count in result.counts.items()}
            succeeded += counts.get("succeeded", 0)
            ended += sum(counts.values())
            tell(done, f"{100 * succeeded / max(1, ended):.1f} %")

        return record_run(
            self.plan,
            self.log,
            scheduler=SchedulerSpec(order.scheduler, options),
            episodes=order.episodes,
            first_episode=order.first,
            about=About(order.label, self._scenario),
            on_episode=told,
        )

    def rates(self, run: str) -> dict[int, float]:
        """Return the success rate of every episode of a run by its number."""
        return rates_in(self.log, run)
