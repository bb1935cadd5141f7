"""The task log on SQLite: the contract, and what can be wrong with a file."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from testbed.errors import PermanentError, PrerequisiteMissing, TemporaryError, UsageError
from testbed.storage.tasklog import RunState, TaskLog, opening
from testbed.storage.tasklog.opening import open_task_log
from testbed.storage.tasklog.schema import SCHEMA_VERSION, metadata
from testbed.storage.tasklog.sql import SqlTaskLog
from testbed.testing.tasklog import TaskLogContract, sample_episode, sample_rows, sample_run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made" / "on the way" / "tasks #1?.db"


@pytest.fixture
def task_log(path: Path) -> Iterator[TaskLog]:
    with open_task_log(path) as log:
        yield log


@pytest.fixture
def reopen(path: Path) -> Callable[[], TaskLog]:
    return lambda: open_task_log(path, create=False)


class SqliteTaskLogTests(TaskLogContract):
    pass


def written(path: Path) -> None:
    """A log with one episode in it."""
    with open_task_log(path) as log:
        log.begin_run(sample_run())
        log.append(sample_run().id, *sample_episode(0)[1:])
        log.write_tasks(sample_run().id, sample_rows(0))


def test_a_url_and_a_path_name_the_same_log(tmp_path: Path) -> None:
    written(tmp_path / "tasks.db")
    with open_task_log(f"sqlite:///{tmp_path}/tasks.db") as log:
        assert log.run("latest").id == sample_run().id


OPENED_AND_CLOSED = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT count(*) FROM runs").fetchone()
connection.close()
"""
"""What another program does that takes a log for its own if nobody holds it."""


def test_a_log_keeps_its_locks_when_another_one_of_the_process_is_closed(path: Path) -> None:
    journal = path.with_name(f"{path.name}-wal")
    with open_task_log(path) as log:
        log.begin_run(sample_run())
        with open_task_log(path) as other:
            other.append(sample_run().id, *sample_episode(0)[1:])
        subprocess.run([sys.executable, "-c", OPENED_AND_CLOSED, str(path)], check=True)
        assert journal.exists()
        log.write_tasks(sample_run().id, sample_rows(0))
        assert len(list(log.tasks(sample_run().id))) == len(sample_rows(0))
    assert not journal.exists()


def test_what_is_read_after_the_end_of_a_log_leaves_nothing_open(path: Path) -> None:
    def descriptors() -> list[str]:
        opened = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
        return [str(each.readlink()) for each in opened if each.is_symlink()]

    written(path)
    with open_task_log(path) as log:
        pass
    assert log.run("latest").id == sample_run().id
    assert len(list(log.tasks(sample_run().id))) == len(sample_rows(0))
    assert not [name for name in descriptors() if name.startswith(str(path))]


def test_closing_leaves_one_file(path: Path) -> None:
    written(path)
    assert os.listdir(path.parent) == [path.name]


def test_every_column_says_what_it_holds() -> None:
    for table in metadata.tables.values():
        for column in table.columns:
            assert column.comment, f"{table.name}.{column.name}"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("nosuch://host/x", "nosuch"),
        ("://", "not a URL"),
    ],
)
def test_a_url_that_means_nothing_is_refused(url: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        open_task_log(url)
    assert "sqlite:///PATH" in str(caught.value)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        open_task_log(tmp_path)


def test_a_missing_log_is_not_made_by_a_reader(path: Path) -> None:
    with pytest.raises(PrerequisiteMissing, match="there is no task log") as caught:
        open_task_log(path, create=False)
    assert "testbed run" in caught.value.fix
    assert not path.parent.exists()


def test_an_empty_file_is_not_a_log_for_a_reader(tmp_path: Path) -> None:
    (tmp_path / "tasks.db").touch()
    with pytest.raises(PermanentError, match="empty"):
        open_task_log(tmp_path / "tasks.db", create=False)
    with open_task_log(tmp_path / "tasks.db") as log:
        assert log.runs() == []


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    path.write_text("dear diary, " * 200)
    with pytest.raises(PermanentError, match="not an SQLite database"):
        open_task_log(path)
    assert path.read_text().startswith("dear diary")


def test_a_damaged_file_is_refused(path: Path) -> None:
    written(path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xaa" * (path.stat().st_size - 4096))
    with pytest.raises(PermanentError, match="damaged"), open_task_log(path) as log:
        list(log.records(log.run("latest").id))


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (name)")
    connection.close()
    with pytest.raises(PermanentError, match=r"not a task log, but a database .* tables songs"):
        open_task_log(path)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (SCHEMA_VERSION + 1, "update edge-testbed to 99.1 or later"),
        (SCHEMA_VERSION - 1, "testbed db upgrade --storage"),
    ],
)
def test_another_schema_version_names_the_way_out(path: Path, version: int, expected: str) -> None:
    written(path)
    change(path, f"UPDATE schema_info SET version = {version}, written_by = '99.1'")
    with pytest.raises(PermanentError, match=expected):
        open_task_log(path)


