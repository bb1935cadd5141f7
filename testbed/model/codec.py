"""The JSON form of what nodes record: exact round trip, for the wire, for spools and for the log.

``decode_x(encode_x(value)) == value`` for every value, types of containers included. Tuples of the
vocabulary (tasks, answers, peer states) are JSON arrays in the order of their fields, because a log
holds a million of them; records, decisions and observations are objects with the names of their
fields. Durations and instants are integer microseconds.
"""

from __future__ import annotations

import json
from typing import Any, Final

from testbed.model.decision import Answer, Observation, PeerState
from testbed.model.events import DecisionRecord, Record, RecordKind
from testbed.model.task import Task


def _plain(value: object) -> object:
    """A scalar of numpy, as a user's own scheduler may answer, as the Python number it equals."""
    item = getattr(value, "item", None)
    if item is None:
        raise TypeError(f"{type(value).__name__} has no JSON form: {value!r}")
    return item()


# Nothing here holds itself; to look for that at every value takes a fifth of the time.
_encode: Final = json.JSONEncoder(
    separators=(",", ":"), check_circular=False, default=_plain
).encode


def dumps(value: object) -> str:
    """``value`` as compact JSON; tuples become arrays."""
    return _encode(value)


def _loads(text: str | bytes, what: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"not {what}: {text!r:.200}")
    return value


def _task(value: list[int] | None) -> Task | None:
    return None if value is None else Task(*value)


def _state(value: list[Any] | None) -> PeerState | None:
    return None if value is None else PeerState(*value)


def encode_answers(answers: tuple[Answer, ...]) -> str:
    """Return the answers of peers that a decision used, as a JSON array."""
    return _encode(answers)


def decode_answers(text: str | bytes) -> tuple[Answer, ...]:
    """Inverse of ``encode_answers``."""
    return _answers(json.loads(text))


def _answers(values: list[Any]) -> tuple[Answer, ...]:
    return tuple(
        Answer(peer, overloaded, _state(state), asked, answered)
        for peer, overloaded, state, asked, answered in values
    )


def _observation(value: dict[str, Any]) -> Observation:
    return Observation(
        node=value["node"],
        now=value["now"],
        episode=value["episode"],
        slot=value["slot"],
        task=_task(value["task"]),
        queue_length=value["queue_length"],
        backlog=value["backlog"],
        receiving=tuple(value["receiving"]),
        sending=tuple(value["sending"]),
        send_backlog=tuple(value["send_backlog"]),
        answers=_answers(value["answers"]),
        known=tuple(
            None if heard is None else (PeerState(*heard[0]), heard[1]) for heard in value["known"]
        ),
        round=value["round"],
        # Logs of earlier releases have neither.
        inbound_work=value.get("inbound_work", 0),
        sending_work=tuple(value.get("sending_work", ())),
    )


def encode_observation(observation: Observation) -> str:
    """Return a node's observation as a JSON object."""
    return _encode(observation._asdict())


def decode_observation(text: str | bytes) -> Observation:
    """Inverse of ``encode_observation``.

    Raises:
        ValueError: the text is not such an object.
    """
    try:
        return _observation(_loads(text, "an observation"))
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an observation ({error!r}): {text!r:.200}") from error


def encode_record(record: Record) -> str:
    """One step in the life of a task, as a JSON object."""
    return _encode(record._asdict())


def decode_record(text: str | bytes) -> Record:
    """Inverse of ``encode_record``.

    Raises:
        ValueError: the text is not such an object.
    """
    try:
        value = _loads(text, "a record")
        return Record(
            kind=RecordKind(value["kind"]),
            task=Task(*value["task"]),
            seq=value["seq"],
            node=value["node"],
            at=value["at"],
            clock=value["clock"],
            data=value["data"],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a record ({error!r}): {text!r:.200}") from error


def encode_decision(decision: DecisionRecord) -> str:
    """Return a decision with everything it was made from, as a JSON object."""
    value = decision._asdict()
    value["observation"] = decision.observation._asdict()
    return _encode(value)


def decode_decision(text: str | bytes) -> DecisionRecord:
    """Inverse of ``encode_decision``.

    Raises:
        ValueError: the text is not such an object.
    """
    try:
        value = _loads(text, "a decision")
        probabilities, mask = value["probabilities"], value["mask"]
        return DecisionRecord(
            task_id=value["task_id"],
            node=value["node"],
            episode=value["episode"],
            slot=value["slot"],
            at=value["at"],
            scheduler=value["scheduler"],
            observation=_observation(value["observation"]),
            destination=value["destination"],
            probabilities=None if probabilities is None else tuple(probabilities),
            mask=None if mask is None else tuple(mask),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a decision ({error!r}): {text!r:.200}") from error
