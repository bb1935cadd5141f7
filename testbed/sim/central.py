"""``central`` and ``central-reject``: greedy with all states of the network (model section 5)."""

from __future__ import annotations

import math

from testbed.model.node import NodeState
from testbed.model.refusal import CENTRAL_PRICE, allow_refusal
from testbed.model.scarcity import mean_cycles
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
    """As central, and refuses tasks that are not worth their work (docs/schedulers.md)."""

    def __init__(self, plan: Plan) -> None:
        allow_refusal(plan.rules, "central-reject")
        super().__init__(plan)
        self.name = "central-reject"
        self._price = CENTRAL_PRICE / mean_cycles(plan.workload)
        self._capacity = float(sum(plan.topology.capacity_hz))

    def place(self, task: Task, now: Micros, view: NetworkView) -> int | None:
        """Return the best destination; None if what it adds is not above the price of its work."""
        node, gain = self.best(task, now, view)
        return None if gain <= self.cost(task, now, view) else node

    def cost(self, task: Task, now: Micros, view: NetworkView) -> float:
        """Return the price of the work of ``task`` (``testbed.model.refusal``)."""
        work = 0.0
        for state, hertz, coming in zip(
            view.nodes(), view.topology.capacity_hz, view.inbound(now), strict=True
        ):
            work += float(state.backlog(now)) * hertz / SECOND
            for each in coming:
                work += float(each.task.cycles)
        fill = work / (self._capacity * (task.deadline / SECOND))
        return self._price * fill * fill * task.cycles


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
