"""Policies from the task log: a first one from RATC's decisions, then one update after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from testbed.experiment.live.settings import LiveConfig
from testbed.experiment.live.venue import Update
from testbed.model.information import Asks
from testbed.model.per_destination import COLUMNS_OF, STATE_NAME
from testbed.policies import SHIPPED_PREFIX, resolve, save
from testbed.scenario.plan import Plan
from testbed.storage.tasklog import TaskLog

if TYPE_CHECKING:
    from testbed.sim.engine.scoring import ScoringWeights

NAME: Final = "learned"
"""Begins the ids of policies that are learned where they run."""


class LogLearner:
    """Learns from runs in ``log`` and keeps every policy in the artifact store ``store``."""

    def __init__(self, log: TaskLog, store: str, plan: Plan, config: LiveConfig) -> None:
        self._log, self._store, self._plan, self._config = log, store, plan, config

    def start(self) -> str | None:
        """Return the key of the policy that decides first; None for RATC."""
        if self._config.start == "ratc":
            return None
        if self._config.start == "shipped":
            return SHIPPED_PREFIX + self._config.shipped
        from trainer.per_destination.cloning import untrained

        weights = untrained(len(COLUMNS_OF[STATE_NAME]), self._config.seed)
        return self._keep(weights, (), {"start": "random"})

    def update(
        self, runs: Sequence[str], policy: str | None, number: int, learning_rate: float
    ) -> Update:
        """Return what is learned from ``runs``, in which ``policy`` decided (None: RATC)."""
        if policy is None:
            return self._cloned(runs, number)
        return self._improved(runs, policy, number, learning_rate)

    def _cloned(self, runs: Sequence[str], number: int) -> Update:
        from trainer.per_destination.cloning import CloneConfig, cloned
        from trainer.per_destination.from_choices import read_choices

        logged = read_choices(self._log, runs, self._plan)
        weights = cloned(logged.choices, CloneConfig(seed=self._config.seed + number))
        facts = {
            "decisions": len(logged.choices.chosen),
            "episodes": len(logged.success_rate),
            "incomplete": len(logged.plain),
        }
        training = {"cloned": "ratc", "update": number, "runs": list(runs), **facts}
        return Update(self._keep(weights, (), training), facts)

    def _improved(
        self, runs: Sequence[str], policy: str, number: int, learning_rate: float
    ) -> Update:
        from testbed.sim.engine.policies import weights_of
        from trainer.learning.threads import torch_threads
        from trainer.per_destination.from_logs import read_decisions
        from trainer.per_destination.tuning import TuneConfig, stepped

        config, parent = self._config, resolve(policy, self._store)
        logged = read_decisions(
            self._log, runs, parent, include_untrustworthy=config.include_invalid
        )
        steps = TuneConfig(
            seed=config.seed + number,
            epochs=config.epochs,
            minibatch=config.minibatch,
            learning_rate=learning_rate,
            clip=config.clip,
            kl_limit=config.kl_limit,
            check_episodes=0,
        )
        with torch_threads(steps.torch_threads):
            weights, measures = stepped(weights_of(parent), logged.batches, steps)
        facts = {
            "decisions": logged.counts.decisions,
            "episodes": logged.counts.episodes,
            "incomplete": len(logged.counts.plain),
            "divergence": round(measures.divergence, 5),
            "entropy": round(measures.entropy, 4),
            "learning_rate": learning_rate,
        }
        training = {"update": number, "runs": list(runs), **facts}
        key = self._keep(weights, (parent.card.id,), training, parent.card.asks)
        return Update(key, facts)

    def _keep(
        self,
        weights: ScoringWeights,
        parents: tuple[str, ...],
        training: dict[str, Any],
        asks: Asks | None = None,
    ) -> str:
        """Put a policy into the artifact store; return its key.

        ``asks`` is what it asks its peers, None where its encoder tells.
        """
        from trainer.per_destination.export import policy_of

        policy = policy_of(weights, NAME, asks, plan=self._plan, parents=parents, training=training)
        return save(self._store, policy.card, policy.actor)
