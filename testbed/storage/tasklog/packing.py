"""The stored form of records and decisions, which is what decides how fast and large a log is.

A row of ``histories`` holds records of one task that follow one another, for a row costs more than
what is in it. The observation of a decision is stored without what is zero, unknown, told by
another column of its row, or known since an earlier decision of its node. Logs of earlier versions
hold complete observations; both are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from testbed.model.codec import (
    decode_answers,
    decode_observation,
    dumps,
    encode_answers,
    encode_observation,
)
from testbed.model.decision import Answer, Observation, PeerState
from testbed.model.events import DecisionRecord, Record, RecordKind
from testbed.model.history import FIRST_OF_CONTROLLER, TaskRow
from testbed.model.task import Outcome, Task
from testbed.model.units import Micros
from testbed.storage.tasklog.statements import Row

Heard: TypeAlias = tuple[PeerState, Micros]
"""What a peer answered about itself, and when that came."""

Known: TypeAlias = tuple[Heard | None, ...]
"""What a node knows of each peer, as in ``Observation``."""

_KINDS: Final = {kind.value: kind for kind in RecordKind}
_OUTCOMES: Final = {outcome.value: outcome for outcome in Outcome}
_NO_ANSWERS: Final = "[]"
_LISTS: Final = ("receiving", "sending", "send_backlog", "sending_work")


# --- tasks ----------------------------------------------------------------------------------


def task_row(run: int, row: TaskRow) -> Row:
    """Return a row of ``tasks``."""
    return (run, *row)


def task_of(row: Sequence[Any]) -> TaskRow:
    """Inverse of ``task_row``. Raises: KeyError: an outcome that does not exist."""
    return TaskRow._make((*row[1:6], _OUTCOMES[row[6]], *row[7:]))


# --- records --------------------------------------------------------------------------------


def history_rows(run: int, records: Iterable[Record]) -> list[Row]:
    """Return rows of ``histories`` with these records; of two with one number the first counts.

    A record of the controller, which a node's own may have to replace, has a row of its own.
    """
    by_task: dict[Task, list[Record]] = {}
    for record in records:
        task = record[1]
        history = by_task.get(task)
        if history is None:
            by_task[task] = [record]
        else:
            history.append(record)
    rows = []
    for task, history in by_task.items():
        for part in _parts(history):
            steps = f"[{','.join(map(_step, part))}]"
            rows.append((run, task[0], part[0][2], len(part), *task[1:], steps))
    return rows


_STEPS: Final[dict[RecordKind, tuple[tuple[str, ...], str]]] = {
    kind: (names, f'["{kind}",%d,%d,%d{data}]')
    for kind, names, data in (
        (RecordKind.GENERATED, (), ""),
        (RecordKind.DECIDED, ("destination",), ',{"destination":%d}'),
        (RecordKind.TRANSMISSION_STARTED, ("peer", "nominal"), ',{"peer":%d,"nominal":%d}'),
        (RecordKind.SENT, ("peer",), ',{"peer":%d}'),
        (RecordKind.RECEIVED, ("sender", "elapsed"), ',{"sender":%d,"elapsed":%d}'),
        (RecordKind.ADMITTED, (), ""),
        (RecordKind.EXECUTION_STARTED, ("nominal",), ',{"nominal":%d}'),
    )
}
"""Names of the data of most records, all of them numbers, and their JSON: twice as fast so."""


def _step(record: Record) -> str:
    """Return the JSON of a record in ``steps``."""
    kind, _, _, node, at, clock, data = record
    usual = _STEPS.get(kind)
    if usual is not None and tuple(data) == usual[0]:
        return usual[1] % (node, at, clock - at, *data.values())
    step = [kind, node, at, clock - at]
    return dumps([*step, data] if data else step)


def _parts(history: list[Record]) -> Iterable[list[Record]]:
    """Return the records of a task in pieces whose numbers follow one another."""
    first = history[0][2]
    numbers = [record[2] for record in history]
    if first < FIRST_OF_CONTROLLER and numbers == list(range(first, first + len(numbers))):
        return (history,)
    return _split(history)


def _split(history: list[Record]) -> Iterator[list[Record]]:
    part: list[Record] = []
    for record in sorted(history, key=lambda each: each.seq):
        if part and record.seq == part[-1].seq:
            continue
        if part and (record.seq > part[-1].seq + 1 or record.seq >= FIRST_OF_CONTROLLER):
            yield part
            part = []
        part.append(record)
    yield part


def unknown(row: Row, known: Iterable[tuple[int, int]]) -> list[Row]:
    """Return what of a row of ``histories`` is new beside (seq, records) of rows of its task."""
    first, records = row[2], row[3]
    there = {
        number
        for begin, count in known
        for number in range(max(begin, first), min(begin + count, first + records))
    }
    if not there:
        return [row]
    return history_rows(row[0], (each for each in records_of(row) if each.seq not in there))


def records_of(row: Sequence[Any]) -> list[Record]:
    """Return the records of a row of ``histories``.

    Raises: ValueError, KeyError or TypeError: this is no such row.
    """
    (_, number, seq, _, episode, slot, source, size, cycles, deadline, steps) = row
    task = Task(number, episode, slot, source, size, cycles, deadline)
    return [
        Record(_KINDS[kind], task, seq + i, node, at, at + late, data[0] if data else {})
        for i, (kind, node, at, late, *data) in enumerate(json.loads(steps))
    ]


def event_rows(row: Sequence[Any]) -> list[Row]:
    """Return the rows of ``events`` of a row of ``histories``. Raises: as ``records_of``."""
    (run, task, seq, _, *about, steps) = row
    return [
        (run, task, seq + i, kind, node, at, at + late, dumps(data[0]) if data else "{}", *about)
        for i, (kind, node, at, late, *data) in enumerate(json.loads(steps))
    ]


# --- decisions ------------------------------------------------------------------------------


class Stored(NamedTuple):
    """A decision that is in the log, as what others of its node in its episode are told from."""

    episode: int
    slot: int
    known: Known


def decision_rows(
    run: int, decisions: Iterable[DecisionRecord], stored: Mapping[int, Stored]
) -> tuple[list[Row], dict[int, Stored]]:
    """Return rows of ``decisions`` in order of their key, and the last decision of each node.

    What a node knows of its peers it knows for long, so a row tells what has changed since an
    earlier one: of the same call, or that of its node in ``stored``. It can be read only if that
    row is in the log as it was given.
    """
    rows = []
    last = dict(stored)
    for decision in sorted(decisions, key=_number):
        before = last.get(decision.node)
        if before and (before.episode != decision.episode or before.slot >= decision.slot):
            before = None
        rows.append(decision_row(run, decision, before))
        last[decision.node] = Stored(decision.episode, decision.slot, decision.observation.known)
    return rows, last


def _number(decision: DecisionRecord) -> tuple[int, int, int]:
    return decision.episode, decision.node, decision.number


def decision_row(run: int, decision: DecisionRecord, before: Stored | None = None) -> Row:
    """Return a row of ``decisions``, which tells what has changed since ``before``."""
    task, node, episode, slot, at, scheduler, observation, destination, odds, mask = decision
    answers = observation.answers
    return (
        run,
        episode,
        node,
        slot,
        task,
        at,
        scheduler,
        destination,
        None if mask is None else "".join("1" if allowed else "0" for allowed in mask),
        None if odds is None else dumps(odds),
        _sparse(decision, before),
        # The answers have a column of their own and are not stored twice.
        encode_answers(answers) if answers else _NO_ANSWERS,
    )


def _sparse(decision: DecisionRecord, before: Stored | None) -> str:
    """Return the observation of a decision as it is stored, without its answers, as JSON."""
    seen = decision.observation
    (node, now, episode, slot, task, queue, backlog, *lists, answers, known, asked) = seen[:-2]
    lists.append(seen.sending_work)
    nodes = len(known)
    told = (decision.node, decision.episode, decision.slot)
    if (node, episode, slot) != told or set(map(len, lists)) != {nodes}:
        # No node does so; whatever does is stored as it is.
        return encode_observation(seen._replace(answers=()))
    # Put together by hand, as most of it is a few numbers: twice as fast.
    text = f'{{"nodes":{nodes:d}'
    if now != decision.at:
        text += f',"now":{now:d}'
    if task is not None:
        arrived = (decision.task_id, episode, slot, node)
        text += f',"task":{dumps(task[4:] if task[:4] == arrived else task)}'
    if queue:
        text += f',"queue_length":{queue:d}'
    if backlog:
        text += f',"backlog":{backlog:d}'
    if seen.inbound_work:
        text += f',"inbound_work":{seen.inbound_work:d}'
    for name, values in zip(_LISTS, lists, strict=True):
        if any(values):
            some = {peer: value for peer, value in enumerate(values) if value}
            text += f',"{name}":{dumps(some)}'
    if asked:
        text += f',"round":{asked:d}'
    base: Known = (None,) * nodes
    if before is not None and len(before.known) == nodes and before.known != base:
        base = before.known
        text += f',"since":{before.slot:d}'
    heard = _heard(answers)
    if heard or known != base:
        changed = {
            peer: None if state is None else (*state[0], state[1])  # when it came is the last
            for peer, state in enumerate(known)
            # A state that came with an answer is told there.
            if state != heard.get(peer, base[peer])
        }
        if changed:
            text += f',"known":{dumps(changed)}'
    return text + "}"


class DecisionReader:
    """Reads rows of ``decisions``, each of which may build on earlier ones of its node and episode.

    Rows have to come in the order of their key, those of a node in an episode from its first on.
    """

    def __init__(self) -> None:
        self._of: tuple[int, int] | None = None
        self._known: dict[int, Known] = {}

    def record(self, row: Sequence[Any]) -> DecisionRecord:
        """Return the decision of a row.

        Raises: ValueError, KeyError or TypeError: it is no such row, or builds on one that is not
        there.
        """
        (_, episode, node, slot, task, at, scheduler, destination, mask, odds, _, _) = row
        return DecisionRecord(
            task_id=task,
            node=node,
            episode=episode,
            slot=slot,
            at=at,
            scheduler=scheduler,
            observation=self._observation(row),
            destination=destination,
            probabilities=None if odds is None else tuple(json.loads(odds)),
            mask=None if mask is None else tuple(allowed == "1" for allowed in mask),
        )

    def complete(self, row: Sequence[Any]) -> Row:
        """Return a row with its complete observation. Raises: as ``record``."""
        seen = self._observation(row)._replace(answers=())
        return (*row[:-2], encode_observation(seen), row[-1])

    def _observation(self, row: Sequence[Any]) -> Observation:
        """Return what the node knew at the decision of ``row``, the answers included."""
        (_, episode, node, slot, task, at, *_, text, probes) = row
        answers = () if probes == _NO_ANSWERS else decode_answers(probes)
        if self._of != (episode, node):
            self._of = (episode, node)
            self._known.clear()
        found: Mapping[str, Any] = json.loads(text)
        nodes = found.get("nodes")
        if nodes is None:
            complete = decode_observation(text)._replace(answers=answers)
            self._known[slot] = complete.known
            return complete
        arrived = found.get("task")
        if arrived is not None:
            about = arrived if len(arrived) > 3 else (task, episode, slot, node, *arrived)
            arrived = Task(*about)
        receiving, sending, send_backlog, sending_work = (
            _spread(found.get(name), nodes) for name in _LISTS
        )
        known = self._known[slot] = self._known_at(found, answers)
        return Observation(
            node=node,
            now=found.get("now", at),
            episode=episode,
            slot=slot,
            task=arrived,
            queue_length=found.get("queue_length", 0),
            backlog=found.get("backlog", 0),
            receiving=receiving,
            sending=sending,
            send_backlog=send_backlog,
            answers=answers,
            known=known,
            round=found.get("round", 0),
            inbound_work=found.get("inbound_work", 0),
            sending_work=sending_work,
        )

    def _known_at(self, found: Mapping[str, Any], answers: Sequence[Answer]) -> Known:
        since = found.get("since")
        known: Known = (None,) * found["nodes"] if since is None else self._known[since]
        changed = found.get("known")
        heard = _heard(answers)
        if not heard and not changed:
            return known
        now = list(known)
        for peer, state in heard.items():
            now[peer] = state
        for number, told in (changed or {}).items():
            now[int(number)] = None if told is None else (PeerState(*told[:-1]), told[-1])
        return tuple(now)


def _heard(answers: Sequence[Answer]) -> dict[int, Heard]:
    """Return the states in ``answers`` by peer, with the time when each came."""
    return {each[0]: (each[2], each[4]) for each in answers if each[2] is not None}


def _spread(values: Mapping[str, int] | None, nodes: int) -> tuple[int, ...]:
    if not values:
        return (0,) * nodes
    found = [0] * nodes
    for peer, value in values.items():
        found[int(peer)] = value
    return tuple(found)
