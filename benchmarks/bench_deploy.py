"""Time of a deploy, and its effect on tasks: N nodes of this machine, a run under way.

``python -m benchmarks.bench_deploy [--nodes 10] [--scheduler ratc]``. A first deploy loads ONNX
Runtime at every node; later ones find it there. Lateness is by how much a node's clock was past the
instant an event was due at, of all events from the beginning of a deploy to two slots after it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from testbed.policies import save
from testbed.rpc.operator import OperatorClient
from testbed.runtime.local import LocalRuntime
from testbed.scenario.load import load
from testbed.scenario.plan import SchedulerSpec
from testbed.scenario.resolve import plan as plan_of
from testbed.storage.tasklog import TaskLog, open_task_log

LIMIT_S = 1.0
"""Until all nodes have acknowledged."""

QUIET = 15
"""Slots between two deploys, and those that are measured without any."""


Row = dict[str, Any]


def rows() -> list[Row]:
    """Run all benchmarks; one row per figure, with what is asked and whether it is met."""
    found: list[Row] = []
    for number, window in enumerate(_windows(10, "ratc")):
        what = f"{number}. {window['what']}"
        if window["seconds"] is not None:
            seconds: Row = {"benchmark": f"{what}: time", "value": window["seconds"], "unit": "s"}
            if "deploy" in what or "swap" in what:
                seconds |= {"at_most": LIMIT_S, "met": window["seconds"] <= LIMIT_S}
            found.append(seconds)
        for percentile in ("p95", "p99"):
            name = f"{what}: lateness of events, {percentile}"
            late = window[f"late_{percentile}_ms"]
            found.append({"benchmark": name, "value": late, "unit": "ms"})
        memory = f"{what}: largest memory of a node process"
        found.append({"benchmark": memory, "value": window["resident_mb"], "unit": "MB"})
    return found


def main() -> int:
    """Measure and print JSON; exit code 1 if a deploy takes longer than the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--scheduler", default="ratc", help="what decides before the first deploy")
    arguments = parser.parse_args()
    windows = _windows(arguments.nodes, arguments.scheduler)
    print(
        json.dumps(
            {"nodes": arguments.nodes, "from": arguments.scheduler, "rows": windows}, indent=1
        )
    )
    return int(any((window["seconds"] or 0.0) > LIMIT_S for window in windows))


def _windows(nodes: int, scheduler: str) -> list[Row]:
    from tests.policies import tiny

    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "artifacts")
        keys = [save(store, *tiny.scoring(hidden)) for hidden in (48, 40, 32, 24)]
        plan = plan_of(
            load("paper-testbed", [f"nodes.count={nodes}", "slots.count=2000"]),
            scheduler=SchedulerSpec(scheduler),
            episodes=1,
            artifacts_url=store,
        )
        runtime = LocalRuntime(Path(folder) / "home")
        up = runtime.up(plan, "bench")
        try:
            with (
                OperatorClient(up.address, up.token) as operator,
                open_task_log(up.store, create=False) as log,
            ):
                return _measure(operator, log, keys)
        finally:
            runtime.down("bench")


def _measure(operator: OperatorClient, log: TaskLog, keys: list[str]) -> list[dict[str, Any]]:
    run = operator.start_run()
    windows: list[tuple[str, float | None, float, int, int]] = []

    def measured(what: str, act: Callable[[], float | None]) -> None:
        first = _slot(operator)
        seconds = act()
        # Two slots more: what was held up by it is late after it too.
        last = _until(operator, run, _slot(operator) + 2)
        status = operator.status()
        resident = max(node.resident_bytes or 0 for node in status.nodes) / 1e6
        windows.append((what, seconds, resident, first, last))
        _until(operator, run, last + QUIET)

    def idle() -> None:
        _until(operator, run, _slot(operator) + QUIET)

    def switch() -> float:
        began = time.perf_counter()
        answers = operator.change_scheduler("drl")
        assert all(each.accepted for each in answers), answers
        return time.perf_counter() - began

    def deploy(key: str) -> float:
        done = operator.deploy_policy(key)
        assert done.complete, done
        return done.seconds

    _until(operator, run, QUIET)
    measured("nothing", idle)
    measured("first deploy: ONNX Runtime is loaded", lambda: deploy(keys[0]))
    measured("scheduler set drl", switch)
    for key in keys[1:]:
        measured("swap of the policy that decides", lambda key=key: deploy(key))  # type: ignore[misc]
    operator.stop_run()
    late: dict[int, list[float]] = {}
    slot = log.run(run).plan.workload.slot
    for record in log.records(run):
        late.setdefault(record.at // slot, []).append((record.clock - record.at) / 1000)
    return [
        {
            "what": what,
            "seconds": None if seconds is None else round(seconds, 3),
            "resident_mb": round(resident),
            "slots": last - first + 1,
            **_percentiles([x for at in range(first, last + 1) for x in late.get(at, [])]),
        }
        for what, seconds, resident, first, last in windows
    ]


def _percentiles(values: list[float]) -> dict[str, float]:
    found = np.percentile(values, [50, 95, 99, 100])
    names = ("p50", "p95", "p99", "max")
    return {f"late_{n}_ms": round(float(v), 2) for n, v in zip(names, found, strict=True)}


def _slot(operator: OperatorClient) -> int:
    run = operator.status().run
    assert run is not None
    return run.progress.slot


def _until(operator: OperatorClient, run: str, slot: int) -> int:
    """Return in slot ``slot`` or a later one; which."""
    for progress in operator.watch_run(run):
        if progress.slot >= slot:
            return progress.slot
    raise AssertionError("the run is over")


if __name__ == "__main__":
    sys.exit(main())
