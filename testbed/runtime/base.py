"""The seam between the toolkit and where a testbed runs: start, find, stop.

Implementations pass ``testbed.testing.runtime.RuntimeContract``. None keeps state of its own:
what is up is found again from a run directory, or from labels, by a new shell and after a crash.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias

from testbed.errors import Problem, UsageError
from testbed.scenario.plan import PlanHead

CONTROLLER: Final = "controller"
"""Name of the controller's process; a node's is ``node-3``."""

RESULTS_FOLDER: Final = "trainer"
"""Folder of a testbed, in the home, in which the results of its trainer are kept."""

NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
"""Names of testbeds: what is legal in a file name and in a label everywhere."""

TrainerCommand: TypeAlias = Literal["o2o", "learn"]
"""Command that a trainer runs; each has a folder of its own in the trainer's volume."""

Report: TypeAlias = Callable[[str], None]
"""Callback for one-line progress messages."""


@dataclass(frozen=True, slots=True)
class Testbed:
    """A testbed that is up: where its controller listens, and what opens it.

    ``directory`` holds its logs. ``store`` is the URL of its task log from here, which may hold a
    password; ``artifacts`` that of its store of policies from here, empty if the controller's own
    URL is good here too.
    ``token`` may also be the PEM of the operator's certificate with its key; with ``plaintext`` it
    is one that all parties share, and nothing is encrypted.
    """

    name: str
    directory: Path
    address: str
    token: str
    store: str
    scenario: str
    nodes: int
    artifacts: str = ""
    plaintext: bool = False


@dataclass(frozen=True, slots=True)
class Stopped:
    """A process that ``down`` or ``kill`` ended; ``forced`` if it had to be killed.

    ``pid`` is its id on this machine, None if it ran elsewhere. Nodes that shared a process have
    the same; one of them that was killed alone has None, because its process lives on.
    """

    name: str
    pid: int | None
    forced: bool


@dataclass(frozen=True, slots=True)
class Teardown:
    """The result of ``down``; an empty ``stopped`` means that nothing was up.

    ``kept`` is where logs, and events that no task log has, are still found; None if nowhere.
    ``store`` is the task log it wrote into, without a password; None if that is not known.
    """

    name: str
    stopped: tuple[Stopped, ...]
    seconds: float
    kept: Path | None
    store: str | None = None


@dataclass(frozen=True, slots=True)
class Lack:
    """Something that keeps this runtime from working, and what to do about it."""

    what: str
    fix: str


class OnCluster(Protocol):
    """Operations on testbeds that only clusters offer; see ``Runtime.on_cluster``."""

    def server(self) -> str:
        """Return the version and the URL of the cluster's API server, for people.

        Raises: PrerequisiteMissing, TemporaryError, PermanentError: it cannot be asked.
        """
        ...

    def where(self, name: str) -> str:
        """Return context, API server and namespace of a testbed, for people.

        Raises: UsageError: there is no such testbed.
        """
        ...

    def way_to_front(self, name: str, node: int) -> str:
        """Return the command that leads port 8000 of this machine to a node's HTTP front.

        Raises: UsageError: there is no such testbed.
        """
        ...

    def scenario(self, name: str) -> str:
        """Return the text of the scenario file that a testbed was brought up with.

        Raises: UsageError: there is no such testbed, or it was not made from a file.
        """
        ...

    def start_trainer(
        self,
        name: str,
        arguments: Sequence[str],
        report: Report = ...,
        *,
        command: TrainerCommand = "o2o",
    ) -> str:
        """Start a Job that runs ``testbed COMMAND ARGUMENTS`` on this testbed; return its name.

        Returns when it is at work.

        Raises:
            UsageError: there is no such testbed, or its trainer is running.
            PrerequisiteMissing: its image is missing.
            PermanentError: it cannot start, or has failed at once; says why.
        """
        ...

    def stop_trainer(self, name: str) -> bool:
        """End the trainer of this testbed and return whether there was one. Its folder stays.

        Raises:
            UsageError: there is no such testbed.
            PermanentError: the trainer does not end.
        """
        ...

    def fetch_results(self, name: str, folder: Path, report: Report = ...) -> Sequence[Path]:
        """Copy report, figures and policies of the trainer into ``folder``; return what is there.

        Raises:
            UsageError: there is no such testbed, or its trainer has no results.
            PermanentError, TemporaryError: its volume cannot be read.
        """
        ...


