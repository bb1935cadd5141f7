"""Simulations by the compiled engine, with the records and decisions of the heap simulator.

The engine keeps a journal of what happened (``testbed.sim.engine.journal``); here it becomes the
records and decisions that the heap simulator would have made, equal and in the same order. Or,
ten times faster, the rows of the task log that would be made of these (``engine.log_rows``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from testbed.model.codec import dumps
from testbed.model.decision import Answer, Observation, PeerState
from testbed.model.events import DecisionRecord, Record
from testbed.model.refusal import allow_refusal
from testbed.model.task import Outcome, Task
from testbed.scenario.plan import Plan
from testbed.sim.engine import log_rows
from testbed.sim.engine.arrays import pack
from testbed.sim.engine.compiled import (
    ABSENT,
    ARRIVAL,
    DECISION,
    OUTCOMES,
    PEER,
    PROBE,
    STEP,
    Records,
)
from testbed.sim.engine.events import begin_episode
from testbed.sim.engine.heuristics import (
    ASKS_STATES,
    LOCAL_OR_RELIABLE,
    METHODS,
    RANDOM,
    RATC_MASKED,
    RDA_MASKED,
    play_stage,
)
from testbed.sim.engine.journal import (
    DECIDED,
    EXECUTION_STARTED,
    KINDS,
    RECEIVED,
    SENT,
    TASK_ENDED,
    TRANSMISSION_STARTED,
)
from testbed.sim.engine.log_rows import STAGES
from testbed.sim.engine.placement import PLACEMENTS, play_slot, prospects_of
from testbed.sim.garbage import no_garbage_collection
from testbed.sim.simulator import EpisodeResult
from testbed.storage.tasklog import Column, EpisodeColumns

_OUTCOMES: Final = {code: Outcome(name) for code, name in enumerate(OUTCOMES) if name}
_BY_NAME: Final = {outcome.value: outcome for outcome in Outcome}
_NO_DATA: Final[dict[str, int | str]] = {}
_MASKED: Final = frozenset({LOCAL_OR_RELIABLE, RATC_MASKED, RDA_MASKED})
"""Methods that ask all peers for their overload bit first."""

NAMES: Final = frozenset({*METHODS, *PLACEMENTS})
"""Schedulers whose runs can be simulated here."""

_new: Final = tuple.__new__
_Text: TypeAlias = NDArray[np.uint8]
_Turn: TypeAlias = tuple[int, int]
"""Slot, and the node whose turn it is; 0 where all nodes decide at once."""
_Known = tuple[tuple[PeerState, int] | None, ...]


class CompiledSimulation:
    """A plan under ``method``, one of ``NAMES``; results equal those of ``simulator.Simulation``.

    Raises:
        UsageError: a plan that the compiled engine does not cover, or ``central-reject`` where
            tasks must not be refused.
    """

    def __init__(self, plan: Plan, method: str) -> None:
        if method == "central-reject":
            allow_refusal(plan.rules, method)
        self.plan = plan
        self.scheduler_name = method
        self._batch = pack([plan], journal=True)
        self._play: Callable[[Any], int]
        self._write: Callable[..., tuple[_Text, int, int, int]]
        if method in PLACEMENTS:
            self._method = log_rows.ASKS_NOBODY
            prospects = prospects_of(self._batch.episodes[0])
            self._play = partial(play_slot, method=PLACEMENTS[method], prospects=prospects)
            self._write = partial(
                log_rows.write_placed, placement=PLACEMENTS[method], prospects=prospects
            )
        else:
            self._method = METHODS[method]
            self._play = partial(play_stage, method=self._method)
            self._write = partial(log_rows.write_episode, method=self._method)
        self._page: log_rows.Page | None = None
        self._text: _Text = np.empty(0, np.uint8)
        size, slots = plan.topology.size, plan.workload.slots
        self._steps = self._view("steps_at", STEP, len(KINDS) * size * slots)
        overlap, lanes = (int(self._batch.episodes[0][name]) for name in ("overlap", "lanes"))
        count = (overlap + 2) * size
        self._decisions = self._view("decisions_at", DECISION, count)
        self._peers = self._view("peers_at", PEER, count * (size + lanes))
        probes = self._view("probes_at", PROBE, overlap * 2 * (size + 1))
        self._probes = probes.reshape(overlap, 2, size + 1)
        # Views: looking a field up by its name takes longer than reading it.
        fields = self._batch.episodes
        self._counts = [fields[name] for name in ("steps", "decisions", "peers")]
        self._arrivals: NDArray[np.int64] = fields["cursor"][:, ARRIVAL]

    def _view(self, address: str, dtype: np.dtype[np.void], count: int) -> Records:
        room: NDArray[np.uint8] = self._batch.room[0]
        start = int(self._batch.episodes[0][address]) - room.ctypes.data
        return room[start : start + count * dtype.itemsize].view(dtype)

    def episode(self, episode: int) -> EpisodeResult:
        """Run one episode; the same number gives the same result."""
        with no_garbage_collection():
            return self._run(episode)

    @property
    def writes_rows(self) -> bool:
        """Whether ``rows`` can be called.

        Not where decisions of several slots are under way at once: a node's next decision may
        then be one about an earlier slot, which rows of the log are not told from. Nor where nodes
        take turns.
        """
        episode = self._batch.episodes[0]
        return int(episode["overlap"]) == 1 and int(episode["turns"]) == 1

    def rows(self, episode: int, *, complete: bool = True) -> tuple[EpisodeResult, EpisodeColumns]:
        """Run one episode; its outcomes, and the rows of the task log about it.

        ``complete``: with records and decisions, else only the rows of tasks. The result has
        neither records nor decisions.
        """
        plan, record = self.plan, self._batch.episodes[0]
        if self._page is None:
            self._page = log_rows.page_of(plan.topology.size, plan.workload.slots)
        record["idle_slots"] = plan.log_idle_slots and complete
        with no_garbage_collection():
            self._text, used, decisions, tasks = self._write(
                record, number=episode, complete=complete, text=self._text, page=self._page
            )
            record["idle_slots"] = plan.log_idle_slots
            text = self._text[:used].tobytes().decode() if complete else None
            return self._packed(episode, text, decisions, tasks)

    def _packed(
        self, episode: int, text: str | None, decisions: int, tasks: int
    ) -> tuple[EpisodeResult, EpisodeColumns]:
        """Return what was written, that many decisions and tasks; without ``text`` the latter."""
        page, plan, name = self._page, self.plan, self.scheduler_name
        assert page is not None
        size = plan.topology.size
        first = episode * plan.workload.slots * size
        rows = page.tasks[:tasks]
        numbers = rows[:, log_rows.NUMBER]
        about = self._batch.tasks[0][numbers]
        identity = [
            *([episode] * tasks, (numbers // size).tolist(), (numbers % size).tolist()),
        ]
        work = [about[each].tolist() for each in ("size", "cycles", "deadline")]
        ids = (first + numbers).tolist()
        outcomes = [OUTCOMES[code] for code in rows[:, log_rows.OUTCOME].tolist()]
        waited, sent, queued, executed, *nominal = (
            _or_none(rows[:, column])
            for column in range(log_rows.TRANSMISSION_WAITING, log_rows.TASK_COLUMNS)
        )
        ended = [
            *(ids, *identity, _or_none(rows[:, log_rows.GOES_TO]), outcomes, *work),
            [name if known else None for known in rows[:, log_rows.SCHEDULED].tolist()],
            [STAGES[code] for code in rows[:, log_rows.STAGE].tolist()],
            rows[:, log_rows.ELAPSED].tolist(),
            *(waited, sent, queued, executed, waited, nominal[0], queued, nominal[1]),
        ]
        # In the order in which they ended, as of every simulation.
        by_id = dict(zip(numbers.tolist(), outcomes, strict=True))
        order = page.ended[:tasks].tolist()
        result = EpisodeResult(episode, [], [], {first + m: _BY_NAME[by_id[m]] for m in order})
        if text is None:
            return result, EpisodeColumns((), (), ended)
        begins, ends = (rows[:, column].tolist() for column in (log_rows.STEPS, log_rows.STEPS_END))
        steps = [text[begin:end] for begin, end in zip(begins, ends, strict=True)]
        records = rows[:, log_rows.RECORDS].tolist()
        histories = [ids, [0] * tasks, records, *identity, *work, steps]
        return result, EpisodeColumns(histories, self._decided(episode, decisions, text), ended)

    def _decided(self, episode: int, count: int, text: str) -> list[Column]:
        """Return the columns of decisions, in order of node and slot."""
        page, plan = self._page, self.plan
        assert page is not None
        rows = page.decisions[:count]
        rows = rows[np.lexsort((rows[:, log_rows.SLOT], rows[:, log_rows.NODE]))]
        columns = rows.T.tolist()
        masks, observations, probes, ends = columns[log_rows.MASK :]
        size = plan.topology.size
        first = episode * plan.workload.slots * size
        destinations = columns[log_rows.DESTINATION]
        odds: Column = [None] * count
        if self._method == RANDOM:
            drawn = dumps((1.0 / size,) * size)
            odds = [drawn if chosen >= 0 else None for chosen in destinations]
        return [
            *([episode] * count, columns[log_rows.NODE], columns[log_rows.SLOT]),
            [first + m if m >= 0 else None for m in columns[log_rows.TASK]],
            *(columns[log_rows.AT], [self.scheduler_name] * count),
            [chosen if chosen >= 0 else None for chosen in destinations],
            [text[a:b] or None for a, b in zip(masks, observations, strict=True)],
            odds,
            [text[a:b] for a, b in zip(observations, probes, strict=True)],
            [text[a:b] for a, b in zip(probes, ends, strict=True)],
        ]

    def _run(self, number: int) -> EpisodeResult:
        record, size = self._batch.episodes[0], self.plan.topology.size
        story = _Story(self.plan, self._method, self.scheduler_name, number, self._probes)
        begin_episode(record, number)
        turns = int(record["turns"])
        stage = ARRIVAL
        while stage >= 0:
            stage = self._play(record)
            if stage == ARRIVAL and (int(self._arrivals[0]) - 1) % turns == 0:
                first = (int(self._arrivals[0]) - 1) // turns * size
                story.add_tasks(first, self._batch.tasks[0, first : first + size])
            steps, decisions, peers = (int(count[0]) for count in self._counts)
            if decisions:
                seen = self._peers[:peers].tolist()
                story.add_decisions(self._decisions[:decisions].tolist(), seen)
            story.add_steps(self._steps[:steps].tolist())
            for count in self._counts:
                count[0] = 0
        return EpisodeResult(number, story.records, story.decisions, story.outcomes)


def _or_none(values: NDArray[np.int64]) -> list[int | None]:
    """Return ``values`` with None in place of what is negative."""
    return [value if value >= 0 else None for value in values.tolist()]


class _Story:
    """The records and decisions of one episode, as they are rebuilt stage by stage."""

    def __init__(self, plan: Plan, method: int, name: str, episode: int, probes: Records) -> None:
        self.records: list[Record] = []
        self.decisions: list[DecisionRecord] = []
        self.outcomes: dict[int, Outcome] = {}
        self._method, self._name, self._episode, self._probes = method, name, episode, probes
        self._size = size = plan.topology.size
        self._slot = plan.workload.slot
        self._stagger = plan.rules.stagger if size > 1 else 0
        self._delay = plan.rules.control_delay
        self._silent = size > 1 and 2 * self._delay > plan.rules.probe_timeout
        self._first_id = episode * plan.workload.slots * size
        self._tasks: dict[int, Task] = {}
        self._seq: dict[int, int] = {}
        self._destination: dict[int, int] = {}
        self._zeros = (0,) * size
        self._probabilities = (1.0 / size,) * size if method == RANDOM else None
        self._known: list[_Known] = [(None,) * size] * size
        self._bits_of: tuple[_Turn, list[Answer]] = ((-1, 0), [])
        self._states_of: tuple[tuple[_Turn, int], list[Answer]] = (((-1, 0), -1), [])

    def add_tasks(self, first: int, tasks: Records) -> None:
        """Add the tasks of a slot, of which the first may be number ``first`` of the episode."""
        slot = first // self._size
        columns = (tasks[name].tolist() for name in ("stage", "size", "cycles", "deadline"))
        for source, (stage, size, cycles, deadline) in enumerate(zip(*columns, strict=True)):
            if stage != ABSENT:
                m = first + source
                identity = (self._first_id + m, self._episode, slot, source)
                self._tasks[m] = _new(Task, (*identity, size, cycles, deadline))
                self._seq[m] = 0

    def add_steps(self, steps: Sequence[tuple[int, ...]]) -> None:
        """Add the records of ``steps``, rows of ``STEP``."""
        records, seq, slot = self.records, self._seq, self._slot
        for at, value, m, node, kind, _ in steps:
            task = self._tasks[m]
            data = _NO_DATA
            if kind == DECIDED:
                data = {"destination": value}
                self._destination[m] = value
            elif kind == TRANSMISSION_STARTED:
                data = {"peer": self._destination[m], "nominal": value}
            elif kind == SENT:
                data = {"peer": self._destination[m]}
            elif kind == RECEIVED:
                data = {"sender": task.source, "elapsed": at - task.slot * slot}
            elif kind == EXECUTION_STARTED:
                data = {"nominal": value}
            elif kind == TASK_ENDED:
                outcome = _OUTCOMES[value >> 4]
                self.outcomes[task.id] = outcome
                stage = STAGES[value & 15]
                data = {"outcome": outcome.value, "elapsed": at - task.slot * slot, "stage": stage}
            records.append(_new(Record, (KINDS[kind], task, seq[m], node, at, at, data)))
            seq[m] += 1

    def add_decisions(
        self, decisions: Sequence[tuple[int, ...]], peers: Sequence[tuple[int, ...]]
    ) -> None:
        """Add ``decisions``, rows of ``DECISION``, which saw ``peers``, rows of ``PEER``."""
        seen = 0
        for row in decisions:
            at, backlog, slot, node, arrived, destination, length, asked, *drawn, inbound, end = row
            task = self._tasks[slot * self._size + node] if arrived else None
            receiving, sending, send_backlog, work = self._queues(peers[seen:end])
            seen = end
            answers = self._answers(slot, node, asked, drawn)
            known = self._known[node]
            if answers and answers[-1].state is not None:
                known = self._known[node] = _updated(known, answers)
            observation = _new(
                Observation,
                (
                    node, at, self._episode, slot, task, length, backlog, receiving, sending,
                    send_backlog, answers, known, asked, inbound, work,
                ),
            )  # fmt: skip
            self.decisions.append(
                _new(
                    DecisionRecord,
                    (
                        None if task is None else task.id,
                        node,
                        self._episode,
                        slot,
                        at,
                        self._name,
                        observation,
                        None if destination < 0 else destination,
                        self._probabilities if destination >= 0 else None,
                        self._mask(slot, node, asked) if destination >= 0 else None,
                    ),
                )
            )

    def _queues(self, peers: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
        """Lengths of the receiving and sending queues [N], backlogs and work of the latter."""
        if not peers:
            return (self._zeros,) * 4
        receiving, sending, backlog, work = (list(self._zeros) for _ in range(4))
        for peer, received, sent, _, until_sent, sent_work in peers:
            if received:
                receiving[peer] = received
            if sent:
                sending[peer], backlog[peer], work[peer] = sent, until_sent, sent_work
        return tuple(receiving), tuple(sending), tuple(backlog), tuple(work)

    def _answers(
        self, slot: int, node: int, asked: int, drawn: Sequence[int]
    ) -> tuple[Answer, ...]:
        """The answers that ``node`` had after ``asked`` questions about its task."""
        if asked == 0 or self._silent:
            return ()
        bits: list[Answer] = []
        turn = (slot, node if self._stagger else 0)
        if self._method in _MASKED:
            every = self._bits(turn)
            bits = every[:node] + every[node + 1 :]
        if self._method in ASKS_STATES:
            every = self._states(turn, 0)
            return (*every[:node], *every[node + 1 :])
        return (
            *bits,
            *[self._states(turn, asked - 1)[j] for j in drawn if j >= 0 and j != node],
        )

    def _bits(self, turn: _Turn) -> list[Answer]:
        """Return what all nodes [N] answer when asked for their overload bit alone."""
        if self._bits_of[0] != turn:
            asked = self._begins(turn)
            answered = asked + 2 * self._delay
            bits = self._answered(turn, 0)["overloaded"].tolist()
            of_all = [
                _new(Answer, (j, bit != 0, None, asked, answered)) for j, bit in enumerate(bits)
            ]
            self._bits_of = (turn, of_all)
        return self._bits_of[1]

    def _states(self, turn: _Turn, question: int) -> list[Answer]:
        """Return what all nodes [N] answer when asked for their state."""
        if self._states_of[0] != (turn, question):
            asked = self._begins(turn) + 2 * self._delay * question
            at, answered = asked + self._delay, asked + 2 * self._delay
            of_all = []
            for j, row in enumerate(self._answered(turn, question).tolist()):
                backlog, length, inbound, overloaded, *_, work = row
                full = overloaded != 0
                state = _new(PeerState, (full, length, backlog, inbound, at, work))
                of_all.append(_new(Answer, (j, full, state, asked, answered)))
            self._states_of = ((turn, question), of_all)
        return self._states_of[1]

    def _begins(self, turn: _Turn) -> int:
        slot, node = turn
        return slot * self._slot + node * self._stagger

    def _answered(self, turn: _Turn, question: int) -> Records:
        slot, node = turn
        number = slot * self._size + node if self._stagger else slot
        probes: Records = self._probes[number % len(self._probes), question, : self._size]
        return probes

    def _mask(self, slot: int, node: int, asked: int) -> tuple[bool, ...] | None:
        """Return the destinations [N] that were allowed, None where no mask was used."""
        if self._size == 1:
            return (True,) if self._method == RATC_MASKED else None
        if self._method not in _MASKED or asked == 0:
            return None
        mask = [False] * self._size
        if not self._silent:
            turn = (slot, node if self._stagger else 0)
            mask = [not answer.overloaded for answer in self._bits(turn)]
        mask[node] = True
        return tuple(mask)


def _updated(known: _Known, answers: Sequence[Answer]) -> _Known:
    """``known`` with the states among ``answers``."""
    changed: list[Any] = list(known)
    for answer in answers:
        if answer.state is not None:
            changed[answer.peer] = (answer.state, answer.answered)
    return tuple(changed)
