"""Where this toolkit keeps things: one folder per user unless told otherwise.

``HOME/artifacts`` holds the policies of all testbeds of the home, ``HOME/datasets`` data sets;
``HOME/tasklog.sqlite`` is the task log that all testbeds and simulations of the home share, so
that runs can be compared after the testbeds they were made on are gone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from testbed.cli import console
from testbed.scenario.secrets import split_password

TASK_LOG: Final = "tasklog.sqlite"
ARTIFACTS: Final = "artifacts"
DATA_SETS: Final = "datasets"

PASSWORD_VARIABLE: Final = "TESTBED_MYSQL_PASSWORD"
"""As in ``testbed.storage.tasklog.server``, which takes long to import."""

_chosen: list[Path] = []
_controllers: list[str] = []


def choose(path: Path | None) -> None:
    """Make ``path`` (of ``--home``) the home of this command; None: what the environment says."""
    _chosen[:] = [] if path is None else [path.expanduser().absolute()]


def home() -> Path:
    """``--home``, or ``$TESTBED_HOME``, or ``edge-testbed`` in the user's folder for state.

    The folder need not exist yet.
    """
    if _chosen:
        return _chosen[0]
    if given := os.environ.get("TESTBED_HOME"):
        return Path(given).expanduser().absolute()
    state = os.environ.get("XDG_STATE_HOME")
    base = Path(state) if state and Path(state).is_absolute() else Path.home() / ".local" / "state"
    return base / "edge-testbed"


def task_log_url(given: str | None, of_scenario: str | None = None) -> str:
    """The task log to use: the one asked for, else the scenario's, else that of the home.

    A file is named from the root, because who reads it later may stand in another folder. A
    password in the URL goes into the environment of this process, where the task log looks for it;
    so it is in nothing that is shown, stored or handed on from here.
    """
    url, password = split_password(given or of_scenario or str(home() / TASK_LOG))
    if password is not None:
        os.environ[PASSWORD_VARIABLE] = password
        if given != os.environ.get("TESTBED_STORAGE"):
            console.warn(
                "others on this machine can see the password in the list of processes; better set "
                f"{PASSWORD_VARIABLE}, or name a file: ?password_file=PATH"
            )
    prefix = "sqlite:///" if url.startswith("sqlite:///") else ""
    path = url.removeprefix(prefix)
    return url if "://" in path else f"{prefix}{Path(path).expanduser().absolute()}"


def artifacts_url(given: str | None, of_scenario: str | None = None) -> str:
    """The artifact store to use: the one asked for, else the scenario's, else that of the home.

    ``$TESTBED_ARTIFACTS`` asks for one too, in commands without the option.
    """
    asked = given or os.environ.get("TESTBED_ARTIFACTS")
    url = asked or of_scenario or str(home() / ARTIFACTS)
    return url if "://" in url else str(Path(url).expanduser().absolute())


def choose_controller(address: str | None) -> None:
    """Make ``address`` (of ``--controller``) what this command talks to; None: testbeds here."""
    _controllers[:] = [address] if address else []


def controller() -> str | None:
    """The address of the controller to talk to; None: a testbed of the home, by its name."""
    return _controllers[0] if _controllers else None
