"""Real servers for the trials that need them, started when they are first asked for."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.engine import make_url

from testbed.storage.tasklog.server import Server
from tests.campaign.network import Network
from tests.services.hdfs import Hdfs
from tests.services.mariadb import MariaDb


class Services:
    """A MariaDB for each lane, and one HDFS that lanes take turns with, below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._databases: dict[Path, MariaDb] = {}
        self._hdfs: Hdfs | None = None
        self._turn = threading.RLock()
        self._ending = ExitStack()

    def mariadb(self, network: Network) -> MariaDb:
        """The server of a lane."""
        with self._turn:
            lane = network.folder.parent
            found = self._databases.get(lane)
            if found is None:
                found = MariaDb(self._make("db"))
                found.start()
                self._ending.callback(found.stop)
                self._databases[lane] = found
            return found

    def database(self, network: Network) -> tuple[str, str]:
        """A new empty database: its URL without the password, and the password."""
        server = self.mariadb(network)
        base = make_url(server.open_url)
        name = f"{base.database}_{next(self._numbers)}"
        engine = Server.of(base).engine()
        try:
            with engine.begin() as connection:
                connection.execute(text(f"CREATE DATABASE {name}"))
        finally:
            engine.dispose()
        return server.url.rpartition("/")[0] + f"/{name}", server.password

    @contextmanager
    def hdfs(self) -> Iterator[Hdfs]:
        """The HDFS, for one lane at a time."""
        with self._turn:
            if self._hdfs is None:
                self._hdfs = Hdfs(self._make("fs"))
                self._hdfs.start()
                self._ending.callback(self._hdfs.stop)
            yield self._hdfs

    def close(self) -> None:
        """End all servers."""
        self._ending.close()

    def _make(self, name: str) -> Path:
        folder = self._folder / f"{name}{next(self._numbers)}"
        folder.mkdir(parents=True)
        return folder
