"""Each task ends exactly once, in ``events`` and ``tasks`` alike, also where a writer has gone.

Two things happen to a run besides being written: whoever comes after its writer closes it, and
nodes hand in what they could not before. Both keep three promises for every task that is touched:
one record of its end, a row that is folded from all its records, and no end that changes once the
run has told it as final.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Table, delete, exists, insert, select
from sqlalchemy.sql.dml import Insert

from testbed.model.events import DecisionRecord, Record, RecordKind
from testbed.model.history import FIRST_OF_CONTROLLER, IllegalHistory, TaskRow, fold
from testbed.model.task import Outcome
from testbed.storage.tasklog.schema import decisions as decisions_table
from testbed.storage.tasklog.schema import events as events_table
from testbed.storage.tasklog.schema import tasks as tasks_table

CHUNK: Final = 400
"""Tasks named in one statement; SQLite takes at least 999 values in one."""


class RowCodec(NamedTuple):
    """Conversion of rows to values and back; ``insert_new`` skips rows that are there."""

    record: Callable[[Sequence[Any]], Record]
    decision: Callable[[Sequence[Any]], DecisionRecord]
    event_row: Callable[[int, Record], Mapping[str, object]]
    task_row: Callable[[int, TaskRow], Mapping[str, object]]
    insert_new: Callable[[Table], Insert]


def close_some(
    connection: Connection, run: int, rows: RowCodec, after: int | None
) -> tuple[int, int | None]:
    """End and fold up to ``CHUNK`` tasks behind ``after`` that have records and no row.

    How many of them had no end (they are ``lost`` now), and the last one; None if there was none.
    """
    events, tasks = events_table.c, tasks_table.c
    row = exists().where(tasks.run == events.run, tasks.task == events.task)
    query = select(events.task).where(events.run == run, ~row).distinct()
    if after is not None:
        query = query.where(events.task > after)
    found = connection.execute(query.order_by(events.task).limit(CHUNK)).scalars().all()
    if not found:
        return 0, None
    histories = _histories(connection, run, found, rows)
    ends = [end for history in histories.values() if (end := _end_if_none(history)) is not None]
    for end in ends:
        histories[end.task.id].append(end)
    _write(connection, run, rows, ends, histories)
    return len(ends), found[-1]


def hand_in(
    connection: Connection,
    run: int,
    rows: RowCodec,
    records: Sequence[Record],
    touched: Iterable[int],
    *,
    final: bool,
) -> int:
    """Add records to tasks of a completed run or episode; return the number of those refused.

    ``touched`` are tasks whose row has to be folded anew in any case. With ``final`` a task that
    the run has told as lost, or has not told of, stays so: whatever comes about it is refused.
    Without, a node's own end takes the place of one that was made for want of it.
    """
    coming: defaultdict[int, list[Record]] = defaultdict(list)
    for record in records:
        coming[record.task.id].append(record)
    histories = _histories(connection, run, sorted({*coming, *touched}), rows)
    refused, added = 0, []
    for task, new in coming.items():
        history = histories.get(task, [])
        there = {record.seq for record in history}
        new = [record for record in new if record.seq not in there]
        taken = _accepted(history, new, final=final)
        refused += len(new) - len(taken)
        if not taken:
            continue
        if any(record.kind is RecordKind.ENDED for record in taken):
            made = [record.seq for record in history if _is_made_end(record)]
            connection.execute(
                delete(events_table).where(
                    events_table.c.run == run,
                    events_table.c.task == task,
                    events_table.c.seq.in_(made or [-1]),
                )
            )
            history = [record for record in history if record.seq not in made]
        histories[task] = [*history, *taken]
        added += taken
    for history in histories.values():
        end = _end_if_none(history)
        if end is not None:
            history.append(end)
            added.append(end)
    _write(connection, run, rows, added, histories)
    return refused


def _accepted(history: Sequence[Record], new: list[Record], *, final: bool) -> list[Record]:
    """Return those of the ``new`` records of a task that may stand beside its ``history``."""
    made = any(map(_is_made_end, history))
    if final and (made or not history):
        return []
    ended = any(record.kind is RecordKind.ENDED and not _is_made_end(record) for record in history)
    taken = [record for record in new if not (ended and record.kind is RecordKind.ENDED)]
    if not taken:
        return []
    try:
        fold(taken[0].task, [record for record in [*history, *taken] if not _is_made_end(record)])
    except IllegalHistory:
        # For instance from a damaged spool; what is there already is worth more.
        return []
    return taken


def _is_made_end(record: Record) -> bool:
    """Return whether this is an end that no node has logged."""
    return record.kind is RecordKind.ENDED and record.seq >= FIRST_OF_CONTROLLER


def _end_if_none(history: Sequence[Record]) -> Record | None:
    """Return the end as lost of a task that has none, None if it has one."""
    if any(record.kind is RecordKind.ENDED for record in history):
        return None
    first, last = min(history, key=_seq), max(history, key=_seq)
    at = max(record.at for record in history)
    holder = int(last.data["peer"]) if last.kind is RecordKind.SENT else last.node
    data: dict[str, int | str] = {
        "outcome": Outcome.LOST.value,
        "elapsed": max(0, at - first.at),
        "stage": "lost",
    }
    return Record(RecordKind.ENDED, first.task, FIRST_OF_CONTROLLER, holder, at, at, data)


def _seq(record: Record) -> int:
    return record.seq


def _histories(
    connection: Connection, run: int, tasks: Sequence[int], rows: RowCodec
) -> dict[int, list[Record]]:
    found: defaultdict[int, list[Record]] = defaultdict(list)
    columns = events_table.c
    for named in _chunks(tasks):
        query = select(events_table).where(columns.run == run, columns.task.in_(named))
        for row in connection.execute(query.order_by(columns.task, columns.seq)):
            record = rows.record(row)
            found[record.task.id].append(record)
    return dict(found)


def _write(
    connection: Connection,
    run: int,
    rows: RowCodec,
    added: Sequence[Record],
    histories: Mapping[int, list[Record]],
) -> None:
    """Enter the records ``added``, and the rows of all tasks of ``histories`` anew."""
    if added:
        connection.execute(
            rows.insert_new(events_table), [rows.event_row(run, record) for record in added]
        )
    told = {task: history for task, history in histories.items() if history}
    decided = _decisions(connection, run, told, rows)
    folded = [_row(history, decided.get(task)) for task, history in sorted(told.items())]
    for named in _chunks(sorted(told)):
        connection.execute(
            delete(tasks_table).where(tasks_table.c.run == run, tasks_table.c.task.in_(named))
        )
    if folded:
        connection.execute(insert(tasks_table), [rows.task_row(run, row) for row in folded])


def _row(history: Sequence[Record], decision: DecisionRecord | None) -> TaskRow:
    task = history[0].task
    try:
        return fold(task, history, decision)
    except IllegalHistory:
        # As in ``fold_all``: nothing in it can be trusted.
        return fold(task, (), decision)


def _decisions(
    connection: Connection, run: int, histories: Mapping[int, Sequence[Record]], rows: RowCodec
) -> dict[int | None, DecisionRecord]:
    """Return what was decided about these tasks, found by where and when it was."""
    columns = decisions_table.c
    episodes = sorted({history[0].task.episode for history in histories.values()})
    found = {}
    for episode in episodes:
        here = [task for task, history in histories.items() if history[0].task.episode == episode]
        for named in _chunks(sorted(here)):
            query = select(decisions_table).where(
                columns.run == run, columns.episode == episode, columns.task.in_(named)
            )
            for row in connection.execute(query):
                decision = rows.decision(row)
                found[decision.task_id] = decision
    return found


def _chunks(tasks: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(tasks), CHUNK):
        yield tasks[start : start + CHUNK]
