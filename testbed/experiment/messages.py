"""Questions and answers between the nodes of a run of tasks, counted from its logged decisions.

Nothing is counted while a run goes on: its decisions have what peers answered, and whom a scheduler
asks is known (``testbed.schedulers.asked``). docs/metrics.md says what counts.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import msgspec

from testbed.model.decision import SchedulerContext
from testbed.model.task import Task
from testbed.scenario.plan import Plan
from testbed.schedulers.asked import (
    ANSWER_BYTES,
    NEEDS_ROUNDS,
    NONE,
    QUESTION_BYTES,
    Decided,
    Questions,
    is_policy,
    rule,
)
from testbed.storage.tasklog import TaskLog

_Answer: TypeAlias = tuple[int, bool, tuple[bool | int, ...] | None, int, int]
"""An answer as it is stored: the fields of ``Answer``, which take longer to make by name. States of
earlier releases have one number less."""


_Key: TypeAlias = tuple[int, int, int]
"""Episode, node and slot."""


class MessageWindow(NamedTuple):
    """Messages of a node about the tasks of one slot.

    ``asked`` are its own questions, one for each peer, and ``heard`` the answers that its decisions
    used; ``answered`` are its answers to the questions of others, as far as these used them. States
    that nodes tell unasked are answers without a question. Sizes are in bytes.
    """

    episode: int
    node: int
    slot: int
    asked: int
    asked_bytes: int
    heard: int
    heard_bytes: int
    answered: int
    answered_bytes: int


@dataclass(frozen=True, slots=True)
class Messages:
    """Messages over a run: questions and the answers to them, and their bytes."""

    questions: int = 0
    question_bytes: int = 0
    answers: int = 0
    answer_bytes: int = 0

    @property
    def count(self) -> int:
        """Number of all messages."""
        return self.questions + self.answers

    @property
    def size(self) -> int:
        """Bytes of all messages."""
        return self.question_bytes + self.answer_bytes


def total(windows: Iterable[MessageWindow]) -> Messages:
    """Return the messages of windows; each answer once, at the node that got it."""
    kept = [(each.asked, each.asked_bytes, each.heard, each.heard_bytes) for each in windows]
    return Messages(*map(sum, zip(*kept, strict=True))) if kept else Messages()


def read_messages(log: TaskLog, run_id: str, plan: Plan) -> tuple[MessageWindow, ...]:
    """Count the messages of a run of tasks, by episode, node and slot in this order.

    A slot in which a node said and heard nothing is left out.
    """
    size = plan.topology.size
    contexts = [_context(plan, node) for node in range(size)]
    decode = msgspec.json.Decoder(list[_Answer]).decode
    rounds = _Rounds(log, run_id)
    # Most answers to each scheduler about a task.
    most: defaultdict[str, Questions] = defaultdict(lambda: NONE)
    # By episode, node and slot, of a node's own tasks; by episode and slot, of each node as a peer.
    own: dict[_Key, tuple[Questions, Questions]] = {}
    unanswered: list[tuple[int, int, int, str]] = []
    told: defaultdict[tuple[int, int], tuple[list[int], list[int]]] = defaultdict(
        lambda: ([0] * size, [0] * size)
    )
    names = ("task", "at", "scheduler", "destination", "mask", "probes")
    for chunk in log.rows("decisions", run_id, only=names):
        for _, episode, node, slot, task, at, scheduler, destination, mask, probes in chunk:
            if task is None:
                continue
            heard = NONE
            if probes != "[]":
                bits, states = told[episode, slot]
                answers = decode(probes)
                with_state = 0
                for peer, _, state, _, _ in answers:
                    if state is None:
                        bits[peer] += 1
                    else:
                        states[peer] += 1
                        with_state += 1
                heard = Questions(len(answers) - with_state, with_state)
                most[scheduler] = Questions(*map(max, zip(most[scheduler], heard, strict=True)))
            asked, count = heard, rule(scheduler)
            if destination is not None and heard == NONE and is_policy(scheduler):
                # Whether it asked in vain, or nobody, the other decisions tell.
                unanswered.append((episode, node, slot, scheduler))
                continue
            begins = slot * plan.workload.slot + plan.rules.turn(node)
            # A task that ended before its decision may have ended before the question as well.
            if count is not None and destination is not None:
                number = sum(heard)
                # A node that asked in vain has waited for it.
                if scheduler in NEEDS_ROUNDS and not number and at > begins:
                    number = rounds.of(episode, node, slot)
                about = Task(task, episode, slot, node, 0, 0, 0)
                asked = count(Decided(contexts[node], about, mask, number, heard, most[scheduler]))
            if asked != NONE:
                own[episode, node, slot] = asked, heard
    answered = {
        (episode, node, slot): Questions(bits[node], states[node])
        for (episode, slot), (bits, states) in told.items()
        for node in range(size)
        if bits[node] or states[node]
    }
    periods = _Periods(log, run_id, plan.workload.slots * plan.workload.slot)
    for episode, node, slot, scheduler in unanswered:
        if most[scheduler] == NONE and periods.of(episode):
            continue
        about = Task(0, episode, slot, node, 0, 0, 0)
        count = rule(scheduler)
        assert count is not None
        asked = count(Decided(contexts[node], about, None, 0, NONE, most[scheduler]))
        own[episode, node, slot] = asked, NONE
    for episode, period in periods.found.items():
        _add_unasked(own, answered, episode, period, plan)
    return tuple(
        _window(key, *own.get(key, (NONE, NONE)), answered.get(key, NONE))
        for key in sorted(own.keys() | answered.keys())
    )


def _window(key: _Key, asked: Questions, heard: Questions, answered: Questions) -> MessageWindow:
    return MessageWindow(
        *key,
        *(sum(asked), _bytes(asked, QUESTION_BYTES)),
        *(sum(heard), _bytes(heard, ANSWER_BYTES)),
        *(sum(answered), _bytes(answered, ANSWER_BYTES)),
    )


def _bytes(numbers: Questions, sizes: Questions) -> int:
    return sum(number * size for number, size in zip(numbers, sizes, strict=True))


def _context(plan: Plan, node: int) -> SchedulerContext:
    seed = plan.seeds.schedulers
    return SchedulerContext(node, plan.topology, plan.rules, plan.workload, seed)


def _add_unasked(
    own: dict[_Key, tuple[Questions, Questions]],
    answered: dict[_Key, Questions],
    episode: int,
    period: int,
    plan: Plan,
) -> None:
    """Add the states that all nodes told each other once in ``period`` of an episode."""
    size, workload = plan.topology.size, plan.workload
    for at in range(0, workload.slots * workload.slot, period):
        for node in range(size):
            key = episode, node, at // workload.slot
            asked, heard = own.get(key, (NONE, NONE))
            own[key] = asked, heard._replace(unasked=heard.unasked + size - 1)
            told = answered.get(key, NONE)
            answered[key] = told._replace(unasked=told.unasked + size - 1)


class _Periods:
    """Times between two tellings of states, in episodes in which nodes told them unasked.

    Nothing says them but the instants at which the states were told that decisions knew of: the
    period is what divides all of them. Where all were told at the beginning, none followed in
    ``whole``, the time of all slots.
    """

    def __init__(self, log: TaskLog, run_id: str, whole: int) -> None:
        self._log, self._run, self._whole = log, run_id, whole
        self.found: dict[int, int] = {}
        self._none: set[int] = set()

    def of(self, episode: int) -> int:
        """Return that of an episode; 0 if its decisions knew of no state."""
        if episode not in self.found and episode not in self._none:
            told = {
                heard[0].at
                for decision in self._log.decisions(self._run, episode=episode)
                for heard in decision.observation.known
                if heard is not None
            }
            if told:
                self.found[episode] = math.gcd(*told) or self._whole
            else:
                self._none.add(episode)
        return self.found.get(episode, 0)


class _Rounds:
    """Rounds of questions by decision; reads them, which takes long, where one is asked for."""

    def __init__(self, log: TaskLog, run_id: str) -> None:
        self._log, self._run = log, run_id
        self._of: tuple[int, int] | None = None
        self._rounds: dict[int, int] = {}

    def of(self, episode: int, node: int, slot: int) -> int:
        if self._of != (episode, node):
            self._of = (episode, node)
            self._rounds = {
                decision.slot: decision.observation.round
                for decision in self._log.decisions(self._run, episode=episode, node=node)
            }
        return self._rounds[slot]
