"""Every task of an episode ends exactly once, whoever dies and whatever comes late."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.ledger import Ledger
from testbed.model.events import Record, RecordKind
from testbed.model.history import FIRST_OF_CONTROLLER, fold
from testbed.model.task import Outcome, Task


def task(task_id: int = 0, source: int = 0) -> Task:
    return Task(task_id, 0, task_id, source, 1000, 8_000_000, 400_000)


def record(
    kind: RecordKind, of: Task, seq: int, node: int, at: int = 0, **data: int | str
) -> Record:
    return Record(kind, of, seq, node, at, at, data)


def life(of: Task, destination: int, outcome: Outcome = Outcome.SUCCEEDED) -> list[Record]:
    """A whole history, executed at ``destination``."""
    steps: list[Record] = [
        record(RecordKind.GENERATED, of, 0, of.source),
        record(RecordKind.DECIDED, of, 1, of.source, destination=destination),
    ]
    if destination != of.source:
        steps += [
            record(RecordKind.TRANSMISSION_STARTED, of, 2, of.source, peer=destination, nominal=10),
            record(RecordKind.SENT, of, 3, of.source, 10, peer=destination),
            record(RecordKind.RECEIVED, of, 4, destination, 10, sender=of.source, elapsed=10),
        ]
    seq = len(steps)
    return [
        *steps,
        record(RecordKind.ADMITTED, of, seq, destination, 20),
        record(RecordKind.EXECUTION_STARTED, of, seq + 1, destination, 20, nominal=80),
        record(
            RecordKind.ENDED,
            of,
            seq + 2,
            destination,
            100,
            outcome=outcome.value,
            elapsed=100,
            stage="execution",
        ),
    ]


def test_an_episode_is_settled_when_all_have_ended() -> None:
    ledger, one, two = Ledger(), task(0), task(1, source=1)
    assert ledger.settled
    ledger.generate(one, 0)
    ledger.generate(two, 0)
    for each in life(one, 1):
        assert not ledger.settled
        assert ledger.add(each)
    for each in life(two, 1, Outcome.DROPPED):
        assert ledger.add(each)
    assert ledger.settled
    assert ledger.close(1000) == []
    assert (ledger.outcomes["succeeded"], ledger.outcomes["dropped"]) == (1, 1)


def test_the_holder_takes_a_task_with_it() -> None:
    at_source, handed_over, on_the_way = task(0), task(1), task(2)
    ledger = Ledger()
    for of in (at_source, handed_over, on_the_way):
        ledger.generate(of, 0)
    for each in life(at_source, 1)[:2] + life(handed_over, 1)[:4] + life(on_the_way, 1)[:3]:
        ledger.add(each)
    ledger.node_died(1)
    assert ledger.presumed_lost == 2, "the one handed over and the one on its way, not the other"
    assert not ledger.settled
    ledger.node_died(0)
    assert ledger.settled
    endings = ledger.close(5000)
    assert [each.task.id for each in endings] == [0, 1, 2]
    assert {each.kind for each in endings} == {RecordKind.ENDED}
    assert {each.seq for each in endings} == {FIRST_OF_CONTROLLER}
    assert ledger.outcomes["lost"] == 3


def test_a_real_ending_beats_a_presumed_loss_until_the_episode_is_closed() -> None:
    ledger, of = Ledger(), task()
    ledger.generate(of, 0)
    history = life(of, 1)
    for each in history[:3]:
        ledger.add(each)
    ledger.node_died(0)
    assert ledger.settled
    # It had been handed over after all: a living node holds it.
    assert ledger.add(history[4])
    assert not ledger.settled
    assert ledger.add(history[-1])
    assert ledger.settled
    assert ledger.close(1000) == []
    assert ledger.outcomes["lost"] == 0


def test_what_comes_after_the_close_of_a_lost_task_is_not_stored() -> None:
    lost: set[int] = set()
    ledger, of = Ledger(lost), task()
    ledger.generate(of, 0)
    ledger.node_died(0)
    ledger.close(1000)
    assert lost == {of.id}
    assert not any(ledger.add(each) for each in life(of, 1))
    assert not Ledger(lost).add(life(of, 1)[-1])


def test_earlier_steps_may_come_after_the_end_but_no_second_end() -> None:
    ledger, of = Ledger(), task()
    ledger.generate(of, 0)
    history = life(of, 1)
    for each in history[4:]:
        assert ledger.add(each)
    for each in history[:4]:
        assert ledger.add(each)
    assert not ledger.add(history[-1])
    assert ledger.settled
    assert ledger.generated == 1


def test_arrivals_at_a_dead_node_are_generated_and_lost() -> None:
    ledger, of = Ledger(), task(source=2)
    ledger.node_died(2)
    ledger.generate(of, 7)
    assert ledger.settled
    generated, ended = ledger.close(900)
    assert (generated.kind, generated.seq, generated.at) == (RecordKind.GENERATED, 0, 7)
    row = fold(of, [generated, ended])
    assert (row.outcome, row.elapsed) == (Outcome.LOST, 893)


def test_a_history_never_runs_back_although_clocks_differ() -> None:
    ledger, of = Ledger(), task()
    ledger.generate(of, 0)
    ledger.add(record(RecordKind.GENERATED, of, 0, 0, at=2000))
    ledger.node_died(0)
    [ended] = ledger.close(1500)
    assert ended.at == 2000


@given(
    destinations=st.lists(st.integers(0, 2), min_size=1, max_size=8),
    cut=st.lists(st.integers(0, 8), min_size=8, max_size=8),
    dead=st.sets(st.integers(0, 2)),
    order=st.randoms(use_true_random=False),
)
def test_whatever_is_missing_every_task_ends_once(
    destinations: list[int], cut: list[int], dead: set[int], order: object
) -> None:
    ledger = Ledger()
    tasks = [task(i, source=i % 3) for i in range(len(destinations))]
    records: list[Record] = []
    for each, destination, length in zip(tasks, destinations, cut, strict=False):
        records += life(each, destination)[:length]
    order.shuffle(records)  # type: ignore[attr-defined]
    for each in tasks:
        ledger.generate(each, 0)
    for node in dead:
        ledger.node_died(node)
    stored = [each for each in records if ledger.add(each)]
    stored += ledger.close(10_000)
    ended = [each.task.id for each in stored if each.kind is RecordKind.ENDED]
    assert sorted(ended) == [each.id for each in tasks]
    assert sum(ledger.outcomes.values()) == ledger.generated == len(tasks)
    for each in tasks:
        # Every history that is stored can be true.
        fold(each, [r for r in stored if r.task.id == each.id])
