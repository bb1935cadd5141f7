"""The seam between the loop of learning and what runs its episodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from testbed.model.task import Outcome
from testbed.scenario.plan import Plan
from testbed.storage.tasklog import TaskLog

Driver: TypeAlias = Literal["simulator", "network"]


@dataclass(frozen=True, slots=True)
class Step:
    """Progress of learning: ``done`` of ``total`` episodes of the budget, with a message.

    One that is ``notable`` is shown in any case.
    """

    done: int
    total: int
    message: str
    notable: bool = False


Say: TypeAlias = Callable[[Step], None]


@dataclass(frozen=True, slots=True)
class Order:
    """Episodes to run: ``policy`` is the key of the policy that decides, None for RATC."""

    policy: str | None
    first: int
    episodes: int
    label: str

    @property
    def scheduler(self) -> str:
        """Name of the scheduler that runs it."""
        return "ratc" if self.policy is None else "drl"


class Venue(Protocol):
    """Runs episodes into a task log; the network, the simulator, or a stand-in of tests."""

    @property
    def driver(self) -> Driver:
        """Simulator or network."""

    @property
    def plan(self) -> Plan:
        """The network as it is run here."""

    def deploy(self, policy: str | None) -> None:
        """Make ``policy`` (a key) the one that decides under ``drl``; None: as it was before.

        Raises:
            TemporaryError: not every node has it; then all go on as before.
        """

    def run(self, order: Order, tell: Callable[[int, str], None]) -> str:
        """Run episodes, sampled, and return the id of the run when all of it is in the log.

        ``tell`` is called with the number of episodes that are over, and a message.

        Raises:
            PermanentError: the run failed, or is not to be trusted and may not be used.
            TemporaryError: a node is not healthy, or the network does not answer.
        """

    def rates(self, run: str) -> dict[int, float]:
        """Return the success rate of every episode of a run by its number."""


class Update(NamedTuple):
    """A policy that was learned: its key in the artifact store, and the facts of its update."""

    policy: str
    facts: Mapping[str, Any]


class Learner(Protocol):
    """Makes policies of runs; the same runs give the same policy."""

    def start(self) -> str | None:
        """Return the key of the policy that decides first; None for RATC."""

    def update(
        self, runs: Sequence[str], policy: str | None, number: int, learning_rate: float
    ) -> Update:
        """Return what is learned from ``runs``, in which ``policy`` decided (None: RATC).

        ``number`` counts the updates from 1.

        Raises:
            UsageError: the runs have no decision of this policy.
        """


def rates_in(log: TaskLog, run: str) -> dict[int, float]:
    """Return the success rate by episode of a run; an episode without a task is left out."""
    succeeded: dict[int, list[bool]] = {}
    for row in log.tasks(run):
        succeeded.setdefault(row.episode, []).append(row.outcome is Outcome.SUCCEEDED)
    return {number: sum(each) / len(each) for number, each in sorted(succeeded.items())}
