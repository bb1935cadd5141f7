"""The seam between the steps of an experiment and the simulator or network that runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from testbed.model.encoders import encoder
from testbed.scenario.plan import Plan
from trainer.learning.actor import Actor, NetworkSpec
from trainer.learning.online import Rollout, Scores
from trainer.o2o.folder import ExperimentLedger
from trainer.o2o.logged import LoggedSequences
from trainer.o2o.settings import Driver, O2OConfig, Report
from trainer.tracking import Tracking

BOUND = "bound"
"""Among the methods: not a scheduler, the share of tasks that would succeed alone."""


@dataclass(frozen=True, slots=True)
class Setup:
    """An experiment as its venue sees it."""

    config: O2OConfig
    ledger: ExperimentLedger
    say: Report
    tracking: Tracking = field(default_factory=Tracking)

    @property
    def out(self) -> Path:
        """The folder of the experiment."""
        return self.ledger.out


class Venue(Rollout, Protocol):
    """Runs what an experiment asks for; ``begin`` comes before all but ``identity``.

    An episode that could not be run is an error, never an episode with a bad score.
    """

    @property
    def plan(self) -> Plan:
        """The network as it is run here."""

    @property
    def driver(self) -> Driver:
        """Simulator or network."""

    @property
    def store(self) -> str | None:
        """URL of the artifact store for policies; None for none."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks that belong to the result."""

    def identity(self, config: O2OConfig) -> dict[str, Any]:
        """Return the identity of this experiment's folder (``trainer.o2o.folder.identity``).

        Raises:
            UsageError: settings that are not possible here.
        """

    def begin(self, setup: Setup) -> None:
        """Run for this experiment from now on."""

    def log(self, first: int, episodes: int) -> LoggedSequences:
        """Return what the source decides in ``episodes`` episodes from ``first`` on."""

    def hand_over(self, actor: Actor, facts: Mapping[str, Any]) -> str | None:
        """Take the offline policy, before it is fine-tuned; return its id if it is kept already.

        ``facts`` are for its card (``hand_over.artifact_of``).
        """

    def kept(self, actors: Mapping[str, Actor]) -> dict[str, str]:
        """Return the ids of the policies of ``actors`` that are kept already, by name."""

    def source_rates(self, episodes: int) -> Scores:
        """Return the success rates of the source in the episodes of ``evaluate``."""

    def rates(self, method: str, episodes: int, actor: Actor | None = None) -> Scores:
        """Return the success rates of ``method``, or ``actor``, in episodes 0, 1, ..."""

    def finish(self, policies: Mapping[str, str], actors: Mapping[str, Actor]) -> dict[str, Any]:
        """Put the best of ``policies`` (ids by method) into use; return further details."""


def incomplete_note(some: int, among: int) -> tuple[str, ...]:
    """Return the remark on episodes with incomplete logs; empty if there are none."""
    if not some:
        return ()
    return (
        f"{some} of {among} episodes have incomplete logs; their decisions are scored by task "
        "outcome only",
    )


def spec_of(plan: Plan, config: O2OConfig) -> NetworkSpec:
    """Return the neural network that is trained for ``plan``: sizes, and what it does not see."""
    size, unseen, offline = plan.topology.size, config.recipe.unseen, config.recipe.offline
    columns, scale = encoder(config.encoder).columns(size), offline.scale
    if unseen:
        factors = scale or (1.0,) * len(columns)
        scale = tuple(
            0.0 if column.startswith(unseen) else factor
            for column, factor in zip(columns, factors, strict=True)
        )
    width, hidden = len(columns), offline.hidden
    return NetworkSpec(width, size + 1, hidden, offline.offset, scale, config.encoder)
