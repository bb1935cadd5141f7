"""The JSON form of records and decisions loses nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.model.codec import (
    decode_answers,
    decode_decision,
    decode_observation,
    decode_record,
    encode_answers,
    encode_decision,
    encode_observation,
    encode_record,
)
from testbed.model.decision import Answer, Observation, PeerState
from testbed.model.events import DecisionRecord, Record, RecordKind
from testbed.model.task import Task

COUNT = st.integers(0, 2**40)
TASK = st.builds(Task, COUNT, COUNT, COUNT, COUNT, COUNT, COUNT, COUNT)
STATE = st.builds(PeerState, st.booleans(), COUNT, COUNT, COUNT, COUNT)
ANSWER = st.builds(Answer, COUNT, st.booleans(), st.none() | STATE, COUNT, COUNT)
COUNTS = st.lists(COUNT, max_size=4).map(tuple)
OBSERVATION = st.builds(
    Observation,
    node=COUNT,
    now=COUNT,
    episode=COUNT,
    slot=COUNT,
    task=st.none() | TASK,
    queue_length=COUNT,
    backlog=COUNT,
    receiving=COUNTS,
    sending=COUNTS,
    send_backlog=COUNTS,
    answers=st.lists(ANSWER, max_size=3).map(tuple),
    known=st.lists(st.none() | st.tuples(STATE, COUNT), max_size=3).map(tuple),
    round=COUNT,
)
DECISION = st.builds(
    DecisionRecord,
    task_id=st.none() | COUNT,
    node=COUNT,
    episode=COUNT,
    slot=COUNT,
    at=COUNT,
    scheduler=st.text(max_size=8),
    observation=OBSERVATION,
    destination=st.none() | COUNT,
    probabilities=st.none() | st.lists(st.floats(0, 1), max_size=4).map(tuple),
    mask=st.none() | st.lists(st.booleans(), max_size=4).map(tuple),
)
RECORD = st.builds(
    Record,
    st.sampled_from(RecordKind),
    TASK,
    COUNT,
    COUNT,
    COUNT,
    COUNT,
    st.dictionaries(st.text(max_size=5), COUNT | st.text(max_size=5), max_size=3),
)


def shape(value: object) -> object:
    """The types of a value all the way down: equality alone does not tell 1 from True."""
    if isinstance(value, tuple | list):
        return type(value), [shape(part) for part in value]
    return type(value)


@given(RECORD)
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    again = decode_record(encode_record(record))
    assert again == record
    assert shape(again) == shape(record)


@given(DECISION)
def test_a_decision_comes_back_as_it_was(decision: DecisionRecord) -> None:
    again = decode_decision(encode_decision(decision).encode())
    assert again == decision
    assert shape(again) == shape(decision)


@given(OBSERVATION)
def test_an_observation_and_its_answers_come_back_as_they_were(observation: Observation) -> None:
    again = decode_observation(encode_observation(observation))
    assert shape(again) == shape(observation)
    assert again == observation
    assert decode_answers(encode_answers(observation.answers)) == observation.answers


@pytest.mark.parametrize("text", ["[]", "{}", '{"kind": "generated"}', "3", "not json"])
def test_what_is_not_a_record_is_refused(text: str) -> None:
    for decode in (decode_record, decode_decision, decode_observation):
        with pytest.raises(ValueError):
            decode(text)


def test_numbers_of_numpy_become_python_numbers() -> None:
    task = Task(1, 0, 0, 1, 10, 20, 30)
    observation = Observation(0, 0, 0, 0, task, 0, 0, (0,), (0,), (0,), (), (None,), 0)
    decision = DecisionRecord(
        1,
        0,
        0,
        0,
        0,
        "mine",
        observation,
        int(np.int64(0)),
        (np.float32(0.1),),  # type: ignore[arg-type]
        (np.bool_(True),),  # type: ignore[arg-type]
    )
    again = decode_decision(encode_decision(decision))
    assert again.probabilities == (float(np.float32(0.1)),)
    assert again.mask == (True,)
