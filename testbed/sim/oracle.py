"""``oracle``: like ``central``, and it knows every task's fate at every unit (model section 5)."""

from __future__ import annotations

from testbed.model.draws import Purpose, failure_after, uniform
from testbed.model.node import NodeState
from testbed.model.task import Task
from testbed.model.units import Micros
from testbed.scenario.plan import Plan
from testbed.sim.network import GreedyPlacement


class Oracle(GreedyPlacement):
    """Every task where it adds most to the number of successes, knowing all states and fates."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, Foresight(plan))
        self.name = "oracle"


class Fates:
    """Fates of tasks at units, from the same draws the nodes make."""

    def __init__(self, plan: Plan) -> None:
        self._topology = plan.topology
        self._seed = plan.seeds.faults

    def execution_fails_after(self, task: Task, node: int) -> Micros:
        """Return the time that ``node`` could work on ``task`` before it fails."""
        u = uniform(self._seed, Purpose.EXECUTION_FATE, task.episode, task.id, node)
        return failure_after(self._topology.execution_failure_rate[node], u)

    def transmission_fails_after(self, task: Task, node: int) -> Micros:
        """Return the time that the link from its source to ``node`` could send before it fails."""
        link = task.source * self._topology.size + node
        u = uniform(self._seed, Purpose.TRANSMISSION_FATE, task.episode, task.id, link)
        return failure_after(self._topology.link_failure_rate[task.source][node], u)

    def arrives(self, task: Task, node: int) -> bool:
        """Return whether the task will get to ``node`` without a failure of the link."""
        if node == task.source:
            return True
        transmission = self._topology.transmission_time(task, task.source, node)
        return self.transmission_fails_after(task, node) >= transmission

    def survives(self, task: Task, node: int) -> bool:
        """Return whether the task will meet no failure on the way to ``node`` and on it."""
        execution = self._topology.execution_time(task, node)
        return self.execution_fails_after(task, node) >= execution and self.arrives(task, node)


class Foresight:
    """Knowledge of the fates; a task is looked up once at each node."""

    def __init__(self, plan: Plan) -> None:
        self._topology = plan.topology
        self._rules = plan.rules
        self._slot = plan.workload.slot
        self._fates = Fates(plan)
        self._seen: dict[tuple[int, int], tuple[float, Micros]] = {}
        self._episode = -1

    def worth(self, task: Task, node: int) -> float:
        """1 if the task will meet no failure, else 0."""
        return self._look_up(task, node)[0]

    def occupied(self, task: Task, node: int) -> Micros:
        """Up to the failure; 0 if the task will not even get there."""
        return self._look_up(task, node)[1]

    def free_at(self, state: NodeState, now: Micros) -> Micros:
        """After what really will be executed of the queue, up to failures."""
        free = now
        if state.running is not None:
            task, began = state.running
            deadline = task.slot * self._slot + task.deadline
            free = min(began + self.occupied(task, state.node), deadline)
        for task in state.waiting:
            deadline = task.slot * self._slot + task.deadline
            end = free + self._topology.execution_time(task, state.node)
            if end <= deadline:
                free += self.occupied(task, state.node)
            elif not self._rules.drop_hopeless:
                free = max(free, min(free + self.occupied(task, state.node), deadline))
        return free

    def _look_up(self, task: Task, node: int) -> tuple[float, Micros]:
        if task.episode != self._episode:
            self._seen.clear()
            self._episode = task.episode
        known = self._seen.get((task.id, node))
        if known is None:
            execution = self._topology.execution_time(task, node)
            fails_after = self._fates.execution_fails_after(task, node)
            if self._fates.arrives(task, node):
                known = float(fails_after >= execution), min(execution, fails_after)
            else:
                known = 0.0, 0
            self._seen[task.id, node] = known
        return known
