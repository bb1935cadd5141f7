"""From a URL of MySQL or MariaDB to an engine: where the password comes from, how long to wait.

The password never stands in what is shown: ``Server.where`` names the server without it, and
``Server.login`` says only where it was taken from.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL

from testbed import environment
from testbed.errors import PrerequisiteMissing, Problem, UsageError
from testbed.scenario.secrets import without_password

PASSWORD_FILE: Final = "password_file"
DEFAULTS_FILE: Final = "read_default_file"
USER_DEFAULTS: Final = Path("~/.my.cnf")
"""Where the clients of MySQL look for a user and a password."""

CONNECT_TIMEOUT_S: Final = 5
ANSWER_TIMEOUT_S: Final = 60
"""Seconds without an answer to a statement after which the connection counts as lost."""

FORM: Final = "mysql+pymysql://USER@HOST:PORT/DATABASE"

_DRIVER: Final = "mysql+pymysql"


@dataclass(frozen=True, slots=True)
class Server:
    """Address of a database: ``url`` has the password, ``where`` has not.

    ``login`` says in words which user and whose password the server was shown.
    """

    url: URL
    where: str
    login: str

    @classmethod
    def of(cls, url: URL) -> Server:
        """Return the database of ``url``, with the password of the first place that has one.

        That is the URL itself, the file named by its option ``password_file``, the environment
        variable ``TESTBED_MYSQL_PASSWORD``, the file named by its option ``read_default_file``,
        and ``~/.my.cnf``.

        Raises: UsageError: the URL names no database or another driver. PrerequisiteMissing: the
        file with the password cannot be read.
        """
        url = url.set(drivername=_DRIVER)
        if not url.database:
            raise _impossible(url, "names no database", FORM)
        password, source = url.password, "of the URL"
        query: dict[str, Any] = dict(url.query)
        for name in ("password", "passwd"):
            given = query.pop(name, None)
            password = str(given) if password is None and given is not None else password
        file = query.pop(PASSWORD_FILE, None)
        if password is None and file is not None:
            password, source = _read(str(file)), f"of the file {file}"
        variable = os.environ.get(environment.MYSQL_PASSWORD)
        if password is None and variable is not None:
            password = variable
            source = f"of the variable {environment.MYSQL_PASSWORD}"
        if password is None:
            defaults = query.get(DEFAULTS_FILE)
            if defaults is None and USER_DEFAULTS.expanduser().is_file():
                defaults = query[DEFAULTS_FILE] = str(USER_DEFAULTS.expanduser())
            source = "that is not given" if defaults is None else f"of the file {defaults}"
        else:
            # The file would be asked for what is not given here; its password is not wanted.
            query.pop(DEFAULTS_FILE, None)
        login = f"user {url.username or 'not given'}, password {source}"
        complete = url.set(password=password, query=query)
        return cls(complete, _shown(url), login)

    def engine(self) -> Engine:
        """Return an engine that checks connections before use, so that restarts do no harm."""
        return create_engine(
            self.url,
            pool_pre_ping=True,
            # No connection is idle for longer than servers and firewalls usually keep one.
            pool_recycle=1800,
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "read_timeout": ANSWER_TIMEOUT_S,
                "write_timeout": ANSWER_TIMEOUT_S,
                # Not FOUND_ROWS: rows that were there already must not be counted as new.
                "client_flag": 0,
                # Rows that do not fit are an error, whatever the server's default is.
                "init_command": "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
            },
        )


def _impossible(url: URL, seen: str, allowed: str) -> UsageError:
    return UsageError(
        "the task log cannot be opened", [Problem("storage", f"{_shown(url)} {seen}", allowed)]
    )


def _shown(url: URL) -> str:
    return without_password(url.render_as_string(hide_password=False))


def _read(file: str) -> str:
    path = Path(file).expanduser()
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PrerequisiteMissing(
            f"the password of the task log cannot be read from {path}: {reason}",
            f"write it there, or name another file with ?{PASSWORD_FILE}=PATH",
        ) from None
