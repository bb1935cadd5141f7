"""A real MariaDB server with a data directory, a socket and a port of its own."""

from __future__ import annotations

import getpass
import secrets
import shutil
import subprocess
import threading
from pathlib import Path
from typing import IO, Final

import pymysql

from tests.services.ports import free_ports

USER: Final = "edge"
DATABASE: Final = "testbed"
URL_VARIABLE: Final = "TESTBED_TEST_MYSQL_URL"
"""Names a server to test against beside the tests' own."""

STOP_S: Final = 20.0
_READY: Final = "ready for connections"
_SETTINGS: Final = (
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--performance-schema=off",
    "--innodb-buffer-pool-size=64M",
    "--innodb-log-file-size=16M",
    "--innodb-buffer-pool-dump-at-shutdown=off",
    # What a server has by default is no concern of the task log's.
    "--character-set-server=latin1",
)


def lacking() -> str | None:
    """What to install so that ``MariaDb`` works here; None if nothing."""
    return None if _program("mariadbd") else "install mariadb-server"


def _program(name: str) -> str | None:
    # A server is a program of the administrator, whose folders need not be searched for others.
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")


class MariaDb:
    """A server with its data below ``folder``, a short path that its user may enter; ``start`` it.

    The user ``edge`` has all rights on the databases whose names begin with ``testbed``, and a
    password that is new every time. ``options`` are added to the server's own.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.password = secrets.token_urlsafe(12)
        self.socket = folder / "s"
        (self.port,) = free_ports(1)
        self._data = folder / "data"
        self._options = [
            "--no-defaults",
            f"--datadir={self._data}",
            f"--socket={self.socket}",
            f"--port={self.port}",
            f"--pid-file={folder / 'pid'}",
            # The server refuses to run as root unless that is said.
            f"--user={getpass.getuser()}",
            *_SETTINGS,
            *options,
        ]
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The URL of its database over TCP, without the password."""
        return f"mysql+pymysql://{USER}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def open_url(self) -> str:
        """The same with the password."""
        return self.url.replace("@", f":{self.password}@", 1)

    @property
    def log(self) -> Path:
        """What it said."""
        return self.folder / "log"

    def start(self) -> None:
        """Make the data directory if there is none, and return when connections are taken."""
        new = not self._data.exists()
        if new:
            subprocess.run(
                [
                    "mariadb-install-db",
                    "--auth-root-authentication-method=normal",
                    "--skip-test-db",
                    *self._install_options,
                ],
                check=True,
                capture_output=True,
                timeout=120,
            )
        process = subprocess.Popen(
            [_program("mariadbd") or "mariadbd", *self._options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        assert process.stderr is not None
        with self.log.open("a") as log:
            for line in process.stderr:
                log.write(line)
                if _READY in line:
                    break
            else:
                process.wait()
                raise RuntimeError(f"mariadbd ended:\n{self.log.read_text()[-4000:]}")
        self._process = process
        self._reader = threading.Thread(target=self._follow, args=(process.stderr,), daemon=True)
        self._reader.start()
        if new:
            with self.root() as root, root.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {DATABASE}")
                cursor.execute(f"CREATE USER {USER}@'%%' IDENTIFIED BY %s", (self.password,))
                cursor.execute(f"GRANT ALL ON `{DATABASE}%`.* TO {USER}@'%'")

    def stop(self) -> None:
        """End it in order; no-op if it has ended."""
        self._end(kill=False)

    def kill(self) -> None:
        """As a power cut would; no-op if it has ended."""
        self._end(kill=True)

    @property
    def pid(self) -> int:
        """The id of its process."""
        assert self._process is not None
        return self._process.pid

    def root(self) -> pymysql.Connection[pymysql.cursors.Cursor]:
        """A connection of the administrator."""
        return pymysql.connect(unix_socket=str(self.socket), user="root", autocommit=True)

    @property
    def _install_options(self) -> list[str]:
        keep = ("--no-defaults", "--datadir=", "--user=", "--innodb-", "--character-set")
        return [option for option in self._options if option.startswith(keep)]

    def _end(self, *, kill: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if kill:
            process.kill()
        else:
            process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._reader is not None:
            self._reader.join()

    def _follow(self, stream: IO[str]) -> None:
        """Write what it says to the log, so that it never waits for a reader."""
        with stream, self.log.open("a") as log:
            for line in stream:
                log.write(line)
                log.flush()
