"""Reading observations: overload, candidates from full states, and the mask from overload bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from testbed.errors import Problem, UsageError
from testbed.model.decision import Observation, SchedulerContext
from testbed.model.task import Task
from testbed.model.units import Micros
from testbed.schedulers.estimates import Candidate, Estimator

ASK_FIRST: Final = "ask_first"
"""Name of the option of ``AtOnce``."""


class Prober:
    """Base of schedulers that ask their peers: the peers, and estimates of their answers."""

    name: str = ""
    OPTIONS: ClassVar[Mapping[str, str]] = {}

    def __init__(self, context: SchedulerContext) -> None:
        self._context = context
        self._node = context.node
        self._size = context.topology.size
        self._peers = peers_of(context.node, self._size)
        self._estimator = Estimator(context)


class AtOnce(Prober):
    """Base of those that decide at once where the own node will do, and else ask.

    Their peers are then asked after all nodes that did not ask have queued their own tasks of the
    slot. Policies ask about every task, so what they hear is older. With the option ``ask_first``
    these ask about every task too, before any node has decided: the same order for both.
    """

    OPTIONS: ClassVar[Mapping[str, str]] = {
        ASK_FIRST: "true asks peers about every task, as policies do, also where it will stay"
    }

    def __init__(self, context: SchedulerContext) -> None:
        super().__init__(context)
        asked = context.options.get(ASK_FIRST, False)
        if not isinstance(asked, bool):
            raise UsageError(
                f"scheduler '{self.name}' has invalid options",
                [Problem(ASK_FIRST, repr(asked), "true or false")],
            )
        # The round of questions after which it looks whether the own node will do.
        self._looks_after = 1 if asked and self._peers else 0
        if asked:
            # It asks otherwise, so the log has to tell it apart.
            self.name = asking_first(self.name)


def asking_first(name: str) -> str:
    """Return what a scheduler with the option ``ask_first`` is called."""
    return f"{name} (ask first)"


def task_of(observation: Observation) -> Task:
    """Return the task to decide about.

    Raises:
        ValueError: there is none; a scheduler is never called in a slot without an arrival.
    """
    task = observation.task
    if task is None:
        raise ValueError("a scheduler was called without a task")
    return task


def answered(
    observation: Observation, task: Task, estimator: Estimator, limit: int | None = None
) -> list[Candidate]:
    """The peers that answered with their full state, in order of arrival; the first ``limit``."""
    candidates = [
        estimator.candidate(observation, task, answer.peer, answer.state.backlog)
        for answer in observation.answers
        if answer.state is not None
    ]
    return candidates if limit is None else candidates[:limit]


def chosen_and_known(
    observation: Observation, task: Task, estimator: Estimator, chosen: tuple[int, ...]
) -> list[Candidate]:
    """Return those of ``chosen`` whose state is known, in that order.

    The own node is known without asking; a peer if it answered with its full state.
    """
    backlogs = {observation.node: observation.backlog}
    for answer in observation.answers:
        if answer.state is not None:
            backlogs[answer.peer] = answer.state.backlog
    return [
        estimator.candidate(observation, task, destination, backlogs[destination])
        for destination in chosen
        if destination in backlogs
    ]


def is_overloaded(context: SchedulerContext, observation: Observation) -> bool:
    """Return whether the rule of overload holds at the node that decides (docs/model.md)."""
    return context.rules.overload.holds(
        cores=context.topology.cores[context.node],
        queue_length=observation.queue_length,
        backlog=observation.backlog,
    )


def peers_of(node: int, size: int) -> tuple[int, ...]:
    """All nodes but ``node``."""
    return tuple(peer for peer in range(size) if peer != node)


def mask_from_bits(observation: Observation, size: int) -> tuple[bool, ...]:
    """Return the allowed destinations [N], from the overload bits alone (model section 6).

    The own node is never masked. A peer that did not answer is: it is not known to be free.
    """
    return _mask(observation, size, of_states=False)


def mask_from_states(observation: Observation, size: int) -> tuple[bool, ...]:
    """Return the same from the overload bits of the full states that peers answered."""
    return _mask(observation, size, of_states=True)


def mask_from_answers(observation: Observation, size: int) -> tuple[bool, ...]:
    """Return the same where some peers answered with their bit and some with their state."""
    mask = [False] * size
    mask[observation.node] = True
    for answer in observation.answers:
        mask[answer.peer] = not answer.overloaded
    return tuple(mask)


def mask_from_heard(
    observation: Observation, size: int, longest_silence: Micros
) -> tuple[bool, ...]:
    """Return the same from the states that peers tell unasked, as each was heard last.

    Allowed is a peer that was not overloaded then. One of which nothing was heard in the time
    ``longest_silence`` is masked: it is not known to be free. At the beginning of an episode all
    nodes are, so that time counts from there for a peer that has told nothing yet.
    """
    mask = [False] * size
    for peer, heard in enumerate(observation.known):
        last, full = (0, False) if heard is None else (heard[1], heard[0].overloaded)
        mask[peer] = not full and observation.now - last <= longest_silence
    mask[observation.node] = True
    return tuple(mask)


def _mask(observation: Observation, size: int, *, of_states: bool) -> tuple[bool, ...]:
    mask = [False] * size
    mask[observation.node] = True
    for answer in observation.answers:
        if (answer.state is not None) is of_states:
            mask[answer.peer] = not answer.overloaded
    return tuple(mask)


def allowed(mask: tuple[bool, ...]) -> tuple[int, ...]:
    """Return the indices of ``mask`` that are True."""
    return tuple(index for index, free in enumerate(mask) if free)