def test_a_log_without_its_version_is_refused(path: Path) -> None:
    written(path)
    change(path, "DELETE FROM schema_info")
    with pytest.raises(PermanentError, match="schema version is missing"):
        open_task_log(path)
    change(path, "DROP TABLE schema_info")
    with pytest.raises(PermanentError, match="no schema version"):
        open_task_log(path)


def change(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


def test_a_missing_table_is_explained(path: Path) -> None:
    written(path)
    change(path, "DROP TABLE histories")
    with (
        open_task_log(path) as log,
        pytest.raises(PermanentError, match="no such table: histories"),
    ):
        list(log.records(sample_run().id))


def test_a_locked_log_is_a_temporary_trouble(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(path)
    monkeypatch.setattr(opening, "BUSY_TIMEOUT_S", 0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with open_task_log(path) as log:
            assert len(list(log.tasks(sample_run().id))) == len(sample_rows(0))
            with pytest.raises(TemporaryError, match="locked"):
                log.append(sample_run().id, *sample_episode(1)[1:])
            other.execute("ROLLBACK")
            assert log.append(sample_run().id, *sample_episode(1)[1:]) > 0
    finally:
        other.close()


def test_a_full_disk_loses_nothing_that_was_logged(path: Path) -> None:
    written(path)
    with open_task_log(path) as log:
        assert isinstance(log, SqlTaskLog)

        @event.listens_for(log.engine, "checkout")
        def _no_space(connection: Any, _record: object, _proxy: object) -> None:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count={pages}")

        def fill() -> None:
            for episode in range(1, 100):
                log.append(sample_run().id, *sample_episode(episode)[1:])

        with pytest.raises(PermanentError, match="no space is left"):
            fill()
        before = len(list(log.records(sample_run().id)))
    with open_task_log(path) as log:
        kept = list(log.records(sample_run().id))
        # Complete batches, none of them in part.
        assert len(kept) == before
        assert before % len(sample_episode(0)[1]) == 0


def test_a_log_that_may_only_be_read_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(path)
    path.chmod(0o444)
    path.parent.chmod(0o555)
    # The administrator may write everything: say what the access bits say.
    monkeypatch.setattr(opening, "_may_write", lambda _: False)
    try:
        with open_task_log(path, create=False) as log:
            assert len(list(log.tasks(sample_run().id))) == len(sample_rows(0))
            with pytest.raises(PermanentError, match="cannot be written"):
                log.begin_run(sample_run("another"))
        assert os.listdir(path.parent) == [path.name]
    finally:
        path.parent.chmod(0o755)


def test_who_writes_is_told_at_once_that_it_cannot(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(path)
    monkeypatch.setattr(opening, "_may_write", lambda _: False)
    with pytest.raises(PermanentError, match="cannot be written; make the file and its folder"):
        open_task_log(path)


def test_a_text_that_is_none_means_that_the_file_is_damaged(path: Path) -> None:
    written(path)
    change(path, "UPDATE runs SET plan = CAST(x'7b22ff' AS TEXT)")
    with open_task_log(path) as log, pytest.raises(PermanentError, match="is damaged; restore"):
        log.runs()


def test_a_log_that_cannot_be_made_for_want_of_space_leaves_no_file(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may grow: what the system says is not that the disk is full, but comes as early.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(PermanentError) as caught:
            open_task_log(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(path) in str(caught.value)
    assert not path.exists()


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PermanentError, match="its folder cannot be made"):
        open_task_log(tmp_path / "file" / "tasks.db")


def test_two_that_open_a_new_log_at_once_both_succeed(path: Path) -> None:
    def begin(number: int) -> str:
        with open_task_log(path) as log:
            log.begin_run(sample_run(f"run-{number}"))
            log.append(f"run-{number}", *sample_episode(0)[1:])
            return log.run(f"run-{number}").id

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(begin, range(4))) == [f"run-{number}" for number in range(4)]


def test_readers_that_come_and_go_take_nothing_from_who_writes(path: Path) -> None:
    reader = (
        "import sys; from testbed.storage.tasklog import open_task_log\n"
        "for _ in range(3):\n"
        "    with open_task_log(sys.argv[1], create=False) as log: print(len(log.runs()))"
    )
    with open_task_log(path) as log:
        log.begin_run(sample_run())
        for _ in range(3):
            said = subprocess.run(
                [sys.executable, "-c", reader, str(path)], capture_output=True, text=True
            )
            assert said.stdout.split() == ["1"] * 3, said.stderr
            log.append(sample_run().id, *sample_episode(0)[1:])
    with open_task_log(path, create=False) as log:
        assert log.counts(sample_run().id)["events"] == len(sample_episode(0)[1])


def test_a_row_that_was_written_over_is_said_when_a_run_is_closed(path: Path) -> None:
    written(path)
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM tasks")
        database.execute("UPDATE histories SET steps = replace(steps, 'decided', 'nonsense')")
    database.close()
    with open_task_log(path) as log:
        with pytest.raises(PermanentError, match="a row is not as this toolkit writes it"):
            log.close_run(sample_run().id, RunState.INTERRUPTED)
        assert log.run("latest").state is RunState.RUNNING
