"""Pieces of work that ``benchmarks.compare`` times in two revisions; run as a program there.

``python workloads.py NAME TREE`` imports the toolkit from TREE, answers each line on stdin (a
number: how many pieces) by doing them, and prints the processor time in seconds and the number of
items as JSON. It is a file of the revision that compares, so it uses only what is old and stays.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

Work = Callable[[], int]
"""Does one piece and returns the number of its items."""


def simulator() -> Work:
    """tasks in the reference simulator: 20 nodes, RATC"""
    from testbed.scenario.load import load
    from testbed.scenario.resolve import plan
    from testbed.sim.simulator import simulate

    network = plan(load("paper-simulation"))
    return lambda: sum(
        sum(each.counts.values()) for each in simulate(network, "ratc", 1, keep=False)
    )


def engine() -> Work:
    """episodes in the compiled engine: 20 nodes, RATC, one thread"""
    from testbed.scenario.load import load
    from testbed.scenario.resolve import plan
    from testbed.sim.play import evaluate

    network = plan(load("paper-simulation"))

    def work() -> int:
        evaluate(network, ["ratc"], list(range(100)), threads=1)
        return 100

    return work


def log() -> Work:
    """tasks simulated into a SQLite log with all their records"""
    from testbed.scenario.load import load
    from testbed.scenario.resolve import plan
    from testbed.sim.record import record_run
    from testbed.storage.tasklog import open_task_log

    network = plan(load("paper-simulation"))
    # As many tasks as the compiled engine is worth its loading for.
    episodes = 32

    def work() -> int:
        with (
            tempfile.TemporaryDirectory() as folder,
            open_task_log(f"{folder}/log.sqlite") as store,
        ):
            return sum(store.outcomes(record_run(network, store, episodes=episodes)).values())

    return work


def policy() -> Work:
    """tasks that the shipped policy decides about, in the reference simulator: 10 nodes"""
    from testbed.scenario.load import load
    from testbed.scenario.resolve import plan
    from testbed.sim.simulator import simulate

    network = plan(load("paper-testbed"))
    return lambda: sum(
        sum(each.counts.values()) for each in simulate(network, "drl", 1, keep=False)
    )


def decision() -> Work:
    """decisions by the states of 19 peers, each with its question, without a simulator"""
    from testbed.model.decision import SchedulerContext
    from testbed.policies import resolve
    from testbed.scenario.load import load
    from testbed.scenario.resolve import plan
    from testbed.schedulers.drl import Drl
    from testbed.sim.simulator import simulate_episode

    network = plan(load("paper-simulation"))
    policy = resolve("shipped/per-destination-v2", None)
    seed = network.seeds.schedulers
    schedulers = [
        Drl.of(
            SchedulerContext(node, network.topology, network.rules, network.workload, seed), policy
        )
        for node in range(network.topology.size)
    ]
    # What this scheduler sees are states too.
    seen = [
        each.observation
        for each in simulate_episode(network, 0, "least-completion").decisions
        if each.observation.answers
    ]

    def work() -> int:
        for observation in seen:
            decide = schedulers[observation.node].decide
            decide(observation._replace(answers=(), round=0))
            decide(observation)
        return len(seen)

    return work


def command() -> Work:
    """calls of `testbed --help`"""
    program = [sys.executable, "-c", "from testbed.cli.main import main; main()", "--help"]

    def work() -> int:
        for _ in range(3):
            subprocess.run(program, check=True, capture_output=True)
        return 3

    return work


def network() -> Work:
    """tasks on the real network: 10 nodes with metadata, controller and nodes together"""
    import psutil

    start = [sys.executable, "-c", "from testbed.cli.main import main; main()", "--quiet"]

    def used(folder: str) -> float:
        seconds = 0.0
        for process in psutil.process_iter():
            try:
                values = process.environ().values()
                if any(value.startswith(folder) for value in values) and process.pid != os.getpid():
                    spent = process.cpu_times()
                    seconds += spent.user + spent.system
            except psutil.Error:
                continue
        return seconds

    def work() -> int:
        with tempfile.TemporaryDirectory() as home:
            environment = {**os.environ, "TESTBED_HOME": home}

            def testbed(*arguments: str) -> bytes:
                done = subprocess.run(
                    [*start, *arguments], check=True, env=environment, stdout=subprocess.PIPE
                )
                return done.stdout

            try:
                testbed("up", "paper-testbed", "--set", "payload=metadata")
                before = used(home)
                run = json.loads(testbed("run", "--episodes", "1", "--json"))
                _extra.append(used(home) - before)
            finally:
                testbed("teardown")
        return int(run["progress"]["ended"])

    return work


_extra: Final[list[float]] = []
"""Processor time of others, which takes the place of this process's own."""

WORKLOADS: Final = {
    each.__name__: each for each in (simulator, engine, log, policy, decision, command, network)
}


def main(name: str, tree: str) -> None:
    """Serve pieces of the workload ``name`` with the toolkit in ``tree``."""
    import testbed

    if not Path(testbed.__file__).is_relative_to(tree):
        raise SystemExit(f"testbed is imported from {testbed.__file__}, not from {tree}")
    work = WORKLOADS[name]()
    if name != "network":
        work()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(_measured(work, int(line))), flush=True)


def _measured(work: Work, pieces: int) -> dict[str, Any]:
    _extra.clear()
    before, items = _spent(), 0
    began = time.perf_counter()
    for _ in range(pieces):
        items += work()
    seconds = sum(_extra) if _extra else _spent() - before
    return {"seconds": seconds, "wall": time.perf_counter() - began, "items": items}


def _spent() -> float:
    own, children = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


if __name__ == "__main__":
    main(*sys.argv[1:])
