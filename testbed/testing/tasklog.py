"""Conformance suite of ``TaskLog``; subclass it with a ``task_log`` fixture that gives a new one.

``reopen`` must give a second, independent way to the same log, as another process would have.
The sample values here are also handy for tests of what reads a log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import pytest

from testbed.errors import UsageError
from testbed.model import placing
from testbed.model.decision import Answer, Observation, PeerState
from testbed.model.events import DecisionRecord, Record, RecordKind
from testbed.model.history import TaskRow, fold_all
from testbed.model.hook import Decided
from testbed.model.run_state import RunState
from testbed.model.serving import route
from testbed.model.serving.record import RequestOutcome, WindowRecord
from testbed.model.serving.route import Heard, Route, RouteObservation, Routing, RoutingRecord
from testbed.model.task import Outcome, Task
from testbed.storage.tasklog.base import TABLES_OF, LogTable, RunInfo, TaskLog
from testbed.storage.tasklog.serving import RequestRow

NODES: Final = 3
SLOTS: Final = 4


def sample_run(id: str = "20260101-000000-aaaa", **changes: object) -> RunInfo:
    """Return a run; ``changes`` replace fields."""
    fields: dict[str, object] = {
        "id": id,
        "name": "sample",
        "scenario_hash": "5a" * 32,
        "scheduler": "ratc",
        "driver": "simulator",
        "plan": '{"planVersion": 1}',
        "seeds": {"topology": 1, "workload": 2, "faults": 3, "schedulers": 2**40},
        "episodes": 2,
        "label": "naïve — ü",
        "started": "2026-01-01T00:00:00.000+00:00",
        **changes,
    }
    return RunInfo(**fields)  # type: ignore[arg-type]


def sample_task(episode: int, slot: int, source: int) -> Task:
    """Return a task of the sample runs; its cycles need more than 32 bits."""
    return Task(
        id=(episode * SLOTS + slot) * NODES + source,
        episode=episode,
        slot=slot,
        source=source,
        size_bytes=4_000_000 + source,
        cycles=51_200_000_000 + slot,
        deadline=4_000_000,
    )


def sample_history(
    task: Task, destination: int, outcome: Outcome = Outcome.SUCCEEDED
) -> list[Record]:
    """Return the records of ``task``: decided at its origin, ended executing at ``destination``."""
    start = task.slot * 500_000
    steps: list[tuple[RecordKind, int, int, dict[str, int | str]]] = [
        (RecordKind.GENERATED, task.source, 0, {}),
        (RecordKind.DECIDED, task.source, 10, {"destination": destination}),
    ]
    if destination != task.source:
        steps += [
            (
                RecordKind.TRANSMISSION_STARTED,
                task.source,
                20,
                {"peer": destination, "nominal": 100_000},
            ),
            (RecordKind.SENT, task.source, 100_030, {"peer": destination}),
            (
                RecordKind.RECEIVED,
                destination,
                100_040,
                {"sender": task.source, "elapsed": 100_030},
            ),
        ]
    steps += [
        (RecordKind.ADMITTED, destination, 100_050, {}),
        (RecordKind.EXECUTION_STARTED, destination, 100_060, {"nominal": 1_000_000}),
        (
            RecordKind.ENDED,
            destination,
            1_100_070,
            {"outcome": outcome.value, "elapsed": 1_100_060, "stage": "execution"},
        ),
    ]
    return [
        Record(kind, task, seq, node, start + after, start + after + 3, data)
        for seq, (kind, node, after, data) in enumerate(steps)
    ]


def sample_decision(task: Task | None, node: int, episode: int, slot: int) -> DecisionRecord:
    """Return the decision about ``task`` (None: an idle slot) with all that can be logged."""
    now = slot * 500_000 + 10
    state = PeerState(True, 3, 2_500_000, 1, now, 400_000)
    known = tuple(None if peer == node else (state, now) for peer in range(NODES))
    answers = () if task is None else (Answer(1, True, state, 5, 9), Answer(2, False, None, 5, 9))
    lengths = (0,) * NODES
    return DecisionRecord(
        task_id=None if task is None else task.id,
        node=node,
        episode=episode,
        slot=slot,
        at=now,
        scheduler="ratc",
        observation=Observation(
            *(node, now, episode, slot, task, 1, 5, lengths, lengths, lengths, answers, known, 1),
            inbound_work=7,
            sending_work=lengths,
        ),
        destination=None if task is None else (node + 1) % NODES,
        probabilities=None if task is None else (0.1, 0.2, 0.7),
        mask=None if task is None else (True, False, True),
    )


def sample_routing(node: int, number: int) -> RoutingRecord:
    """Return a routing at ``node``, number ``number`` of its episode 0."""
    seen = RouteObservation(
        node, 7 + number, 0, number, (3, 0), ({"local": 3}, {}), (Heard(0, {"f": 2}, 4),)
    )
    table = (
        Route(2, (1, 0), (None, 4), 0.25),
        Route(None, (0, 0), (None, None)),
    )
    routing = Routing(table, {"f": 1, "ü": [1, None]}) if number else Routing()
    return RoutingRecord(node, 0, number, 7 + number, "slack", seen, routing)


def sample_requests(episode: int) -> list[RequestRow]:
    """Return the requests of an episode, one of each outcome, those of the client's side first."""
    rows = [
        RequestRow(
            *(episode, number, number % NODES, "f", 1_000 * number),
            *(200 + number, outcome, number or None, 0, 5_000 + number),
            *(1_000 * number + 3, 6_000, 200 + number),
        )
        for number, outcome in enumerate(RequestOutcome)
    ]
    lost = rows[-1]._replace(status=None, peer=None, server=None, elapsed=None, sent=None)
    # Others' requests have high numbers.
    external = rows[0]._replace(request=2**40 + 1, sent=None, answered=None, client_status=None)
    return [*rows[:-1], lost._replace(answered=None, client_status=None), external]


