"""The task log on MySQL or MariaDB: the same contract, and what servers do wrong."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import QueuePool

from testbed.errors import PermanentError, PrerequisiteMissing, TemporaryError, UsageError
from testbed.storage.tasklog import RunState, TaskLog, open_task_log, opening, server
from testbed.storage.tasklog.schema import SCHEMA_VERSION
from testbed.storage.tasklog.sql import SqlTaskLog
from testbed.testing.tasklog import TaskLogContract, sample_episode, sample_rows, sample_run
from tests.services.fixtures import short_folder
from tests.services.mariadb import MariaDb
from tests.services.ports import free_ports

pytestmark = pytest.mark.mysql


@pytest.fixture(autouse=True)
def _no_password_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "USER_DEFAULTS", Path("/nonexistent/my.cnf"))


@pytest.fixture
def task_log(mysql_url: str) -> Iterator[TaskLog]:
    with open_task_log(mysql_url) as log:
        yield log


@pytest.fixture
def reopen(mysql_url: str) -> Callable[[], TaskLog]:
    return lambda: open_task_log(mysql_url, create=False)


class MysqlTaskLogTests(TaskLogContract):
    pass


# --- what is in the database ----------------------------------------------------------------


def execute(url: str, *statements: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def test_an_absent_log_is_not_made_by_a_reader(mysql_url: str) -> None:
    with pytest.raises(PermanentError, match="empty; run a scenario into it first"):
        open_task_log(mysql_url, create=False)


@pytest.mark.parametrize(
    ("version", "expected"),
    [(SCHEMA_VERSION + 1, "update edge-testbed"), (SCHEMA_VERSION - 1, "testbed db upgrade")],
)
def test_another_schema_version_names_the_way_out(
    mysql_url: str, version: int, expected: str
) -> None:
    open_task_log(mysql_url).close()
    execute(mysql_url, f"UPDATE schema_info SET version = {version}")
    with pytest.raises(PermanentError, match=expected) as caught:
        open_task_log(mysql_url)
    assert str(make_url(mysql_url).password) not in str(caught.value)


def test_a_database_of_something_else_is_left_alone(mysql_url: str) -> None:
    execute(mysql_url, "CREATE TABLE songs (name TEXT)")
    with pytest.raises(PermanentError, match=r"not a task log, but a database .* tables songs"):
        open_task_log(mysql_url)


def test_making_the_tables_that_was_cut_short_is_finished(mysql_url: str) -> None:
    open_task_log(mysql_url).close()
    execute(mysql_url, "DELETE FROM schema_info", "DROP TABLE histories")
    with open_task_log(mysql_url) as log:
        log.begin_run(sample_run())
        assert log.append(sample_run().id, *sample_episode(0)[1:]) > 0


def test_several_that_open_a_new_log_at_once_all_succeed(mysql_url: str) -> None:
    def begin(number: int) -> int:
        with open_task_log(mysql_url) as log:
            log.begin_run(sample_run(f"run-{number}"))
            return log.append(f"run-{number}", *sample_episode(0)[1:])

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(begin, range(4)))) == 1
    with open_task_log(mysql_url, create=False) as log:
        assert len(log.runs()) == 4


def test_text_of_any_language_comes_back(task_log: TaskLog) -> None:
    info = sample_run(label="名前 🚀 naïve — ü", scenario="# 🚀\n")
    task_log.begin_run(info)
    assert task_log.run(info.id).info == info


def test_ids_that_differ_in_case_differ(task_log: TaskLog) -> None:
    task_log.begin_run(sample_run("run-a"))
    task_log.begin_run(sample_run("run-A"))
    assert [run.id for run in task_log.runs()] == ["run-a", "run-A"]


def test_what_does_not_fit_is_refused_and_not_cut(task_log: TaskLog) -> None:
    with pytest.raises(PermanentError, match="label"):
        task_log.begin_run(sample_run(label="x" * 300))
    assert task_log.runs() == []


# --- who may ask ----------------------------------------------------------------------------


def test_the_password_comes_from_the_environment_or_a_file(
    mariadb: MariaDb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = tmp_path / "password"
    password.write_text(mariadb.password + "\n")
    defaults = tmp_path / "my.cnf"
    defaults.write_text(f"[client]\npassword={mariadb.password}\n")

    def reaches(url: str) -> bool:
        with open_task_log(url) as log:
            assert isinstance(log, SqlTaskLog)
            return mariadb.password not in log.where + log._login

    assert reaches(mariadb.open_url)
    assert reaches(f"{mariadb.url}?password_file={password}")
    assert reaches(f"{mariadb.url}?read_default_file={defaults}")
    assert reaches(f"mysql://edge@/testbed?unix_socket={mariadb.socket}&password_file={password}")
    monkeypatch.setenv("TESTBED_MYSQL_PASSWORD", mariadb.password)
    assert reaches(mariadb.url)
    assert reaches(mariadb.url.replace("mysql+pymysql", "mariadb"))
    monkeypatch.delenv("TESTBED_MYSQL_PASSWORD")
    monkeypatch.setattr(server, "USER_DEFAULTS", defaults)
    assert reaches(mariadb.url)


def test_a_wrong_password_says_where_it_came_from(
    mariadb: MariaDb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PermanentError, match=r"wrong \(user edge, password that is not given\)"):
        open_task_log(mariadb.url)
    monkeypatch.setenv("TESTBED_MYSQL_PASSWORD", "wr0ng")
    with pytest.raises(PermanentError, match="of the variable TESTBED_MYSQL_PASSWORD") as caught:
        open_task_log(mariadb.url)
    assert "wr0ng" not in str(caught.value)
    with pytest.raises(PermanentError, match="password of the URL") as caught:
        open_task_log(mariadb.url.replace("@", ":wr0ng@"))
    assert "wr0ng" not in str(caught.value)
    with pytest.raises(PrerequisiteMissing, match="cannot be read from"):
        open_task_log(f"{mariadb.url}?password_file={tmp_path / 'absent'}")


def test_what_may_not_be_used_is_explained(mariadb: MariaDb) -> None:
    with pytest.raises(PermanentError, match="may not use that database"):
        open_task_log(mariadb.open_url.replace("/testbed", "/absent"))
    with pytest.raises(PermanentError, match="no such database"):
        open_task_log(mariadb.open_url.replace("/testbed", "/testbed_absent"))
    with pytest.raises(UsageError, match="names no database"):
        open_task_log(mariadb.open_url.replace("/testbed", ""))


def test_who_may_only_read_reads(mariadb: MariaDb, mysql_url: str) -> None:
    if (database := make_url(mysql_url)).port != mariadb.port:
        pytest.skip("users are made on the tests' own server")
    with open_task_log(mysql_url) as log:
        log.begin_run(sample_run())
    with mariadb.root() as root, root.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE USER reader@'%' IDENTIFIED BY 'r'")
        cursor.execute(f"GRANT SELECT ON {database.database}.* TO reader@'%'")
    url = database.set(username="reader", password="r").render_as_string(hide_password=False)
    with open_task_log(url) as log:
        assert log.run("latest").id == sample_run().id
        with pytest.raises(PermanentError, match=r"this user may not do that.*GRANT"):
            log.append(sample_run().id, *sample_episode(0)[1:])


# --- a server that comes and goes -----------------------------------------------------------


def test_a_server_that_is_not_there_is_a_temporary_trouble() -> None:
    (port,) = free_ports(1)
    with pytest.raises(TemporaryError, match=r"cannot be reached.*see that it runs") as caught:
        open_task_log(f"mysql+pymysql://nobody:secret@127.0.0.1:{port}/none")
    assert "secret" not in str(caught.value)


def test_what_is_written_waits_for_a_server_that_restarts(mariadb: MariaDb) -> None:
    """Killed between batches and in the middle of them: nothing is lost and nothing doubled."""
    batches = [sample_episode(episode)[1:] for episode in range(60)]
    with open_task_log(mariadb.open_url) as log:
        info = sample_run("restarted")
        log.begin_run(info)
        killed, resumed = threading.Event(), threading.Event()

        def power_cut() -> None:
            for _ in range(3):
                assert resumed.wait(30)
                resumed.clear()
                mariadb.kill()
                killed.set()
                mariadb.start()

        with ThreadPoolExecutor(1) as pool:
            cutting = pool.submit(power_cut)
            for number, batch in enumerate(batches):
                if number in (10, 25, 40):
                    # From here on the server may go at any moment.
                    resumed.set()
                log.append(info.id, *batch)
                log.append(info.id, *batch)
                if number in (15, 30, 45):
                    assert killed.wait(30)
                    killed.clear()
            cutting.result(30)
        log.write_tasks(info.id, sample_rows(0))
        log.end_run(info.id, RunState.COMPLETED)
        assert list(log.records(info.id)) == [each for records, _ in batches for each in records]
        assert log.counts(info.id)["decisions"] == sum(len(each) for _, each in batches)


def test_what_is_written_does_not_wait_for_ever(
    mariadb: MariaDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "PATIENCE_S", 0.3)
    info = sample_run("down for long")
    with open_task_log(mariadb.open_url) as log:
        log.begin_run(info)
        _, records, decisions = sample_episode(0)
        log.append(info.id, records[:3], [])
        mariadb.stop()
        try:
            with pytest.raises(TemporaryError, match=r"cannot be reached|did not answer"):
                log.append(info.id, records, decisions)
            with pytest.raises(TemporaryError):
                log.begin_run(sample_run("another"))
            with pytest.raises(TemporaryError):
                log.runs()
        finally:
            mariadb.start()
        # The batch that was not acknowledged is sent again, over the same log.
        assert log.append(info.id, records, decisions) == len(records) - 3 + len(decisions)
        assert list(log.records(info.id)) == records


def test_a_reader_whose_server_goes_away_is_told(mariadb: MariaDb) -> None:
    """Nothing of a half-read table stays behind that would fail when it is collected."""
    info = sample_run("read")
    with open_task_log(mariadb.open_url) as log:
        assert isinstance(log, SqlTaskLog)
        assert isinstance(log.engine.pool, QueuePool)
        log.begin_run(info)
        for episode in range(40):
            log.append(info.id, *sample_episode(episode)[1:])
        reading = log.rows("decisions", info.id, chunk=1)
        next(reading)
        assert log.engine.pool.checkedout() == 0
        mariadb.kill()
        try:
            with pytest.raises(TemporaryError, match="cannot be reached"):
                list(reading)
        finally:
            mariadb.start()
        # Pytest reports what was raised while objects were collected, which is now.
        gc.collect()
        assert len(list(log.rows("decisions", info.id, chunk=10_000))) == 1


def test_a_reader_goes_on_after_a_restart_between_two_chunks(mariadb: MariaDb) -> None:
    info = sample_run("read on")
    with open_task_log(mariadb.open_url) as log:
        log.begin_run(info)
        for episode in range(3):
            log.append(info.id, *sample_episode(episode)[1:])
        expected = next(log.rows("events", info.id))
        reading = log.rows("events", info.id, chunk=5)
        first = next(reading)
        mariadb.kill()
        mariadb.start()
        assert [row for chunk in (first, *reading) for row in chunk] == expected


def test_a_full_disk_loses_nothing_that_was_logged() -> None:
    """The server's files may not grow: what InnoDB says is what it says on a full disk."""
    with short_folder("full") as folder:
        small = MariaDb(
            folder,
            "--innodb-file-per-table=0",
            "--innodb-data-file-path=ibdata1:12M:autoextend:max:14M",
        )
        try:
            small.start()
            with open_task_log(small.open_url) as log:
                log.begin_run(sample_run())
                records = sample_episode(0)[1]

                def fill() -> None:
                    for episode in range(2_000):
                        log.append(sample_run().id, *sample_episode(episode)[1:])

                with pytest.raises(PermanentError, match="no space is left on the server's disk"):
                    fill()
                kept = len(list(log.records(sample_run().id)))
                # Complete batches, none of them in part.
                assert kept > 0
                assert kept % len(records) == 0
        finally:
            small.stop()


def test_a_locked_row_is_waited_for(mariadb: MariaDb) -> None:
    info = sample_run("locked")
    _, records, decisions = sample_episode(0)
    with open_task_log(mariadb.open_url) as log, mariadb.root() as root, root.cursor() as cursor:
        log.begin_run(info)
        cursor.execute("SET GLOBAL innodb_lock_wait_timeout = 1")
        try:
            log.close()
            root.begin()
            cursor.execute("SELECT * FROM testbed.runs WHERE id = 'locked' FOR UPDATE")
            with ThreadPoolExecutor(1) as pool:
                ending = pool.submit(log.end_run, info.id, RunState.COMPLETED)
                with pytest.raises(TimeoutError):
                    ending.result(1.5)
                root.rollback()
                ending.result(30)
        finally:
            cursor.execute("SET GLOBAL innodb_lock_wait_timeout = 50")
        log.append(info.id, records, decisions)
        assert log.run(info.id).state is RunState.COMPLETED
