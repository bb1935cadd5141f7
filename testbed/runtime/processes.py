"""Child processes that outlive their parent, and finding every one of them again.

Each process gets variables in its environment that name its testbed. They are inherited, cannot be
lost, and are there before any file says that the process exists; so what an ``up`` that was killed
half-way has started is found as surely as what a finished one has.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import site
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from testbed import environment, foreign

_SECRET: Final = (
    environment.MYSQL_PASSWORD,
    environment.CREDENTIALS,
    environment.TOKEN,
    f"{environment.TOKEN}_FILE",
    environment.PROCESS_CREDENTIALS,
    environment.PROCESS_TOKEN,
    f"{environment.PROCESS_TOKEN}_FILE",
)

NOT_INHERITED: Final = frozenset(
    {*_SECRET, *(environment.EARLIER.get(each, each) for each in _SECRET)}
)
"""Variables of an operator's shell that processes of a testbed must not inherit."""


@dataclass(frozen=True, slots=True)
class Started:
    """A process just started. ``alive`` is the reading end of a pipe that ends with the process,
    and on which it may say something before (it finds the other end as descriptor 3). ``created``
    is ``created_at`` of it."""

    name: str
    pid: int
    created: float
    alive: int


REPORT_DESCRIPTOR: Final = 3

NICE: Final = 5
"""Nice value of a process that can wait; one third of the share of others."""

TELL_EVERY_S: Final = 2.0
"""Between two words about processes that are waited for."""


def start(
    name: str,
    module: str,
    arguments: Sequence[str],
    *,
    log: Path,
    directory: Path,
    testbed_name: str,
    secrets: Mapping[str, str],
) -> Started:
    """Start ``python -m module arguments`` in a session of its own, with its output in ``log``.

    ``secrets`` go into its environment: arguments are seen by every user of the machine. The
    password of the task log is there only if it is among them.

    Raises: PrerequisiteMissing: another project's package would be started instead of ours.
    """
    reading, writing = os.pipe()
    try:
        pid = _spawn(
            module,
            arguments,
            _environment(name, directory, testbed_name, secrets),
            [
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                *_into(log),
                (os.POSIX_SPAWN_DUP2, writing, REPORT_DESCRIPTOR),
            ],
        )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return Started(name, pid, created_at(psutil.Process(pid)), reading)


def let_others_first(pid: int) -> None:
    """Give a process that has just begun less processor time than others, where they want it.

    Linux shares them among sessions first (sched(7), autogroup), so its session is told too.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, NICE)
        Path(f"/proc/{pid}/autogroup").write_text(str(NICE), encoding="ascii")


class Zygote:
    """A process that loads what nodes need, and is forked for each of them.

    See ``edgenode.zygote``. It ends when it is closed, which does not touch the nodes.

    Raises: PrerequisiteMissing: another project's package would be started instead of ours.
    """

    NAME: Final = "zygote-of-nodes"
    """Longer than the name of any node, which is written in its place."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        log: Path,
        directory: Path,
        testbed_name: str,
    ) -> None:
        """Start it. ``arguments`` are as long as the longest of a node, which replace them."""
        self._orders, orders = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with orders:
            try:
                self.pid = _spawn(
                    "edgenode.zygote",
                    arguments,
                    _environment(self.NAME, directory, testbed_name, {}),
                    [(os.POSIX_SPAWN_DUP2, orders.fileno(), 0), *_into(log)],
                )
            except BaseException:
                self._orders.close()
                raise
        self._log = log

    def make(self, name: str, arguments: Sequence[str], *, log: Path, timeout: float) -> Started:
        """Make a node; the first waits until all that nodes need is loaded.

        Raises: OSError: the zygote has ended, or did not answer within ``timeout`` seconds.
        """
        order = {"name": name, "arguments": list(arguments), "log": str(log)}
        reading, writing = os.pipe()
        try:
            self._orders.settimeout(timeout)
            socket.send_fds(self._orders, [json.dumps(order).encode()], [writing])
            answer = self._orders.recv(64)
            if not answer:
                raise ConnectionResetError("it has ended")
            pid = int(answer)
            return Started(name, pid, created_at(psutil.Process(pid)), reading)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)

    def close(self) -> None:
        """End it and wait until it has ended; its log goes where it has written nothing."""
        self._orders.close()
        # It may be stopped, or still be loading; it is not needed any more.
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        with contextlib.suppress(OSError):
            if self._log.stat().st_size == 0:
                self._log.unlink()


def _environment(
    name: str, directory: Path, testbed_name: str, secrets: Mapping[str, str]
) -> dict[str, str]:
    return {
        # Its own lines speak of every connection that a stopping peer closes, without a bound.
        "GRPC_VERBOSITY": "NONE",
        **{key: value for key, value in os.environ.items() if key not in NOT_INHERITED},
        environment.PROCESS_TESTBED: testbed_name,
        environment.PROCESS_FOLDER: str(directory),
        environment.PROCESS_NAME: name,
        **secrets,
        "PYTHONUNBUFFERED": "1",
        # The folder a user happens to be in may hold a `random.py`.
        "PYTHONSAFEPATH": "1",
        **_import_path(),
    }


def _into(log: Path) -> list[tuple[Any, ...]]:
    """Return the file actions by which a spawned process writes into ``log``."""
    return [
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]


def _spawn(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    file_actions: Sequence[tuple[Any, ...]],
) -> int:
    foreign.refuse(module.partition(".")[0])
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", module, *arguments],
        environment,
        file_actions=file_actions,
        # Out of reach of Ctrl-C and of the terminal's end.
        setsid=True,
    )


