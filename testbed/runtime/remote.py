"""A testbed that something else started: containers, a cluster, another machine.

All that is known of it is where its controller listens and what opens it. It can be asked
and used as any other; it is started and stopped by what started it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, NoReturn

from testbed.errors import Problem, UsageError
from testbed.rpc.operator import OperatorClient
from testbed.runtime.base import Lack, Report, Stopped, Teardown, Testbed, valid_name
from testbed.scenario.plan import PlanHead

NAME: Final = "default"
"""Name of the one testbed here, independent of its name at the controller."""


class RemoteRuntime:
    """The ``Runtime`` of the testbed whose controller is at ``address`` (host:port).

    ``store`` and ``artifacts`` are the URLs of its task log and its artifact store from here; what
    the controller calls them if empty.
    """

    def __init__(
        self,
        address: str,
        token: str,
        *,
        store: str = "",
        artifacts: str = "",
        home: Path,
        plaintext: bool = False,
    ) -> None:
        self._address = address
        self._token = token
        self._plaintext = plaintext
        self._store, self._artifacts = store, artifacts
        self._home = home

    on_this_machine = False
    on_cluster = None
    place: Mapping[str, str] = MappingProxyType({})

    def check(self) -> tuple[Lack, ...]:
        """See ``Runtime``."""
        return ()

    def up(
        self,
        plan: PlanHead,
        name: str,
        *,
        store: str | None = None,
        scenario: str | None = None,
        report: Report = lambda line: None,
    ) -> Testbed:
        """Raises: UsageError, always."""
        self._refuse("started")

    def find(self, name: str) -> Testbed:
        """See ``Runtime``. Asks the controller; raises what ``OperatorClient.status`` does."""
        if valid_name(name) != NAME:
            raise UsageError(
                "with --controller there is one testbed",
                [Problem("name", repr(name), f"leave --name out, or name it '{NAME}'")],
            )
        with OperatorClient(self._address, self._token, plaintext=self._plaintext) as client:
            status = client.status()
        return Testbed(
            name=NAME,
            directory=self._home,
            address=self._address,
            token=self._token,
            store=self._store or status.store,
            scenario=status.scenario,
            nodes=len(status.nodes),
            artifacts=self._artifacts,
            plaintext=self._plaintext,
        )

    def names(self) -> tuple[str, ...]:
        """See ``Runtime``."""
        return (NAME,)

    def kill(self, name: str, node: int) -> Stopped:
        """Raises: UsageError, always."""
        self._refuse("ended")

    def start_stopped(self, *, report: Report = lambda line: None) -> bool:
        """See ``Runtime``. What is not of this home is not started."""
        return False

    def down(self, name: str, *, report: Report = lambda line: None) -> Teardown:
        """Raises: UsageError, always."""
        self._refuse("stopped")

    def own_log(self, name: str) -> str | None:
        """See ``Runtime``. What stops the testbed knows what becomes of its task log."""
        return None

    def was_up(self, name: str) -> bool:
        """See ``Runtime``. Its controller answers, or nothing is known."""
        return True

    def leftovers(self, name: str) -> tuple[str, ...]:
        """Raises: UsageError, always."""
        self._refuse("looked for")

    def idle(self) -> tuple[str, ...]:
        """See ``Runtime``. Nothing outlives its testbed."""
        return ()

    def remove_idle(self, *, report: Report = lambda line: None) -> tuple[str, ...]:
        """See ``Runtime``."""
        return ()

    def logs(
        self, name: str, process: str, *, lines: int | None = None, follow: bool = False
    ) -> Iterator[str]:
        """Raises: UsageError, always."""
        self._refuse("asked for their logs")

    def _refuse(self, what: str) -> NoReturn:
        raise UsageError(
            f"the processes of the testbed at {self._address} are {what} where they run "
            "(as in `docker compose up`, `down`, `kill`, `logs`); without --controller this "
            "command is about testbeds on this machine"
        )
