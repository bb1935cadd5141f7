"""Exports hold what the log holds, in every format, and appear complete or not at all."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pandas
import pyarrow.parquet
import pytest

from testbed.errors import PermanentError, UsageError
from testbed.storage.export import TABLES, arrow_batches, arrow_schema, export
from testbed.storage.tasklog import LogTable, RunState, TaskLog, open_task_log
from testbed.testing.tasklog import sample_episode, sample_rows, sample_run

RUNS = ("20260101-000000-aaaa", "20260101-000000-bbbb")


@pytest.fixture
def task_log(tmp_path: Path) -> Iterator[TaskLog]:
    with open_task_log(tmp_path / "tasks.db") as log:
        for id in RUNS:
            log.begin_run(sample_run(id, label='a,b "c"\n', scenario="text"))
            for episode in range(2):
                log.append(id, *sample_episode(episode)[1:])
                log.write_tasks(id, sample_rows(episode))
        log.end_run(RUNS[0], RunState.COMPLETED, {"valid": True})
        yield log


def stored(log: TaskLog, table: LogTable) -> list[dict[str, Any]]:
    """The rows of both runs with JSON parsed."""
    columns = log.columns(table)
    embedded = {field.name for field in arrow_schema(table) if field.metadata[b"format"]}
    rows = []
    for run_id in RUNS:
        for chunk in log.rows(table, run_id):
            for row in chunk:
                named = dict(zip(columns, row, strict=True))
                for name in embedded:
                    named[name] = None if named[name] is None else json.loads(named[name])
                rows.append(named)
    return rows


def with_bits(row: dict[str, Any], nodes: int) -> dict[str, Any]:
    """The same row with a column for each node of a mask."""
    if "mask" not in row:
        return row
    mask = row["mask"]
    bits = {f"mask_{node}": None if mask is None else mask[node] for node in range(nodes)}
    return {name: value for name, value in row.items() if name != "mask"} | bits


def test_masks_in_csv_are_read_as_they_are(task_log: TaskLog, tmp_path: Path) -> None:
    export(task_log, RUNS, tmp_path / "out", formats=["csv"], tables=["decisions"])
    stored_masks = [row["mask"] for row in stored(task_log, "decisions")]

    read = pandas.read_csv(tmp_path / "out" / "decisions.csv")

    columns = [name for name in read.columns if name.startswith("mask")]
    assert columns == [f"mask_{node}" for node in range(len(columns))]
    assert len(columns) == max(len(mask) for mask in stored_masks if mask is not None) > 1
    masks = [
        None if numpy.isnan(row).any() else "".join(str(int(bit)) for bit in row)
        for row in read[columns].to_numpy(dtype=float)
    ]
    assert masks == stored_masks


@pytest.mark.parametrize("table", TABLES)
def test_every_format_holds_what_the_log_holds(
    task_log: TaskLog, tmp_path: Path, table: LogTable
) -> None:
    metadata = export(task_log, RUNS, tmp_path / "out")
    expected = stored(task_log, table)
    assert metadata["tables"][table]["rows"] == len(expected) > 0

    lines = (tmp_path / "out" / f"{table}.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == expected

    embedded = {field.name for field in arrow_schema(table) if field.metadata[b"format"]}

    def parsed(row: dict[str, Any]) -> dict[str, Any]:
        return {
            name: json.loads(value) if name in embedded and value is not None else value
            for name, value in row.items()
        }

    columnar = pyarrow.parquet.read_table(tmp_path / "out" / f"{table}.parquet")
    assert [parsed(row) for row in columnar.to_pylist()] == expected

    with (tmp_path / "out" / f"{table}.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    nodes = max((len(row.get("mask") or "") for row in expected), default=0)
    as_text = [
        {
            name: "" if value is None else json.dumps(value) if name in embedded else str(value)
            for name, value in with_bits(row, nodes).items()
        }
        for row in expected
    ]
    assert [
        {
            name: json.dumps(json.loads(value)) if name in embedded and value else value
            for name, value in row.items()
        }
        for row in read
    ] == as_text


def test_the_metadata_says_what_there_is(task_log: TaskLog, tmp_path: Path) -> None:
    # Named twice, by its id and by how only it begins, it is exported once.
    returned = export(task_log, [RUNS[0], RUNS[0][:-3]], tmp_path / "out")
    metadata = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert metadata == json.loads(json.dumps(returned))
    (run,) = metadata["runs"]
    info = sample_run()
    assert run["id"] == RUNS[0]
    assert run["scenario_hash"] == info.scenario_hash
    assert run["seeds"] == info.seeds
    assert run["versions"] == info.versions
    assert run["state"] == "completed"
    assert run["certificate"] == {"valid": True}
    assert run["plan"] == {"planVersion": 1}
    assert run["outcomes"]["succeeded"] == 10
    assert run["counts"]["tasks"] == metadata["tables"]["tasks"]["rows"] == 12
    for name, about in metadata["files"].items():
        content = (tmp_path / "out" / name).read_bytes()
        assert about == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert set(os.listdir(tmp_path / "out")) == {"metadata.json", *metadata["files"]}
    assert len(metadata["files"]) == 9
    elapsed = next(c for c in metadata["tables"]["tasks"]["columns"] if c["name"] == "elapsed")
    assert elapsed == {
        "name": "elapsed",
        "type": "int64",
        "unit": "microseconds",
        "description": "from generated to ended",
    }
    for table in TABLES:
        names = [column["name"] for column in metadata["tables"][table]["columns"]]
        assert names == list(task_log.columns(table))


def test_only_what_is_asked_for_is_written(task_log: TaskLog, tmp_path: Path) -> None:
    export(task_log, ["latest"], tmp_path / "out", formats=["csv"], tables=["tasks"])
    assert set(os.listdir(tmp_path / "out")) == {"metadata.json", "tasks.csv"}
    with (tmp_path / "out" / "tasks.csv").open() as file:
        assert {row["run"] for row in csv.DictReader(file)} == {RUNS[1]}


def test_a_run_without_rows_gives_files_with_a_heading(task_log: TaskLog, tmp_path: Path) -> None:
    task_log.begin_run(sample_run("empty"))
    metadata = export(task_log, ["empty"], tmp_path / "out")
    assert {about["rows"] for about in metadata["tables"].values()} == {0}
    assert (tmp_path / "out" / "tasks.csv").read_text().startswith('"run","task"')
    assert (tmp_path / "out" / "tasks.jsonl").read_text() == ""
    assert pyarrow.parquet.read_table(tmp_path / "out" / "tasks.parquet").num_rows == 0


def test_progress_reaches_the_total(task_log: TaskLog, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    export(
        task_log,
        RUNS,
        tmp_path / "out",
        progress=lambda what, done, total: told.append((what, done, total)),
    )
    for table in TABLES:
        amounts = [(done, total) for what, done, total in told if what == table]
        assert amounts[0][0] == 0
        assert amounts[-1][0] == amounts[-1][1] == len(stored(task_log, table))
        assert amounts == sorted(amounts)


def test_an_export_is_replaced_only_when_told(task_log: TaskLog, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(task_log, [RUNS[0]], out)
    with pytest.raises(UsageError, match="--force"):
        export(task_log, [RUNS[1]], out)
    assert json.loads((out / "metadata.json").read_text())["runs"][0]["id"] == RUNS[0]
    export(task_log, [RUNS[1]], out, overwrite=True, formats=["csv"])
    assert json.loads((out / "metadata.json").read_text())["runs"][0]["id"] == RUNS[1]
    assert not (out / "tasks.parquet").exists()
    assert [name for name in os.listdir(tmp_path) if "partial" in name] == []


def test_what_is_no_export_is_never_replaced(task_log: TaskLog, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(UsageError):
            export(task_log, RUNS, home, overwrite=overwrite)
    assert os.listdir(home) == ["thesis.tex"]
    with pytest.raises(UsageError, match="there is a file"):
        export(task_log, RUNS, home / "thesis.tex", overwrite=True)


def test_an_empty_folder_is_as_good_as_none(task_log: TaskLog, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export(task_log, RUNS, tmp_path / "out")
    assert (tmp_path / "out" / "metadata.json").exists()


class StopExport(Exception):
    pass


def test_an_export_that_fails_leaves_nothing(task_log: TaskLog, tmp_path: Path) -> None:
    before = sorted(os.listdir(tmp_path))

    def stop(what: str, done: int, total: int) -> None:
        if what == "decisions":
            raise StopExport

    with pytest.raises(StopExport):
        export(task_log, RUNS, tmp_path / "out", progress=stop)
    assert sorted(os.listdir(tmp_path)) == before


def test_a_disk_without_space_is_explained(task_log: TaskLog, tmp_path: Path) -> None:
    def full(what: str, done: int, total: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(PermanentError, match="no space is left"):
        export(task_log, RUNS, tmp_path / "out", progress=full)
    with pytest.raises(PermanentError, match="cannot be written"):
        export(task_log, RUNS, tmp_path / "tasks.db" / "out")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"formats": ["xlsx"]}, "known are csv, jsonl, parquet"),
        ({"tables": ["jobs"]}, "known are tasks, events, decisions"),
        ({"formats": []}, "nothing to write"),
        ({"run_ids": []}, "none given"),
        ({"run_ids": ["nobody"]}, "no run 'nobody'"),
    ],
)
def test_wrong_wishes_are_refused_before_any_work(
    task_log: TaskLog, tmp_path: Path, arguments: dict[str, Any], expected: str
) -> None:
    wishes: dict[str, Any] = {"run_ids": RUNS, "folder": tmp_path / "out", **arguments}
    with pytest.raises(UsageError, match=expected):
        export(task_log, **wishes)
    assert not (tmp_path / "out").exists()


def test_arrow_batches_are_cut_as_asked(task_log: TaskLog) -> None:
    batches = list(arrow_batches(task_log, "decisions", RUNS[0], chunk=10))
    assert [batch.num_rows for batch in batches] == [10, 10, 4]
    assert batches[0].schema == arrow_schema("decisions")
