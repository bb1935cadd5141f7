"""Conformance suite of ``Scheduler``; subclass it with a ``factory`` fixture that makes one.

The scheduler is driven through many situations as a node drives it, with any of the answers
missing. A scheduler that keeps away from overloaded peers passes ``MaskedSchedulerContract`` too.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import pytest

from testbed.model.decision import (
    Answer,
    Ask,
    Decision,
    Observation,
    PeerState,
    Scheduler,
    SchedulerContext,
    SchedulerFactory,
)
from testbed.model.distributions import Uniform
from testbed.model.draws import uniform
from testbed.model.node import MAX_ROUNDS
from testbed.model.task import Task
from testbed.model.topology import Overload, OverloadMeasure, Rules, Topology
from testbed.model.units import MILLISECOND, SECOND, Micros
from testbed.model.workload import Workload

SIZES: Final = (1, 2, 3, 7)
SITUATIONS: Final = 40
DELAY: Final[Micros] = 3 * MILLISECOND
"""One-way delay of the questions and answers of the suite."""

Answering = Callable[[int, int], bool]
"""Returns whether peer ``j`` answers in round ``r``."""


class Situation(NamedTuple):
    """A node with a task to decide about, and the true states of all nodes."""

    context: SchedulerContext
    observation: Observation
    states: tuple[PeerState, ...]


class Course(NamedTuple):
    """One decision with the questions that led to it."""

    observations: tuple[Observation, ...]
    asks: tuple[Ask, ...]
    decision: Decision


ANSWERING: Final[dict[str, Answering]] = {
    "all": lambda peer, round_: True,
    "none": lambda peer, round_: False,
    "even": lambda peer, round_: peer % 2 == 0,
    "odd": lambda peer, round_: peer % 2 == 1,
    "first round": lambda peer, round_: round_ == 0,
    "mixed": lambda peer, round_: uniform(7, peer, round_) < 0.5,
}
"""Subsets of peers that answer, by name."""


def situation(size: int, number: int) -> Situation:
    """Situation ``number`` in a network of ``size`` nodes; always the same one."""

    def draw(*words: int) -> float:
        return uniform(size, number, *words)

    nodes = range(size)
    cores = tuple((4, 8, 16, 32)[int(draw(1, node) * 4)] for node in nodes)
    topology = Topology(
        cores=cores,
        capacity_hz=tuple(3_000_000_000 * count for count in cores),
        arrival_probability=tuple(draw(2, node) for node in nodes),
        execution_failure_rate=tuple(0.1 * draw(3, node) for node in nodes),
        link_rate=tuple(
            tuple(0 if i == j else 10_000_000 + int(30_000_000 * draw(4, i, j)) for j in nodes)
            for i in nodes
        ),
        link_failure_rate=tuple(
            tuple(0.0 if i == j else 0.03 * draw(5, i, j) for j in nodes) for i in nodes
        ),
    )
    rules = Rules(Overload(OverloadMeasure.QUEUE_LENGTH, 2), control_delay=DELAY)
    workload = Workload(
        100, SECOND // 2, Uniform(1e6, 8e6), Uniform(800, 2400), Uniform(4 * SECOND, 4 * SECOND)
    )
    node = int(draw(6) * size)
    slot = number % 100
    size_bytes = int(1e6 + 7e6 * draw(7))
    task = Task(
        id=slot * size + node,
        episode=0,
        slot=slot,
        source=node,
        size_bytes=size_bytes,
        cycles=int(8 * size_bytes * (800 + 1600 * draw(8))),
        deadline=4 * SECOND,
    )
    now = slot * workload.slot
    states = []
    for peer in nodes:
        length = int(4 * draw(9, peer))
        backlog = int(2 * SECOND * draw(10, peer)) if length else 0
        inbound = int(2 * draw(11, peer))
        states.append(
            PeerState(length >= 2, length, backlog, inbound, now, inbound * 300 * MILLISECOND)
        )
    observation = Observation(
        node=node,
        now=now,
        episode=0,
        slot=slot,
        task=task,
        queue_length=states[node].queue_length,
        backlog=states[node].backlog,
        receiving=tuple(0 if peer == node else int(2 * draw(12, peer)) for peer in nodes),
        sending=tuple(0 if peer == node else int(2 * draw(13, peer)) for peer in nodes),
        send_backlog=tuple(
            0 if peer == node else int(2 * draw(13, peer)) * 200 * MILLISECOND for peer in nodes
        ),
        answers=(),
        known=tuple(
            None if peer == node or draw(14, peer) < 0.5 else (states[peer], max(0, now - SECOND))
            for peer in nodes
        ),
        round=0,
        sending_work=tuple(
            0 if peer == node else int(2 * draw(13, peer)) * 300 * MILLISECOND for peer in nodes
        ),
    )
    context = SchedulerContext(node, topology, rules, workload, seed=11)
    return Situation(context, observation, tuple(states))


def situations() -> Iterator[Situation]:
    """Return every situation of the suite."""
    for size in SIZES:
        for number in range(SITUATIONS):
            yield situation(size, number)


def decide(scheduler: Scheduler, where: Situation, answering: Answering) -> Course:
    """Drive ``scheduler`` to its decision as a node does.

    Raises:
        AssertionError: it asked itself, nobody, or more often than it may.
    """
    observation = where.observation
    observations: list[Observation] = []
    asks: list[Ask] = []
    while True:
        observations.append(observation)
        reply = scheduler.decide(observation)
        if not isinstance(reply, Ask):
            assert isinstance(reply, Decision), f"{reply}, where only a Decision is allowed"
            return Course(tuple(observations), tuple(asks), reply)
        asks.append(reply)
        assert len(asks) <= MAX_ROUNDS, f"asked {len(asks)} times: {asks}"
        assert reply.peers, "asked nobody"
        assert observation.node not in reply.peers, "asked itself"
        assert len(set(reply.peers)) == len(reply.peers), f"asked a peer twice: {reply.peers}"
        assert all(0 <= peer < len(where.states) for peer in reply.peers)
        observation = _answered(where, observation, reply, answering)


def _answered(
    where: Situation, observation: Observation, ask: Ask, answering: Answering
) -> Observation:
    asked, answered = observation.now, observation.now + 2 * DELAY
    heard = [
        Answer(
            peer,
            where.states[peer].overloaded,
            None if ask.bit_only(peer) else where.states[peer],
            asked,
            answered,
        )
        for peer in ask.peers
        if answering(peer, observation.round)
    ]
    if ask.enough is not None:
        heard = heard[: ask.enough]
    known = list(observation.known)
    for answer in heard:
        if answer.state is not None:
            known[answer.peer] = (answer.state, answered)
    return observation._replace(
        now=answered,
        round=observation.round + 1,
        answers=(*observation.answers, *heard),
        known=tuple(known),
    )


class SchedulerContract:
    """The contract of ``testbed.model.decision.Scheduler``, as tests."""

    @pytest.fixture
    def factory(self) -> SchedulerFactory:
        """Return the factory of the scheduler under test."""
        raise NotImplementedError("override this fixture")

    @pytest.fixture(params=ANSWERING, ids=str)
    def answering(self, request: pytest.FixtureRequest) -> Answering:
        """Return the peers that answer."""
        return ANSWERING[request.param]

    def test_it_is_a_scheduler_with_a_name(self, factory: SchedulerFactory) -> None:
        scheduler = factory(situation(3, 0).context)
        assert isinstance(scheduler, Scheduler)
        assert scheduler.name

    def test_it_decides_whoever_answers(
        self, factory: SchedulerFactory, answering: Answering
    ) -> None:
        """Terminates, never asks itself, and names a node of the network."""
        for where in situations():
            decision = decide(factory(where.context), where, answering).decision
            assert isinstance(decision, Decision)
            assert 0 <= decision.destination < len(where.states)

    def test_what_it_says_of_a_decision_fits_it(
        self, factory: SchedulerFactory, answering: Answering
    ) -> None:
        for where in situations():
            size = len(where.states)
            decision = decide(factory(where.context), where, answering).decision
            if decision.probabilities is not None:
                assert len(decision.probabilities) == size
                assert sum(decision.probabilities) == pytest.approx(1.0, abs=1e-4)
                assert decision.probabilities[decision.destination] > 0.0
            if decision.mask is not None:
                assert len(decision.mask) == size
                assert decision.mask[decision.destination], "went where its own mask forbids"
                assert decision.mask[where.observation.node], "masked the own node"

    def test_equal_observations_give_equal_decisions(
        self, factory: SchedulerFactory, answering: Answering
    ) -> None:
        for where in situations():
            once = decide(factory(where.context), where, answering)
            again = decide(factory(dataclasses.replace(where.context)), where, answering)
            assert once == again

    def test_it_can_decide_about_several_tasks_at_a_time(self, factory: SchedulerFactory) -> None:
        """Answers take time, so a node may get a task while it waits for those about another."""
        for size in SIZES:
            first = situation(size, 1)
            task = first.observation.task
            assert task is not None
            other = first.observation._replace(
                slot=first.observation.slot + 1,
                task=task._replace(id=task.id + size, slot=task.slot + 1),
            )
            alone = decide(factory(first.context), first, ANSWERING["all"])
            scheduler = factory(first.context)
            reply = scheduler.decide(first.observation)
            scheduler.decide(other)
            observation = first.observation
            while isinstance(reply, Ask):
                observation = _answered(first, observation, reply, ANSWERING["all"])
                reply = scheduler.decide(observation)
                scheduler.decide(other)
            assert isinstance(reply, Decision)
            assert reply.destination == alone.decision.destination

    def test_it_changes_nothing_it_is_given(self, factory: SchedulerFactory) -> None:
        for where in situations():
            before = copy.deepcopy((where.observation, where.states, where.context))
            decide(factory(where.context), where, ANSWERING["all"])
            assert (where.observation, where.states, where.context) == before


class MaskedSchedulerContract(SchedulerContract):
    """The contract of a scheduler that uses the overload bits as a mask."""

    def test_it_keeps_to_the_mask(self, factory: SchedulerFactory, answering: Answering) -> None:
        """Never to a peer that is overloaded or whose bit is not known (model section 6)."""
        used = 0
        for where in situations():
            course = decide(factory(where.context), where, answering)
            destination, own = course.decision.destination, where.observation.node
            bits = {
                answer.peer: answer.overloaded
                for answer in course.observations[-1].answers
                if answer.state is None
            }
            if destination != own:
                assert bits.get(destination) is False
            if course.asks:
                assert course.asks[0].bits_only
                assert course.decision.mask == tuple(
                    peer == own or bits.get(peer) is False for peer in range(len(where.states))
                )
                used += 1
        assert used
