"""Runs of a task log as files: CSV, JSON Lines and Parquet, with a file that says what they hold.

A run can also be written as a trace for viewers of time lines (``trace``).

The folder appears complete or not at all; ``metadata.json`` in it names the runs, every column with
its unit, and the sha256 of each file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol, Self, TypeAlias, cast

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from sqlalchemy import BigInteger, Column, Integer, Table

from testbed.errors import Problem, UsageError
from testbed.scenario.plan import TASKS
from testbed.storage.folders import describe_files, new_folder, write_metadata
from testbed.storage.tasklog.base import (
    TABLES_OF,
    LogTable,
    Run,
    TaskLog,
    outcomes_of,
    utc_now,
)
from testbed.storage.tasklog.schema import TABLES as COLUMNS
from testbed.storage.trace.writing import TRACES, write_trace
from testbed.version import __version__

KIND: Final = "edge-testbed export"
EXPORT_VERSION: Final = 1
TABLES: Final = TABLES_OF.named(TASKS)
"""Tables of runs of tasks."""
FORMATS: Final = ("csv", "jsonl", "parquet")
"""Formats of tables."""
MASK: Final = "mask"
"""The column of decisions that is a column for each node in CSV."""
TRACE: Final = "trace"
"""The format that is no table: one file for each run, ``trace-RUN.json``."""
ALL_FORMATS: Final = (*FORMATS, TRACE)
_CHUNK: Final = 20_000

ProgressCallback: TypeAlias = Callable[[str, int, int], None]
"""Told after every piece of work: what it is, how much is done, how much there is."""


@dataclass(frozen=True, slots=True)
class DerivedTable:
    """A table that no log has: ``rows`` makes it of others when it is read, for runs of ``model``.

    ``rows`` returns pieces of it; the first of ``columns`` is the run's id.
    """

    columns: Table
    model: str
    rows: Callable[[TaskLog, Run], Iterable[Sequence[tuple[Any, ...]]]]


def no_progress(what: str, done: int, total: int) -> None:
    """Report no progress."""


def export(
    task_log: TaskLog,
    run_ids: Sequence[str],
    folder: Path,
    *,
    formats: Sequence[str] = FORMATS,
    tables: Sequence[str] = (),
    derived: Mapping[str, DerivedTable] = MappingProxyType({}),
    overwrite: bool = False,
    progress: ProgressCallback = no_progress,
) -> dict[str, Any]:
    """Write ``tables`` of these runs into ``folder``, in every one of ``formats``; all runs in one
    file per table and format, in the order given; a trace for each run. Returns the metadata.

    No ``tables``: all that runs of their families have, and those ``derived`` from them, by name.

    Raises:
        UsageError: no run, an unknown run or format, a trace of a run whose plan cannot be read, or
            ``folder`` is taken (with ``overwrite`` only by something that is no export).
        PermanentError: the folder cannot be written, or the log cannot be read.
    """
    known = {**COLUMNS, **{name: each.columns for name, each in derived.items()}}
    _check(run_ids, formats, tables, known)
    runs = list({run.id: run for run in map(task_log.run, run_ids)}.values())
    tables = tables or list(
        dict.fromkeys(name for run in runs for name in _tables_of(run, derived))
    )
    counts = {run.id: dict[str, int](task_log.counts(run.id).items()) for run in runs}
    outcomes = outcomes_of(task_log, runs)
    with new_folder(folder, KIND, overwrite=overwrite) as partial:
        described = {}
        tabular = [name for name in formats if name != TRACE]
        for table in tables if tabular else ():
            columns = known[table]
            total = sum(counts[run.id].get(table, 0) for run in runs)
            rows = _reader(task_log, table, derived)
            nodes = _nodes_in_masks(task_log, runs) if MASK in columns.c and "csv" in formats else 0
            stored = (stored for run in runs for stored in rows(run))
            number = _write(columns, stored, partial, tabular, nodes, total, progress)
            described[table] = {"rows": number, "columns": _described(columns)}
        traces = {}
        for run in runs if TRACE in formats else ():
            total = counts[run.id].get(TRACES.of(run)[0], 0)

            def tell(done: int, total: int = total) -> None:
                progress(TRACE, done, max(done, total))

            name = f"trace-{run.id}.json"
            events = write_trace(task_log, run, partial / name, tell)
            traces[run.id] = {"file": name, "events": events}
        metadata = {
            "kind": KIND,
            "version": EXPORT_VERSION,
            "created": utc_now(),
            "edge_testbed": __version__,
            "runs": [
                {
                    **describe_run(run),
                    "counts": counts[run.id],
                    "outcomes": outcomes[run.id],
                    "plan": json.loads(run.info.plan),
                    "scenario": run.info.scenario,
                    "faults": [dict(fault) for fault in run.faults],
                }
                for run in runs
            ],
            "tables": described,
            "traces": traces,
            "files": describe_files(partial),
        }
        write_metadata(partial, metadata)
    return metadata


def _tables_of(run: Run, derived: Mapping[str, DerivedTable]) -> Iterator[str]:
    yield from TABLES_OF.of(run)
    yield from (name for name, table in derived.items() if table.model == run.model)


def _reader(
    task_log: TaskLog, table: str, derived: Mapping[str, DerivedTable]
) -> Callable[[Run], Iterable[Sequence[tuple[Any, ...]]]]:
    """Return what reads ``table`` of a run, in pieces."""
    made = derived.get(table)
    if made is not None:
        return lambda run: made.rows(task_log, run) if run.model == made.model else ()
    return lambda run: task_log.rows(cast("LogTable", table), run.id, chunk=_CHUNK)


def _check(
    run_ids: Sequence[str],
    formats: Sequence[str],
    tables: Sequence[str],
    known: Mapping[str, Table],
) -> None:
    problems = [
        Problem("format", repr(name), f"known are {', '.join(ALL_FORMATS)}")
        for name in formats
        if name not in ALL_FORMATS
    ]
    problems += [
        Problem("table", repr(name), f"known are {', '.join(known)}")
        for name in tables
        if name not in known
    ]
    if not run_ids:
        problems.append(Problem("runs", "none given", "name at least one, or `latest`"))
    if not formats:
        problems.append(Problem("formats", "nothing to write", "name a format"))
    if problems:
        raise UsageError("the export cannot be written", problems)


def describe_run(run: Run) -> dict[str, Any]:
    """Return the metadata of a run: everything but its plan."""
    info = run.info
    return {
        "id": run.id,
        "name": info.name,
        "label": info.label,
        "scenario_hash": info.scenario_hash,
        "seeds": dict(info.seeds),
        "scheduler": info.scheduler,
        "driver": info.driver,
        "first_episode": info.first_episode,
        "episodes": info.episodes,
        "state": run.state.value,
        "started": info.started,
        "ended": run.ended,
        "versions": dict(info.versions),
        "certificate": None if run.certificate is None else dict(run.certificate),
    }


def _described(columns: Table) -> list[dict[str, str]]:
    """Name, type, unit and meaning of every column of an exported table."""
    described: list[dict[str, str]] = []
    for column in columns.c:
        unit = column.info.get("unit", "")
        described.append(
            {
                "name": str(column.name),
                "type": "json" if _is_json(column) else str(_arrow_type(column)),
                "unit": "microseconds" if unit == "us" else str(unit),
                "description": "id of the run" if column.name == "run" else column.comment or "",
            }
        )
    return described


def _is_json(column: Column[Any]) -> bool:
    return column.info.get("format") == "json"


def _arrow_type(column: Column[Any]) -> pa.DataType:
    is_number = isinstance(column.type, Integer | BigInteger) and column.name != "run"
    return pa.int64() if is_number else pa.string()


def arrow_schema(table: LogTable) -> pa.Schema:
    """Return the schema of an exported table; fields carry unit, format and meaning as metadata."""
    return _schema(COLUMNS[table])


def _schema(columns: Table) -> pa.Schema:
    return pa.schema(
        [
            pa.field(
                column.name,
                _arrow_type(column),
                nullable=bool(column.nullable),
                metadata={
                    "unit": about["unit"],
                    "format": "json" if about["type"] == "json" else "",
                    "description": about["description"],
                },
            )
            for column, about in zip(columns.c, _described(columns), strict=True)
        ]
    )


def arrow_batches(
    task_log: TaskLog, table: LogTable, run_id: str, *, chunk: int = _CHUNK
) -> Iterator[pa.RecordBatch]:
    """Return a table of one run as Arrow batches of ``arrow_schema``, never all of it in memory."""
    schema = arrow_schema(table)
    for rows in task_log.rows(table, run_id, chunk=chunk):
        yield _batch(rows, schema)


def _batch(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    arrays = [
        pa.array(values, type=field.type)
        for values, field in zip(zip(*rows, strict=True), schema, strict=True)
    ]
    return pa.record_batch(arrays, schema=schema)


class _Writer(Protocol):
    """Writes chunks of rows into one file."""

    def write(self, rows: Sequence[tuple[Any, ...]], batch: pa.RecordBatch) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...


class _ArrowWriter:
    """Writes by a writer of Arrow."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, rows: Sequence[tuple[Any, ...]], batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()


