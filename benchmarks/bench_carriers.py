"""Many nodes on one machine: what carries their messages, and which share a process.

All figures are of runs of `paper-testbed` (RATC, time scale 1) on testbeds that are brought up for
them, with memory as proportional set size (PSS). Processor time per task is that of all processes
of nodes, and of the controller, during a run. Bytes per second are those of tasks of 200 MB from
one node to another over a link that is faster than the machine; every byte is checked.

A network is run twice for two episodes, which compares carriers in five minutes. How many of more
and longer runs are valid: ``python -m benchmarks.bench_carriers --runs 5 --episodes 10``, half an
hour, which prints the table and changes no page.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil

from testbed.model.events import RecordKind
from testbed.storage.tasklog import open_task_log

TESTBED: Final = str(Path(sys.executable).with_name("testbed"))
NAME: Final = "bench"
EPISODES: Final = 2
RUNS: Final = 2

Row = dict[str, Any]


class Layout(NamedTuple):
    """A testbed: ``hosts`` as `--nodes-per-process`, ``carrier`` as `--transport`."""

    nodes: int
    payload: str
    hosts: str
    carrier: str

    @property
    def settings(self) -> tuple[str, ...]:
        return (
            *("--set", f"nodes.count={self.nodes}", "--set", f"payload={self.payload}"),
            *("--nodes-per-process", self.hosts, "--transport", self.carrier),
        )

    def __str__(self) -> str:
        shared = "a process each" if self.hosts == "1" else "shared processes"
        return f"{self.nodes} nodes, {self.payload}, {shared}, {self.carrier}"


ASKED: Final[Mapping[Layout, float | None]] = {
    Layout(100, "metadata", "auto", "trunk"): None,
    Layout(40, "bytes", "auto", "trunk"): None,
    Layout(10, "bytes", "1", "trunk"): 1.0,
    Layout(10, "bytes", "1", "grpc"): None,
    Layout(20, "metadata", "1", "trunk"): None,
    Layout(20, "metadata", "1", "grpc"): None,
    Layout(20, "metadata", "10", "grpc"): None,
}
"""The networks that are run, with the largest p95 error of transmission times asked, in ms."""


def rows(episodes: int = EPISODES, runs: int = RUNS) -> list[Row]:
    """Run all benchmarks; one row per figure, with what is asked and whether it is met."""
    found = [
        *_throughput("a process each, trunk", "1", "trunk", at_least=1000.0),
        *_throughput("a process each, grpc", "1", "grpc"),
        *_throughput("one process", "2", "auto"),
    ]
    for layout, error_ms in ASKED.items():
        found += _layout(layout, error_ms, episodes, runs)
    return found


def main() -> None:
    """Print a row per figure, with as many runs and episodes as asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--episodes", type=int, default=EPISODES)
    given = parser.parse_args()
    for row in rows(given.episodes, given.runs):
        print(f"{row['benchmark']}: {row['value']:.4g} {row['unit']}")


@contextmanager
def _environment() -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "TESTBED_HOME": home}
        try:
            yield environment
        finally:
            _testbed(environment, "teardown", "--name", NAME)


def _testbed(environment: Mapping[str, str], *arguments: str) -> Any:
    """Run a command; its JSON, None if it prints none."""
    done = subprocess.run(
        [TESTBED, *arguments], check=True, stdout=subprocess.PIPE, env=dict(environment)
    )
    return json.loads(done.stdout) if "--json" in arguments else None


