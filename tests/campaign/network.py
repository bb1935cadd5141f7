"""One local network under campaign: its home, its commands, what it leaves behind."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import psutil
import yaml
from sqlalchemy.engine import make_url

from testbed.api.running import client_of
from testbed.errors import TestbedError
from testbed.rpc.operator import OperatorClient, Status
from testbed.runtime.base import Testbed
from testbed.runtime.local import LocalRuntime
from testbed.storage.tasklog import TaskLog, open_task_log
from tests.campaign.processes import COMMAND_S, Command, Finished, until
from tests.campaign.trial import Trial

NAME: Final = "c"
LANE_VARIABLE: Final = "CAMPAIGN_LANE"
"""In the environment of everything a lane starts; inherited, so what is left is found by it."""

_KEPT: Final = re.compile(r"edge-testbed-\d+-(\d+\.lock|policies)|torchinductor_\w+")
"""What all testbeds of a user share (turns at processors, verdicts about policies), and PyTorch's
cache."""

HOME_BYTES: Final = 48 << 20
HOOK: Final = Path(__file__).parent / "hook"


class Network:
    """A lane of the campaign in ``folder``, a short path; at most one testbed is up in it.

    ``store`` is the URL of its task log without the ``password``, None for the file of its home.
    Where the system allows it the home is a file system of its own, so that it can be filled.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "h"
        self.scratch = folder / "t"
        self.store: str | None = None
        self.password = ""
        self.variables: dict[str, str] = {}
        self._output = folder / "out"
        self._numbers = itertools.count()
        for each in (self.home, self.scratch, self._output):
            each.mkdir(parents=True)
        self.mounted = mount(self.home)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its commands."""
        variables = {
            **os.environ,
            **self.variables,
            LANE_VARIABLE: str(self.folder),
            "TESTBED_HOME": str(self.home),
            "TMPDIR": str(self.scratch),
            "XDG_RUNTIME_DIR": str(self.scratch),
            "NO_COLOR": "1",
        }
        if self.password:
            variables["TESTBED_MYSQL_PASSWORD"] = self.password
        return variables

    def hook(self, **variables: str) -> None:
        """Have processes that are started from now on load the hook, with these variables."""
        paths = [str(HOOK), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.variables |= {"PYTHONPATH": os.pathsep.join(paths), **variables}

    @property
    def runtime(self) -> LocalRuntime:
        """The runtime that finds its testbed."""
        return LocalRuntime(self.home)

    @property
    def log_url(self) -> str:
        """The URL of its task log, with the password."""
        if self.store is None:
            return str(self.home / "tasklog.sqlite")
        url = make_url(self.store).set(password=self.password)
        return url.render_as_string(hide_password=False)

    def unhook(self) -> None:
        """Start processes without links of the campaign; a clock that was stepped stays so."""
        self.variables.pop("CAMPAIGN_SWITCHBOARD", None)

    def begin(self, *arguments: str) -> Command:
        """Start a command; `--name` is added."""
        return Command(
            [*arguments, "--name", NAME], self.environment, self._output, next(self._numbers)
        )

    def do(self, *arguments: str, seconds: float = COMMAND_S) -> Finished:
        """Run a command to its end. Raises: Hang."""
        return self.begin(*arguments).wait(seconds)

    def begin_plain(self, *arguments: str) -> Command:
        """Start a command that knows no `--name`."""
        return Command(list(arguments), self.environment, self._output, next(self._numbers))

    def do_plain(self, *arguments: str) -> Finished:
        """Run a command that knows no `--name`. Raises: Hang."""
        return self.begin_plain(*arguments).wait()

    def scenario_file(self, trial: Trial) -> Path:
        """The scenario of a trial as a file."""
        path = self._output / "scenario.yaml"
        path.write_text(yaml.safe_dump(trial.scenario()))
        return path

    def up(self, trial: Trial) -> Finished:
        """Bring the network of a trial up."""
        return self.begin_up(trial).wait(4 * COMMAND_S)

    def begin_up(self, trial: Trial) -> Command:
        """Start to bring it up."""
        stores = () if self.store is None else ("--storage", self.store)
        return self.begin("up", str(self.scenario_file(trial)), *stores)

    def find(self) -> Testbed:
        """The testbed that is up."""
        return self.runtime.find(NAME)

    def operator(self) -> OperatorClient:
        """A client for its controller; use it as a context manager."""
        return client_of(self.find(), timeout=COMMAND_S)

    def status(self) -> Status | None:
        """What the controller says; None while it does not answer."""
        try:
            with self.operator() as client:
                return client.status()
        except TestbedError:
            return None

    def log(self) -> AbstractContextManager[TaskLog]:
        """Its task log, for reading."""
        return open_task_log(self.log_url, create=False)

    def process(self, name: str) -> psutil.Process | None:
        """Its process of this name, if it runs; a zombie does not."""
        for found, process in self.processes():
            if found == name:
                return process
        return None

    def processes(self) -> Iterator[tuple[str, psutil.Process]]:
        """Everything of this lane that runs, with the name of the process in the testbed."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                environment = process.environ()
                if (
                    environment.get(LANE_VARIABLE) == str(self.folder)
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    yield environment.get("TESTBED_PROCESS_NAME", "command"), process

    def leftovers(self) -> list[str]:
        """What a teardown has left that it must not leave."""
        found = [
            f"process {process.pid} ({name})"
            for name, process in self.processes()
            if psutil.pid_exists(process.pid)
        ]
        found += [
            f"temporary file {path.name}"
            for path in self.scratch.iterdir()
            if not _KEPT.fullmatch(path.name)
        ]
        for path in self.home.rglob("*"):
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(path.lstat().st_mode):
                    found.append(f"socket {path.name}")
                elif path.name.startswith(".") and path.is_file():
                    found.append(f"temporary file {path.relative_to(self.home)}")
                elif path.name in ("testbed.json", "controller.json"):
                    found.append(f"file {path.relative_to(self.home)}")
        return found

    def clean(self) -> None:
        """End everything and empty the folders, whatever happened."""
        for _, process in list(self.processes()):
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        until(
            "what was killed ends",
            lambda: True if not list(self.processes()) else None,
        )
        for folder in (self.home, self.scratch, self._output):
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def close(self) -> None:
        """End everything and remove the folder."""
        self.clean()
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.home)], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def mount(folder: Path) -> bool:
    """Make ``folder`` a small file system of its own; False where that is not allowed."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    options = f"size={HOME_BYTES},mode=0700"
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        check=False,
        capture_output=True,
    )
    return made.returncode == 0
