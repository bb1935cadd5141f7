"""A network that is up as a venue: real runs, and policies deployed to all nodes.

It knows the network by its controller, its task log and its artifact store, so it does not matter
where the nodes run: processes, containers or pods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from testbed.errors import PermanentError, UsageError
from testbed.experiment.live.venue import Driver, Order, rates_in
from testbed.policies import SHIPPED_DEFAULT, SHIPPED_PREFIX
from testbed.rpc.operator import OperatorClient, Progress
from testbed.rpc.repeated import deploy_to_all, start_marked, wait_for_end
from testbed.scenario.plan import Plan
from testbed.storage.tasklog import TaskLog

Follow: TypeAlias = Callable[[str], Iterator[Progress]]
"""Yields the progress of a run to its end, also when the connection breaks for a while."""


class NetworkVenue:
    """The network behind ``client``; a run outside its limits of fidelity is repeated once.

    ``mark`` is that of the folder of learning (``testbed.rpc.repeated``), ``time_scale`` in real
    seconds per emulated second, 0 for the scenario's.
    """

    driver: Final[Driver] = "network"

    def __init__(
        self,
        client: OperatorClient,
        follow: Follow,
        plan: Plan,
        log: TaskLog,
        store: str,
        *,
        mark: str,
        time_scale: float = 0.0,
        include_invalid: bool = False,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._client, self._follow = client, follow
        self.plan, self.log, self.store = plan, log, store
        self._mark, self._warn = mark, warn
        self._time_scale, self._include_invalid = time_scale, include_invalid
        self._deployed: str | None = None
        self._before = ""

    def deploy(self, policy: str | None) -> None:
        """Deploy to all nodes, each of which acknowledges; None: what was there before.

        Raises:
            TemporaryError: not every node has it, such as one that is being replaced; then all go
                on as before.
        """
        if policy is None and self._deployed is None:
            return
        if self._deployed is None:
            self._before = self._client.status().policy or SHIPPED_PREFIX + SHIPPED_DEFAULT
        wanted = self._before if policy is None else policy
        if wanted == self._deployed:
            return
        deploy_to_all(self._client, wanted)
        self._deployed = wanted

    def run(self, order: Order, tell: Callable[[int, str], None]) -> str:
        """Run the episodes and wait for their end; an interruption ends the run in order."""
        reason = ""
        for attempt in range(2):
            run = self._started(order)
            reason = self._watched(run, tell)
            if self._usable(run):
                return run
            if attempt == 0:
                self._warn(f"run {run} is {self._state(run)}, so it is repeated ({reason})")
        raise PermanentError(
            f"run {run} is {self._state(run)}: {reason or 'see `testbed status`'}; run on a "
            "quieter machine, with a larger --time-scale, or accept it with --include-invalid; the "
            "same command goes on from here"
        )

    def rates(self, run: str) -> dict[int, float]:
        """Return the success rate of every episode of a run by its number."""
        return rates_in(self.log, run)

    def _started(self, order: Order) -> str:
        """Start a run; one that a killed process has left is stopped before."""
        return start_marked(
            self._client,
            self._mark,
            order.label,
            self._warn,
            scheduler=order.scheduler,
            episodes=order.episodes,
            first_episode=order.first,
            time_scale=self._time_scale,
        )

    def _watched(self, run: str, tell: Callable[[int, str], None]) -> str:
        """Wait for the end of a run; return what was wrong with it."""

        def told(progress: Progress) -> None:
            rate = progress.success_rate
            tell(progress.completed, "" if rate is None else f"{100 * rate:.1f} %")

        return wait_for_end(self._client, run, self._follow(run), told)

    def _usable(self, run: str) -> bool:
        try:
            found = self.log.run(run)
        except UsageError:
            return False
        accepted = self._include_invalid and str(found.state) in {"invalid", "degraded"}
        return found.trustworthy or accepted

    def _state(self, run: str) -> str:
        try:
            return str(self.log.run(run).state)
        except UsageError:
            return "not in this task log"