def sample_windows(episode: int) -> list[WindowRecord]:
    """Return the windows of an episode: two of each node."""
    return [
        WindowRecord(node, episode, number, ({"local": 3, "to:1": node}, {}), 2, 30, number, 15)
        for node in range(NODES)
        for number in range(2)
    ]


def sample_episode(episode: int) -> tuple[list[Task], list[Record], list[DecisionRecord]]:
    """Return an episode: node 0 gets a task in every slot, node 1 in the even ones, node 2 none."""
    tasks: list[Task] = []
    records: list[Record] = []
    decisions: list[DecisionRecord] = []
    for slot in range(SLOTS):
        for node in range(NODES):
            task = None
            if node == 0 or (node == 1 and slot % 2 == 0):
                task = sample_task(episode, slot, node)
                tasks.append(task)
                outcome = Outcome.EXECUTION_FAILED if slot == 1 else Outcome.SUCCEEDED
                records += sample_history(task, (node + 1) % NODES, outcome)
            decisions.append(sample_decision(task, node, episode, slot))
    return tasks, records, decisions


def sample_rows(episode: int) -> list[TaskRow]:
    """Return the rows of ``sample_episode``."""
    return fold_all(*sample_episode(episode)).rows


def _by_key(decisions: list[DecisionRecord]) -> list[DecisionRecord]:
    return sorted(decisions, key=lambda each: (each.episode, each.node, each.slot))


def _each_ends_once(task_log: TaskLog, run_id: str) -> None:
    """Check that each task has one end, and a row that tells of the same one."""
    ends = Counter(
        (record.task.id, Outcome(str(record.data["outcome"])))
        for record in task_log.records(run_id)
        if record.kind is RecordKind.ENDED
    )
    assert set(ends.values()) <= {1}
    assert set(ends) == {(row.task_id, row.outcome) for row in task_log.tasks(run_id)}
    known = {record.task.id for record in task_log.records(run_id)}
    assert known == {task for task, _ in ends}


