"""``doctor`` and ``db`` on configured services: what is right, and what is wrong and its fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from testbed.storage.artifacts import open_artifact_store
from testbed.storage.tasklog import open_task_log
from testbed.storage.tasklog.schema import SCHEMA_VERSION
from testbed.testing.artifacts import FILES
from testbed.testing.tasklog import sample_run
from tests.cli.conftest import Command
from tests.services.hdfs import Hdfs
from tests.services.mariadb import MariaDb
from tests.services.ports import free_ports


@pytest.fixture(autouse=True)
def _no_password_left(monkeypatch: pytest.MonkeyPatch) -> None:
    # Commands put the password of a URL here.
    monkeypatch.setenv("TESTBED_MYSQL_PASSWORD", "")


def findings(testbed: Command, *arguments: object) -> dict[str, dict[str, Any]]:
    said = testbed("doctor", "--json", *arguments)
    found = {each["check"]: each for each in said.document["findings"]}
    bad = any(each["status"] == "problem" for each in found.values())
    assert said.code == (3 if bad else 0)
    return found


# --- files ----------------------------------------------------------------------------------


def test_doctor_looks_at_the_folder_of_artifacts(testbed: Command, tmp_path: Path) -> None:
    open_artifact_store(tmp_path / "store").put("one", FILES)
    found = findings(testbed, "--artifacts", tmp_path / "store")["artifacts"]
    assert found["status"] in {"ok", "warning"}
    assert "1 artifacts" in found["seen"]
    (tmp_path / "file").touch()
    found = findings(testbed, "--artifacts", tmp_path / "file")["artifacts"]
    assert (found["status"], "--artifacts" in found["fix"]) == ("problem", True)


def test_db_makes_and_checks_a_file(testbed: Command, tmp_path: Path) -> None:
    log = tmp_path / "tasks.db"
    assert testbed("db", "check", "--storage", log).code == 3
    said = testbed("db", "upgrade", "--storage", log)
    assert (said.code, "made, schema version" in said.out) == (0, True)
    said = testbed("db", "check", "--storage", log, "--json")
    assert (said.code, said.document["good"]) == (0, True)
    engine = create_engine(f"sqlite:///{log}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE schema_info SET version = 0"))
    engine.dispose()
    said = testbed("db", "check", "--storage", log)
    assert said.code == 5
    assert f"testbed db upgrade --storage {log}" in said.err
    assert "testbed db upgrade" in testbed("runs", "list", "--storage", log).err


# --- MySQL ----------------------------------------------------------------------------------


@pytest.mark.mysql
def test_doctor_finds_a_server_in_order(testbed: Command, mysql_url: str) -> None:
    found = findings(testbed, "--storage", mysql_url)
    assert "no tables yet" in found["task log"]["seen"]
    with open_task_log(mysql_url) as log:
        log.begin_run(sample_run())
    found = findings(testbed, "--storage", mysql_url)
    assert {found[name]["status"] for name in found if name.startswith("task log")} <= {
        "ok",
        "warning",
    }
    assert "1 runs" in found["task log"]["seen"]
    assert found["task log: clock"]["status"] == "ok"
    assert str(make_url(mysql_url).password) not in str(found)


@pytest.mark.mysql
def test_doctor_says_what_is_wrong_with_a_server(testbed: Command, mariadb: MariaDb) -> None:
    (port,) = free_ports(1)
    database = f"{make_url(mariadb.url).database}_doctor"
    url = mariadb.open_url.replace("/testbed", f"/{database}")
    with mariadb.root() as root, root.cursor() as cursor:
        cursor.execute(f"CREATE OR REPLACE DATABASE {database}")
        cursor.execute("CREATE OR REPLACE USER reader@'%' IDENTIFIED BY 'r'")
        cursor.execute(f"GRANT SELECT ON {database}.* TO reader@'%'")
        reader = make_url(url).set(username="reader", password="r")
        shown = reader.render_as_string(hide_password=False)

        found = findings(testbed, "--storage", f"mysql://edge:x@127.0.0.1:{port}/testbed")
        assert "cannot be reached" in found["task log"]["seen"]
        assert "see that it runs" in found["task log"]["fix"]
        found = findings(testbed, "--storage", url.replace(mariadb.password, "wr0ng"))
        assert "password are wrong" in found["task log"]["seen"]
        assert "TESTBED_MYSQL_PASSWORD" in found["task log"]["fix"]
        assert "wr0ng" not in str(found)
        found = findings(testbed, "--storage", url.replace(database, "testbed_absent"))
        assert "CREATE DATABASE" in found["task log"]["fix"]
        for _ in range(2):
            found = findings(testbed, "--storage", shown)
            assert found["task log"]["status"] == "problem"
            assert "GRANT ALL" in found["task log"]["fix"]
            # Without tables at first, with them the second time.
            open_task_log(url).close()
        cursor.execute(f"UPDATE {database}.schema_info SET version = {SCHEMA_VERSION - 1}")
        assert "testbed db upgrade" in findings(testbed, "--storage", url)["task log"]["fix"]
        cursor.execute(f"UPDATE {database}.schema_info SET version = {SCHEMA_VERSION}")
        cursor.execute("SET GLOBAL init_connect = 'SET timestamp = UNIX_TIMESTAMP() - 3600'")
        try:
            found = findings(testbed, "--storage", url)
        finally:
            cursor.execute("SET GLOBAL init_connect = ''")
        assert found["task log: clock"]["status"] == "warning"
        assert "3600." in found["task log: clock"]["seen"]
        assert "NTP" in found["task log: clock"]["fix"]
        cursor.execute(f"DROP DATABASE {database}")


@pytest.mark.mysql
def test_a_password_in_an_option_is_warned_of_and_shown_nowhere(
    testbed: Command, mysql_url: str
) -> None:
    password = str(make_url(mysql_url).password)
    for arguments in (("db", "upgrade"), ("db", "check"), ("runs", "list"), ("runs", "show")):
        said = testbed(*arguments, "--storage", mysql_url)
        assert "list of processes" in said.err
        assert password not in said.out + said.err
    said = testbed("sim", "quickstart", "--episodes", 1, "--storage", mysql_url)
    assert said.code == 0, said.err
    assert password not in said.out + said.err
    assert "mysql" in said.err


# --- HDFS -----------------------------------------------------------------------------------


@pytest.mark.hdfs
def test_doctor_finds_an_hdfs_in_order(testbed: Command, webhdfs_url: str) -> None:
    found = findings(testbed, "--artifacts", webhdfs_url)
    ours = {name: each for name, each in found.items() if name.startswith("artifacts")}
    assert {each["status"] for each in ours.values()} <= {"ok", "warning", "note"}
    assert ours["artifacts: clock"]["status"] == "ok"
    # Nothing stays: not even the folder.
    store = open_artifact_store(webhdfs_url)
    assert store._client.status(store.place.path, strict=False) is None  # type: ignore[attr-defined]
    store.put("one", FILES)
    findings(testbed, "--artifacts", webhdfs_url)
    assert store.list() == ["one"]


@pytest.mark.hdfs
def test_doctor_says_what_is_wrong_with_an_hdfs(testbed: Command, hadoop: Hdfs) -> None:
    (port,) = free_ports(1)
    found = findings(testbed, "--artifacts", f"webhdfs://me@127.0.0.1:{port}/store")
    assert "cannot be reached" in found["artifacts"]["seen"]
    assert "NameNode" in found["artifacts"]["fix"]
    found = findings(testbed, "--artifacts", f"webhdfs://stranger@{hadoop.http}/store")
    assert "user=stranger" in found["artifacts"]["seen"]
    assert "-chown" in found["artifacts"]["fix"]
    assert found["artifacts: server"]["seen"].startswith("Hadoop 3.")
    hadoop.request("PUT", "/shared/little", op="MKDIRS")
    hadoop.request(
        "PUT", "/shared/little", op="SETQUOTA", namespacequota="-1", storagespacequota="9000000"
    )
    found = findings(testbed, "--artifacts", f"{hadoop.url}/little")
    assert found["artifacts"]["status"] == "ok"
    assert found["artifacts: space"] == {
        "check": "artifacts: space",
        "status": "warning",
        "seen": "9 MB free",
        "fix": "free some space there, or raise its quota",
    }
