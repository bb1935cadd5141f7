"""The seam for schedulers that see the whole network; they exist in the simulator only.

They decide the tasks of a slot one after another, in the order of the nodes, with the complete
present state of the network, earlier decisions of the same slot included (model section 5).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from testbed.model.decision import Ask, Decision, Observation, Refuse
from testbed.model.node import NodeState
from testbed.model.task import Task
from testbed.model.topology import Rules
from testbed.model.units import Micros
from testbed.scenario.plan import Plan
from testbed.schedulers.probing import task_of


class Inbound(NamedTuple):
    """A task on its way to a node; ``at`` is when it will be there if nothing fails before."""

    at: Micros
    source: int
    task: Task


class NetworkView:
    """The complete present state of the network."""

    def __init__(self, plan: Plan) -> None:
        self.topology = plan.topology
        self._nodes: Sequence[NodeState] = ()

    def attach(self, nodes: Sequence[NodeState]) -> None:
        """Look at these nodes from now on."""
        self._nodes = nodes

    def nodes(self) -> Sequence[NodeState]:
        """All nodes, to be looked at only."""
        return self._nodes

    def inbound(self, now: Micros) -> list[list[Inbound]]:
        """Return the tasks on their way to each node [N], in order of arrival."""
        inbound: list[list[Inbound]] = [[] for _ in self._nodes]
        for node in self._nodes:
            for peer, task, at in node.outbound(now):
                inbound[peer].append(Inbound(at, node.node, task))
        for arrivals in inbound:
            arrivals.sort()
        return inbound

    def options(self, task: Task, now: Micros) -> list[Inbound]:
        """``task`` as it would come to each node [N] if its source sent it there now."""
        source = task.source
        backlog = self._nodes[source].send_backlog(now)
        return [
            Inbound(
                now + backlog[node] + self.topology.transmission_time(task, source, node),
                source,
                task,
            )
            for node in range(self.topology.size)
        ]


class NetworkScheduler(Protocol):
    """Decides about one task after another with the whole network in view."""

    name: str

    def place(self, task: Task, now: Micros, view: NetworkView) -> int | None:
        """Return the destination of ``task``, which is to be decided; None refuses it."""
        ...


class Seat:
    """A network scheduler's place at one node: passes on what arrives there."""

    def __init__(self, scheduler: NetworkScheduler, view: NetworkView) -> None:
        self.name = scheduler.name
        self._scheduler = scheduler
        self._view = view

    def decide(self, observation: Observation) -> Decision | Ask | Refuse:
        """Return the decision of the network scheduler."""
        place = self._scheduler.place(task_of(observation), observation.now, self._view)
        return Refuse() if place is None else Decision(place)


class Prospect(Protocol):
    """A network scheduler's expectations of a task at a node."""

    def worth(self, task: Task, node: int) -> float:
        """Probability that the task meets no failure on its way to ``node`` and there."""
        ...

    def occupied(self, task: Task, node: int) -> Micros:
        """Return the time for which the task will keep the server of ``node`` once started."""
        ...

    def free_at(self, state: NodeState, now: Micros) -> Micros:
        """Return the instant at which this node's server will have emptied its execution queue."""
        ...


class GreedyPlacement:
    """Places a task where it adds most to the expected number of successes.

    For each destination the execution queue is forecast with and without the task: what waits
    there, then what is on its way, in order of arrival. The difference counts the task's own
    chance and what it takes from those behind it. Of equal gains the shortest use of the server,
    then the earliest arrival, then the lowest index.
    """

    def __init__(self, plan: Plan, prospect: Prospect) -> None:
        self._topology = plan.topology
        self._rules: Rules = plan.rules
        self._slot = plan.workload.slot
        self._prospect = prospect

    def place(self, task: Task, now: Micros, view: NetworkView) -> int | None:
        """Return the best destination for ``task`` now."""
        return self.best(task, now, view)[0]

    def best(self, task: Task, now: Micros, view: NetworkView) -> tuple[int, float]:
        """Return the best destination for ``task`` now, and the expected successes it adds."""
        inbound = view.inbound(now)
        best, best_rank = task.source, (float("inf"), 0, 0)
        for node, (state, option) in enumerate(
            zip(view.nodes(), view.options(task, now), strict=True)
        ):
            free = self._prospect.free_at(state, now)
            _, free = self._serve(node, free, (i for i in inbound[node] if i <= option))
            behind = [i for i in inbound[node] if i > option]
            without, _ = self._serve(node, free, behind)
            alone, after = self._serve(node, free, (option,))
            with_it, _ = self._serve(node, after, behind)
            used = after - max(free, option.at) if after > free else 0
            rank = (without - alone - with_it, used, option.at)
            if rank < best_rank:
                best, best_rank = node, rank
        return best, -best_rank[0]

    def _serve(self, node: int, free: Micros, arrivals: Iterable[Inbound]) -> tuple[float, Micros]:
        """Expected successes among ``arrivals``, and when the server will be free after them."""
        prospect = self._prospect
        total = 0.0
        for at, _, task in arrivals:
            start = max(free, at)
            deadline = task.slot * self._slot + task.deadline
            worth = prospect.worth(task, node)
            if start + self._topology.execution_time(task, node) <= deadline:
                total += worth
                free = start + prospect.occupied(task, node)
            elif not self._rules.drop_hopeless and start < deadline:
                free = min(start + prospect.occupied(task, node), deadline)
        return total, free
