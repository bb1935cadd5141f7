"""Rows of histories and decisions give back what they were made of, however they were cut."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.api.planning import load
from testbed.model.codec import encode_answers, encode_observation
from testbed.model.decision import Answer, Observation, PeerState
from testbed.model.events import DecisionRecord, Record, RecordKind
from testbed.model.hook import Decided
from testbed.model.task import Task
from testbed.sim.record import record_run
from testbed.storage.tasklog import TaskLog, open_task_log
from testbed.storage.tasklog.packing import (
    DecisionReader,
    decision_row,
    decision_rows,
    event_rows,
    history_rows,
    records_of,
    unknown,
)
from testbed.storage.tasklog.statements import Row
from testbed.testing.tasklog import sample_episode, sample_history, sample_run, sample_task

NODES = 4
BYTES_OF_A_TASK = 1_024
"""So many a task may take in a log, with all its events and decisions."""

counts = st.integers(0, 3)
states = st.builds(PeerState, st.booleans(), counts, counts, counts, counts, counts)
heard = st.none() | st.tuples(states, counts)


@st.composite
def observed(draw: st.DrawFn, slot: int) -> DecisionRecord:
    """A decision of node 1; what it knows changes often, and its answers may contradict that."""
    answers = draw(
        st.lists(
            st.builds(
                Answer,
                peer=st.integers(0, NODES - 1),
                overloaded=st.booleans(),
                state=st.none() | states,
                asked=counts,
                answered=counts,
            ),
            max_size=3,
        )
    )
    numbers = st.tuples(*[counts] * NODES)
    task = draw(st.none() | st.just(Task(slot * NODES + 1, 0, slot, 1, 5, 6, 7)))
    known = draw(st.tuples(*[heard] * NODES))
    observation = Observation(
        node=draw(st.sampled_from([1, 1, 1, 2])),
        now=draw(counts),
        episode=0,
        slot=slot,
        task=task,
        queue_length=draw(counts),
        backlog=draw(counts),
        receiving=draw(numbers),
        sending=draw(numbers),
        send_backlog=draw(numbers),
        answers=tuple(answers),
        known=known,
        round=draw(counts),
        inbound_work=draw(counts),
        sending_work=draw(numbers | st.just(())),
    )
    number = None if task is None else draw(st.sampled_from([task.id, 99]))
    at = draw(counts)
    return DecisionRecord(number, 1, 0, slot, at, "ratc", observation, None, None, None)


episodes = st.tuples(*[observed(slot) for slot in range(4)])


def read(rows: Sequence[Row]) -> list[Decided]:
    reader = DecisionReader()
    return [reader.record(row) for row in rows]


@settings(max_examples=200, deadline=None)
@given(episodes, st.integers(0, 4))
def test_decisions_come_back_from_what_changed_between_them(
    decisions: tuple[DecisionRecord, ...], cut: int
) -> None:
    first, stored = decision_rows(1, decisions[:cut], {})
    second, _ = decision_rows(1, decisions[cut:], stored)
    rows = [*first, *second]
    assert read(rows) == list(decisions)
    reader = DecisionReader()
    for row, decision in zip(rows, decisions, strict=True):
        *_, seen, probes = reader.complete(row)
        assert seen == encode_observation(decision.observation._replace(answers=()))
        assert probes == encode_answers(decision.observation.answers)


@settings(max_examples=50, deadline=None)
@given(episodes)
def test_complete_observations_of_earlier_versions_are_read(
    decisions: tuple[DecisionRecord, ...],
) -> None:
    rows = [
        (*decision_row(1, each)[:-2], encode_observation(seen._replace(answers=())), answers)
        for each in decisions
        for seen in [each.observation]
        for answers in [encode_answers(seen.answers)]
    ]
    assert read(rows) == list(decisions)
    assert [DecisionReader().complete(row) for row in rows] == rows


def test_rows_of_releases_that_kept_no_work_on_its_way_are_read() -> None:
    state = "[true,3,5,1,7]"
    observation = f'{{"nodes":3,"sending":{{"2":1}},"known":{{"2":{state[:-1]},9]}}}}'
    row = (1, 0, 0, 0, 0, 4, "ratc", 1, None, None, observation, f"[[1,true,{state},5,9]]")
    seen = DecisionReader().record(row).observation
    heard = PeerState(True, 3, 5, 1, 7, 0)
    assert seen.answers == (Answer(1, True, heard, 5, 9),)
    assert seen.known == (None, (heard, 9), (heard, 9))
    assert (seen.inbound_work, seen.sending, seen.sending_work) == (0, (0, 0, 1), (0, 0, 0))


def test_what_builds_on_a_decision_that_is_not_there_is_no_row() -> None:
    _, _, made = sample_episode(0)
    rows, _ = decision_rows(1, [each for each in made if each.node == 0], {})
    assert read(rows)
    with pytest.raises(KeyError):
        read(rows[1:])


def all_records(rows: Sequence[Row]) -> list[Record]:
    return sorted((each for row in rows for each in records_of(row)), key=lambda r: r.seq)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*range(8), 1_000_000, 1_000_001]), min_size=1), st.randoms())
def test_records_come_back_however_they_were_sent(numbers: list[int], order: random.Random) -> None:
    task = sample_task(0, 1, 0)
    history = {each.seq: each for each in sample_history(task, 1)}
    for number in (1_000_000, 1_000_001):
        history[number] = Record(RecordKind.ENDED, task, number, 0, 9, 9, {"outcome": "lost"})
    sent = [history[number] for number in numbers]
    rows = history_rows(1, sent)
    assert all_records(rows) == [history[number] for number in sorted(set(numbers))]
    assert [row[2] for row in rows if row[2] >= 1_000_000] == sorted(
        {number for number in numbers if number >= 1_000_000}
    )
    # The rest of the history, of which some is there.
    everything = list(history.values())
    order.shuffle(everything)
    more = [
        part
        for row in history_rows(1, everything)
        for part in unknown(row, [(row[2], row[3]) for row in rows])
    ]
    assert all_records([*rows, *more]) == list(history.values())
    assert sum(len(event_rows(row)) for row in [*rows, *more]) == len(history)


def test_data_that_is_not_usual_is_kept_as_it_is() -> None:
    task = sample_task(0, 0, 0)
    end: dict[str, int | str] = {
        "outcome": "lost",
        "elapsed": 5,
        "stage": "execution",
        "reason": 'it said "no"\n',
    }
    records = [
        Record(RecordKind.GENERATED, task, 0, 0, 5, 8, {}),
        Record(RecordKind.DECIDED, task, 1, 0, 5, 3, {"destination": 2, "more": "ü"}),
        Record(RecordKind.SENT, task, 2, 0, 5, 8, {}),
        Record(RecordKind.ENDED, task, 3, 0, 5, 8, end),
    ]
    (row,) = history_rows(1, records)
    assert records_of(row) == records
    assert [each[7] for each in event_rows(row)] == [
        "{}",
        '{"destination":2,"more":"\\u00fc"}',
        "{}",
        '{"outcome":"lost","elapsed":5,"stage":"execution","reason":"it said \\"no\\"\\n"}',
    ]


def test_tasks_of_one_number_are_kept_apart() -> None:
    """A defect of a driver, which the log has to show and not to hide."""
    task = sample_task(0, 0, 0)
    other = task._replace(cycles=1)
    records = [
        Record(RecordKind.GENERATED, task, 0, 0, 5, 8, {}),
        Record(RecordKind.DECIDED, other, 1, 0, 5, 8, {"destination": 2}),
    ]
    assert all_records(history_rows(1, records)) == records


@pytest.fixture
def log(tmp_path: Path) -> TaskLog:
    return open_task_log(tmp_path / "tasks.db")


def test_batches_that_overlap_are_stored_once(log: TaskLog) -> None:
    _, records, made = sample_episode(0)
    log.begin_run(sample_run())
    run = sample_run().id
    generator = random.Random(1)
    stored = 0
    for _ in range(40):
        first, last = sorted(generator.sample(range(len(records) + 1), 2))
        some = generator.sample(made, 3)
        stored += log.append(run, records[first:last], some)
    stored += log.append(run, records, made)
    assert stored == len(records) + len(made)
    assert list(log.records(run)) == records
    assert list(log.decisions(run)) == sorted(made, key=lambda d: (d.episode, d.node, d.slot))
    log.close()


def test_nothing_is_told_from_a_decision_that_was_there_before(log: TaskLog) -> None:
    """A node that decides twice about a slot: the first stays, and what follows is read right."""
    _, _, made = sample_episode(0)
    mine = [each for each in made if each.node == 1]
    log.begin_run(sample_run())
    run = sample_run().id
    nothing = (None,) * len(mine[0].observation.known)
    other = mine[0]._replace(observation=mine[0].observation._replace(known=nothing, answers=()))
    assert log.append(run, (), [other]) == 1
    assert log.append(run, (), mine[:2]) == 1
    assert log.append(run, (), mine[2:]) == len(mine) - 2
    assert list(log.decisions(run)) == [other, *mine[1:]]
    log.close()


def test_what_a_node_knows_is_not_stored_again_in_every_batch(log: TaskLog, tmp_path: Path) -> None:
    _, _, made = sample_episode(0)
    log.begin_run(sample_run())
    for each in made:
        log.append(sample_run().id, (), [each])
    log.close()
    with sqlite3.connect(tmp_path / "tasks.db") as database:
        texts = database.execute("SELECT observation FROM decisions WHERE slot > 0").fetchall()
    assert len(texts) == len(made) * 3 // 4
    assert all('"since":' in text for (text,) in texts)


@pytest.mark.parametrize("scenario", ["quickstart", "paper-testbed", "paper-simulation"])
def test_a_task_takes_a_kilobyte_at_most(scenario: str, log: TaskLog, tmp_path: Path) -> None:
    plan = load(scenario).plan
    run = record_run(plan, log, scheduler="ratc", episodes=6 if plan.size < 20 else 2)
    tasks = log.counts(run)["tasks"]
    log.close()
    assert (tmp_path / "tasks.db").stat().st_size < BYTES_OF_A_TASK * tasks