class TaskLogContract:
    """Give it fixtures ``task_log`` (empty) and ``reopen`` (a function that opens it again)."""

    def test_a_run_comes_back_as_it_was_begun(self, task_log: TaskLog) -> None:
        info = sample_run(scenario="nodes:\n  count: 3  # ü\n", first_episode=7)
        task_log.begin_run(info)
        run = task_log.run(info.id)
        assert run.info == info
        assert run.state is RunState.RUNNING
        assert (run.ended, run.certificate, run.trustworthy) == (None, None, False)

    def test_a_run_ends_with_state_and_certificate(self, task_log: TaskLog) -> None:
        info = sample_run()
        task_log.begin_run(info)
        certificate = {"valid": False, "reasons": ["lost 3 tasks"], "p95": 0.1}
        task_log.end_run(info.id, RunState.INVALID, certificate)
        run = task_log.run(info.id)
        assert run.state is RunState.INVALID
        assert run.certificate == certificate
        assert run.ended is not None
        assert run.ended.endswith("+00:00")
        task_log.begin_run(info)
        assert task_log.run(info.id).state is RunState.RUNNING
        assert len(task_log.runs()) == 1

    def test_an_id_is_not_used_for_two_runs(self, task_log: TaskLog) -> None:
        task_log.begin_run(sample_run())
        with pytest.raises(UsageError, match="another run"):
            task_log.begin_run(sample_run(plan='{"planVersion": 2}'))

    def test_runs_are_found_by_the_beginning_of_their_id(self, task_log: TaskLog) -> None:
        for id in ("20260101-000000-aaaa", "20260101-000000-aabb", "20260202-000000-cccc", "2026"):
            task_log.begin_run(sample_run(id))
        assert [run.id for run in task_log.runs()][-1] == "2026"
        assert task_log.run("202602").id == "20260202-000000-cccc"
        assert task_log.run("2026").id == "2026"
        assert task_log.run("latest").id == "2026"
        with pytest.raises(UsageError, match="20260101-000000-aabb"):
            task_log.run("20260101")
        with pytest.raises(UsageError, match="the latest are 2026, 20260202-000000-cccc"):
            task_log.run("2027")
        with pytest.raises(UsageError, match="no run"):
            task_log.run("%")

    def test_an_empty_log_says_what_to_do(self, task_log: TaskLog) -> None:
        assert task_log.runs() == []
        with pytest.raises(UsageError, match="run a scenario first"):
            task_log.run("latest")

    def test_everything_appended_comes_back_equal(self, task_log: TaskLog) -> None:
        info = sample_run()
        task_log.begin_run(info)
        records: list[Record] = []
        decisions: list[DecisionRecord] = []
        for episode in range(2):
            _, some_records, some_decisions = sample_episode(episode)
            new = task_log.append(info.id, some_records, some_decisions)
            assert new == len(some_records) + len(some_decisions)
            records += some_records
            decisions += some_decisions
        assert list(task_log.records(info.id)) == records
        assert list(task_log.decisions(info.id)) == _by_key(decisions)
        assert list(task_log.records(info.id, episode=1)) == [
            record for record in records if record.task.episode == 1
        ]
        task_id = records[-1].task.id
        assert list(task_log.records(info.id, task_id=task_id)) == [
            record for record in records if record.task.id == task_id
        ]
        assert list(task_log.decisions(info.id, episode=1, node=2)) == [
            each for each in decisions if (each.episode, each.node) == (1, 2)
        ]

    def test_decisions_of_another_hook_come_back_equal(self, task_log: TaskLog) -> None:
        routings = [sample_routing(node, number) for node in range(2) for number in range(3)]
        placed = [sample_decision(None, 1, 0, slot) for slot in (1, 2)]
        runs: dict[str, Sequence[Decided]] = {"routings": routings, "placed": placed}
        for run, decisions in runs.items():
            task_log.begin_run(sample_run(run))
            assert task_log.append(run, [], decisions) == len(decisions)
            assert task_log.append(run, [], decisions) == 0
        assert list(task_log.decisions_of(route.HOOK, "routings")) == routings
        assert list(task_log.decisions_of(route.HOOK, "routings", node=1)) == routings[3:]
        assert list(task_log.decisions("routings")) == []
        assert list(task_log.decisions_of(placing.HOOK, "placed")) == placed
        assert list(task_log.decisions_of(route.HOOK, "placed")) == []

    def test_a_serving_run_comes_back_equal(self, task_log: TaskLog) -> None:
        info = sample_run(model="serving", scheduler="slack")
        task_log.begin_run(sample_run("another", model="serving"))
        task_log.begin_run(info)
        assert task_log.run(info.id).info == info
        routings = [sample_routing(node, number) for node in range(2) for number in range(3)]
        for run in (info.id, "another"):
            one, two = sample_requests(0)[::-1], sample_windows(0)
            new = task_log.append_serving(run, one, two, routings)
            assert new == len(one) + len(two) + len(routings)
            assert task_log.append_serving(run, sample_requests(1)) == len(one)
            assert task_log.append_serving(run, windows=sample_windows(1)) == len(two)
        # What is sent again stays as it is, whatever it says now.
        changed = [row._replace(elapsed=1) for row in sample_requests(0)]
        assert task_log.append_serving(info.id, changed, sample_windows(1), routings) == 0
        assert task_log.append_serving(info.id) == 0
        assert list(task_log.requests(info.id)) == sample_requests(0) + sample_requests(1)
        assert list(task_log.requests(info.id, episode=1)) == sample_requests(1)
        assert list(task_log.windows(info.id)) == sample_windows(0) + sample_windows(1)
        assert list(task_log.windows(info.id, episode=1, node=2)) == sample_windows(1)[-2:]
        assert list(task_log.routings(info.id)) == routings
        assert list(task_log.routings(info.id, node=1)) == routings[3:]
        assert task_log.counts(info.id) == {
            "requests": 2 * len(sample_requests(0)),
            "windows": 2 * len(sample_windows(0)),
            "routings": len(routings),
        }
        counted = task_log.request_outcomes([info.id, "another"])
        assert counted[info.id] == counted["another"]
        assert counted[info.id] == dict.fromkeys(RequestOutcome, 2) | {RequestOutcome.SERVED: 4}

    def test_routings_that_are_handed_in_late_are_added(self, task_log: TaskLog) -> None:
        info = sample_run(model="serving")
        task_log.begin_run(info)
        task_log.close_run(info.id, RunState.INTERRUPTED)
        routings = [sample_routing(0, number) for number in range(3)]
        for _ in range(2):
            assert task_log.hand_in(info.id, [], routings) == 0
        assert list(task_log.routings(info.id)) == routings

    def test_the_same_batch_twice_counts_once(self, task_log: TaskLog) -> None:
        info = sample_run()
        task_log.begin_run(info)
        _, records, decisions = sample_episode(0)
        task_log.append(info.id, records[:5], decisions[:2])
        new = task_log.append(info.id, records, decisions)
        assert new == len(records) - 5 + len(decisions) - 2
        assert task_log.append(info.id, records, decisions) == 0
        assert task_log.append(info.id, [], []) == 0
        assert list(task_log.records(info.id)) == records

    def test_what_is_there_is_not_changed(self, task_log: TaskLog) -> None:
        info = sample_run()
        task_log.begin_run(info)
        record = sample_episode(0)[1][0]
        task_log.append(info.id, [record], [])
        assert task_log.append(info.id, [record._replace(at=record.at + 1)], []) == 0
        assert list(task_log.records(info.id)) == [record]

    def test_task_rows_come_back_and_replace_earlier_ones(self, task_log: TaskLog) -> None:
        info = sample_run()
        task_log.begin_run(info)
        rows = sample_rows(0) + sample_rows(1)
        lost = rows[0]._replace(outcome=Outcome.LOST, elapsed=None, stage=None, scheduler=None)
        task_log.write_tasks(info.id, [lost])
        assert list(task_log.tasks(info.id)) == [lost]
        task_log.write_tasks(info.id, rows)
        task_log.write_tasks(info.id, [])
        assert list(task_log.tasks(info.id)) == rows
        assert list(task_log.tasks(info.id, episode=1)) == sample_rows(1)
        assert task_log.outcomes(info.id) == {
            Outcome.SUCCEEDED: 10,
            Outcome.EXECUTION_FAILED: 2,
            Outcome.DROPPED: 0,
            Outcome.REFUSED: 0,
            Outcome.TRANSMISSION_FAILED: 0,
            Outcome.LOST: 0,
        }

    def test_outcomes_of_several_runs_are_those_of_each(self, task_log: TaskLog) -> None:
        ids = [f"run-{number}" for number in range(3)]
        for number, run in enumerate(ids):
            task_log.begin_run(sample_run(run))
            task_log.write_tasks(run, sample_rows(0)[: 3 * number])
        found = task_log.outcomes_by_run(ids[::-1])
        assert found == {run: task_log.outcomes(run) for run in ids}
        assert [sum(each.values()) for each in found.values()] == [6, 3, 0]
        assert task_log.outcomes_by_run([]) == {}

    # --- runs that are over -----------------------------------------------------------------

    def test_closing_a_run_ends_what_has_no_end(self, task_log: TaskLog) -> None:
        info = sample_run()
        task_log.begin_run(info)
        task_log.append(info.id, *sample_episode(0)[1:])
        task_log.write_tasks(info.id, sample_rows(0))
        tasks, records, decisions = sample_episode(1)
        cut = [record for record in records if record.seq <= record.task.slot]
        whole = [record for record in records if record.task == tasks[0]]
        task_log.append(info.id, [*cut, *whole], decisions)
        assert task_log.close_run(info.id, RunState.INTERRUPTED, {"failure": "x"}) == len(tasks) - 1
        run = task_log.run(info.id)
        assert (run.state, run.certificate) == (RunState.INTERRUPTED, {"failure": "x"})
        _each_ends_once(task_log, info.id)
        rows = {row.task_id: row for row in task_log.tasks(info.id)}
        assert set(rows) == {task.id for task in [*sample_episode(0)[0], *tasks]}
        assert rows[tasks[0].id] == sample_rows(1)[0]
        lost = [rows[task.id] for task in tasks[1:]]
        assert {(row.outcome, row.stage, row.scheduler) for row in lost} == {
            (Outcome.LOST, "lost", "ratc")
        }
        assert task_log.close_run(info.id, RunState.INTERRUPTED) == 0

    def test_a_run_without_tasks_is_closed_too(self, task_log: TaskLog) -> None:
        task_log.begin_run(sample_run())
        assert task_log.close_run(sample_run().id, RunState.FAILED) == 0
        assert task_log.run("latest").state is RunState.FAILED
        with pytest.raises(UsageError, match="nobody"):
            task_log.close_run("nobody", RunState.FAILED)
        with pytest.raises(UsageError, match="nobody"):
            task_log.hand_in("nobody", [], [])

    @pytest.mark.parametrize("size", [1, 3, 7, 1000])
    def test_what_is_handed_in_late_takes_the_place_of_an_end_made_for_want_of_it(
        self, task_log: TaskLog, size: int
    ) -> None:
        info = sample_run()
        task_log.begin_run(info)
        _, records, decisions = sample_episode(0)
        task_log.append(info.id, records[:9], decisions[:2])
        task_log.close_run(info.id, RunState.INTERRUPTED)
        for start in range(0, len(records), size):
            refused = task_log.hand_in(
                info.id, records[start : start + size], decisions[start : start + size]
            )
            assert refused == 0
            _each_ends_once(task_log, info.id)
        assert list(task_log.records(info.id)) == records
        assert list(task_log.tasks(info.id)) == sample_rows(0)
        assert list(task_log.decisions(info.id)) == _by_key(decisions)
        # Handed in again, and a second end of a task.
        assert task_log.hand_in(info.id, records, decisions) == 0
        assert task_log.hand_in(info.id, [records[-1]._replace(seq=90)], []) == 1
        assert list(task_log.tasks(info.id)) == sample_rows(0)

    def test_what_a_run_has_told_as_final_stands(self, task_log: TaskLog) -> None:
        info = sample_run()
        task_log.begin_run(info)
        tasks, records, decisions = sample_episode(0)
        lost, ended, untold = tasks[0].id, tasks[1].id, tasks[2].id
        kept = [record for record in records if record.task.id == ended and record.seq != 1]
        task_log.append(info.id, [*kept, records[0]], [])
        task_log.close_run(info.id, RunState.DEGRADED, {"tasks_closed": True})
        before = {row.task_id: row.outcome for row in task_log.tasks(info.id)}
        history = [record for record in records if record.task.id in {lost, ended, untold}]
        refused = task_log.hand_in(info.id, history, decisions)
        assert refused == sum(record.task.id in {lost, untold} for record in history) - 1
        _each_ends_once(task_log, info.id)
        assert {row.task_id: row.outcome for row in task_log.tasks(info.id)} == before
        # What could be added is in the row too.
        row = next(row for row in task_log.tasks(info.id) if row.task_id == ended)
        assert row == sample_rows(0)[1]

    def test_what_cannot_be_true_is_not_taken_late(self, task_log: TaskLog) -> None:
        info = sample_run()
        task_log.begin_run(info)
        tasks, records, _ = sample_episode(0)
        history = [record for record in records if record.task == tasks[0]]
        task_log.append(info.id, history, [])
        task_log.close_run(info.id, RunState.INTERRUPTED)
        assert task_log.hand_in(info.id, [history[1]._replace(seq=4_000)], []) == 1
        assert list(task_log.records(info.id)) == history

    def test_runs_do_not_mix(self, task_log: TaskLog) -> None:
        one, other = sample_run("one"), sample_run("other")
        _, records, decisions = sample_episode(0)
        for info in (one, other):
            task_log.begin_run(info)
            task_log.append(info.id, records, decisions)
            task_log.write_tasks(info.id, sample_rows(0))
        task_log.append(one.id, sample_episode(1)[1], [])
        assert list(task_log.records(other.id)) == records
        assert list(task_log.decisions(other.id)) == _by_key(decisions)
        assert list(task_log.tasks(other.id)) == sample_rows(0)

    def test_tags_and_notes_are_kept_beside_the_run(
        self, task_log: TaskLog, reopen: Callable[[], TaskLog]
    ) -> None:
        one, other = sample_run("one"), sample_run("other")
        for info in (one, other):
            task_log.begin_run(info)
        assert (task_log.run("one").tags, task_log.run("one").note) == ((), "")
        assert task_log.tag_run("one", ["paper", "größer-α=0.3", "Paper", "paper"]) == (
            "Paper",
            "größer-α=0.3",
            "paper",
        )
        assert task_log.tag_run("one", ["b"], remove=["Paper", "never"]) == (
            "b",
            "größer-α=0.3",
            "paper",
        )
        task_log.note_run("one", "  it's 100 %\r\nnaïve 😀 \\ \n")
        task_log.end_run("one", RunState.COMPLETED)
        with reopen() as again:
            first, second = again.runs()
            assert (first.tags, first.note) == (
                ("b", "größer-α=0.3", "paper"),
                "it's 100 %\nnaïve 😀 \\",
            )
            assert (first.info, first.state) == (one, RunState.COMPLETED)
            assert (second.tags, second.note) == ((), "")
            again.note_run("one", "")
        assert task_log.run("one").note == ""

    def test_what_cannot_be_a_tag_or_a_note_is_refused(self, task_log: TaskLog) -> None:
        task_log.begin_run(sample_run("one"))
        for tag in ("", "two words", "a,b", "-x", "x" * 65, "\x1b[2J", "a\u2028b"):
            with pytest.raises(UsageError, match="tag: "):
                task_log.tag_run("one", ["good", tag])
        for note in ("x" * 10_001, "a\x00b"):
            with pytest.raises(UsageError, match="note: "):
                task_log.note_run("one", note)
        assert (task_log.run("one").tags, task_log.run("one").note) == ((), "")
        for call in (
            lambda: task_log.tag_run("nobody", ["a"]),
            lambda: task_log.note_run("nobody", "a"),
            lambda: task_log.delete_run("nobody"),
        ):
            with pytest.raises(UsageError, match="nobody"):
                call()

    def test_a_deleted_run_is_gone_with_all_it_had(
        self, task_log: TaskLog, reopen: Callable[[], TaskLog]
    ) -> None:
        one, other = sample_run("one"), sample_run("other")
        _, records, decisions = sample_episode(0)
        for info in (one, other):
            task_log.begin_run(info)
            task_log.append(info.id, records, decisions)
            task_log.write_tasks(info.id, sample_rows(0))
            task_log.tag_run(info.id, ["both"])
            task_log.note_run(info.id, f"note of {info.id}")
        with pytest.raises(UsageError, match="running"):
            task_log.delete_run("other")
        assert len(list(task_log.tasks("other"))) == len(sample_rows(0))
        task_log.end_run("other", RunState.FAILED)
        with reopen() as again:
            again.delete_run("other")
        assert [run.id for run in task_log.runs()] == ["one"]
        with pytest.raises(UsageError, match="other"):
            task_log.append("other", records, decisions)
        with pytest.raises(UsageError, match="other"):
            task_log.hand_in("other", records, decisions)
        # It may get what identified the deleted one within the database.
        task_log.begin_run(sample_run("new"))
        assert task_log.counts("new") == {"tasks": 0, "events": 0, "decisions": 0}
        assert (task_log.run("new").tags, task_log.run("new").note) == ((), "")
        assert list(task_log.records("one")) == records
        assert (task_log.run("one").tags, task_log.run("one").note) == (("both",), "note of one")

    def test_an_unknown_run_is_refused(self, task_log: TaskLog) -> None:
        _, records, decisions = sample_episode(0)
        with pytest.raises(UsageError, match="nobody"):
            task_log.append("nobody", records, decisions)
        with pytest.raises(UsageError, match="nobody"):
            task_log.write_tasks("nobody", sample_rows(0))
        with pytest.raises(UsageError, match="nobody"):
            task_log.end_run("nobody", RunState.COMPLETED)
        with pytest.raises(UsageError, match="nobody"):
            list(task_log.tasks("nobody"))

    def test_tables_are_read_in_chunks(self, task_log: TaskLog) -> None:
        info = sample_run()
        task_log.begin_run(info)
        _, records, decisions = sample_episode(0)
        task_log.append(info.id, records, decisions)
        task_log.write_tasks(info.id, sample_rows(0))
        chunks = list(task_log.rows("events", info.id, chunk=10))
        assert [len(chunk) for chunk in chunks][:-1] == [10] * (len(chunks) - 1)
        assert sum(len(chunk) for chunk in chunks) == len(records)
        assert task_log.counts(info.id) == {
            "tasks": len(sample_rows(0)),
            "events": len(records),
            "decisions": len(decisions),
        }
        columns = task_log.columns("tasks")
        (rows,) = task_log.rows("tasks", info.id)
        first = dict(zip(columns, rows[0], strict=True))
        assert first["run"] == info.id
        assert first["task"] == sample_rows(0)[0].task_id
        assert first["nominal_execution"] == 1_000_000
        assert task_log.columns("decisions")[:4] == ("run", "episode", "node", "slot")

    @pytest.mark.parametrize("table", TABLES_OF.named("serving"))
    def test_tables_of_serving_runs_are_read_in_chunks(
        self, task_log: TaskLog, table: LogTable
    ) -> None:
        info = sample_run(model="serving")
        task_log.begin_run(info)
        routings = [sample_routing(node, number) for node in range(2) for number in range(3)]
        task_log.append_serving(info.id, sample_requests(0), sample_windows(0), routings)
        (expected,) = task_log.rows(table, info.id)
        assert len(expected) == task_log.counts(info.id)[table]
        chunks = list(task_log.rows(table, info.id, chunk=4))
        assert [row for rows in chunks for row in rows] == expected
        named = dict(zip(task_log.columns(table), expected[-1], strict=True))
        assert (named["run"], named["episode"]) == (info.id, 0)

    @pytest.mark.parametrize("table", ["tasks", "events", "decisions"])
    @pytest.mark.parametrize("chunk", [1, 2, 3, 7])
    def test_chunks_of_any_size_make_the_same_table(
        self, task_log: TaskLog, table: LogTable, chunk: int
    ) -> None:
        info = sample_run()
        task_log.begin_run(sample_run("another"))
        task_log.begin_run(info)
        for episode in range(2):
            _, records, decisions = sample_episode(episode)
            for run_id in ("another", info.id):
                task_log.append(run_id, records, decisions)
                task_log.write_tasks(run_id, sample_rows(episode))
        (expected,) = task_log.rows(table, info.id)
        chunks = list(task_log.rows(table, info.id, chunk=chunk))
        assert [row for rows in chunks for row in rows] == expected
        assert {len(rows) for rows in chunks[:-1]} == {chunk}
        assert len(expected) == task_log.counts(info.id)[table]

    def test_texts_of_every_kind_come_back(self, task_log: TaskLog) -> None:
        info = sample_run()
        task_log.begin_run(info)
        texts = (
            'it\'s 100 % "so"',
            "%s %(x)d ?",
            "a\\'b\\",
            "\n\t\x00\x1a;",
            "naïve ü 😀",
            "NULL",
            "",
        )
        decisions = [
            sample_decision(sample_task(0, slot, 0), 0, 0, slot)._replace(scheduler=text)
            for slot, text in enumerate(texts)
        ]
        records = []
        for slot, text in enumerate(texts):
            end = sample_history(sample_task(0, slot, 0), 0)[-1]
            records.append(end._replace(data={**end.data, "reason": text}))
        rows = [
            sample_rows(0)[0]._replace(task_id=number, scheduler=text, stage=text)
            for number, text in enumerate(texts)
        ]
        task_log.append(info.id, records, decisions)
        task_log.write_tasks(info.id, rows)
        assert list(task_log.records(info.id)) == records
        assert list(task_log.decisions(info.id)) == decisions
        assert list(task_log.tasks(info.id)) == rows

    def test_a_reader_sees_what_is_committed_while_it_is_written(
        self, task_log: TaskLog, reopen: Callable[[], TaskLog]
    ) -> None:
        info = sample_run()
        task_log.begin_run(info)
        _, records, decisions = sample_episode(0)
        task_log.append(info.id, records, decisions)
        with reopen() as reader:
            reading = reader.records(info.id)
            first = next(reading)
            # The reader is in the middle of the table; the writer does not wait for it.
            task_log.append(info.id, *sample_episode(1)[1:])
            assert [first, *reading] == records
            assert len(list(reader.records(info.id))) == 2 * len(records)

    def test_a_log_outlives_its_connection(
        self, task_log: TaskLog, reopen: Callable[[], TaskLog]
    ) -> None:
        info = sample_run()
        task_log.begin_run(info)
        _, records, decisions = sample_episode(0)
        task_log.append(info.id, records, decisions)
        task_log.close()
        with reopen() as again:
            assert again.run("latest").info == info
            # A batch that was not acknowledged is sent again after the restart.
            assert again.append(info.id, records, decisions) == 0
            assert list(again.records(info.id)) == records
