"""The price of information: messages and bytes that a method takes for one task."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from testbed.model.decision import Ask, Decision, Observation, Scheduler, SchedulerContext
from testbed.model.information import BITS
from testbed.scenario.plan import Plan
from testbed.schedulers import registry
from testbed.schedulers.asked import ANSWER_BYTES, QUESTION_BYTES, Questions
from testbed.sim.simulator import simulate_episode


class Price(NamedTuple):
    """Means per task: questions and answers, and their bytes."""

    messages: float
    bytes: float


def price_of_policy(asks: str, nodes: int) -> Price:
    """Return the price of a policy, which asks all its peers for ``bits`` or ``state``."""
    all_peers = Questions(nodes - 1, 0) if asks == BITS else Questions(0, nodes - 1)
    return _price(all_peers, all_peers, 1)


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

    def decide(self, observation: Observation) -> Decision | Ask:
        answer = self._inner.decide(observation)
        if isinstance(answer, Ask):
            peers = len(answer.peers)
            heard = peers if answer.enough is None else min(answer.enough, peers)
            for which, more in enumerate((peers, heard)):
                bits, states = self._totals[which]
                self._totals[which] = Questions(
                    bits + (more if answer.bits_only else 0),
                    states + (0 if answer.bits_only else more),
                )
        return answer