class Runtime(Protocol):
    """Starts, finds and stops testbeds; several side by side, told apart by name.

    Raises (every call that takes a name): UsageError if the name is not a legal one.
    """

    @property
    def on_this_machine(self) -> bool:
        """Whether its processes run on this machine and share its files.

        Then a file will do as task log, a controller that does not answer is gone, and a command
        may bring up a testbed for its own use.
        """
        ...

    @property
    def on_cluster(self) -> OnCluster | None:
        """Operations that only clusters offer; None if its testbeds are not on one.

        Raises: PrerequisiteMissing: the cluster cannot be reached with what is configured.
        """
        ...

    @property
    def place(self) -> Mapping[str, str]:
        """The options of ``testbed`` that lead to its testbeds again, by name (``context``).

        They name what was the default when the runtime was made. Empty: none is needed.

        Raises: PrerequisiteMissing: there is no such default.
        """
        ...

    def check(self) -> tuple[Lack, ...]:
        """Return what is missing to bring a testbed up; empty if nothing is. Changes nothing."""
        ...

    def up(
        self,
        plan: PlanHead,
        name: str,
        *,
        store: str | None = None,
        scenario: str | None = None,
        report: Report = ...,
    ) -> Testbed:
        """Start a controller and the plan's nodes, and return when all are healthy.

        ``store`` overrides the plan's task log; ``scenario`` is the text of the scenario file, for
        the log. When it fails or is interrupted, everything started is stopped again.

        Raises:
            UsageError: there is a testbed of that name (where the runtime cannot change it), or
                another command is busy with it.
            PrerequisiteMissing: the folder for it cannot be written.
            PermanentError: a process could not start; the message shows the end of its log.
            TemporaryError: not all nodes became healthy in time.
        """
        ...

    def find(self, name: str) -> Testbed:
        """Return the testbed that is up under this name.

        Raises: UsageError: there is none, or it is incomplete; names those that are there.
        """
        ...

    def names(self) -> tuple[str, ...]:
        """Return the names of all testbeds, complete and incomplete, in order."""
        ...

    def kill(self, name: str, node: int) -> Stopped:
        """End a node at once, as a crash would. A cluster starts it again, others do not.

        Raises: UsageError: no such testbed, no such node, or it is not running.
        """
        ...

    def start_stopped(self, *, report: Report = ...) -> bool:
        """Start what carries testbeds and has stopped, such as a cluster of containers.

        Returns when it answers, which its testbeds may do later: whether this object has started
        it, now or before. Does nothing where nothing has stopped, or nothing can be started.

        Raises: TestbedError: it does not start; says how to remove it.
        """
        ...

    def down(self, name: str, *, report: Report = ...) -> Teardown:
        """Stop everything of this testbed, also what an interrupted ``up`` left behind.

        ``report`` gets a line now and then while this waits. Idempotent: nothing there is
        fine. When it returns, nothing of it is running any more.
        A task log that is not part of the testbed is not touched.

        Raises: PermanentError: something could not be ended; names it.
        """
        ...

    def own_log(self, name: str) -> str | None:
        """Return the URL from here of a task log that is part of this testbed and goes with it.

        None if its task log stays when it is taken down, or if there is no such testbed. The URL
        may hold a password.
        """
        ...

    def was_up(self, name: str) -> bool:
        """Return False if ``up`` of this testbed never came to its end, so that it had no run."""
        ...

    def leftovers(self, name: str) -> tuple[str, ...]:
        """Return what there still is of a testbed that was taken down, each in words."""
        ...

    def idle(self) -> tuple[str, ...]:
        """Return what was made for testbeds and carries none, such as a cluster, each in words."""
        ...

    def remove_idle(self, *, report: Report = ...) -> tuple[str, ...]:
        """Remove what ``idle`` returns, and return it.

        Raises: PermanentError: something of it could not be removed; names it.
        """
        ...

    def logs(
        self, name: str, process: str, *, lines: int | None = None, follow: bool = False
    ) -> Iterator[str]:
        """Yield the lines of a process's log, the last ``lines`` or all; also after ``down``.

        With ``follow`` it goes on with new lines until the process has ended.

        Raises: UsageError: no log of such a process; says which there are.
        """
        ...


def valid_name(name: str) -> str:
    """Return ``name`` if it is a legal name of a testbed.

    Raises: UsageError: it may not.
    """
    if NAME.fullmatch(name) is None:
        raise UsageError(
            "invalid name of a testbed",
            [
                Problem(
                    "name",
                    repr(name),
                    "1 to 40 of a-z, 0-9 and -, beginning and ending with a letter or digit",
                )
            ],
        )
    return name


def node_process(node: int) -> str:
    """Return the name of a node's process."""
    return f"node-{node}"
