"""A simulated story as the report wants it, its policies in the artifact store.

The next stage is ``testbed.experiment.o2o``. Imports the trainer, so import it where that is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from testbed.experiment.o2o import CurvePoint, Story
from trainer.learning.online import CurvePoint as TrainedPoint
from trainer.o2o.hand_over import artifact_of, keep
from trainer.o2o.pipeline import O2O, OFFLINE, ONLINE_ONLY, O2OResult


def story_of(result: O2OResult, out: Path, store: str | None = None) -> Story:
    """The story; its policies are written to ``out/policies`` and to ``store``, where given."""
    curves = {}
    if result.curve:
        curves[O2O] = curve_of(result.curve)
    if result.online_only_curve:
        curves[ONLINE_ONLY] = curve_of(result.online_only_curve)
    gate = result.gate
    return Story(
        plan=result.plan,
        driver="simulator",
        rates=result.rates,
        bound=result.bound,
        curves=curves,
        reference_lines=result.validation,
        settings=settings_of(result),
        durations=result.durations,
        policies=_kept(result, out, store),
        details={
            "log_success_rate": result.log_rate,
            "gate": None if gate is None else asdict(gate),
            "refused": result.refused,
            "rollbacks": result.rollbacks,
            "best_update": result.best_update,
            "offline_metrics": dict(result.offline_metrics),
        },
        notes=result.notes,
    )


def curve_of(points: Sequence[TrainedPoint]) -> list[CurvePoint]:
    """Points of the learner as points of the report."""
    return [
        CurvePoint(p.episodes, p.evaluation, p.standard_error, p.collected, p.verdict)
        for p in points
    ]


def settings_of(result: O2OResult) -> dict[str, Any]:
    """Everything that was chosen."""
    config = asdict(result.config)
    return {name: list(v) if isinstance(v, tuple) else v for name, v in config.items()}


def _kept(result: O2OResult, out: Path, store: str | None) -> dict[str, str]:
    actors = {
        OFFLINE: result.offline_actor,
        O2O: result.actor,
        ONLINE_ONLY: result.online_only_actor,
    }
    config = result.config
    found: dict[str, str] = {}
    for name, actor in actors.items():
        if actor is None:
            continue
        rates = result.rates[name]
        card, onnx = artifact_of(
            actor,
            result.plan,
            name,
            data_hash=result.data_hash if name != ONLINE_ONLY else "",
            parents=(found[OFFLINE],) if name == O2O and OFFLINE in found else (),
            evaluation={
                "driver": "simulator",
                "episodes": len(rates),
                "success_rate": round(float(np.nanmean(rates)), 6),
            },
            training={
                "recipe": config.recipe.name,
                "source": config.source,
                "log_episodes": config.log_episodes,
                "offline_steps": config.recipe.offline.steps,
                "online_episodes": 0 if name == OFFLINE else config.recipe.online.episodes,
                "seed": config.seed,
            },
        )
        found[name] = keep(card, onnx, out / "policies" / name, store)
    return found
