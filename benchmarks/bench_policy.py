"""Cost of a decision of a learned policy on a node, by part, and memory of its process.

``python -m benchmarks.bench_policy [--policy REFERENCE] [--artifacts URL]``; without a policy, one
of each kind is made up (that needs ``onnx``). Probes are not part of any figure.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from testbed.model.decision import Answer, Observation, PeerState, SchedulerContext
from testbed.model.information import STATE
from testbed.model.task import Task
from testbed.policies import Policy, PolicyCard, resolve, shipped
from testbed.policies.inference import open_actor
from testbed.scenario.load import load
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan as plan_of
from testbed.schedulers import drl
from testbed.schedulers.probing import mask_from_bits, mask_from_states
from testbed.sim.simulator import simulate_episode

BY_STATES = "shipped/per-destination-v2"
"""The policy that asks its peers for states."""

LIMIT_US = 50.0
"""Largest p99 of inference (microseconds)."""

STATES_US = 100.0
"""Largest p99 of a decision by states at 20 nodes, its question included (microseconds)."""

TOGETHER_US = {"paper-v1": 10.0, "per-destination-v1": 20.0}
"""Largest p99 of encoder and inference together at 20 nodes, by encoder (microseconds)."""


def rows() -> list[dict[str, Any]]:
    """Run all benchmarks; one row per figure, with what is asked and whether it is met."""
    found = []
    for scenario in ("paper-simulation", "paper-testbed"):
        plan = plan_of(load(scenario))
        size = plan.topology.size
        for policy in (made_up(size)[0], shipped(), resolve(BY_STATES, None)):
            times = _measure(plan, policy)
            for part, each in times.items():
                if policy.card.asks == STATE:
                    if part == "asking and decision":
                        found.append(_by_states(size, policy, each))
                    continue
                row = {
                    "benchmark": f"{part}, {policy.card.encoder}, N = {size}, p99",
                    "value": each.p99,
                    "unit": "us",
                }
                if part == "together" and size == 20:
                    limit = TOGETHER_US[policy.card.encoder]
                    row |= {
                        "benchmark": f"encoder and inference, {policy.card.encoder}, N = 20, p99",
                        "at_most": limit,
                        "met": each.p99 <= limit,
                    }
                elif part == "together":
                    continue
                if part == "inference":
                    row |= {"at_most": LIMIT_US, "met": each.p99 <= LIMIT_US}
                found.append(row)
    return found


def _by_states(size: int, policy: Policy, times: _Times) -> dict[str, Any]:
    name = f"asking and decision, {policy.card.encoder}, N = {size}, p99"
    row = {"benchmark": name, "value": times.p99, "unit": "us"}
    if size == 20:
        row |= {"at_most": STATES_US, "met": times.p99 <= STATES_US}
    return row


def main() -> int:
    """Measure and print; exit code 1 if inference takes longer than the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", help="key, id, shipped/NAME or folder")
    parser.add_argument("--artifacts", help="artifact store in which to look for it")
    parser.add_argument("--repeat", type=int, default=5, help="times over all observations")
    arguments = parser.parse_args()
    print(f"import of the runtime: {_import_cost()}")
    slow = False
    for scenario in ("paper-simulation", "paper-testbed"):
        plan = plan_of(load(scenario))
        policies = (
            [resolve(arguments.policy, arguments.artifacts)]
            if arguments.policy
            else made_up(plan.topology.size)
        )
        for policy in policies:
            times = _measure(plan, policy, arguments.repeat)
            print(f"{scenario}, N = {plan.topology.size}, {policy.card.encoder}, {policy.card.id}")
            for part, each in times.items():
                print(f"  {part:10} {each}")
            slow |= times["inference"].p99 > LIMIT_US
    return int(slow)


