"""The task log in a relational database, through SQLAlchemy Core.

Guarantees what ``TaskLog`` promises on SQLite and MySQL/MariaDB alike.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, Self, TypeVar, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    and_,
    delete,
    func,
    literal,
    or_,
    select,
    update,
)

from testbed.errors import PermanentError, Problem, TemporaryError, UsageError
from testbed.model import placing
from testbed.model.codec import dumps
from testbed.model.events import DecisionRecord, Record
from testbed.model.history import TaskRow
from testbed.model.hook import Decided, Hook, Recorded
from testbed.model.run_state import RunState
from testbed.model.serving import route
from testbed.model.serving.record import RequestOutcome, WindowRecord
from testbed.model.serving.route import RoutingRecord
from testbed.model.task import Outcome
from testbed.storage.tasklog import closing
from testbed.storage.tasklog.annotations import (
    NOTHING,
    Annotations,
    Said,
    checked_note,
    checked_tags,
)
from testbed.storage.tasklog.base import (
    LATEST,
    TABLES_OF,
    EpisodeColumns,
    LogTable,
    Run,
    RunInfo,
    utc_now,
)
from testbed.storage.tasklog.failures import explained
from testbed.storage.tasklog.packing import (
    DecisionReader,
    Stored,
    decision_row,
    decision_rows,
    event_rows,
    history_rows,
    records_of,
    task_of,
    task_row,
    unknown,
)
from testbed.storage.tasklog.schema import TABLES
from testbed.storage.tasklog.schema import decisions as decisions_table
from testbed.storage.tasklog.schema import histories as histories_table
from testbed.storage.tasklog.schema import requests as requests_table
from testbed.storage.tasklog.schema import routings as routings_table
from testbed.storage.tasklog.schema import runs as runs_table
from testbed.storage.tasklog.schema import tasks as tasks_table
from testbed.storage.tasklog.schema import windows as windows_table
from testbed.storage.tasklog.serving import (
    RequestRow,
    request_of,
    routing_of,
    routing_row,
    window_of,
    window_row,
)
from testbed.storage.tasklog.statements import CHUNK, Row, Statements
from testbed.storage.tasklog.watching import FileWatch, release

_Result = TypeVar("_Result")
_Outcome = TypeVar("_Outcome", bound=StrEnum)

_LATEST_SHOWN: Final = 5
_FETCH: Final = 5_000
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0
"""Seconds between attempts at what a server that is away has to store."""
_RECORDS: Final = 8
"""Records of a task, about: so many rows of events come of one that is stored."""

_STORED: Final[dict[LogTable, Table]] = {
    "tasks": tasks_table,
    "events": histories_table,
    "decisions": decisions_table,
    "requests": requests_table,
    "windows": windows_table,
    "routings": routings_table,
}

_DECIDED: Final[Mapping[str, tuple[Table, Callable[[], Callable[[Sequence[Any]], Any]]]]] = {
    placing.HOOK.name: (decisions_table, lambda: DecisionReader().record),
    route.HOOK.name: (routings_table, lambda: routing_of),
}
"""By hook, the table of its decisions, and what makes a reader of its rows."""


def _behind(key: Sequence[ColumnElement[Any]], last: Sequence[Any]) -> ColumnElement[bool]:
    """Return the condition that a row comes after the one with the key ``last``.

    Not ``(a, b) > (x, y)``: MariaDB would look at every row for it and not begin in the index.
    """
    first, value = key[0], last[0]
    behind: ColumnElement[bool] = first > value
    if len(key) > 1:
        behind = and_(first >= value, or_(behind, _behind(key[1:], last[1:])))
    return behind


class _AlreadyThere(Exception):
    """Some decisions of a batch are in the log already."""


class SqlTaskLog:
    """A ``TaskLog`` on an SQLAlchemy engine; made by ``open_task_log``, which checks the schema.

    ``where`` names it in messages, ``login`` says who asks a server and with whose password.
    What is written waits up to ``patience_s`` seconds for a server that does not answer, and is
    then sent again: every writing call may be repeated. To begin a run does not wait, so that
    whoever asks for it is told at once. ``watch`` looks after the file of one that is written.
    """

    def __init__(
        self,
        engine: Engine,
        where: str,
        *,
        login: str = "",
        patience_s: float = 0.0,
        watch: FileWatch | None = None,
    ) -> None:
        self.engine = engine
        self.where = where
        self._login = login
        self._patience_s = patience_s
        self._watch = watch
        self._closed = False
        self._readers = 0
        self._keys: dict[str, int] = {}
        self._stored: dict[int, dict[int, Stored]] = {}
        self._statements = Statements(engine.dialect)
        self._annotations = Annotations(engine, where, self._statements)

    # --- writing ----------------------------------------------------------------------------

    def begin_run(self, info: RunInfo) -> None:
        """See ``TaskLog``."""
        row = {
            "id": info.id,
            "name": info.name,
            "scenario_hash": info.scenario_hash,
            "scheduler": info.scheduler,
            "driver": info.driver,
            "label": info.label,
            "first_episode": info.first_episode,
            "episodes": info.episodes,
            "state": RunState.RUNNING,
            "started": info.started,
            "seeds": dumps(dict(info.seeds)),
            "versions": dumps(dict(info.versions)),
            "plan": info.plan,
            "scenario": info.scenario,
            "model": info.model,
        }
        with self._transaction() as connection:
            if self._statements.add_one(connection, runs_table, row):
                return
            plan = connection.execute(
                select(runs_table.c.plan).where(runs_table.c.id == info.id)
            ).scalar_one()
            if plan != info.plan:
                raise UsageError(
                    "the run cannot begin",
                    [Problem("run", f"{info.id} is the id of another run", "choose another id")],
                )
            self._set(connection, info.id, state=RunState.RUNNING, ended=None)

    def append(self, run_id: str, records: Sequence[Record], decisions: Sequence[Decided]) -> int:
        """See ``TaskLog``."""
        key = self._patiently(lambda: self._key(run_id))
        # Everything is encoded before the transaction begins, to hold the lock shortly. In order
        # of their keys rows fill their pages; otherwise half of each stays empty.
        histories = sorted(history_rows(key, records))
        placed, routings = _by_table(key, decisions)
        decided, last = decision_rows(key, placed, self._stored.get(key, {}))

        def store() -> int:
            with self._transaction() as connection:
                fresh = _fresh(connection, key, histories)
                self._statements.add(connection, histories_table, fresh)
                new = self._statements.add(connection, decisions_table, decided)
                if new < len(decided) and last:
                    raise _AlreadyThere
                new += self._statements.add(connection, routings_table, routings)
            return new + sum(map(_records, fresh))

        try:
            new = self._patiently(store)
        except _AlreadyThere:
            # Those that are there stay as they are, whatever they say: nothing is told from them.
            decided, last = [decision_row(key, each) for each in placed], {}
            new = self._patiently(store)
        self._stored[key] = last
        return new

    def append_serving(
        self,
        run_id: str,
        requests: Sequence[RequestRow] = (),
        windows: Sequence[WindowRecord] = (),
        routings: Sequence[RoutingRecord] = (),
    ) -> int:
        """See ``TaskLog``."""
        key = self._patiently(lambda: self._key(run_id))
        rows: dict[Table, list[Row]] = {
            requests_table: sorted([(key, *row) for row in requests], key=_of_request),
            windows_table: [window_row(key, window) for window in windows],
            routings_table: [routing_row(key, routing) for routing in routings],
        }

        def store() -> int:
            with self._transaction() as connection:
                return sum(
                    self._statements.add(connection, table, some)
                    for table, some in rows.items()
                    if some
                )

        return self._patiently(store)

    def write_tasks(self, run_id: str, rows: Sequence[TaskRow]) -> None:
        """See ``TaskLog``."""
        if not rows:
            return
        key = self._patiently(lambda: self._key(run_id))
        values = [task_row(key, row) for row in rows]

        def store() -> None:
            with self._transaction() as connection:
                self._statements.put(connection, tasks_table, values)

        self._patiently(store)

    def write_episodes(self, run_id: str, episodes: Sequence[EpisodeColumns]) -> None:
        """See ``EpisodeLog``."""
        key = self._patiently(lambda: self._key(run_id))
        tables = zip(*(each.rows(key) for each in episodes), strict=True)
        histories, decided, ended = (list(chain.from_iterable(parts)) for parts in tables)

        def store() -> None:
            with self._transaction() as connection:
                fresh = _fresh(connection, key, histories)
                self._statements.add(connection, histories_table, fresh)
                self._statements.add(connection, decisions_table, decided)
                self._statements.put(connection, tasks_table, ended)

        self._patiently(store)

    def end_run(
        self, run_id: str, state: RunState, certificate: Mapping[str, Any] | None = None
    ) -> None:
        """See ``TaskLog``."""
        text = None if certificate is None else dumps(dict(certificate))
        ended = utc_now()

        def store() -> None:
            self._stored.pop(self._key(run_id), None)
            with self._transaction() as connection:
                self._set(connection, run_id, state=RunState(state), ended=ended, certificate=text)
            # From now on it can be deleted, and its key be that of another run.
            self._keys.pop(run_id, None)

        self._patiently(store)

    def close_run(
        self, run_id: str, state: RunState, certificate: Mapping[str, Any] | None = None
    ) -> int:
        """See ``TaskLog``."""
        key = self._patiently(lambda: self._key(run_id))

        lost, last = 0, None
        while True:

            def some(after: int | None = last) -> tuple[int, int | None]:
                with self._transaction() as connection, self._readable():
                    return closing.close_some(connection, key, self._statements, after)

            ended, last = self._patiently(some)
            if last is None:
                break
            lost += ended
        self.end_run(run_id, state, certificate)
        return lost

    def hand_in(
        self,
        run_id: str,
        records: Sequence[Record],
        decisions: Sequence[Decided],
        *,
        final: bool | None = None,
    ) -> int:
        """See ``TaskLog``."""
        key = self._patiently(lambda: self._key(run_id))
        placed, routings = _by_table(key, decisions)
        decided = [decision_row(key, decision) for decision in placed]
        touched = [each.task_id for each in placed if each.task_id is not None]

        def store() -> int:
            with self._transaction() as connection, self._readable():
                stands = _is_final(connection, key) if final is None else final
                self._statements.add(connection, decisions_table, decided)
                self._statements.add(connection, routings_table, routings)
                return closing.hand_in(
                    connection, key, self._statements, records, touched, final=stands
                )

        return self._patiently(store)

    def tag_run(
        self, run_id: str, add: Sequence[str] = (), remove: Sequence[str] = ()
    ) -> tuple[str, ...]:
        """See ``TaskLog``."""
        new, old = checked_tags(add), checked_tags(remove)

        def change(connection: Connection, key: int) -> None:
            self._annotations.untag(connection, key, old)
            self._annotations.tag(connection, key, new)

        return self._annotate(run_id, change).tags

    def note_run(self, run_id: str, note: str) -> None:
        """See ``TaskLog``."""
        text = checked_note(note)
        self._annotate(
            run_id, lambda connection, key: self._annotations.note(connection, key, text)
        )

    def _annotate(self, run_id: str, change: Callable[[Connection, int], None]) -> Said:
        """Change what is said of a run; return what is said of it now."""

        def store() -> Said:
            key = self._key(run_id)
            with explained(self.where, self._login):
                self._annotations.make()
            with self._transaction() as connection:
                change(connection, key)
                return self._annotations.read(connection, key).get(key, NOTHING)

        return self._patiently(store)

    def delete_run(self, run_id: str) -> None:
        """See ``TaskLog``."""
        columns = runs_table.c

        def store() -> None:
            key = self._key(run_id)
            over = and_(columns.key == key, columns.state != RunState.RUNNING)
            with self._transaction() as connection:
                if not connection.execute(delete(runs_table).where(over)).rowcount:
                    raise UsageError(
                        "a run that goes on cannot be deleted",
                        [Problem("run", f"{run_id} is running", "end it first")],
                    )
                for table in _STORED.values():
                    connection.execute(delete(table).where(table.c.run == key))
                self._annotations.forget(connection, key)

        self._patiently(store)
        self._keys.pop(run_id, None)

    @staticmethod
    def _set(connection: Connection, run_id: str, **values: str | None) -> None:
        connection.execute(update(runs_table).where(runs_table.c.id == run_id).values(**values))

    # --- runs -------------------------------------------------------------------------------

    def runs(self) -> list[Run]:
        """See ``TaskLog``."""
        with self._reading() as connection:
            rows = connection.execute(select(runs_table).order_by(runs_table.c.key)).all()
            said = self._annotations.read(connection)
            return [_run(row._mapping, said.get(row.key, NOTHING)) for row in rows]

    def run(self, run_id: str) -> Run:
        """See ``TaskLog``."""
        columns = runs_table.c
        query = select(runs_table).order_by(columns.key.desc())
        with self._reading() as connection:
            if run_id == LATEST:
                found = connection.execute(query.limit(1)).all()
            else:
                found = connection.execute(query.where(columns.id == run_id)).all()
                if not found:
                    begins_so = columns.id.startswith(run_id, autoescape=True)
                    found = connection.execute(query.where(begins_so)).all()
            latest = connection.execute(
                select(columns.id).order_by(columns.key.desc()).limit(_LATEST_SHOWN)
            ).scalars()
            known = ", ".join(latest) or "none yet: run a scenario first"
            if len(found) == 1:
                key = found[0].key
                said = self._annotations.read(connection, key).get(key, NOTHING)
                return _run(found[0]._mapping, said)
        if found:
            several = ", ".join(row.id for row in found[:_LATEST_SHOWN])
            problem = Problem("run", f"{run_id!r} matches {len(found)} runs: {several}", "say more")
        else:
            problem = Problem(
                "run", f"no run {run_id!r} in {self.where}", f"the latest are {known}"
            )
        raise UsageError("ambiguous run" if found else "unknown run", [problem])

    def outcomes(self, run_id: str) -> dict[Outcome, int]:
        """See ``TaskLog``."""
        self._key(run_id)
        return self.outcomes_by_run([run_id])[run_id]

    def outcomes_by_run(self, run_ids: Sequence[str]) -> dict[str, dict[Outcome, int]]:
        """See ``TaskLog``."""
        return self._counted(tasks_table, Outcome, run_ids)

    def request_outcomes(self, run_ids: Sequence[str]) -> dict[str, dict[RequestOutcome, int]]:
        """See ``TaskLog``."""
        return self._counted(requests_table, RequestOutcome, run_ids)

    def _counted(
        self, table: Table, kind: type[_Outcome], run_ids: Sequence[str]
    ) -> dict[str, dict[_Outcome, int]]:
        """Return the rows of a table by outcome, for each of these runs."""
        runs, columns = runs_table.c, table.c
        counted = select(runs.id, columns.outcome, func.count()).where(columns.run == runs.key)
        counts = {run: dict.fromkeys(kind, 0) for run in run_ids}
        with self._reading() as connection:
            for start in range(0, len(run_ids), CHUNK):
                named = runs.id.in_(run_ids[start : start + CHUNK])
                query = counted.where(named).group_by(runs.id, columns.outcome)
                for run, outcome, count in connection.execute(query):
                    counts[run][kind(outcome)] = count
        return counts

    def counts(self, run_id: str) -> dict[LogTable, int]:
        """See ``TaskLog``."""
        key = self._key(run_id)
        found = {}
        with self._reading() as connection:
            model = connection.scalar(select(runs_table.c.model).where(runs_table.c.key == key))
            for name in TABLES_OF.named(str(model)):
                table = _STORED[name]
                number = func.sum(table.c.records) if name == "events" else func.count()
                query = select(number).select_from(table).where(table.c.run == key)
                found[name] = int(connection.execute(query).scalar_one() or 0)
        return found

    # --- reading ----------------------------------------------------------------------------

    def tasks(self, run_id: str, *, episode: int | None = None) -> Iterator[TaskRow]:
        """See ``TaskLog``."""
        for chunk in self._stream(tasks_table, run_id, {"episode": episode}, _FETCH):
            yield from map(task_of, chunk)

    def records(
        self, run_id: str, *, episode: int | None = None, task_id: int | None = None
    ) -> Iterator[Record]:
        """See ``TaskLog``."""
        only = {"episode": episode, "task": task_id}
        for chunk in self._stream(histories_table, run_id, only, _FETCH // _RECORDS):
            for row in chunk:
                yield from records_of(row)

    def decisions(
        self, run_id: str, *, episode: int | None = None, node: int | None = None
    ) -> Iterator[DecisionRecord]:
        """See ``TaskLog``."""
        return self.decisions_of(placing.HOOK, run_id, episode=episode, node=node)

    def decisions_of(
        self,
        hook: Hook[Recorded],
        run_id: str,
        *,
        episode: int | None = None,
        node: int | None = None,
    ) -> Iterator[Recorded]:
        """See ``TaskLog``."""
        only = {"episode": episode, "node": node}
        table, reader = _DECIDED[hook.name]
        read = reader()
        for chunk in self._stream(table, run_id, only, _FETCH):
            yield from map(read, chunk)

    def requests(self, run_id: str, *, episode: int | None = None) -> Iterator[RequestRow]:
        """See ``TaskLog``."""
        for chunk in self._stream(requests_table, run_id, {"episode": episode}, _FETCH):
            yield from map(request_of, chunk)

    def windows(
        self, run_id: str, *, episode: int | None = None, node: int | None = None
    ) -> Iterator[WindowRecord]:
        """See ``TaskLog``."""
        only = {"episode": episode, "node": node}
        for chunk in self._stream(windows_table, run_id, only, _FETCH):
            yield from map(window_of, chunk)

    def routings(
        self, run_id: str, *, episode: int | None = None, node: int | None = None
    ) -> Iterator[RoutingRecord]:
        """See ``TaskLog``."""
        return self.decisions_of(route.HOOK, run_id, episode=episode, node=node)

    def columns(self, table: LogTable) -> tuple[str, ...]:
        """See ``TaskLog``."""
        return tuple(column.name for column in TABLES[table].columns)

    def rows(
        self, table: LogTable, run_id: str, *, chunk: int = 20_000, only: Sequence[str] = ()
    ) -> Iterator[Sequence[Row]]:
        """See ``TaskLog``. The first column is the run's id."""
        source = TABLES[table]
        key = [column.name for column in source.primary_key.columns]
        names = [*key, *only] if only else list(self.columns(table))
        name = literal(run_id).label("run")
        if table == "events" or (table == "decisions" and "observation" in names):
            stored = _STORED[table]
            size = max(1, chunk // _RECORDS) if table == "events" else chunk
            query = select(name, *list(stored.columns)[1:])
            wanted = [self.columns(table).index(each) for each in names]
            stream = chain.from_iterable(self._stream(stored, run_id, {}, size, query))
            told: Iterator[Row]
            if table == "events":
                told = chain.from_iterable(map(event_rows, stream))
            else:
                told = map(DecisionReader().complete, stream)
            if only:
                told = (tuple(row[i] for i in wanted) for row in told)
            while found := list(islice(told, chunk)):
                yield found
        else:
            query = select(name, *(source.c[each] for each in names[1:]))
            yield from self._stream(source, run_id, {}, chunk, query)

    def _stream(
        self,
        table: Table,
        run_id: str,
        only: Mapping[str, int | None],
        chunk: int,
        query: Select[Any] | None = None,
    ) -> Iterator[Sequence[tuple[Any, ...]]]:
        """Rows of one run in the order of their key, never more than ``chunk`` in memory.

        A statement for each chunk that goes on behind the last key, not one whose rows are fetched
        bit by bit: between two chunks nothing is open on a server. A reader may take its time or
        stop early, and a server that goes away leaves no half-read result behind.
        """
        columns = table.c
        conditions: list[ColumnElement[bool]] = [columns.run == self._key(run_id)]
        conditions += [columns[name] == value for name, value in only.items() if value is not None]
        key = list(table.primary_key.columns)[1:]
        query = (select(table) if query is None else query).where(*conditions)
        query = query.order_by(*key).limit(chunk)
        page = query
        while True:
            with self._reading() as connection:
                rows: Sequence[Any] = connection.execute(page).all()
            if rows:
                yield rows
            if len(rows) < chunk:
                return
            # The run is the first column, the rest of the key stands next to it.
            page = query.where(_behind(key, rows[-1][1 : 1 + len(key)]))

    # --- connections ------------------------------------------------------------------------

    def close(self) -> None:
        """See ``TaskLog``; what is read afterwards opens the log for itself."""
        self._closed = True
        self.engine.dispose()
        self._forget()
        release(Path(self.where))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _key(self, run_id: str) -> int:
        key = self._keys.get(run_id)
        if key is None:
            columns = runs_table.c
            with self._reading() as connection:
                found = connection.execute(
                    select(columns.key, columns.state).where(columns.id == run_id)
                ).one_or_none()
            if found is None:
                raise UsageError(
                    "unknown run",
                    [Problem("run", f"no run {run_id!r} in {self.where}", "begin it first")],
                )
            key = int(found.key)
            if found.state == RunState.RUNNING:
                # Another process may delete one that is over, and its key be used again.
                self._keys[run_id] = key
        return key

    def _patiently(self, write: Callable[[], _Result]) -> _Result:
        """Return the result of ``write``, repeated while the trouble is a temporary one."""
        until = time.monotonic() + self._patience_s
        pause = _FIRST_PAUSE_S
        while True:
            try:
                return write()
            except TemporaryError as error:
                if time.monotonic() + pause > until:
                    raise
                if pause == _FIRST_PAUSE_S:
                    self._tell(error)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _tell(self, error: TemporaryError) -> None:
        # Loading it takes as long as reading a list of runs.
        import structlog

        structlog.get_logger("testbed.tasklog").warning(
            "waiting for the task log", problem=str(error), at_most_s=self._patience_s
        )

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        self._closed = False
        self._look()
        with explained(self.where, self._login), self.engine.begin() as connection:
            yield connection
        self._look()

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Turn what cannot be made of a row into an error of this toolkit."""
        try:
            yield
        except (ValueError, KeyError, TypeError) as error:
            raise PermanentError(
                f"task log {self.where}: a row is not as this toolkit writes it ({error!r})",
                fix="restore a copy, or move the log away to begin a new one",
            ) from error

    def _look(self) -> None:
        if self._watch is not None:
            try:
                self._watch.check()
            except PermanentError:
                self._forget()
                raise

    def _forget(self) -> None:
        """Forget what was known of the log; another one may be opened next."""
        self._keys.clear()
        self._stored.clear()
        self._annotations.close()
        if self._watch is not None:
            self._watch.forget()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        self._readers += 1
        try:
            with explained(self.where, self._login), self.engine.connect() as connection:
                yield connection
        finally:
            self._readers -= 1
            if self._closed and not self._readers:
                # Nobody closes it a second time.
                self.engine.dispose()


# --- rows and values ------------------------------------------------------------------------


def _run(row: Mapping[Any, Any], said: Said) -> Run:
    certificate = row["certificate"]
    return Run(
        info=RunInfo(
            id=row["id"],
            name=row["name"],
            scenario_hash=row["scenario_hash"],
            scheduler=row["scheduler"],
            driver=row["driver"],
            plan=row["plan"],
            seeds=json.loads(row["seeds"]),
            episodes=row["episodes"],
            first_episode=row["first_episode"],
            label=row["label"],
            scenario=row["scenario"],
            versions=json.loads(row["versions"]),
            started=row["started"],
            model=row["model"],
        ),
        state=RunState(row["state"]),
        ended=row["ended"],
        certificate=None if certificate is None else json.loads(certificate),
        tags=said.tags,
        note=said.note,
    )


def _is_final(connection: Connection, key: int) -> bool:
    """Return whether what a run has told of its tasks stands; see ``TaskLog.hand_in``."""
    columns = runs_table.c
    state, text = connection.execute(
        select(columns.state, columns.certificate).where(columns.key == key)
    ).one()
    told = (json.loads(text) if text else {}).get("tasks_closed")
    if told is not None:
        return bool(told)
    return RunState(state) not in {RunState.RUNNING, RunState.FAILED, RunState.INTERRUPTED}


def _fresh(connection: Connection, key: int, histories: Sequence[Row]) -> list[Row]:
    """Return what of these rows of ``histories`` is not in the log yet."""
    if not histories:
        return []
    columns = histories_table.c
    tasks = sorted({row[1] for row in histories})
    mine = columns.run == key
    some = select(columns.task).where(mine, columns.task.between(tasks[0], tasks[-1])).limit(1)
    if connection.execute(some).first() is None:
        return list(histories)
    known: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    query = select(columns.task, columns.seq, columns.records)
    for start in range(0, len(tasks), CHUNK):
        named = columns.task.in_(tasks[start : start + CHUNK])
        for task, seq, records in connection.execute(query.where(mine, named)):
            known[task].append((seq, records))
    return [part for row in histories for part in unknown(row, known[row[1]])]


def _by_table(
    key: int, decisions: Sequence[Decided]
) -> tuple[Sequence[DecisionRecord], Sequence[Row]]:
    """Return the decisions about tasks, and the rows of the routings."""
    if not any(isinstance(each, RoutingRecord) for each in decisions):
        return cast("Sequence[DecisionRecord]", decisions), ()
    placed = [each for each in decisions if isinstance(each, DecisionRecord)]
    routed = [routing_row(key, each) for each in decisions if isinstance(each, RoutingRecord)]
    return placed, routed


def _of_request(row: Row) -> Row:
    """Return the key of a row of ``requests``."""
    return row[:3]


def _records(row: Row) -> int:
    """Return the number of records in a row of ``histories``."""
    return int(row[3])
