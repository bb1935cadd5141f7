"""Questions and answers between the nodes of a run of tasks, counted from its logged decisions.

Nothing is counted while a run goes on: its decisions have what peers answered, and whom a scheduler
asks is known (``testbed.schedulers.asked``). docs/metrics.md says what counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from testbed.model.decision import Answer, SchedulerContext
from testbed.model.task import Task
from testbed.scenario.plan import Plan
from testbed.schedulers.asked import NEEDS_ROUNDS, Decided, Questions, rule
from testbed.storage.tasklog import TaskLog

QUESTION_BYTES: Final = Questions(bits=12, states=10)
"""Size of a question for the overload bit, and of one for the full state: that of the message
``ProbeRequest`` (edge.proto) with values of usual size, the same for every question. So runs of the
simulator and of a network, whose clocks differ by some digits, agree."""

ANSWER_BYTES: Final = Questions(bits=8, states=25)
"""The same for their answers, the message ``ProbeReply``."""


class MessageWindow(NamedTuple):
    """Messages of a node about the tasks of one slot.

    ``asked`` are its own questions, one for each peer, and ``heard`` the answers that its decisions
    used; ``answered`` are its answers to the questions of others, as far as these used them. Sizes
    are in bytes.
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
    contexts = [_context(plan, node) for node in range(plan.topology.size)]
    decode = msgspec.json.Decoder(list[Answer]).decode
    rounds = _Rounds(log, run_id)
    # By episode, node and slot: what follows them in ``MessageWindow``.
    counted: defaultdict[tuple[int, int, int], list[int]] = defaultdict(lambda: [0] * 6)
    names = ("task", "at", "scheduler", "destination", "mask", "probes")
    for chunk in log.rows("decisions", run_id, only=names):
        for _, episode, node, slot, task, at, scheduler, destination, mask, probes in chunk:
            if task is None:
                continue
            answers: Sequence[Answer] = () if probes == "[]" else decode(probes)
            states = sum(answer.state is not None for answer in answers)
            heard = Questions(len(answers) - states, states)
            asked, count = heard, rule(scheduler)
            # A task that ended before its decision may have ended before the question as well.
            if count is not None and destination is not None:
                number = len(answers)
                # A node that asked in vain has waited for it.
                if scheduler in NEEDS_ROUNDS and not number and at > slot * plan.workload.slot:
                    number = rounds.of(episode, node, slot)
                about = Task(task, episode, slot, node, 0, 0, 0)
                asked = count(Decided(contexts[node], about, mask, number, heard))
            if asked == (0, 0):
                continue
            own = counted[episode, node, slot]
            own[0] += sum(asked)
            own[1] += _bytes(asked, QUESTION_BYTES)
            own[2] += sum(heard)
            own[3] += _bytes(heard, ANSWER_BYTES)
            for peer, _, state, *_ in answers:
                other = counted[episode, peer, slot]
                other[4] += 1
                other[5] += ANSWER_BYTES[state is not None]
    return tuple(MessageWindow(*key, *counted[key]) for key in sorted(counted))


def _bytes(numbers: Questions, sizes: Questions) -> int:
    return numbers.bits * sizes.bits + numbers.states * sizes.states


def _context(plan: Plan, node: int) -> SchedulerContext:
    seed = plan.seeds.schedulers
    return SchedulerContext(node, plan.topology, plan.rules, plan.workload, seed)


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
