"""Comparison of our RATC with that of the authors' released testbed.

Simulated `paper-testbed`, mean over topology seeds 1 to 8 with 8 episodes each. An independent
re-simulation of the released testbed's semantics on its own topology gave random .777, local .784,
RATC .801, RDA .816. There RATC compares the failure *rates* of two nodes that are both in time, not
the reliability of the task on them (paper eq. 4), and its estimate leaves out the transmission and
the task in execution. `ReleasedRatc` does the same, and is below RDA as there.
"""

from __future__ import annotations

import statistics
from typing import Any, Final

from testbed.model.decision import Ask, Decision, Observation, SchedulerContext
from testbed.scenario.load import load
from testbed.scenario.resolve import plan
from testbed.sim.simulator import simulate

SEEDS: Final = range(1, 9)
EPISODES: Final = 8


class ReleasedRatc:
    """Two choices by failure rate, with estimates of waiting and execution time only."""

    name = "released-ratc"

    def __init__(self, context: SchedulerContext) -> None:
        self._context = context
        self._topology = context.topology

    def decide(self, observation: Observation) -> Decision | Ask:
        """Return the less failing of two random nodes if both seem in time, else the faster."""
        task = observation.task
        assert task is not None
        first, second = self._context.sample(task, tuple(range(self._topology.size)), 2)
        if observation.round == 0:
            return Ask(tuple(node for node in (first, second) if node != observation.node))
        waiting = {observation.node: _waiting(observation.queue_length, observation.backlog)}
        for answer in observation.answers:
            if answer.state is not None:
                waiting[answer.peer] = _waiting(answer.state.queue_length, answer.state.backlog)
        time = {
            node: waiting.get(node, 0) + self._topology.execution_time(task, node)
            for node in (first, second)
        }
        rate = self._topology.execution_failure_rate
        if max(time.values()) <= task.deadline:
            return Decision(first if rate[first] < rate[second] else second)
        return Decision(first if time[first] < time[second] else second)


def _waiting(queue_length: int, backlog: int) -> int:
    """Backlog without the task in execution, taking tasks to be alike."""
    return backlog * (queue_length - 1) // queue_length if queue_length > 1 else 0


def rows() -> list[dict[str, Any]]:
    """Return mean success rates; nothing is asked of them."""
    plans = [plan(load("paper-testbed", [f"seeds={seed}"])) for seed in SEEDS]
    found = []
    for scheduler in ("random", "local", "ratc", ReleasedRatc, "rda"):
        rate = statistics.mean(
            result.success_rate
            for network in plans
            for result in simulate(network, scheduler, EPISODES, keep=False)
        )
        name = scheduler if isinstance(scheduler, str) else scheduler.name
        found.append({"benchmark": f"{name}: success rate", "value": 100 * rate, "unit": "%"})
    return found
