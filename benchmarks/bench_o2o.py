"""Time of a whole simulated experiment: logs, offline, online, evaluation of methods."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from testbed.scenario.load import load
from testbed.scenario.resolve import plan as plan_of
from trainer.o2o.pipeline import run
from trainer.o2o.recipe import DEFAULT
from trainer.o2o.result import O2OResult
from trainer.o2o.settings import O2OConfig
from trainer.o2o.simulated import SimulatedVenue

Row = dict[str, Any]


def rows() -> list[Row]:
    """Run `paper-simulation` with the usual sizes; one row per stage, then the whole."""
    plan = plan_of(load("paper-simulation"))
    small = plan_of(load("quickstart"))
    with tempfile.TemporaryDirectory() as folder:
        # The first experiment of a process also loads compiled code.
        warm = O2OConfig(log_episodes=2, evaluation_episodes=2, online=False)
        run(SimulatedVenue(small), warm, Path(folder) / "warm")
        result = run(SimulatedVenue(plan), O2OConfig(recipe=DEFAULT), Path(folder) / "experiment")
    return rows_of(result)


def rows_of(result: O2OResult) -> list[Row]:
    """Return the stages of an experiment as rows."""
    config, recipe = result.config, result.config.recipe
    rows = recipe.offline.learner.batch_size
    names = {
        "logs": f"{config.log_episodes} episodes of {config.source}, as transitions",
        "offline": f"{recipe.offline.steps} offline steps of {rows} rows",
        "online": f"{recipe.online.episodes} online episodes with updates and evaluations",
        "evaluation": f"{len(result.rates)} methods, {config.evaluation_episodes} episodes each",
    }
    found: list[Row] = [
        {"benchmark": f"o2o --simulate, {what}", "value": result.durations[name], "unit": "s"}
        for name, what in names.items()
    ]
    total = round(sum(result.durations.values()), 3)
    found.append(
        {
            "benchmark": "o2o --simulate on paper-simulation, whole",
            "value": total,
            "unit": "s",
            "at_most": 180.0,
            "met": total <= 180.0,
        }
    )
    return found
