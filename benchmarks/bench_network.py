"""The real network on one machine: `paper-testbed`, 10 nodes, real bytes, time scale 1.

Start and stop are timed as whole commands. Timing errors come from the fidelity certificates of the
runs; agreement is the difference of mean success rates between network and simulator over the same
20 episodes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import psutil

TESTBED: Final = str(Path(sys.executable).with_name("testbed"))
SCENARIO: Final = "paper-testbed"
NAME: Final = "bench"
EPISODES: Final = 20
SCHEDULERS: Final = ("ratc", "rda", "random", "local")

Row = dict[str, Any]


def rows(episodes: int = EPISODES, starts: int = 3) -> list[Row]:
    """Run all benchmarks; one row per figure, with what is asked and whether it is met."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "TESTBED_HOME": home}
        try:
            found = _start_and_stop(environment, starts)
            call(environment, "up", SCENARIO, "--name", NAME)
            found += _idle(environment)
            found += _runs(environment, episodes)
        finally:
            call(environment, "teardown", "--name", NAME)
    return found


def call(environment: Mapping[str, str], *arguments: str) -> Any:
    """Run a command of the toolkit; return its JSON, None if it prints none."""
    done = subprocess.run(
        [TESTBED, *arguments], check=True, stdout=subprocess.PIPE, env=dict(environment)
    )
    return json.loads(done.stdout) if "--json" in arguments else None


def _asked(benchmark: str, value: float, unit: str, at_most: float | None = None) -> Row:
    row: Row = {"benchmark": benchmark, "value": value, "unit": unit}
    return row if at_most is None else {**row, "at_most": at_most, "met": value <= at_most}


def _start_and_stop(environment: Mapping[str, str], repetitions: int) -> list[Row]:
    up, down = [], []
    for _ in range(repetitions):
        start = time.perf_counter()
        call(environment, "up", SCENARIO, "--name", NAME)
        up.append(time.perf_counter() - start)
        start = time.perf_counter()
        call(environment, "teardown", "--name", NAME)
        down.append(time.perf_counter() - start)
    return [
        _asked("`up` to all 10 nodes healthy", statistics.median(up), "s", 6.0),
        _asked("`teardown`", statistics.median(down), "s", 3.0),
    ]


def _processes(environment: Mapping[str, str]) -> dict[str, psutil.Process]:
    nodes = call(environment, "nodes", "--name", NAME, "--json")
    nodes = nodes["nodes"] if isinstance(nodes, dict) else nodes
    return {f"node-{node['node']}": psutil.Process(node["pid"]) for node in nodes}


def _idle(environment: Mapping[str, str], seconds: float = 5.0) -> list[Row]:
    """Processor time of all nodes while nothing happens: what polling would cost."""
    processes = _processes(environment).values()
    before = sum(sum(process.cpu_times()[:2]) for process in processes)
    time.sleep(seconds)
    after = sum(sum(process.cpu_times()[:2]) for process in processes)
    return [_asked("10 idle nodes, share of one core", 100 * (after - before) / seconds, "%")]


def _runs(environment: Mapping[str, str], episodes: int) -> list[Row]:
    found: list[Row] = []
    memory = 0.0
    for scheduler in SCHEDULERS:
        common = ("--scheduler", scheduler, "--episodes", str(episodes), "--json")
        start = time.perf_counter()
        network = call(environment, "run", "--name", NAME, *common)
        seconds = (time.perf_counter() - start) / episodes
        memory = max(memory, *(p.memory_info().rss / 1e6 for p in _processes(environment).values()))
        run = call(environment, "runs", "show", network["run"], "--json")
        simulated = call(environment, "sim", SCENARIO, *common)
        simulated = simulated["runs"][0] if "runs" in simulated else simulated
        found.append(_asked(f"{scheduler}: wall time of an episode of 5 s", seconds, "s", 6.5))
        found += _timing(scheduler, run["certificate"])
        found += _agreement(scheduler, network, simulated)
    found.append(_asked("largest memory of a node process", memory, "MB", 80.0))
    return found


def _timing(scheduler: str, certificate: Mapping[str, Any]) -> list[Row]:
    found = []
    for what in ("transmission", "execution"):
        timing = certificate[what]
        found.append(
            _asked(
                f"{scheduler}: {what}, p95 of the error in units of its limit (4 ms or 2 %)",
                timing["p95_of_limit"],
                "",
                1.0,
            )
        )
        found.append(
            _asked(f"{scheduler}: {what}, p95 of the error", timing["error"]["p95"] / 1000, "ms")
        )
    return found


def _agreement(
    scheduler: str, network: Mapping[str, Any], simulated: Mapping[str, Any]
) -> list[Row]:
    real = network["success_rate"]["mean"]
    virtual = simulated["success_rate"]["mean"]
    return [
        _asked(f"{scheduler}: success rate on the network", 100 * real, "%"),
        _asked(f"{scheduler}: success rate in the simulator", 100 * virtual, "%"),
        _asked(
            f"{scheduler}: difference of the success rates",
            100 * abs(real - virtual),
            "points",
            1.5,
        ),
    ]