class _CsvWriter(_ArrowWriter):
    """Has a column for each node of a mask: text like ``0110`` would be read as a number."""

    def __init__(self, path: Path, schema: pa.Schema, nodes: int) -> None:
        self._mask = schema.get_field_index(MASK)
        self._bits = [pa.field(f"{MASK}_{node}", pa.int8()) for node in range(nodes)]
        super().__init__(pa.csv.CSVWriter(path, pa.schema(self._with(list(schema), self._bits))))

    def write(self, rows: Sequence[tuple[Any, ...]], batch: pa.RecordBatch) -> None:
        if self._mask >= 0:
            masks = batch.column(self._mask).to_pylist()
            bits = [
                pa.array([_bit(mask, node) for mask in masks], type=pa.int8())
                for node in range(len(self._bits))
            ]
            columns = self._with(batch.columns, bits)
            schema = self._with(list(batch.schema), self._bits)
            batch = pa.record_batch(columns, schema=pa.schema(schema))
        super().write(rows, batch)

    def _with(self, columns: list[Any], bits: list[Any]) -> list[Any]:
        """Return ``columns`` with ``bits`` in place of the mask."""
        if self._mask < 0:
            return columns
        return [*columns[: self._mask], *bits, *columns[self._mask + 1 :]]


def _bit(mask: str | None, node: int) -> int | None:
    return None if mask is None or node >= len(mask) else int(mask[node])