def _row(
    benchmark: str,
    value: float,
    unit: str,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Row:
    row: Row = {"benchmark": benchmark, "value": value, "unit": unit}
    if at_most is not None:
        row |= {"at_most": at_most, "met": value <= at_most}
    if at_least is not None:
        row |= {"at_least": at_least, "met": value >= at_least}
    return row


def _throughput(
    title: str, hosts: str, carrier: str, *, at_least: float | None = None
) -> list[Row]:
    """MB/s and processor time per MB of tasks from node 0 to node 1, one after another."""
    scenario = (
        *("--set", "nodes.count=2", "--set", "nodes.arrivalProbability=[1, 0]"),
        *("--set", "links.rate=1000GB/s", "--set", "links.failureRate=0/s"),
        *("--set", "tasks.size=200MB", "--set", "tasks.deadline=20s", "--set", "slots.length=1s"),
        *("--set", "slots.count=8", "--set", "tasks.complexity=0.001", "--set", "payload=bytes"),
        *("--nodes-per-process", hosts, "--transport", carrier),
    )
    with _environment() as environment:
        _testbed(environment, "up", "quickstart", "--name", NAME, *scenario)
        before = _used(environment, "node")
        run = _testbed(
            environment, "run", "--name", NAME, "--scheduler", "random", "--episodes", "2", "--json"
        )["run"]
        used = _used(environment, "node") - before
        with open_task_log(f"{environment['TESTBED_HOME']}/tasklog.sqlite") as log:
            times: dict[int, int] = {}
            rates, sent = [], 0
            for record in log.records(run):
                if record.kind is RecordKind.TRANSMISSION_STARTED:
                    times[record.task.id] = record.clock
                elif record.kind is RecordKind.SENT:
                    took = record.clock - times[record.task.id]
                    rates.append(record.task.size_bytes / took)
                    sent += record.task.size_bytes
    return [
        _row(
            f"two nodes, {title}: bytes of tasks",
            statistics.median(rates),
            "MB/s",
            at_least=at_least,
        ),
        _row(f"two nodes, {title}: processor time, both", 1e9 * used / sent, "ms/MB"),
    ]


def _layout(layout: Layout, error_ms: float | None, episodes: int, runs: int) -> list[Row]:
    with _environment() as environment:
        start = time.perf_counter()
        _testbed(environment, "up", "paper-testbed", "--name", NAME, *layout.settings)
        up = time.perf_counter() - start
        memory = [_memory(environment)]
        shown = []
        used = {"node": 0.0, "controller": 0.0}
        for _ in range(runs):
            before = {who: _used(environment, who) for who in used}
            run = _testbed(
                environment,
                *("run", "--name", NAME, "--scheduler", "ratc", "--json"),
                *("--episodes", str(episodes)),
            )["run"]
            for who in used:
                used[who] += _used(environment, who) - before[who]
            memory.append(_memory(environment))
            shown.append(_testbed(environment, "runs", "show", run, "--json"))
        start = time.perf_counter()
        _testbed(environment, "teardown", "--name", NAME)
        down = time.perf_counter() - start
    host_limits = layout.hosts == "auto"
    up_limit, down_limit = (4.0, 2.0) if layout.nodes == 100 else (None, None)
    nodes, controller = (_per_task(each, shown) for each in used.values())
    return [
        *_rows_of(layout, shown, error_ms),
        _row(f"{layout}: nodes, processor time", nodes, "ms/task"),
        _row(f"{layout}: controller, processor time", controller, "ms/task"),
        _row(
            f"{layout}: memory",
            max(memory) / layout.nodes / 1e6,
            "MB per node",
            at_most=15.0 if host_limits else None,
        ),
        _row(f"{layout}: `up`", up, "s", at_most=up_limit),
        _row(f"{layout}: `teardown`", down, "s", at_most=down_limit),
    ]


def _rows_of(layout: Layout, shown: Sequence[Any], error_ms: float | None) -> list[Row]:
    certificates = [each["certificate"] for each in shown]
    valid = sum(each["valid"] for each in certificates)
    errors = [each["transmission"]["error"]["p95"] / 1000 for each in certificates]
    of_limit = [each["transmission"]["p95_of_limit"] for each in certificates]
    asked = len(shown) if layout.hosts == "auto" else None
    return [
        _row(f"{layout}: valid runs", valid, f"of {len(shown)}", at_least=asked),
        _row(
            f"{layout}: error of transmission times, p95",
            statistics.median(errors),
            "ms",
            at_most=error_ms,
        ),
        _row(f"{layout}: the same in units of its limit", statistics.median(of_limit), ""),
    ]


def _per_task(seconds: float, shown: Sequence[Any]) -> float:
    return 1000 * seconds / float(sum(each["tasks"] for each in shown))


def _found(environment: Mapping[str, str]) -> dict[int, str]:
    """Return the processes of the testbed: ids, with ``node`` or ``controller``."""
    found = {}
    for file in (Path(environment["TESTBED_HOME"]) / NAME / "processes").glob("*.json"):
        who = "controller" if file.stem == "controller" else "node"
        found[int(json.loads(file.read_text())["pid"])] = who
    return found


def _used(environment: Mapping[str, str], who: str) -> float:
    """Processor time of all processes of nodes, or of the controller, in seconds."""
    pids = [pid for pid, each in _found(environment).items() if each == who]
    return float(sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids))


def _memory(environment: Mapping[str, str]) -> float:
    """Proportional set size of all processes of nodes, in bytes."""
    pids = [pid for pid, each in _found(environment).items() if each == "node"]
    return float(sum(psutil.Process(pid).memory_full_info().pss for pid in pids))


if __name__ == "__main__":
    main()
