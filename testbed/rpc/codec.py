"""Records, decisions and observations as JSON documents, and back without loss.

A document is one compact UTF-8 JSON object whose keys are the field names of the value; it travels
from a node to the controller in ``EventBatch`` and lies in the node's spool until it is stored.
``decode_x(encode_x(value)) == value`` holds for every value the model makes: integers and floats
keep every bit, tuples come back as tuples.
"""

from __future__ import annotations

import json
from typing import Any, Final, TypeAlias

from testbed.model.decision import Answer, Observation, PeerState
from testbed.model.events import DecisionRecord, Record, RecordKind
from testbed.model.task import Task

Document: TypeAlias = dict[str, Any]

_dumps: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_KINDS: Final = {kind.value: kind for kind in RecordKind}


def encode_record(record: Record) -> bytes:
    """Return a record as a JSON document."""
    return _dumps(
        {
            "kind": record.kind.value,
            "task": task_to_document(record.task),
            "seq": record.seq,
            "node": record.node,
            "at": record.at,
            "clock": record.clock,
            "data": dict(record.data),
        }
    ).encode()


def decode_record(data: bytes) -> Record:
    """Return the record of a document.

    Raises: ValueError, KeyError or TypeError if this is not a record's document.
    """
    document: Document = json.loads(data)
    return Record(
        kind=_KINDS[document["kind"]],
        task=Task(**document["task"]),
        seq=document["seq"],
        node=document["node"],
        at=document["at"],
        clock=document["clock"],
        data=document["data"],
    )


def encode_decision(decision: DecisionRecord) -> bytes:
    """Return a decision with its inputs as a JSON document."""
    document = decision._asdict()
    document["observation"] = observation_to_document(decision.observation)
    return _dumps(document).encode()


def decode_decision(data: bytes) -> DecisionRecord:
    """Return the decision of a document.

    Raises: ValueError, KeyError or TypeError if this is not a decision's document.
    """
    document: Document = json.loads(data)
    probabilities, mask = document["probabilities"], document["mask"]
    return DecisionRecord(
        **{
            **document,
            "observation": observation_from_document(document["observation"]),
            "probabilities": None if probabilities is None else tuple(probabilities),
            "mask": None if mask is None else tuple(mask),
        }
    )


def encode_observation(observation: Observation) -> bytes:
    """Return an observation as a JSON document."""
    return _dumps(observation_to_document(observation)).encode()


def decode_observation(data: bytes) -> Observation:
    """Return the observation of a document.

    Raises: ValueError, KeyError or TypeError if this is not an observation's document.
    """
    return observation_from_document(json.loads(data))


def task_to_document(task: Task) -> Document:
    """Return a task as plain values."""
    return task._asdict()


def observation_to_document(observation: Observation) -> Document:
    """Return an observation as plain values; ``known`` has ``[state, heard]`` or null by peer."""
    document = observation._asdict()
    task = observation.task
    document["task"] = None if task is None else task._asdict()
    document["answers"] = [
        {**answer._asdict(), "state": None if answer.state is None else answer.state._asdict()}
        for answer in observation.answers
    ]
    document["known"] = [
        None if known is None else [known[0]._asdict(), known[1]] for known in observation.known
    ]
    return document


def observation_from_document(document: Document) -> Observation:
    """Return the observation of plain values; the inverse of ``observation_to_document``."""
    task = document["task"]
    return Observation(
        **{
            **document,
            "task": None if task is None else Task(**task),
            "receiving": tuple(document["receiving"]),
            "sending": tuple(document["sending"]),
            "send_backlog": tuple(document["send_backlog"]),
            "answers": tuple(_answer(answer) for answer in document["answers"]),
            "known": tuple(
                None if known is None else (PeerState(**known[0]), known[1])
                for known in document["known"]
            ),
        }
    )


def _answer(document: Document) -> Answer:
    state = document["state"]
    return Answer(**{**document, "state": None if state is None else PeerState(**state)})
