"""The fold of records into rows: what is measured, on whose clock, and what cannot be true."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.model.events import Record, RecordKind
from testbed.model.history import (
    FIRST_OF_CONTROLLER,
    IllegalHistory,
    TaskRow,
    fold,
    fold_all,
    problems,
    tell,
)
from testbed.model.task import Outcome, Task
from tests.model.network import Network, always, rules, topology

TASK = Task(5, 0, 1, source=1, size_bytes=2_000_000, cycles=100, deadline=9_000)
KIND = RecordKind

# The two hosts' clocks are hours apart; what is measured must not notice.
AHEAD = 7_200_000_000


def remote_story() -> list[Record]:
    """Node 1 sends to node 0: waits 10, sends 100, waits 5 at the peer, executes 50; clocks +2%."""
    return [
        Record(KIND.GENERATED, TASK, 0, 1, 1_000, 1_001, {}),
        Record(KIND.DECIDED, TASK, 1, 1, 1_000, 1_002, {"destination": 0}),
        Record(KIND.TRANSMISSION_STARTED, TASK, 2, 1, 1_010, 1_013, {"peer": 0, "nominal": 100}),
        Record(KIND.SENT, TASK, 3, 1, 1_110, 1_117, {"peer": 0}),
        Record(KIND.RECEIVED, TASK, 4, 0, 2_000, AHEAD, {"sender": 1, "elapsed": 117}),
        Record(KIND.ADMITTED, TASK, 5, 0, 2_000, AHEAD + 1, {}),
        Record(KIND.EXECUTION_STARTED, TASK, 6, 0, 2_005, AHEAD + 7, {"nominal": 50}),
        Record(
            KIND.ENDED,
            TASK,
            7,
            0,
            2_055,
            AHEAD + 60,
            {"outcome": "succeeded", "elapsed": 172, "stage": "execution"},
        ),
    ]


def ended(seq: int, node: int, at: int, outcome: str, stage: str, elapsed: int = 9) -> Record:
    data: dict[str, int | str] = {"outcome": outcome, "elapsed": elapsed, "stage": stage}
    return Record(KIND.ENDED, TASK, seq, node, at, at, data)


def test_a_task_that_was_sent_is_measured_on_the_clock_of_each_host() -> None:
    assert fold(TASK, remote_story()) == TaskRow(
        task_id=5,
        episode=0,
        slot=1,
        source=1,
        destination=0,
        outcome=Outcome.SUCCEEDED,
        size_bytes=2_000_000,
        cycles=100,
        deadline=9_000,
        scheduler=None,
        stage="execution",
        elapsed=172,
        transmission_waiting=11,
        transmission=104,
        execution_waiting=7,
        execution=53,
        nominal_transmission_waiting=10,
        nominal_transmission=100,
        nominal_execution_waiting=5,
        nominal_execution=50,
    )


def test_a_task_that_stayed_has_no_transmission() -> None:
    history = [
        Record(KIND.GENERATED, TASK, 0, 1, 0, 0, {}),
        Record(KIND.DECIDED, TASK, 1, 1, 0, 0, {"destination": 1}),
        Record(KIND.ADMITTED, TASK, 2, 1, 40, 41, {}),
        Record(KIND.EXECUTION_STARTED, TASK, 3, 1, 70, 72, {"nominal": 30}),
        ended(4, 1, 85, "execution_failed", "execution", 85),
    ]
    row = fold(TASK, history)
    assert (row.transmission_waiting, row.transmission, row.nominal_transmission) == (None,) * 3
    assert (row.execution_waiting, row.nominal_execution_waiting) == (72, 70)
    # Failed on the way: measured to the failure, nominal in full.
    assert (row.execution, row.nominal_execution) == (13, 30)
    assert row.outcome is Outcome.EXECUTION_FAILED


@pytest.mark.parametrize(
    ("steps", "stage", "outcome", "expected"),
    [
        (1, "deciding", "dropped", (None, None, None, None)),
        (2, "sending", "dropped", (4_998, None, None, None)),
        (3, "transmission", "transmission_failed", (11, 4_987, None, None)),
        (3, "handing_over", "lost", (11, 4_987, None, None)),
    ],
)
def test_an_end_closes_what_the_task_was_in(
    steps: int, stage: str, outcome: str, expected: tuple[int | None, ...]
) -> None:
    row = fold(TASK, [*remote_story()[:steps], ended(steps, 1, 6_000, outcome, stage)])
    assert row[12:16] == expected
    assert (row.outcome, row.stage) == (outcome, stage)


def test_waiting_in_the_receiving_queue_counts_as_waiting_for_execution() -> None:
    end = ended(5, 0, AHEAD + 500, "dropped", "receiving")
    assert fold(TASK, [*remote_story()[:5], end]).execution_waiting == 500


def test_a_story_without_an_end_is_a_lost_task() -> None:
    row = fold(TASK, remote_story()[:3])
    assert row.outcome is Outcome.LOST
    assert (row.elapsed, row.stage, row.destination) == (None, None, 0)
    assert (row.transmission_waiting, row.transmission) == (11, None)


def test_what_a_dead_node_never_told_is_not_made_up() -> None:
    row = fold(TASK, remote_story()[4:])
    assert row.outcome is Outcome.SUCCEEDED
    assert row.destination == 0
    assert row[12:] == (None, None, 7, 53, None, None, 5, 50)


def test_the_order_and_the_number_of_deliveries_do_not_matter() -> None:
    history = remote_story()
    assert fold(TASK, [*reversed(history), *history]) == fold(TASK, history)


def of_controller() -> list[Record]:
    return [
        Record(KIND.GENERATED, TASK, FIRST_OF_CONTROLLER, 1, 1_000, 1_000, {}),
        ended(FIRST_OF_CONTROLLER + 1, 1, 500, "lost", "lost", 9_999),
    ]


def test_the_controller_closes_a_story_that_nobody_else_closed() -> None:
    row = fold(TASK, of_controller())
    assert (row.outcome, row.elapsed, row.stage) == (Outcome.LOST, 9_999, "lost")
    row = fold(TASK, [*remote_story()[:3], *of_controller()])
    assert (row.outcome, row.destination) == (Outcome.LOST, 0)
    # The controller's clock is another host's: nothing is measured up to its end.
    assert (row.transmission_waiting, row.transmission) == (11, None)
    assert fold(TASK, [*remote_story()[4:6], *of_controller()]).outcome is Outcome.LOST


def test_a_node_that_tells_the_end_after_all_is_believed() -> None:
    assert fold(TASK, [*remote_story(), *of_controller()]) == fold(TASK, remote_story())


def changed(index: int, **fields: Any) -> Callable[[list[Record]], list[Record]]:
    def change(history: list[Record]) -> list[Record]:
        history[index] = history[index]._replace(**fields)
        return history

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda history: [*history, ended(8, 0, 2_056, "lost", "execution")], "ended twice"),
        (
            lambda history: [history[0], *(r._replace(seq=r.seq - 1) for r in history[2:])],
            "after gen",
        ),
        (lambda history: [r._replace(seq=r.seq - 1) for r in history[1:]], "begins with decided"),
        (lambda history: [*history, history[5]._replace(seq=8)], "admitted after its end"),
        (lambda history: [*history, history[3]._replace(at=1)], "two records have number 3"),
        (changed(6, node=2), "execution_started at node 2, decided was 0"),
        (changed(2, data={"peer": 2, "nominal": 1}), "sent to node 2, decided was 0"),
        (changed(1, data={"destination": 1}), "sent although it was to stay"),
        (changed(0, node=0), "generated at node 0 instead of its origin 1"),
        (changed(3, at=1_009), "sent at 1009 us, before transmission_started at 1010 us"),
        (changed(2, task=TASK._replace(cycles=1)), "about another task"),
        (
            changed(7, data={"outcome": "succeeded", "elapsed": 9_001, "stage": "execution"}),
            "succeeded after 9001 us",
        ),
        (
            changed(7, data={"outcome": "transmission_failed", "elapsed": 9, "stage": "execution"}),
            "transmission_failed in stage execution",
        ),
        (
            changed(7, data={"outcome": "dropped", "elapsed": 9, "stage": "sending"}),
            "ended in stage sending after execution_started",
        ),
        (
            lambda _: [ended(FIRST_OF_CONTROLLER, 1, 5, "dropped", "lost")],
            "by the controller, which can only call a task lost",
        ),
    ],
)
def test_what_cannot_be_true_is_refused_with_the_story(
    change: Callable[[list[Record]], list[Record]], expected: str
) -> None:
    with pytest.raises(IllegalHistory, match=expected) as caught:
        fold(TASK, change(remote_story()))
    assert "task 5: " in str(caught.value)


def test_a_record_is_told_in_one_line() -> None:
    assert tell(remote_story()[4]) == " 4       2000 us node 0 received sender=1 elapsed=117"


def test_a_task_whose_story_cannot_be_true_is_lost_and_reported() -> None:
    unheard = TASK._replace(id=6)
    rows, illegal = fold_all([unheard], [*remote_story(), ended(8, 0, 2_056, "lost", "execution")])
    assert [(row.task_id, row.outcome) for row in rows] == [(5, Outcome.LOST), (6, Outcome.LOST)]
    assert [error.task for error in illegal] == [TASK]


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 400_000), st.integers(1, 400_000)), max_size=12
    ),
    st.integers(0, 2),
    st.floats(0, 3),
)
def test_every_story_the_model_tells_is_legal_and_adds_up(
    arrivals: list[tuple[int, int, int]], destination: int, rate: float
) -> None:
    network = Network(
        topology([1_000_000] * 3, alpha=rate, beta=rate),
        rules(limit=1),
        [always(destination)] * 3,
    )
    tasks = []
    for number, (source, at, size) in enumerate(arrivals):
        task = Task(number, 0, 0, source, size, size // 2, 900_000)
        tasks.append(task)
        network.arrive(at, task)
    network.run()
    rows, illegal = fold_all(tasks, network.records, network.decisions)
    assert illegal == []
    assert len(rows) == len(tasks)
    for task, row in zip(tasks, rows, strict=True):
        history = [record for record in network.records if record.task == task]
        assert problems(task, sorted(history, key=lambda record: record.seq)) == []
        assert row.outcome is not Outcome.LOST
        assert row.scheduler == "placed"
        times = [time for time in row[12:16] if time is not None]
        assert sum(times) == row.elapsed
