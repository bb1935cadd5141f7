"""Records, decisions and observations as JSON documents, and back without loss.

A document travels from a node to the controller in ``EventBatch`` and lies in the node's spool
until it is stored. Records and decisions where a task is executed are compact UTF-8 JSON arrays of
their fields, in order; peers of which a node knows nothing are left out. Other decisions are JSON
objects whose keys are the names of fields. Documents of earlier releases, all of which are objects,
are read too. ``decode_x(encode_x(value)) == value`` holds for every value the model makes: integers
and floats keep every bit, tuples come back as tuples.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from testbed.model import hooks
from testbed.model.decision import Answer, Observation, PeerState
from testbed.model.events import DecisionRecord, Record, RecordKind
from testbed.model.hook import Decided, Document
from testbed.model.placing import (
    observation_from_document,
    observation_to_document,
)
from testbed.model.task import Task
from testbed.model.units import Micros

MOST_PEERS: Final = 100_000
"""Most nodes of a network in a document: a number alone must not take all memory."""

_dumps: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_compact: Final = msgspec.json.Encoder().encode
_KINDS: Final = {kind.value: kind for kind in RecordKind}


def encode_record(record: Record) -> bytes:
    """Return a record as a JSON document."""
    kind, task, seq, node, at, clock, data = record
    return _compact((kind.value, task, seq, node, at, clock, dict(data)))


def decode_record(data: bytes) -> Record:
    """Return the record of a document.

    Raises: ValueError, KeyError or TypeError if this is not a record's document.
    """
    return _record(json.loads(data))


def decode_records(documents: Sequence[bytes]) -> list[Record]:
    """Return the records of many documents; the same as one by one, in less time.

    Raises: ValueError, KeyError or TypeError if one of these is not a record's document.
    """
    records = _typed(_RECORDS, documents)
    return [_record(value) for value in _values(documents)] if records is None else records


def encode_decision(decision: Decided) -> bytes:
    """Return a decision of any hook with its inputs as a JSON document."""
    if not isinstance(decision, DecisionRecord):
        return _dumps(hooks.to_document(decision)).encode()
    seen = decision.observation
    known: list[Any] = [len(seen.known)]
    known += [(peer, *heard) for peer, heard in enumerate(seen.known) if heard is not None]
    *before, _, round_, inbound_work, sending_work = seen
    task_id, node, episode, slot, at, scheduler, _, destination, probabilities, mask = decision
    document = (
        *(task_id, node, episode, slot, at, scheduler),
        (*before, known, round_, inbound_work, sending_work),
        *(destination, probabilities, mask),
    )
    return _compact(document)


def decode_decision(data: bytes) -> Any:
    """Return the decision of a document; its type is that of its hook's records.

    Raises: ValueError, KeyError or TypeError if this is not a decision's document.
    """
    return _decision(json.loads(data))


def decode_decisions(documents: Sequence[bytes]) -> list[Any]:
    """Return the decisions of many documents; the same as one by one, in less time.

    Raises: ValueError, KeyError or TypeError if one of these is not a decision's document.
    """
    decisions = _typed(_DECISIONS, documents)
    if decisions is None:
        return [_decision(value) for value in _values(documents)]
    return [
        DecisionRecord._make(
            (*each[:_SEEN], _observation_of(each.seen), *each[_SEEN + 1 :]),
        )
        for each in decisions
    ]


class _Heard(NamedTuple):
    """The last state heard of a peer, as a document has it."""

    peer: int
    state: PeerState
    at: Micros


class _Seen(NamedTuple):
    """An observation as a document has it; ``known`` is its length and its entries."""

    node: int
    now: Micros
    episode: int
    slot: int
    task: Task | None
    queue_length: int
    backlog: Micros
    receiving: tuple[int, ...]
    sending: tuple[int, ...]
    send_backlog: tuple[Micros, ...]
    answers: tuple[Answer, ...]
    known: list[int | _Heard]
    round: int
    inbound_work: Micros = 0
    sending_work: tuple[Micros, ...] = ()


class _Decided(NamedTuple):
    """A decision as a document has it."""

    task_id: int | None
    node: int
    episode: int
    slot: int
    at: Micros
    scheduler: str
    seen: _Seen
    destination: int | None
    probabilities: tuple[float, ...] | None
    mask: tuple[bool, ...] | None


_RECORDS: Final = msgspec.json.Decoder(list[Record])
_DECISIONS: Final = msgspec.json.Decoder(list[_Decided])
_SEEN: Final = _Decided._fields.index("seen")
_BEFORE_ANSWERS: Final = _Seen._fields.index("answers")
_KNOWN: Final = _Seen._fields.index("known")
_Value = TypeVar("_Value")


def _typed(
    decoder: msgspec.json.Decoder[list[_Value]], documents: Sequence[bytes]
) -> list[_Value] | None:
    """Return the values of many documents; None if not all are of the present form."""
    try:
        values = decoder.decode(b"[%s]" % b",".join(documents))
    except msgspec.MsgspecError:
        return None
    return values if len(values) == len(documents) else None


def _observation_of(seen: _Seen) -> Observation:
    size, *entries = seen.known
    if not isinstance(size, int) or not 0 <= size <= MOST_PEERS:
        raise ValueError(f"an observation of {size} nodes")
    heard: list[tuple[PeerState, Micros] | None] = [None] * size
    for entry in entries:
        if isinstance(entry, int):
            raise ValueError(f"{entry} is no state of a peer")
        heard[entry.peer] = (entry.state, entry.at)
    return Observation._make((*seen[:_KNOWN], tuple(heard), *seen[_KNOWN + 1 :]))


def _values(documents: Sequence[bytes]) -> list[Any]:
    """Return the values of many JSON documents, which are read in one go."""
    values: list[Any] = json.loads(b"[%s]" % b",".join(documents))
    if len(values) != len(documents):
        raise ValueError("several documents in one")
    return values


def _record(value: Any) -> Record:
    if isinstance(value, dict):
        return _record_of_object(value)
    kind, task, seq, node, at, clock, data = value
    return Record(_KINDS[kind], Task(*task), seq, node, at, clock, data)


def _record_of_object(document: Document) -> Record:
    """Return the record of a document of an earlier release."""
    return Record(
        kind=_KINDS[document["kind"]],
        task=Task(**document["task"]),
        seq=document["seq"],
        node=document["node"],
        at=document["at"],
        clock=document["clock"],
        data=document["data"],
    )


def _decision(value: Any) -> Any:
    if isinstance(value, dict):
        return hooks.from_document(value)
    task_id, node, episode, slot, at, scheduler, seen, destination, probabilities, mask = value
    return DecisionRecord(
        task_id,
        node,
        episode,
        slot,
        at,
        scheduler,
        _observation(seen),
        destination,
        None if probabilities is None else tuple(probabilities),
        None if mask is None else tuple(mask),
    )


def _observation(value: list[Any]) -> Observation:
    """Return the observation of an array, in which ``known`` is its length and its entries."""
    node, now, episode, slot, task, length, backlog, *lists = value[:_BEFORE_ANSWERS]
    receiving, sending, send_backlog = lists
    # Documents of earlier releases end with the round.
    answers, known, round_, *work = value[_BEFORE_ANSWERS:]
    inbound_work, sending_work = work or (0, ())
    size, *entries = known
    if not 0 <= size <= MOST_PEERS:
        raise ValueError(f"an observation of {size} nodes")
    heard: list[tuple[PeerState, int] | None] = [None] * size
    for peer, state, at in entries:
        heard[peer] = (PeerState(*state), at)
    return Observation(
        node,
        now,
        episode,
        slot,
        None if task is None else Task(*task),
        length,
        backlog,
        tuple(receiving),
        tuple(sending),
        tuple(send_backlog),
        tuple(map(_answer, answers)),
        tuple(heard),
        round_,
        inbound_work,
        tuple(sending_work),
    )


def _answer(value: list[Any]) -> Answer:
    peer, overloaded, state, asked, answered = value
    return Answer(peer, overloaded, None if state is None else PeerState(*state), asked, answered)


def encode_observation(observation: Observation) -> bytes:
    """Return an observation as a JSON document."""
    return _dumps(observation_to_document(observation)).encode()


def decode_observation(data: bytes) -> Observation:
    """Return the observation of a document.

    Raises: ValueError, KeyError or TypeError if this is not an observation's document.
    """
    return observation_from_document(json.loads(data))
