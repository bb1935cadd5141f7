"""Records, decisions and observations as JSON documents, and back without loss.

A document is one compact UTF-8 JSON object whose keys are the field names of the value; it travels
from a node to the controller in ``EventBatch`` and lies in the node's spool until it is stored.
``decode_x(encode_x(value)) == value`` holds for every value the model makes: integers and floats
keep every bit, tuples come back as tuples.
"""

from __future__ import annotations

import json
from typing import Any, Final

from testbed.model import hooks
from testbed.model.decision import Observation
from testbed.model.events import Record, RecordKind
from testbed.model.hook import Decided, Document
from testbed.model.placing import (
    observation_from_document,
    observation_to_document,
    task_to_document,
)
from testbed.model.task import Task

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


def encode_decision(decision: Decided) -> bytes:
    """Return a decision of any hook with its inputs as a JSON document."""
    return _dumps(hooks.to_document(decision)).encode()


def decode_decision(data: bytes) -> Any:
    """Return the decision of a document; its type is that of its hook's records.

    Raises: ValueError, KeyError or TypeError if this is not a decision's document.
    """
    return hooks.from_document(json.loads(data))


def encode_observation(observation: Observation) -> bytes:
    """Return an observation as a JSON document."""
    return _dumps(observation_to_document(observation)).encode()


def decode_observation(data: bytes) -> Observation:
    """Return the observation of a document.

    Raises: ValueError, KeyError or TypeError if this is not an observation's document.
    """
    return observation_from_document(json.loads(data))
