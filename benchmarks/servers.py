"""Servers that benchmarks need, started for one of them and ended with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.services.fixtures import short_folder
from tests.services.mariadb import MariaDb


@contextmanager
def mariadb() -> Iterator[str]:
    """Run a MariaDB server; yields the URL of a task log in it."""
    with short_folder("db") as folder:
        server = MariaDb(folder)
        try:
            server.start()
            yield server.open_url
        finally:
            server.stop()
