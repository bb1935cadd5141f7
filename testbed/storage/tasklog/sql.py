"""The task log in a relational database, through SQLAlchemy Core.

Guarantees what ``TaskLog`` promises on SQLite and MySQL/MariaDB alike; the only SQL that differs
between them is in ``insert_new``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Self, TypeVar

import structlog
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    and_,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.sql.dml import Insert
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_exponential,
)

from testbed.errors import PermanentError, Problem, TemporaryError, UsageError
from testbed.model import hooks, placing
from testbed.model.codec import (
    decode_answers,
    decode_observation,
    dumps,
    encode_answers,
    encode_observation,
)
from testbed.model.events import DecisionRecord, Record, RecordKind
from testbed.model.history import TaskRow
from testbed.model.hook import Decided, Hook, Recorded
from testbed.model.run_state import RunState
from testbed.model.task import Outcome, Task
from testbed.storage.tasklog import closing
from testbed.storage.tasklog.base import LATEST, LogTable, Run, RunInfo, utc_now
from testbed.storage.tasklog.failures import explained
from testbed.storage.tasklog.schema import decisions as decisions_table
from testbed.storage.tasklog.schema import events as events_table
from testbed.storage.tasklog.schema import runs as runs_table
from testbed.storage.tasklog.schema import tasks as tasks_table
from testbed.storage.tasklog.watching import FileWatch

_Result = TypeVar("_Result")
_log = structlog.get_logger("testbed.tasklog")

_LATEST_SHOWN: Final = 5
_FORGET: Final = 500
"""Rows named in one statement; SQLite takes at least 999 values in one."""
_FETCH: Final = 5_000

_TABLES: Final[dict[LogTable, Table]] = {
    "tasks": tasks_table,
    "events": events_table,
    "decisions": decisions_table,
}
_TASK_COLUMNS: Final = tuple(column.name for column in tasks_table.columns)


def insert_new(table: Table, dialect: str) -> Insert:
    """Return an insert that skips rows whose key is there already and counts the new ones.

    Not IGNORE on MySQL: it would also store what does not fit, cut to size.
    """
    if dialect == "sqlite":
        return insert(table).prefix_with("OR IGNORE")
    first = next(iter(table.primary_key.columns))
    return mysql.insert(table).on_duplicate_key_update({first.name: first})


def _behind(key: Sequence[ColumnElement[Any]], last: Sequence[Any]) -> ColumnElement[bool]:
    """Return the condition that a row comes after the one with the key ``last``.

    Not ``(a, b) > (x, y)``: MariaDB would look at every row for it and not begin in the index.
    """
    first, value = key[0], last[0]
    behind: ColumnElement[bool] = first > value
    if len(key) > 1:
        behind = and_(first >= value, or_(behind, _behind(key[1:], last[1:])))
    return behind


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
        self._keys: dict[str, int] = {}
        self._dialect = engine.dialect.name
        self._rows = closing.RowCodec(
            _record, _decision, _event_row, _task_row, lambda t: insert_new(t, self._dialect)
        )

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
        }
        with self._transaction() as connection:
            if connection.execute(insert_new(runs_table, self._dialect), row).rowcount:
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
        # Everything is encoded before the transaction begins, to hold the lock shortly.
        events = [_event_row(key, record) for record in records]
        decided = [_decision_row(key, decision) for decision in decisions]

        def store() -> int:
            new = 0
            with self._transaction() as connection:
                for table, rows in ((events_table, events), (decisions_table, decided)):
                    if rows:
                        statement = insert_new(table, self._dialect)
                        new += connection.execute(statement, rows).rowcount
            return new

        return self._patiently(store)

    def write_tasks(self, run_id: str, rows: Sequence[TaskRow]) -> None:
        """See ``TaskLog``."""
        if not rows:
            return
        key = self._patiently(lambda: self._key(run_id))
        values = [_task_row(key, row) for row in rows]
        columns = tasks_table.c

        def store() -> None:
            with self._transaction() as connection:
                for start in range(0, len(rows), _FORGET):
                    named = [row.task_id for row in rows[start : start + _FORGET]]
                    connection.execute(
                        delete(tasks_table).where(columns.run == key, columns.task.in_(named))
                    )
                connection.execute(insert(tasks_table), values)

        self._patiently(store)

    def end_run(
        self, run_id: str, state: RunState, certificate: Mapping[str, Any] | None = None
    ) -> None:
        """See ``TaskLog``."""
        text = None if certificate is None else dumps(dict(certificate))
        ended = utc_now()

        def store() -> None:
            self._key(run_id)
            with self._transaction() as connection:
                self._set(connection, run_id, state=RunState(state), ended=ended, certificate=text)

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
                    return closing.close_some(connection, key, self._rows, after)

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
        decided = [_decision_row(key, decision) for decision in decisions]
        touched = [each.task_id for each in decisions if each.task_id is not None]

        def store() -> int:
            with self._transaction() as connection, self._readable():
                stands = _is_final(connection, key) if final is None else final
                if decided:
                    statement = insert_new(decisions_table, self._dialect)
                    connection.execute(statement, decided)
                return closing.hand_in(connection, key, self._rows, records, touched, final=stands)

        return self._patiently(store)

    @staticmethod
    def _set(connection: Connection, run_id: str, **values: str | None) -> None:
        connection.execute(update(runs_table).where(runs_table.c.id == run_id).values(**values))

    # --- runs -------------------------------------------------------------------------------

    def runs(self) -> list[Run]:
        """See ``TaskLog``."""
        with self._reading() as connection:
            rows = connection.execute(select(runs_table).order_by(runs_table.c.key))
            return [_run(row._mapping) for row in rows]

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
            return _run(found[0]._mapping)
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
        columns = tasks_table.c
        query = (
            select(columns.outcome, func.count())
            .where(columns.run == self._key(run_id))
            .group_by(columns.outcome)
        )
        counts = dict.fromkeys(Outcome, 0)
        with self._reading() as connection:
            for outcome, count in connection.execute(query):
                counts[Outcome(outcome)] = count
        return counts

    def counts(self, run_id: str) -> dict[LogTable, int]:
        """See ``TaskLog``."""
        key = self._key(run_id)
        with self._reading() as connection:
            return {
                name: connection.execute(
                    select(func.count()).select_from(table).where(table.c.run == key)
                ).scalar_one()
                for name, table in _TABLES.items()
            }

    # --- reading ----------------------------------------------------------------------------

    def tasks(self, run_id: str, *, episode: int | None = None) -> Iterator[TaskRow]:
        """See ``TaskLog``."""
        for chunk in self._stream(tasks_table, run_id, {"episode": episode}, _FETCH):
            for row in chunk:
                yield TaskRow._make((*row[1:6], Outcome(row[6]), *row[7:]))

    def records(
        self, run_id: str, *, episode: int | None = None, task_id: int | None = None
    ) -> Iterator[Record]:
        """See ``TaskLog``."""
        only = {"episode": episode, "task": task_id}
        for chunk in self._stream(events_table, run_id, only, _FETCH):
            for row in chunk:
                yield _record(row)

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
        for chunk in self._stream(decisions_table, run_id, only, _FETCH):
            for row in chunk:
                decision = _decided(row)
                if isinstance(decision, hook.record):
                    yield decision

    def columns(self, table: LogTable) -> tuple[str, ...]:
        """See ``TaskLog``."""
        return tuple(column.name for column in _TABLES[table].columns)

    def rows(
        self, table: LogTable, run_id: str, *, chunk: int = 20_000, only: Sequence[str] = ()
    ) -> Iterator[Sequence[tuple[Any, ...]]]:
        """See ``TaskLog``. The first column is the run's id."""
        source = _TABLES[table]
        name = literal(run_id).label("run")
        key = list(source.primary_key.columns)[1:]
        columns = [*key, *(source.c[each] for each in only)] if only else list(source.columns)[1:]
        query = select(name, *columns)
        return self._stream(source, run_id, {}, chunk, query)

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
        """See ``TaskLog``."""
        self.engine.dispose()
        self._forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _key(self, run_id: str) -> int:
        key = self._keys.get(run_id)
        if key is None:
            with self._reading() as connection:
                key = connection.execute(
                    select(runs_table.c.key).where(runs_table.c.id == run_id)
                ).scalar_one_or_none()
            if key is None:
                raise UsageError(
                    "unknown run",
                    [Problem("run", f"no run {run_id!r} in {self.where}", "begin it first")],
                )
            self._keys[run_id] = key
        return key

    def _patiently(self, write: Callable[[], _Result]) -> _Result:
        """Return the result of ``write``, repeated while the trouble is a temporary one."""
        waiting = Retrying(
            retry=retry_if_exception_type(TemporaryError),
            stop=stop_after_delay(self._patience_s),
            wait=wait_exponential(multiplier=0.05, max=1.0),
            before_sleep=self._tell,
            reraise=True,
        )
        return waiting(write)

    def _tell(self, state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            _log.warning(
                "waiting for the task log",
                problem=str(state.outcome.exception()),
                at_most_s=self._patience_s,
            )

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
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
        if self._watch is not None:
            self._watch.forget()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with explained(self.where, self._login), self.engine.connect() as connection:
            yield connection


# --- rows and values ------------------------------------------------------------------------


def _run(row: Mapping[Any, Any]) -> Run:
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
        ),
        state=RunState(row["state"]),
        ended=row["ended"],
        certificate=None if certificate is None else json.loads(certificate),
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