def _import_path() -> Mapping[str, str]:
    """Return the import path that children need to find the same code as this process."""
    root = str(Path(__file__).resolve().parents[2])
    if root in (*site.getsitepackages(), site.getusersitepackages()):
        return {}
    given = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{root}{os.pathsep}{given}" if given else root}


def of_testbed(
    directory: Path, noted: Mapping[str, tuple[int, float]]
) -> dict[int, tuple[str, psutil.Process]]:
    """Return every running process of the testbed in ``directory``, by id, with its name.

    Those marked by their environment, and those ``noted`` (by name: id and time of creation) whose
    environment cannot be read. This process and those it descends from are never among them.
    """
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found: dict[int, tuple[str, psutil.Process]] = {}
    for process in psutil.process_iter():
        if process.pid in mine:
            continue
        try:
            variables = process.environ()
        except (psutil.Error, OSError):
            continue
        if environment.found(variables, environment.PROCESS_FOLDER) == str(directory):
            name = environment.found(variables, environment.PROCESS_NAME) or "process"
            found[process.pid] = name, process
    for name, (pid, created) in noted.items():
        process_or_none = alive(pid, created)
        if process_or_none is not None and pid not in mine:
            found.setdefault(pid, (name, process_or_none))
    return found


def created_at(process: psutil.Process) -> float:
    """Return when a process was created, in seconds since the system has booted.

    Tells it from a later one with the same id. The calendar, which moves when the clock of the
    machine is set or slewed, is used only where the system does not tell: seconds since 1970.

    Raises: psutil.NoSuchProcess: it has ended.
    """
    try:
        # The name of the program, which may hold anything, ends with the last parenthesis.
        fields = Path(f"/proc/{process.pid}/stat").read_text(errors="replace").rpartition(")")[2]
        return int(fields.split()[_START_TIME]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return process.create_time()


_START_TIME: Final = 19
"""Field ``starttime`` of /proc/PID/stat, counted from the one after the name; see proc(5)."""

_CALENDAR: Final = 5e8
"""Seconds that are more than any system's time since it has booted, and less than any date's."""


def arguments(found: Iterable[psutil.Process]) -> list[str]:
    """Return the arguments of all these processes, as far as they can be read."""
    every: list[str] = []
    for process in found:
        with contextlib.suppress(psutil.Error, OSError):
            every += process.cmdline()
    return every


def alive(pid: int, created: float) -> psutil.Process | None:
    """Return the process with this id if it runs and was created at that time; else None.

    ``created`` as ``created_at`` gave it, or by the calendar, as earlier versions noted it.
    """
    try:
        process = psutil.Process(pid)
        now = process.create_time() if created > _CALENDAR else created_at(process)
        # Its own clock ticks, rounded differently by different versions of the library.
        if abs(now - created) > 0.05 or not running(process):
            return None
    except psutil.Error:
        return None
    return process


def running(process: psutil.Process) -> bool:
    """Return whether it runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def terminate(
    processes: Iterable[psutil.Process],
    timeout: float,
    waiting: Callable[[Sequence[psutil.Process], float], None] = lambda left, seconds: None,
) -> list[psutil.Process]:
    """Ask to end, wait at most ``timeout`` seconds; those that still run.

    ``waiting`` gets the processes that still run every ``TELL_EVERY_S``, and the seconds so far.
    """
    return _end(processes, timeout, kill=False, waiting=waiting)


def wake(processes: Iterable[psutil.Process]) -> None:
    """Continue stopped processes, so that they can handle signals and requests."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.resume()


def stopped(process: psutil.Process) -> bool:
    """Return whether a process is stopped (SIGSTOP) and handles nothing until continued."""
    try:
        return bool(process.status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False


def kill(processes: Iterable[psutil.Process], timeout: float) -> list[psutil.Process]:
    """End at once, wait at most ``timeout`` seconds; those that still run."""
    return _end(processes, timeout, kill=True)


def _end(
    processes: Iterable[psutil.Process],
    timeout: float,
    *,
    kill: bool,
    waiting: Callable[[Sequence[psutil.Process], float], None] = lambda left, seconds: None,
) -> list[psutil.Process]:
    asked = []
    for process in processes:
        try:
            if kill:
                process.kill()
            else:
                process.terminate()
        except psutil.Error:
            continue
        asked.append(process)
    _ended(asked, timeout, waiting)
    # No wait: it reads the exit codes of our own children, so that they are zombies no more.
    _, left = psutil.wait_procs(asked, timeout=0)
    return [process for process in left if running(process)]


def _ended(
    processes: Sequence[psutil.Process],
    timeout: float,
    tell: Callable[[Sequence[psutil.Process], float], None],
) -> None:
    """Return when all have ended, after ``timeout`` seconds at the latest.

    Having ended is enough: a zombie is gone when its parent likes, and the first process of a
    container may take a second to.
    """
    began = time.monotonic()
    until, due = began + timeout, began + TELL_EVERY_S
    with contextlib.ExitStack() as stack:
        waiting = stack.enter_context(selectors.DefaultSelector())
        for process in processes:
            try:
                descriptor = os.pidfd_open(process.pid)
            except ProcessLookupError:
                continue
            except (AttributeError, OSError):
                # Not on this system, or too many of them.
                psutil.wait_procs(processes, timeout=timeout)
                return
            stack.callback(os.close, descriptor)
            waiting.register(descriptor, selectors.EVENT_READ, process)
        while waiting.get_map() and (left := until - time.monotonic()) > 0:
            for key, _ in waiting.select(min(left, max(0.0, due - time.monotonic()))):
                waiting.unregister(key.fd)
            if time.monotonic() >= due and waiting.get_map():
                tell([key.data for key in waiting.get_map().values()], due - began)
                due += TELL_EVERY_S
