"""Tasks per second on one core: RATC in the compiled engine and in the heap simulator.

Outcomes only, where not said otherwise; the best of several runs after one that compiles. What
grows with the number of nodes is the network itself: one rate and one failure rate per link.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from testbed.scenario.load import load
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan as resolve
from testbed.sim.compiled import CompiledSimulation
from testbed.sim.engine.episodes import score_baseline
from testbed.sim.simulator import Simulation

Row = dict[str, Any]

NODES: dict[int, tuple[int, float | None]] = {
    20: (128, 2_000_000.0),
    100: (64, None),
    200: (32, None),
    500: (16, None),
    1000: (8, 1_000_000.0),
}
"""Episodes, and the tasks per second that RATC must reach, by number of nodes."""


def rows() -> list[Row]:
    """Measure all figures."""
    table = []
    for nodes, (episodes, asked) in NODES.items():
        plan = resolve(load("paper-simulation", [f"nodes.count={nodes}"]))
        table.append(_engine(f"engine, ratc, {nodes} nodes", plan, episodes, asked))
        if nodes in (20, 1000):
            table.append(_heap(f"heap simulator, ratc, {nodes} nodes", plan))
    for name in ("quickstart", "paper-testbed"):
        plan = resolve(load(name))
        table.append(_engine(f"engine, ratc, {name}", plan, 128, None))
        table.append(_heap(f"heap simulator, ratc, {name}", plan))
        for driver, make in (("engine", CompiledSimulation), ("heap simulator", Simulation)):
            table.append(_recorded(f"{driver}, ratc, {name}, with records", plan, make))
    return table


def _engine(name: str, plan: Plan, episodes: int, asked: float | None) -> Row:
    numbers = range(episodes)
    tasks = sum(len(slot) for number in numbers for slot in plan.tasks(number))
    seconds = _best(lambda: score_baseline(plan, "ratc", numbers, threads=1))
    return _row(name, tasks / seconds, asked)


def _heap(name: str, plan: Plan) -> Row:
    simulation = Simulation(plan, "ratc", keep=False)
    tasks = sum(map(len, plan.tasks(0)))
    return _row(name, tasks / _best(lambda: simulation.episode(0), 2), None)


def _recorded(name: str, plan: Plan, make: Callable[[Plan, str], Any]) -> Row:
    simulation = make(plan, "ratc")
    tasks = sum(map(len, plan.tasks(0)))
    return _row(name, tasks / _best(lambda: simulation.episode(0), 3), None)


def _best(run: Callable[[], object], times: int = 5) -> float:
    run()
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def _row(name: str, value: float, asked: float | None) -> Row:
    row: Row = {"benchmark": name, "value": value, "unit": "tasks/s"}
    return row if asked is None else row | {"at_least": asked, "met": value >= asked}


if __name__ == "__main__":
    print(json.dumps(rows(), indent=2))