def _measure(plan: Plan, policy: Policy, repeat: int = 5) -> dict[str, _Times]:
    states = policy.card.asks == STATE
    situations = _situations(plan, states)
    schedulers = [drl.Drl.of(context, policy) for context in _contexts(plan)]
    actor = open_actor(policy)
    parts = ("encoder", "inference", "together", "decision", "asking and decision")
    times = {part: _Times() for part in parts}
    mask_of = mask_from_states if states else mask_from_bits
    flat = policy.card.kind == "flat"

    def together(scheduler: drl.Drl, observation: Observation, task: Task, mask: Any) -> Any:
        features = scheduler.features(observation, task, mask)
        return actor.probabilities(features, (*mask, False) if flat else mask)

    def both(scheduler: drl.Drl, before: Observation, observation: Observation) -> Any:
        scheduler.decide(before)
        return scheduler.decide(observation)

    for _ in range(repeat):
        for observation in situations:
            scheduler, task = schedulers[observation.node], observation.task
            assert task is not None
            mask = mask_of(observation, plan.topology.size)
            features = times["encoder"].of(scheduler.features, observation, task, mask)
            allowed = (*mask, False) if flat else mask
            times["inference"].of(actor.probabilities, features, allowed)
            times["together"].of(together, scheduler, observation, task, mask)
            times["decision"].of(scheduler.decide, observation)
            before = observation._replace(answers=(), round=0)
            times["asking and decision"].of(both, scheduler, before, observation)
    return times


class _Times:
    """Return the times of calls, in microseconds.

    By the clock, and in processor time of the thread: that leaves out what else the machine did,
    so it is what is held against the limit.
    """

    def __init__(self) -> None:
        self._wall: list[int] = []
        self._cpu: list[int] = []

    def of(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Make a call; what it returns."""
        cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
        result = call(*arguments)
        self._wall.append(time.perf_counter_ns() - wall)
        self._cpu.append(time.thread_time_ns() - cpu)
        return result

    @property
    def p99(self) -> float:
        return float(np.percentile(self._cpu, 99)) / 1000.0

    def __str__(self) -> str:
        (w50, w99), (c50, c99) = (
            np.percentile(each, [50, 99]) / 1000.0 for each in (self._wall, self._cpu)
        )
        return f"p50 {w50:6.1f} p99 {w99:7.1f} us; processor time p50 {c50:6.1f} p99 {c99:6.1f} us"


def _contexts(plan: Plan) -> list[SchedulerContext]:
    return [
        SchedulerContext(node, plan.topology, plan.rules, plan.workload, plan.seeds.schedulers)
        for node in range(plan.topology.size)
    ]


def _situations(plan: Plan, states: bool) -> Sequence[Observation]:
    """Return observations with answers of all peers, from an episode of another scheduler."""
    found = []
    for record in simulate_episode(plan, 0, "local-or-reliable").decisions:
        observation = record.observation
        if observation.task is None:
            continue
        now, size = observation.now, plan.topology.size
        told = [
            PeerState((peer + observation.slot) % 4 == 0, peer % 3, 100_000 * peer, 1, now, 50_000)
            for peer in range(size)
        ]
        answers = tuple(
            Answer(peer, state.overloaded, state if states else None, now, now)
            for peer, state in enumerate(told)
            if peer != observation.node
        )
        known = tuple(
            (state, now) if states and peer != observation.node else None
            for peer, state in enumerate(told)
        )
        found.append(observation._replace(answers=answers, known=known, round=1))
    return found


def made_up(nodes: int) -> list[Policy]:
    """Return a policy of each kind of the usual size, with random weights."""
    from tests.policies import tiny

    pairs: list[tuple[PolicyCard, bytes]] = [tiny.perceptron(nodes), tiny.scoring()]
    return [Policy(card, actor, card.id) for card, actor in pairs]


def _import_cost() -> str:
    program = (
        "import time\n"
        "def rss(): return int(open('/proc/self/statm').read().split()[1]) * 4096 / 1e6\n"
        "import edgenode.process\n"
        "before = rss(); began = time.perf_counter()\n"
        "from testbed.policies.inference import import_runtime\n"
        "import_runtime()\n"
        "print(f'{time.perf_counter() - began:.3f} s, {before:.0f} MB before, {rss():.0f} after')\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
