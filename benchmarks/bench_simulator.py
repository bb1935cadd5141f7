"""Speed of the heap simulators on one core: 20 nodes of `paper-simulation`, and `dfaas`.

Without a database where not said otherwise.

Every figure is the best of several repetitions, because everything else that runs on the machine
can only make it smaller. ``python -m benchmarks.bench_simulator`` prints the rows.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from testbed.scenario.load import draw, load
from testbed.scenario.plan import ServingPlan
from testbed.scenario.resolve import plan
from testbed.sim.record import record_run
from testbed.sim.serving import ServingSimulation
from testbed.sim.simulator import names, simulate
from testbed.storage.tasklog import open_task_log

Row = dict[str, Any]

ASKED = 20_000
"""Tasks per second that RATC must reach (one core, 20 nodes)."""

ASKED_REQUESTS = 50_000
"""Requests per second that a federation must reach (one core)."""


def rows(episodes: int = 3, repetitions: int = 5) -> list[Row]:
    """Run all benchmarks; one row per figure, with what is asked and whether it is met."""
    network = plan(load("paper-simulation"))

    def simulated(name: str, keep: bool) -> Callable[[], int]:
        return lambda: sum(
            len(result.outcomes) for result in simulate(network, name, episodes, keep=keep)
        )

    def recorded() -> int:
        with (
            tempfile.TemporaryDirectory() as folder,
            open_task_log(Path(folder) / "log.sqlite") as log,
        ):
            run_id = record_run(network, log, scheduler="ratc", episodes=episodes)
            return sum(log.outcomes(run_id).values())

    found = [
        _row(
            "simulator, ratc, 20 nodes, all records kept",
            _rate(simulated("ratc", True), repetitions),
            ASKED,
        ),
        _row(
            "simulator, ratc, 20 nodes, outcomes only",
            _rate(simulated("ratc", False), repetitions),
            ASKED,
        ),
    ]
    found += [
        _row(f"simulator, {name}, 20 nodes, outcomes only", _rate(simulated(name, False), 2))
        for name in names()
        if name in SHOWN
    ]
    found.append(_row("simulator, ratc, 20 nodes, into a SQLite task log", _rate(recorded, 2)))
    found += [
        _row(
            f"simulator, {name}, all records kept",
            _rate(_requests(name), repetitions),
            ASKED_REQUESTS,
            "requests/s",
        )
        for name in ("dfaas", "dfaas-split", "dfaas-traces")
    ]
    return found


def _requests(name: str) -> Callable[[], int]:
    federation = draw(load(name))
    assert isinstance(federation, ServingPlan)
    simulation = ServingSimulation(federation)
    return lambda: len(simulation.episode(0).requests)


SHOWN = ("local", "random", "rda", "ratc-masked", "rda-masked", "central", "oracle")


def _rate(run: Callable[[], int], repetitions: int) -> float:
    """Rate per second of the best repetition; ``run`` returns how many tasks it did."""
    best = 0.0
    for _ in range(repetitions):
        began = time.perf_counter()
        tasks = run()
        best = max(best, tasks / (time.perf_counter() - began))
    return best


def _row(name: str, value: float, asked: int | None = None, unit: str = "tasks/s") -> Row:
    met = None if asked is None else value >= asked
    return {
        "benchmark": name,
        "value": round(value),
        "unit": unit,
        "at_least": asked,
        "met": met,
    }


if __name__ == "__main__":
    print(json.dumps(rows(), indent=2))