def _task_row(key: int, row: TaskRow) -> dict[str, object]:
    return dict(zip(_TASK_COLUMNS, (key, *row), strict=True))


def _event_row(key: int, record: Record) -> dict[str, object]:
    task = record.task
    return {
        "run": key,
        "task": task.id,
        "seq": record.seq,
        "kind": record.kind,
        "node": record.node,
        "at": record.at,
        "clock": record.clock,
        "data": dumps(record.data),
        "episode": task.episode,
        "slot": task.slot,
        "source": task.source,
        "size_bytes": task.size_bytes,
        "cycles": task.cycles,
        "deadline": task.deadline,
    }


def _record(row: Sequence[Any]) -> Record:
    (_, task, seq, kind, node, at, clock, data, episode, slot, source, size, cycles, deadline) = row
    return Record(
        RecordKind(kind),
        Task(task, episode, slot, source, size, cycles, deadline),
        seq,
        node,
        at,
        clock,
        json.loads(data),
    )


def _decision_row(key: int, decision: Decided) -> dict[str, object]:
    if not isinstance(decision, DecisionRecord):
        return _document_row(key, decision)
    observation, mask, probabilities = (
        decision.observation,
        decision.mask,
        decision.probabilities,
    )
    return {
        "run": key,
        "episode": decision.episode,
        "node": decision.node,
        "slot": decision.slot,
        "task": decision.task_id,
        "at": decision.at,
        "scheduler": decision.scheduler,
        "destination": decision.destination,
        "mask": None if mask is None else "".join("1" if allowed else "0" for allowed in mask),
        "probabilities": None if probabilities is None else dumps(probabilities),
        # The answers have a column of their own and are not stored twice.
        "observation": encode_observation(observation._replace(answers=())),
        "probes": encode_answers(observation.answers),
    }


