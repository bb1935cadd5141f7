"""Documents give back exactly what was put into them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.model import hooks
from testbed.model.decision import Answer, Observation, PeerState
from testbed.model.events import DecisionRecord, Record, RecordKind
from testbed.model.task import Task
from testbed.rpc.codec import (
    decode_decision,
    decode_decisions,
    decode_observation,
    decode_record,
    decode_records,
    encode_decision,
    encode_observation,
    encode_record,
)
from testbed.rpc.messages import (
    state_from_message,
    state_to_message,
    task_from_message,
    task_to_message,
)

counts = st.integers(0, 2**31 - 1)
large = st.integers(0, 2**62)
probabilities = st.floats(0, 1)
tasks = st.builds(Task, large, counts, counts, counts, large, large, large)
states = st.builds(PeerState, st.booleans(), counts, large, counts, large, large)
answers = st.builds(Answer, counts, st.booleans(), st.none() | states, large, large)


def lists(of: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(of, max_size=4).map(tuple)


observations = st.builds(
    Observation,
    node=counts,
    now=large,
    episode=counts,
    slot=counts,
    task=st.none() | tasks,
    queue_length=counts,
    backlog=large,
    receiving=lists(counts),
    sending=lists(counts),
    send_backlog=lists(large),
    answers=lists(answers),
    known=lists(st.none() | st.tuples(states, large)),
    round=counts,
    inbound_work=large,
    sending_work=lists(large),
)
records = st.builds(
    Record,
    kind=st.sampled_from(RecordKind),
    task=tasks,
    seq=counts,
    node=counts,
    at=large,
    clock=large,
    data=st.dictionaries(st.text(max_size=8), large | st.text(max_size=8), max_size=3),
)
decisions = st.builds(
    DecisionRecord,
    task_id=st.none() | large,
    node=counts,
    episode=counts,
    slot=counts,
    at=large,
    scheduler=st.text(max_size=12),
    observation=observations,
    destination=st.none() | counts,
    probabilities=st.none() | lists(probabilities),
    mask=st.none() | lists(st.booleans()),
)


@given(records)
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    again = decode_record(encode_record(record))
    assert again == record
    assert again.kind is record.kind
    assert type(again.task) is Task


@given(decisions)
def test_a_decision_comes_back_as_it_was(decision: DecisionRecord) -> None:
    again = decode_decision(encode_decision(decision))
    assert again == decision
    assert hash(again) == hash(decision)


@given(observations)
def test_an_observation_comes_back_as_it_was(observation: Observation) -> None:
    again = decode_observation(encode_observation(observation))
    assert again == observation
    # Equal is not enough: a named tuple equals a plain one.
    assert all(type(answer) is Answer for answer in again.answers)
    assert all(type(known[0]) is PeerState for known in again.known if known is not None)


@given(records)
def test_a_document_is_one_line(record: Record) -> None:
    document = encode_record(record)
    assert b"\n" not in document
    assert json.loads(document)[2] == record.seq


@given(records)
def test_a_record_of_an_earlier_release_is_read(record: Record) -> None:
    document = {**record._asdict(), "task": record.task._asdict()}
    assert decode_record(json.dumps(document).encode()) == record


@given(decisions)
def test_a_decision_of_an_earlier_release_is_read(decision: DecisionRecord) -> None:
    document = json.dumps(hooks.to_document(decision)).encode()
    assert decode_decision(document) == decision
    # Also beside new ones.
    both = decode_decisions([document, encode_decision(decision)])
    assert both == [decision, decision]
    assert hash(both[0]) == hash(both[1])


@given(st.lists(records, max_size=4))
def test_many_documents_are_read_as_one_by_one(several: list[Record]) -> None:
    assert decode_records([encode_record(record) for record in several]) == several


@given(st.lists(decisions, max_size=1), records)
def test_documents_that_are_none_spoil_all_of_them(some: list[DecisionRecord], one: Record) -> None:
    good = encode_record(one)
    for wrong in (b"", b"1", good + b"," + good, b"],[", b"null", *map(encode_decision, some)):
        with pytest.raises((ValueError, KeyError, TypeError)):
            decode_records([good, wrong, good])


@given(tasks, states)
def test_messages_carry_values_unchanged(task: Task, state: PeerState) -> None:
    assert task_from_message(task_to_message(task)) == task
    assert state_from_message(state_to_message(state)) == state


@pytest.mark.parametrize("document", [b"", b"{}", b"[]", b'{"kind":"unheard of"}', b"\xff"])
def test_what_is_no_document_is_refused(document: bytes) -> None:
    for decode in (decode_record, decode_decision, decode_observation):
        with pytest.raises((ValueError, KeyError, TypeError)):
            decode(document)
