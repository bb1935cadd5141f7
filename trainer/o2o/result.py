"""The result of an experiment, and its policies as artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from testbed.scenario.plan import Plan
from trainer.learning.actor import Actor
from trainer.learning.cql import CqlConfig
from trainer.learning.online import CurvePoint, ScoreDifference, Scores
from trainer.o2o.hand_over import artifact_of, keep
from trainer.o2o.settings import O2O, OFFLINE, ONLINE_ONLY, Driver, O2OConfig


@dataclass(frozen=True, slots=True, eq=False)
class O2OResult:
    """Result of an experiment, in the simulator or on a network.

    ``rates`` has the success rate of each evaluation episode by method, the same episodes for all;
    ``bound`` that of tasks that have the network to themselves. ``validation`` has the mean rate of
    the source and of the offline policy in the episodes by which the online phase judges its
    policies; the evaluations of ``curves`` are of the same episodes. ``actors``, ``curves`` and
    ``policies`` (ids) are by name of what was learned. ``details`` is what only one venue knows.
    """

    plan: Plan
    driver: Driver
    config: O2OConfig
    rates: Mapping[str, Scores]
    bound: Scores | None = None
    log_rate: float | None = None
    curves: Mapping[str, tuple[CurvePoint, ...]] = field(default_factory=dict)
    validation: Mapping[str, float] = field(default_factory=dict)
    gate: ScoreDifference | None = None
    refused: bool = False
    rollbacks: int = 0
    best_update: int = 0
    offline_metrics: Mapping[str, float] = field(default_factory=dict)
    durations: Mapping[str, float] = field(default_factory=dict)
    actors: Mapping[str, Actor] = field(default_factory=dict)
    policies: Mapping[str, str] = field(default_factory=dict)
    data_hash: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def curve(self) -> tuple[CurvePoint, ...]:
        """The learning curve of the fine-tuning; empty without one."""
        return self.curves.get(O2O, ())

    @property
    def actor(self) -> Actor | None:
        """The fine-tuned policy; None without one."""
        return self.actors.get(O2O)


def training_of(config: O2OConfig, name: str) -> dict[str, Any]:
    """Return how a policy was trained, for its card."""
    recipe = config.recipe
    return {
        "recipe": recipe.name,
        **_learner(recipe.offline.learner.name),
        "source": config.source,
        "log_episodes": config.log_episodes,
        "offline_steps": recipe.offline.steps,
        "online_episodes": 0 if name == OFFLINE else recipe.online.episodes,
        "seed": config.seed,
    }


def _learner(name: str) -> dict[str, str]:
    # Left out where it is the usual one, so that policies keep the ids of earlier releases.
    return {} if name == CqlConfig.name else {"learner": name}


def keep_policies(
    result: O2OResult, out: Path, store: str | None, kept: Mapping[str, str]
) -> dict[str, str]:
    """Write what was learned to ``out/policies`` and to ``store``, where given; ids by name.

    ``kept`` are those that are there already.
    """
    found = dict(kept)
    for name, actor in result.actors.items():
        if name in found:
            continue
        rates = result.rates[name]
        card, onnx = artifact_of(
            actor,
            result.plan,
            name,
            data_hash="" if name == ONLINE_ONLY else result.data_hash,
            parents=(found[OFFLINE],) if name == O2O and OFFLINE in found else (),
            evaluation={
                "driver": result.driver,
                "episodes": len(rates),
                "success_rate": round(float(np.nanmean(rates)), 6),
            },
            training=training_of(result.config, name),
        )
        found[name] = keep(card, onnx, out / "policies" / name, store)
    return found
