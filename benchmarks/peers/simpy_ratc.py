"""RATC as one would write it with SimPy: the same network, tasks and rules in a hundred lines.

It is a fair model, not a port: FIFO servers for processors and links, deadlines, hopeless tasks
dropped, exponential failures, and for every task two random nodes of which the more reliable one in
time is taken. It has no control delay, no faults, no limit of queues, no records, and draws its own
failures, so its success rate agrees with ours up to chance.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final

from benchmarks.peers import Row, absent, row
from testbed.model.task import Outcome, Task
from testbed.model.units import SECOND
from testbed.scenario.load import load
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan as resolve
from testbed.sim.play import evaluate
from testbed.sim.simulator import simulate

if TYPE_CHECKING:
    import simpy

SCENARIO: Final = "paper-simulation"


class Server:
    """A processor or a link: first in, first out, one task at a time, and it may fail."""

    def __init__(self, env: simpy.Environment, failure_rate: float, rng: random.Random) -> None:
        import simpy

        self.env, self.rng, self.rate = env, rng, failure_rate
        self.turn = simpy.Resource(env, capacity=1)
        self.waiting = self.until = 0.0

    @property
    def backlog(self) -> float:
        """Seconds until all that is here now would be done."""
        return self.waiting + max(0.0, self.until - float(self.env.now))

    def serve(self, work: float, until: float, hopeless: bool) -> Generator[Any, Any, str]:
        """Work ``work`` seconds on a task; returns how it ended, empty if it can go on."""
        env = self.env
        self.waiting += work
        with self.turn.request() as mine:
            yield mine | env.timeout(max(0.0, until - env.now))
            self.waiting -= work
            if not mine.triggered or (hopeless and env.now + work > until):
                return "dropped"
            failure = self.rng.expovariate(self.rate) if self.rate else math.inf
            self.until = env.now + work
            spent = min(work, failure, until - env.now)
            yield env.timeout(spent)
            self.until = env.now
        return "" if spent == work else "failed" if spent == failure else "dropped"


class Network:
    """One episode of a plan."""

    def __init__(self, plan: Plan, episode: int) -> None:
        import simpy

        self.plan, self.env, self.rng = plan, simpy.Environment(), random.Random(episode)
        top, size = plan.topology, plan.topology.size
        self.cpus = [Server(self.env, rate, self.rng) for rate in top.execution_failure_rate]
        self.links = [
            [Server(self.env, top.link_failure_rate[i][j], self.rng) for j in range(size)]
            for i in range(size)
        ]
        self.outcomes: list[str] = []
        self.env.process(self.slots(plan.tasks(episode)))
        self.env.run()

    def slots(self, tasks: list[list[Task]]) -> Generator[Any, Any, None]:
        """Handle the arrivals of each slot; all are decided on the same state."""
        for arriving in tasks:
            for task, target in [(task, self.ratc(task)) for task in arriving]:
                self.env.process(self.life(task, target))
            yield self.env.timeout(self.plan.workload.slot / SECOND)

    def ratc(self, task: Task) -> int:
        """Of two random nodes the more reliable one if both are in time, else the faster."""
        top, source, found = self.plan.topology, task.source, []
        for node in self.rng.sample(range(top.size), 2):
            execution = task.cycles / top.capacity_hz[node]
            exposure = top.execution_failure_rate[node] * execution
            done = self.cpus[node].backlog + execution
            if node != source:
                sending = task.size_bytes / top.link_rate[source][node]
                exposure += top.link_failure_rate[source][node] * sending
                done += self.links[source][node].backlog + sending
            found.append((node, done, exposure))
        late = any(done > task.deadline / SECOND for _, done, _ in found)
        return min(found, key=lambda each: each[1] if late else each[2])[0]

    def life(self, task: Task, target: int) -> Generator[Any, Any, None]:
        """Send and execute a task."""
        top, until, end = self.plan.topology, self.env.now + task.deadline / SECOND, ""
        if target != task.source:
            sending = task.size_bytes / top.link_rate[task.source][target]
            end = yield from self.links[task.source][target].serve(sending, until, hopeless=False)
        if not end:
            execution = task.cycles / top.capacity_hz[target]
            end = yield from self.cpus[target].serve(execution, until, hopeless=True)
        self.outcomes.append(end or "succeeded")


def lacks() -> list[str]:
    """Return the packages that are missing."""
    return absent("simpy")


def rows(quick: bool = False) -> list[Row]:
    """Measure SimPy, our reference simulator and our engine on the same tasks: processor time."""
    episodes = 3 if quick else 40
    plan = resolve(load(SCENARIO))
    began = time.process_time()
    theirs = [Network(plan, episode).outcomes for episode in range(episodes)]
    simpy_s = time.process_time() - began
    began = time.process_time()
    ours = [each.counts for each in simulate(plan, "ratc", episodes, keep=False)]
    heap_s = time.process_time() - began
    numbers = list(range(episodes if quick else 50 * episodes))
    evaluate(plan, ["ratc"], numbers[:1], threads=1)
    began = time.process_time()
    evaluate(plan, ["ratc"], numbers, threads=1)
    engine_s = (time.process_time() - began) * episodes / len(numbers)
    tasks = sum(map(len, theirs))
    rate = _mean([each.count("succeeded") / len(each) for each in theirs])
    own = _mean([each[Outcome.SUCCEEDED] / sum(each.values()) for each in ours])
    return [
        row("SimPy model of RATC, 20 nodes", tasks / simpy_s, "tasks/s"),
        row("our heap simulator, the same tasks", tasks / heap_s, "tasks/s"),
        row("our engine, the same tasks, one core", tasks / engine_s, "tasks/s"),
        row("our engine, ratio to SimPy", simpy_s / engine_s, "x"),
        row("SimPy model of RATC: success rate", 100 * rate, "%"),
        row("our simulator: success rate of RATC", 100 * own, "%"),
        row("difference of the success rates", 100 * abs(rate - own), "points"),
    ]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
