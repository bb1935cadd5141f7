"""How many peers the schedulers of the catalogue ask about a task.

The log has the answers that a decision was made from, not the questions: of a peer that stayed
silent there is nothing. Whom a scheduler of the catalogue asks follows from the task, from the mask
of the decision and from whether it asked at all, so the questions are counted again from these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from testbed.model.decision import SchedulerContext
from testbed.model.task import Task
from testbed.schedulers.catalogue import METHODS, method


class Questions(NamedTuple):
    """Number of peers asked, by what for: the overload bit alone, or the full state.

    Of answers: ``unasked`` are states that peers told without a question.
    """

    bits: int
    states: int
    unasked: int = 0


QUESTION_BYTES: Final = Questions(bits=12, states=10)
"""Size of a question for the overload bit, and of one for the full state: that of the message
``ProbeRequest`` (edge.proto) with values of usual size, the same for every question. So runs of the
simulator and of a network, whose clocks differ by some digits, agree."""

ANSWER_BYTES: Final = Questions(bits=8, states=29, unasked=25)
"""The same for their answers, the message ``ProbeReply``, and for states that are told unasked, the
message ``TransferFrame``."""

NONE: Final = Questions(0, 0)


class Decided(NamedTuple):
    """What the log has of a decision: node and task, its mask, how many rounds it asked, answers.

    ``mask`` has a digit per node, 1 for the allowed ones; None without a mask. ``heard`` are the
    peers that answered. ``told`` are the most that answered its scheduler in this way about this or
    an earlier task.
    """

    context: SchedulerContext
    task: Task
    mask: str | None
    rounds: int
    heard: Questions
    told: Questions = Questions(0, 0)

    @property
    def peers(self) -> int:
        """Number of the other nodes."""
        return self.context.topology.size - 1

    def drawn(self, among: tuple[int, ...]) -> int:
        """Return how many peers are among the two nodes that are drawn for the task."""
        # To draw takes several times as long as all else that is done about a decision.
        return sum(node != self.context.node for node in self.context.sample(self.task, among, 2))

    @property
    def both_answered(self) -> bool:
        """Whether two peers told their states: then the two that were drawn are these."""
        return self.heard.states == 2

    @property
    def free(self) -> tuple[int, ...]:
        """The nodes that the mask allows, the own one included."""
        return tuple(node for node, digit in enumerate(self.mask or "") if digit == "1")


Rule: TypeAlias = Callable[[Decided], Questions]


def _bits(decided: Decided) -> Questions:
    return Questions(decided.peers, 0)


def _states(decided: Decided) -> Questions:
    return Questions(0, decided.peers)


def _two(decided: Decided) -> Questions:
    if decided.both_answered:
        return Questions(0, 2)
    return Questions(0, decided.drawn(tuple(range(decided.peers + 1))))


def _two_free(decided: Decided) -> Questions:
    states = 2 if decided.both_answered else decided.drawn(decided.free)
    return Questions(decided.peers, states)


def _policy(decided: Decided) -> Questions:
    # A policy asks all peers, for what its card names; the log has the answers.
    if not decided.told.bits and decided.told.states:
        return _states(decided)
    # Of a policy that asks random peers for states, the others have told their bit.
    return Questions(decided.peers - decided.told.states, decided.told.states)


def _bits_if_asked(decided: Decided) -> Questions:
    # It has a mask if, and only if, it has asked.
    return NONE if decided.mask is None else _bits(decided)


def _all_free_if_asked(decided: Decided) -> Questions:
    if decided.mask is None:
        return NONE
    return Questions(decided.peers, decided.mask.count("1") - 1)


def _states_if_asked(decided: Decided) -> Questions:
    return _states(decided) if decided.rounds else NONE


_RULES: Final[Mapping[str, Rule]] = {
    "ratc": _two,
    "two-choice": _two,
    "least-completion": _states,
    "priced": _states,
    "rda": _states_if_asked,
    "ratc-masked": _two_free,
    "rda-masked": _all_free_if_asked,
    "local-or-reliable": _bits_if_asked,
}
"""By name, those that ask; policies ask all peers, for their bit or for their state."""

NEEDS_ROUNDS: Final = frozenset({"rda"})
"""The schedulers whose rule looks at ``Decided.rounds``: nothing else tells whether they asked."""


@lru_cache(maxsize=1_000)
def rule(scheduler: str) -> Rule | None:
    """Return how the questions of a scheduler, by its name in the log, are counted.

    None if it is not in the catalogue: then only the answers tell of its questions.
    """
    if scheduler in _RULES:
        return _RULES[scheduler]
    found = method(scheduler)
    if found.kind == "policy":
        return _policy
    return _none if scheduler in METHODS else None


def is_policy(scheduler: str) -> bool:
    """Return whether a scheduler, by its name in the log, is a learned policy."""
    return rule(scheduler) is _policy


def _none(decided: Decided) -> Questions:
    return NONE
