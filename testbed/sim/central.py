"""``central`` and ``central-reject``: greedy with all states of the network (model section 5)."""

from __future__ import annotations

import math

from testbed.errors import Problem, UsageError
from testbed.model.node import NodeState
from testbed.model.task import Task
from testbed.model.units import SECOND, Micros
from testbed.scenario.plan import Plan
from testbed.sim.network import GreedyPlacement, NetworkView


class Central(GreedyPlacement):
    """Every task where it adds most to the expected number of successes, knowing all states."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, Expectation(plan))
        self.name = "central"


class CentralReject(Central):
    """As central, and refuses tasks that add nothing to the expected number of successes."""

    def __init__(self, plan: Plan) -> None:
        if not plan.rules.reject:
            raise UsageError(
                "scheduler 'central-reject' refuses tasks, which the scenario does not allow",
                [Problem("rules.reject", "false", "true")],
            )
        super().__init__(plan)
        self.name = "central-reject"

    def place(self, task: Task, now: Micros, view: NetworkView) -> int | None:
        """Return the best destination; None if the task adds nothing anywhere."""
        node, gain = self.best(task, now, view)
        return node if gain > 0.0 else None


class Expectation:
    """Expectations without knowledge of any fate."""

    def __init__(self, plan: Plan) -> None:
        self._topology = plan.topology

    def worth(self, task: Task, node: int) -> float:
        """Reliability of the way and of the execution (paper eq. 4 and 5)."""
        topology = self._topology
        exposure = topology.execution_failure_rate[node] * topology.execution_time(task, node)
        if node != task.source:
            transmission = topology.transmission_time(task, task.source, node)
            exposure += topology.link_failure_rate[task.source][node] * transmission
        return math.exp(-exposure / SECOND)

    def occupied(self, task: Task, node: int) -> Micros:
        """Return the execution time (paper eq. 1)."""
        return self._topology.execution_time(task, node)

    def free_at(self, state: NodeState, now: Micros) -> Micros:
        """After the backlog."""
        return now + state.backlog(now)
