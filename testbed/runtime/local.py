"""Testbeds as processes on this machine, with nothing to install.

Every process is a child in a session of its own, listens on a Unix socket in a folder that only its
user can enter, and is found again from the run directory and from its environment (see
``processes``), so nothing depends on the command that started it. No port is opened, but for nodes
that serve requests, on the loopback interface. ``launching`` starts the processes.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TextIO

import psutil

from testbed import environment
from testbed.errors import (
    PermanentError,
    PrerequisiteMissing,
    Problem,
    TestbedError,
    UsageError,
)
from testbed.rpc import addresses, identity
from testbed.rpc.credentials import Secrets, issue, read
from testbed.rpc.identity import OPERATOR, node_identity
from testbed.rpc.trunks import end_node
from testbed.runtime import directory, processes
from testbed.runtime.base import (
    CONTROLLER,
    Lack,
    Report,
    Stopped,
    Teardown,
    Testbed,
    node_process,
    valid_name,
)
from testbed.runtime.directory import RunDirectory
from testbed.runtime.hosting import Hosting
from testbed.runtime.registry import Settings
from testbed.scenario.plan import PlanHead
from testbed.scenario.secrets import split_password
from testbed.version import __version__

STOP_CONTROLLER_S: Final = 30.0
STOP_REST_S: Final = 10.0
KILL_S: Final = 10.0
"""Time limit of each step of ``down`` before the next. The first lets a run end in order
and the controller send its nodes home (it gives itself less, see ``controller.process``); the last
only waits for the system. On a quiet machine all together take a fraction of a second; a busy one
gets the time it needs, because a process that is killed leaves half a log."""

ORPHAN_TIMEOUT_S: Final = 5.0
"""Time that nodes run on without their controller."""

FOLLOW_INTERVAL_S: Final = 0.2
"""Interval at which a followed log is read."""

TASK_LOG: Final = "tasklog.sqlite"
"""Task log of all testbeds of a home for which no other is named."""

ARTIFACTS: Final = "artifacts"
"""Folder of a home with the policies of all its testbeds for which no other store is named."""


class LocalRuntime:
    """The ``Runtime`` of this machine; what it keeps is below ``home``.

    ``orphan_timeout_s`` is how long nodes live on when their controller has died. ``hosting`` says
    which nodes share a process.
    """

    def __init__(
        self,
        home: Path,
        *,
        orphan_timeout_s: float = ORPHAN_TIMEOUT_S,
        hosting: Hosting | None = None,
    ) -> None:
        self.home = home.absolute()
        self._orphan_timeout_s = orphan_timeout_s
        self._hosting = hosting or Hosting()

    takes: frozenset[str] = frozenset(
        {
            "deployment.nodesPerProcess",
            "deployment.transport",
            "deployment.httpPort",
            "deployment.metricsPort",
        }
    )

    @classmethod
    def open(cls, settings: Settings) -> LocalRuntime:
        """See ``RuntimeFactory``."""
        return cls(settings.home, hosting=Hosting.of(settings.deployment))

    on_this_machine = True
    on_cluster = None
    place: Mapping[str, str] = MappingProxyType({})

    def check(self) -> tuple[Lack, ...]:
        """See ``Runtime``."""
        found = []
        if not hasattr(os, "posix_spawn"):
            found.append(Lack("this system cannot spawn processes the POSIX way", "use Linux"))
        try:
            with directory.writing(self.home):
                directory.private_folder(self.home)
                if not os.access(self.home, os.W_OK | os.X_OK):
                    raise PermissionError(13, "permission denied")
        except PrerequisiteMissing as error:
            found.append(Lack(error.seen, error.fix))
        except PermanentError as error:
            found.append(Lack(str(error), "free some space"))
        return tuple(found)

    def up(
        self,
        plan: PlanHead,
        name: str,
        *,
        store: str | None = None,
        scenario: str | None = None,
        report: Report = lambda line: None,
    ) -> Testbed:
        """See ``Runtime``."""
        # gRPC takes longer to load than most commands, which start nothing.
        from testbed.runtime.launching import Launch, NodeArguments

        place = RunDirectory(self.home, valid_name(name))
        if plan.artifacts_url is None:
            plan = dataclasses.replace(plan, artifacts_url=str(self.home / ARTIFACTS))
        with place.lock():
            if place.exists or place.path.is_dir():
                self._refuse_clash(place)
            http = self._hosting.http(plan)
            # All credentials are derived from it; it is not stored.
            secret = secrets.token_hex(32)
            operator = issue(secret, OPERATOR, [identity.CONTROLLER])
            url, password = split_password(store or plan.storage_url or str(self.home / TASK_LOG))
            if password is None:
                password = os.environ.get(environment.MYSQL_PASSWORD)
            sockets = addresses.new_socket_folder()
            description = {
                "name": name,
                "token": operator.tokens[CONTROLLER],
                "sockets": str(sockets),
                "version": __version__,
                "scenario": plan.name,
                "store": url,
                "nodes": plan.size,
            }
            try:
                _remove_sockets(place)
                place.create(description, plan.to_json(), scenario)
                # After its name is written down: what is made can be found and removed again.
                addresses.make_private(sockets)
                self._write_credentials(place, secret, plan.size)
                groups = self._hosting.groups(plan, self.home)
                arguments = NodeArguments(
                    place, description, self._orphan_timeout_s, self._hosting.transport, http
                )
                port = self._hosting.metrics_port
                address = Launch(
                    place, description, password, groups, arguments, report, metrics_port=port
                ).run()
                return _testbed(place, description, address)
            except BaseException as error:
                # Ctrl-C too: half a testbed is of no use to anybody.
                try:
                    self._down(place)
                except TestbedError as left:
                    error.add_note(str(left))
                raise

    def find(self, name: str) -> Testbed:
        """See ``Runtime``."""
        place = RunDirectory(self.home, valid_name(name))
        description = place.description()
        if description is None and not place.exists:
            raise directory.no_testbed(self.home, name)
        address = place.address()
        controller = place.processes().get(CONTROLLER)
        if (
            description is None
            or address is None
            or controller is None
            or processes.alive(*controller) is None
        ):
            raise UsageError(
                f"testbed '{name}' has no running controller: it is incomplete, or its controller "
                f"ended (its log: {place.log(CONTROLLER)}); run "
                f"`testbed teardown --name {name}` to remove it"
            )
        return _testbed(place, description, address)

    def names(self) -> tuple[str, ...]:
        """See ``Runtime``."""
        return directory.names(self.home)

    def kill(self, name: str, node: int) -> Stopped:
        """See ``Runtime``."""
        place = RunDirectory(self.home, valid_name(name))
        if not place.exists:
            raise directory.no_testbed(self.home, name)
        noted = place.processes()
        process_name = node_process(node)
        entry = noted.get(process_name)
        process = None if entry is None else processes.alive(*entry)
        if process is None:
            running = sorted(key for key, each in noted.items() if processes.alive(*each))
            raise UsageError(
                "no such node",
                [Problem("node", f"{process_name} is not running", ", ".join(running))],
            )
        if host := place.host(process_name):
            self._end_hosted(place, node, host)
            return Stopped(process_name, None, forced=True)
        if processes.kill([process], KILL_S):
            raise PermanentError(f"{process_name} (process {process.pid}) cannot be killed")
        return Stopped(process_name, process.pid, forced=True)

    @staticmethod
    def _end_hosted(place: RunDirectory, node: int, host: str) -> None:
        """End a node that shares its process with others, which live on."""
        me = read(place.credentials(CONTROLLER))
        description = place.description()
        if description is None or not isinstance(me, Secrets):
            raise PermanentError(f"testbed '{place.name}' is incomplete; take it down")
        path = Path(description["sockets"]) / f"{host}.sock"
        try:
            end_node(path, node, me, KILL_S)
        except PermanentError:
            # Only now: another command may have ended it meanwhile.
            place.strike(node_process(node))
            raise
        place.strike(node_process(node))

    def start_stopped(self, *, report: Report = lambda line: None) -> bool:
        """See ``Runtime``. Processes that have ended are not started again."""
        return False

    def down(self, name: str, *, report: Report = lambda line: None) -> Teardown:
        """See ``Runtime``."""
        place = RunDirectory(self.home, valid_name(name))
        if place.untouched and not processes.of_testbed(place.path, {}):
            return Teardown(name, (), 0.0, None)
        with place.lock():
            return self._down(place, report)

    def own_log(self, name: str) -> str | None:
        """See ``Runtime``. All testbeds of a home share its task log."""
        valid_name(name)
        return None

    def was_up(self, name: str) -> bool:
        """See ``Runtime``."""
        return RunDirectory(self.home, valid_name(name)).address() is not None

    def leftovers(self, name: str) -> tuple[str, ...]:
        """See ``Runtime``."""
        place = RunDirectory(self.home, valid_name(name))
        found = processes.of_testbed(place.path, place.processes()).values()
        return tuple(sorted(f"{each} (process {process.pid})" for each, process in found))

    def idle(self) -> tuple[str, ...]:
        """See ``Runtime``. Nothing outlives its testbed."""
        return ()

    def remove_idle(self, *, report: Report = lambda line: None) -> tuple[str, ...]:
        """See ``Runtime``."""
        return ()

    def logs(
        self, name: str, process: str, *, lines: int | None = None, follow: bool = False
    ) -> Iterator[str]:
        """See ``Runtime``."""
        place = RunDirectory(self.home, valid_name(name))
        path = place.log(process)
        if not path.is_file():
            known = ", ".join(sorted(log.stem for log in place.logs.glob("*.log")))
            raise UsageError(
                "no such log",
                [Problem("process", f"'{process}' of testbed '{name}'", known or "none is there")],
            )
        return self._following(place, process, lines) if follow else _lines(path, lines)

    @staticmethod
    def _following(place: RunDirectory, process: str, count: int | None) -> Iterator[str]:
        """Yield lines until the process has ended and all of its output was given."""
        with place.log(process).open(encoding="utf-8", errors="replace") as file:
            yield from (
                line.rstrip("\n") for line in (file if count is None else deque(file, count))
            )
            beginning, last = "", ""
            while True:
                # Asked before reading, so that nothing written in between is left out.
                entry = place.processes().get(process)
                ended = entry is None or processes.alive(*entry) is None
                for piece in file:
                    beginning += piece
                    if beginning.endswith("\n"):
                        last = beginning
                        yield beginning.rstrip("\n")
                        beginning = ""
                if os.fstat(file.fileno()).st_size < os.lseek(file.fileno(), 0, os.SEEK_CUR):
                    # It had become too large, and only its end was left (``testbed.logs``).
                    beginning = ""
                    _go_behind(file, last)
                    continue
                if ended:
                    if beginning:
                        yield beginning
                    return
                # There is no portable way to be told of an append.
                time.sleep(FOLLOW_INTERVAL_S)

    # --- inside -----------------------------------------------------------------------------

    @staticmethod
    def _write_credentials(place: RunDirectory, secret: str, size: int) -> None:
        """Write for each process what proves it to those it talks to, and nothing else."""
        nodes = [node_identity(node) for node in range(size)]
        for who in (identity.CONTROLLER, *nodes):
            others = nodes if who == identity.CONTROLLER else [identity.CONTROLLER, *nodes]
            place.write_credentials(str(who), issue(secret, who, others).to_json())

    def _refuse_clash(self, place: RunDirectory) -> None:
        """Raise if a testbed is up here; one whose processes have all ended is replaced."""
        if processes.of_testbed(place.path, place.processes()):
            raise UsageError(
                f"there is a testbed '{place.name}' already; choose another --name, or take it "
                f"down: testbed teardown --name {place.name}"
            )

    def _down(self, place: RunDirectory, report: Report = lambda line: None) -> Teardown:
        began = time.monotonic()
        stopped: dict[int, Stopped] = {}
        store = (place.description() or {}).get("store")

        def there() -> dict[int, tuple[str, psutil.Process]]:
            return processes.of_testbed(place.path, place.processes())

        found = there()
        arguments = processes.arguments([process for _, process in found.values()])
        controllers = [process for name, process in found.values() if name == CONTROLLER]

        def tell(still: Sequence[psutil.Process], seconds: float) -> None:
            names = ", ".join(f"{found[each.pid][0]} (process {each.pid})" for each in still)
            report(f"waiting for {names} to end in order, for {seconds:.0f} s so far")

        # A controller that was stopped has a run to end; a node has said all it knows.
        processes.wake(controllers)
        left = processes.terminate(controllers, STOP_CONTROLLER_S, tell)
        others = [process for name, process in found.values() if name != CONTROLLER]
        deaf = [process for process in others if processes.stopped(process)]
        left += [
            *deaf,
            *processes.terminate([one for one in others if one not in deaf], STOP_REST_S, tell),
        ]
        forced = {process.pid for process in left}
        processes.kill(left, KILL_S)
        for pid, (name, _) in found.items():
            stopped[pid] = Stopped(name, pid, forced=pid in forced)
        # The proof. What was being started meanwhile, or was started by what was stopped, is found
        # now; it gets no time to say farewell.
        while extra := there():
            unstoppable = processes.kill([process for _, process in extra.values()], KILL_S)
            if unstoppable:
                listed = ", ".join(f"{extra[p.pid][0]} (process {p.pid})" for p in unstoppable)
                raise PermanentError(
                    f"of testbed '{place.name}' could not stop {listed}; stop them manually"
                )
            for pid, (name, _) in extra.items():
                stopped[pid] = Stopped(name, pid, forced=True)
        _remove_sockets(place, arguments)
        hosted = place.hosted()
        kept = place.remove()
        ended = [
            dataclasses.replace(each, name=name)
            for each in stopped.values()
            for name in hosted.get(each.name, [each.name])
        ]
        in_order = sorted(ended, key=lambda each: (each.name, each.pid or 0))
        return Teardown(place.name, tuple(in_order), time.monotonic() - began, kept, store)


def _remove_sockets(place: RunDirectory, arguments: Iterable[str] = ()) -> None:
    """Remove the sockets of the testbed that is or was here.

    Their folder is in its description; if that is damaged, in the ``arguments`` of its processes.
    """
    folders = {str((place.description() or {}).get("sockets", ""))}
    for argument in arguments:
        if argument.startswith("unix:"):
            folders.add(str(Path(argument.removeprefix("unix:")).parent))
    for folder in folders:
        if folder:
            addresses.remove_sockets(Path(folder))


def _testbed(place: RunDirectory, description: dict[str, Any], address: str) -> Testbed:
    return Testbed(
        name=place.name,
        directory=place.path,
        address=address,
        token=description["token"],
        store=description["store"],
        scenario=description["scenario"],
        nodes=description["nodes"],
    )


def _go_behind(file: TextIO, line: str) -> None:
    """Go to the end of the last ``line`` of a file; to the beginning if it is not there."""
    file.seek(0)
    behind = 0
    while found := file.readline():
        if found == line:
            behind = file.tell()
    file.seek(behind)


def _lines(path: Path, count: int | None) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = deque(file, maxlen=count) if count is not None else file
        for line in lines:
            yield line.rstrip("\n")