def _document_row(key: int, decision: Decided) -> dict[str, object]:
    """Return the row of a decision that places no task: its document as the observation."""
    return {
        "run": key,
        "episode": decision.episode,
        "node": decision.node,
        "slot": decision.number,
        "task": None,
        "at": decision.at,
        "scheduler": decision.scheduler,
        "destination": None,
        "mask": None,
        "probabilities": None,
        "observation": dumps(hooks.to_document(decision)),
        "probes": "[]",
    }


def _decided(row: Sequence[Any]) -> Decided:
    seen = row[-2]
    # What a node saw before it placed a task begins with the number of the node.
    if seen.startswith('{"hook":'):
        return hooks.from_document(json.loads(seen))
    return _decision(row)


def _decision(row: Sequence[Any]) -> DecisionRecord:
    (_, episode, node, slot, task, at, scheduler, destination, mask, odds, seen, probes) = row
    observation = decode_observation(seen)
    if probes != "[]":
        observation = observation._replace(answers=decode_answers(probes))
    return DecisionRecord(
        task_id=task,
        node=node,
        episode=episode,
        slot=slot,
        at=at,
        scheduler=scheduler,
        observation=observation,
        destination=destination,
        probabilities=None if odds is None else tuple(json.loads(odds)),
        mask=None if mask is None else tuple(allowed == "1" for allowed in mask),
    )