class _ParquetWriter(_ArrowWriter):
    def __init__(self, path: Path, schema: pa.Schema, nodes: int) -> None:
        about = {"kind": KIND, "version": str(EXPORT_VERSION), "edge_testbed": __version__}
        super().__init__(
            pa.parquet.ParquetWriter(path, schema.with_metadata(about), compression="zstd")
        )


class _JsonLinesWriter:
    """One object per line. What is stored as JSON text becomes part of it, not a string in it."""

    def __init__(self, path: Path, schema: pa.Schema, nodes: int) -> None:
        self._file = path.open("w", encoding="utf-8", newline="\n")
        self._names = [json.dumps(name) for name in schema.names]
        self._is_json = [field.metadata[b"format"] == b"json" for field in schema]

    def write(self, rows: Sequence[tuple[Any, ...]], batch: pa.RecordBatch) -> None:
        names, is_json, dumps = self._names, self._is_json, json.dumps
        for row in rows:
            members = [
                f"{name}: {value if embed and value is not None else dumps(value)}"
                for name, value, embed in zip(names, row, is_json, strict=True)
            ]
            self._file.write(f"{{{', '.join(members)}}}\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


_WRITERS: Final[dict[str, Callable[[Path, pa.Schema, int], _Writer]]] = {
    "csv": _CsvWriter,
    "jsonl": _JsonLinesWriter,
    "parquet": _ParquetWriter,
}


def _write(
    columns: Table,
    chunks: Iterable[Sequence[tuple[Any, ...]]],
    folder: Path,
    formats: Sequence[str],
    nodes: int,
    total: int,
    progress: ProgressCallback,
) -> int:
    """Write one table in all formats, reading it once; returns the number of rows."""
    table, schema = columns.name, _schema(columns)
    done = 0
    progress(table, done, total)
    with ExitStack() as stack:
        writers = [
            stack.enter_context(_WRITERS[name](folder / f"{table}.{name}", schema, nodes))
            for name in dict.fromkeys(formats)
        ]
        for rows in chunks:
            batch = _batch(rows, schema)
            for writer in writers:
                writer.write(rows, batch)
            done += len(rows)
            # More than counted: the run goes on while it is exported, or the table is derived.
            progress(table, done, max(done, total))
    return done


def _nodes_in_masks(task_log: TaskLog, runs: Sequence[Run]) -> int:
    """Return the length of the longest mask in the decisions of ``runs``."""
    return max(
        (
            len(row[-1] or "")
            for run in runs
            for rows in task_log.rows("decisions", run.id, chunk=_CHUNK, only=(MASK,))
            for row in rows
        ),
        default=0,
    )
