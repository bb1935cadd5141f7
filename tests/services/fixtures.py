"""Fixtures of real services, shared by all tests of a session; a conftest.py takes them in.

``mariadb`` and ``hadoop`` are servers of the tests' own, which a test may kill if it starts them
again; ``mysql_url`` and ``webhdfs_url`` are for what works with any server, and mean the given one
where ``TESTBED_TEST_MYSQL_URL`` or ``TESTBED_TEST_WEBHDFS_URL`` name one.
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from testbed.storage.tasklog.server import Server
from tests.services import hdfs
from tests.services import mariadb as servers
from tests.services.hdfs import Hdfs
from tests.services.mariadb import MariaDb

_number = itertools.count()


@contextmanager
def short_folder(kind: str) -> Iterator[Path]:
    """A folder whose path is short enough for a socket in it."""
    folder = Path(tempfile.mkdtemp(prefix=f"edge-{kind}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    """A MariaDB server of the tests' own."""
    with short_folder("db") as folder:
        server = MariaDb(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture
def mysql_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL, with password, of an empty database that is this test's alone."""
    given = os.environ.get(servers.URL_VARIABLE)
    base = make_url(given or request.getfixturevalue("mariadb").open_url)
    name = f"{base.database}_{os.getpid()}_{next(_number)}"
    engine = Server.of(base).engine()
    try:
        with engine.begin() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        yield base.set(database=name).render_as_string(hide_password=False)
        with engine.begin() as connection:
            connection.execute(text(f"DROP DATABASE {name}"))
    finally:
        engine.dispose()


@pytest.fixture(scope="session")
def hadoop() -> Iterator[Hdfs]:
    """An HDFS of the tests' own."""
    with short_folder("hdfs") as folder:
        server = Hdfs(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture
def webhdfs_url(request: pytest.FixtureRequest) -> str:
    """URL of a folder in HDFS that is not there yet and this test's alone."""
    given = os.environ.get(hdfs.URL_VARIABLE)
    base = given or request.getfixturevalue("hadoop").url
    return f"{base.rstrip('/')}/{secrets.token_hex(4)}"
