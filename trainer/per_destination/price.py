"""The price of information: messages and bytes that a method takes for one task."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from testbed.model.decision import (
    Ask,
    Decision,
    Observation,
    Refuse,
    Scheduler,
    SchedulerContext,
)
from testbed.model.information import BITS, GOSSIP, PROBE, Asks, kind_of, period_of, probes_of
from testbed.scenario.plan import Plan
from testbed.schedulers import registry
from testbed.schedulers.asked import ANSWER_BYTES, QUESTION_BYTES, Questions
from testbed.sim.simulator import simulate_episode


class Price(NamedTuple):
    """Means per task: questions and answers, and their bytes."""

    messages: float
    bytes: float


def price_of_policy(asks: Asks, nodes: int, plan: Plan | None = None) -> Price:
    """Return the price of a policy by what its card says that it asks its peers.

    States that are told unasked cost the more for a task the fewer tasks there are: then ``plan``
    has to be given, and the price is for as many tasks as are expected.
    """
    peers = nodes - 1
    if kind_of(asks) == GOSSIP:
        assert plan is not None, "the price of gossip depends on the plan"
        workload = plan.workload
        period = period_of(asks, workload.slot)
        told = nodes * peers * -(-workload.slots * workload.slot // period)
        tasks = sum(plan.topology.arrival_probability) * workload.slots
        return Price(told / tasks, told * ANSWER_BYTES.unasked / tasks)
    states = {BITS: 0, PROBE: min(probes_of(asks), peers)}.get(kind_of(asks), peers)
    questions = Questions(peers - states, states)
    return _price(questions, questions, 1)


def price_of_scheduler(plan: Plan, name: str, episode: int = 0) -> Price:
    """Return the price of a scheduler of nodes in an episode of the heap simulator.

    Faults are left out. Answers that it did not wait for do not count.
    """
    totals = [Questions(0, 0), Questions(0, 0)]

    def counting(context: SchedulerContext) -> Scheduler:
        return _Counting(registry.create(name, context), totals)

    result = simulate_episode(replace(plan, faults=()), episode, counting)
    return _price(totals[0], totals[1], len(result.outcomes))


def _price(asked: Questions, heard: Questions, tasks: int) -> Price:
    size = sum(
        number * each
        for numbers, sizes in ((asked, QUESTION_BYTES), (heard, ANSWER_BYTES))
        for number, each in zip(numbers, sizes, strict=True)
    )
    return Price((sum(asked) + sum(heard)) / max(1, tasks), size / max(1, tasks))


class _Counting:
    """A scheduler whose questions are counted, and the answers that it waits for."""

    def __init__(self, inner: Scheduler, totals: list[Questions]) -> None:
        self.name = inner.name
        self._inner, self._totals = inner, totals

    def decide(self, observation: Observation) -> Decision | Ask | Refuse:
        answer = self._inner.decide(observation)
        if isinstance(answer, Ask):
            peers = len(answer.peers)
            heard = peers if answer.enough is None else min(answer.enough, peers)
            for which, first in enumerate((peers, heard)):
                bits = sum(map(answer.bit_only, answer.peers[:first]))
                total = self._totals[which]
                self._totals[which] = Questions(total.bits + bits, total.states + first - bits)
        return answer
