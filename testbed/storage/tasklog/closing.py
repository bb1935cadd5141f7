"""Each task ends exactly once, in its history and in ``tasks`` alike, also where a writer has gone.

Two things happen to a run besides being written: whoever comes after its writer closes it, and
nodes hand in what they could not before. Both keep three promises for every task that is touched:
one record of its end, a row that is folded from all its records, and no end that changes once the
run has told it as final.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from sqlalchemy import Connection, delete, exists, select

from testbed.model.events import Record, RecordKind
from testbed.model.history import FIRST_OF_CONTROLLER, Choice, IllegalHistory, TaskRow, fold
from testbed.model.task import Outcome
from testbed.storage.tasklog.packing import history_rows, records_of, task_row
from testbed.storage.tasklog.schema import decisions as decisions_table
from testbed.storage.tasklog.schema import histories as histories_table
from testbed.storage.tasklog.schema import tasks as tasks_table
from testbed.storage.tasklog.statements import CHUNK, Statements


def close_some(
    connection: Connection, run: int, statements: Statements, after: int | None
) -> tuple[int, int | None]:
    """End and fold up to ``CHUNK`` tasks behind ``after`` that have records and no row.

    How many of them had no end (they are ``lost`` now), and the last one; None if there was none.
    """
    histories, tasks = histories_table.c, tasks_table.c
    row = exists().where(tasks.run == histories.run, tasks.task == histories.task)
    query = select(histories.task).where(histories.run == run, ~row).distinct()
    if after is not None:
        query = query.where(histories.task > after)
    found = connection.execute(query.order_by(histories.task).limit(CHUNK)).scalars().all()
    if not found:
        return 0, None
    told = _histories(connection, run, found)
    ends = [end for history in told.values() if (end := _end_if_none(history)) is not None]
    for end in ends:
        told[end.task.id].append(end)
    _write(connection, run, statements, ends, told)
    return len(ends), found[-1]


def hand_in(
    connection: Connection,
    run: int,
    statements: Statements,
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
    histories = _histories(connection, run, sorted({*coming, *touched}))
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
                delete(histories_table).where(
                    histories_table.c.run == run,
                    histories_table.c.task == task,
                    # What the controller records has a row of its own.
                    histories_table.c.seq.in_(made or [-1]),
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
    _write(connection, run, statements, added, histories)
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


def _histories(connection: Connection, run: int, tasks: Sequence[int]) -> dict[int, list[Record]]:
    found: defaultdict[int, list[Record]] = defaultdict(list)
    columns = histories_table.c
    for named in _chunks(tasks):
        query = select(histories_table).where(columns.run == run, columns.task.in_(named))
        for row in connection.execute(query.order_by(columns.task, columns.seq)):
            found[row.task] += records_of(row)
    return dict(found)


def _write(
    connection: Connection,
    run: int,
    statements: Statements,
    added: Sequence[Record],
    histories: Mapping[int, list[Record]],
) -> None:
    """Enter the records ``added``, and the rows of all tasks of ``histories`` anew."""
    statements.add(connection, histories_table, history_rows(run, added))
    told = {task: history for task, history in histories.items() if history}
    decided = _decisions(connection, run, told)
    folded = [_row(history, decided.get(task)) for task, history in sorted(told.items())]
    statements.put(connection, tasks_table, [task_row(run, row) for row in folded])


def _row(history: Sequence[Record], decision: Choice | None) -> TaskRow:
    task = history[0].task
    try:
        return fold(task, history, decision)
    except IllegalHistory:
        # As in ``fold_all``: nothing in it can be trusted.
        return fold(task, (), decision)


def _decisions(
    connection: Connection, run: int, histories: Mapping[int, Sequence[Record]]
) -> dict[int, Choice]:
    """Return what was decided about these tasks, found by where and when it was."""
    columns = decisions_table.c
    episodes = sorted({history[0].task.episode for history in histories.values()})
    found = {}
    for episode in episodes:
        here = [task for task, history in histories.items() if history[0].task.episode == episode]
        for named in _chunks(sorted(here)):
            query = select(columns.task, columns.scheduler, columns.destination).where(
                columns.run == run, columns.episode == episode, columns.task.in_(named)
            )
            for task, *decided in connection.execute(query):
                found[task] = Choice(*decided)
    return found


def _chunks(tasks: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(tasks), CHUNK):
        yield tasks[start : start + CHUNK]
