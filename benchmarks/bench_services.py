"""The real services on this machine: MariaDB with durable commits, HDFS with one DataNode.

Events go to a log in the batches of the controller's writer. Latency of tasks is that of one seeded
network run with both logs, task by task. A policy is fetched as a node does it: a new connection,
every file verified, loaded into ONNX Runtime and tried out.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.servers import mariadb
from testbed.model.events import Record
from testbed.policies import artifact, inference
from testbed.rpc.operator import OperatorClient
from testbed.runtime.local import LocalRuntime
from testbed.scenario.load import load
from testbed.scenario.plan import Plan, SchedulerSpec
from testbed.scenario.resolve import plan as plan_of
from testbed.storage.tasklog import TaskLog, open_task_log
from testbed.testing.tasklog import sample_episode, sample_run
from tests.policies import tiny
from tests.services.fixtures import short_folder
from tests.services.hdfs import Hdfs

EVENTS: Final = 60_000
POLICY_BYTES: Final = 100_000

Row = dict[str, Any]


def rows() -> list[Row]:
    """Run all benchmarks; one row per figure, with what is asked and whether it is met."""
    with mariadb() as url:
        found = [*append_rows(url), *latency_rows(url)]
    return [*found, *policy_rows()]


# --- events -------------------------------------------------------------------------------------


def append_rows(mysql: str, repetitions: int = 3) -> list[Row]:
    """Events a second into a log, in batches of 500 and of 5,000, of the best repetition."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name, url in (("SQLite", f"{folder}/tasks.db"), ("MySQL", mysql)):
            for batch in (500, 5_000):
                best = max(_append(url, f"{batch}-{n}", batch) for n in range(repetitions))
                asked = 5_000 if name == "MySQL" else None
                found.append(
                    _row(f"{name}, events appended in batches of {batch:,}", best, "1/s", asked)
                )
    return found


def _append(url: str, run: str, batch: int) -> float:
    info = sample_run(run)
    records: list[Record] = []
    episode = 0
    while len(records) < EVENTS // 3:
        records += sample_episode(episode)[1]
        episode += 1
    with open_task_log(url) as log:
        log.begin_run(info)
        began = time.perf_counter()
        for start in range(0, len(records), batch):
            log.append(info.id, records[start : start + batch], [])
        return len(records) / (time.perf_counter() - began)


# --- tasks --------------------------------------------------------------------------------------


def latency_rows(mysql: str, rounds: int = 3) -> list[Row]:
    """Time from generated to ended with a log on MySQL against one on SQLite, same tasks."""
    plan = plan_of(
        load("paper-testbed", ["slots.count=30"]), scheduler=SchedulerSpec("random"), episodes=1
    )
    elapsed: dict[str, list[dict[int, int]]] = {"sqlite": [], "mysql": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            # In turns, so that what else the machine does meets both.
            for kind in ("sqlite", "mysql") if number % 2 else ("mysql", "sqlite"):
                url = mysql if kind == "mysql" else f"{folder}/tasks.db"
                elapsed[kind].append(_run(plan, url, Path(folder) / f"{kind}-{number}"))
    common = set.intersection(*(set(each) for kind in elapsed.values() for each in kind))
    means = {
        kind: np.mean([[each[task] for task in common] for each in runs]) / 1000
        for kind, runs in elapsed.items()
    }
    excess = 100 * (means["mysql"] / means["sqlite"] - 1)
    name = f"task latency, mean of {len(common)} tasks, {rounds} runs"
    return [
        {"benchmark": f"{name}, SQLite", "value": float(means["sqlite"]), "unit": "ms"},
        {"benchmark": f"{name}, MySQL", "value": float(means["mysql"]), "unit": "ms"},
        {
            "benchmark": "task latency, MySQL above SQLite",
            "value": float(excess),
            "unit": "%",
            "at_most": 2.0,
            "met": bool(excess <= 2.0),
        },
    ]


def _run(plan: Plan, url: str, home: Path) -> dict[int, int]:
    """Return the times of the succeeded tasks, microseconds of emulated time."""
    runtime = LocalRuntime(home)
    up = runtime.up(plan, "bench", store=url)
    try:
        with OperatorClient(up.address, up.token) as operator:
            run = operator.start_run()
            for _ in operator.watch_run(run):
                pass
        with open_task_log(url) as log:
            return _elapsed(log, run)
    finally:
        runtime.down("bench")


def _elapsed(log: TaskLog, run: str) -> dict[int, int]:
    return {
        row.task_id: row.elapsed
        for row in log.tasks(run)
        if row.outcome == "succeeded" and row.elapsed is not None
    }


# --- policies -----------------------------------------------------------------------------------


def policy_rows(repetitions: int = 30) -> list[Row]:
    """Fetching, verifying and loading a policy of 100 KB."""
    card, actor = _policy()
    name = f"{len(actor) / 1000:.0f} KB policy fetched and loaded"
    with short_folder("hdfs") as folder:
        hadoop = Hdfs(folder)
        try:
            hadoop.start()
            found = []
            for kind, url in (("folder", str(folder / "store")), ("HDFS", f"{hadoop.url}/store")):
                key = artifact.save(url, card, actor)

                def fetch(url: str = url, key: str = key) -> None:
                    # As the first who opens it.
                    inference._open.clear()
                    inference.open_actor(artifact.load(url, key))

                fetch()
                taken = [_timed(fetch) for _ in range(repetitions)]
                p50, p95 = np.percentile(taken, [50, 95])
                asked = 150.0 if kind == "HDFS" else None
                found += [
                    _row(f"{name}, {kind}, p50", float(p50), "ms"),
                    _row(f"{name}, {kind}, p95", float(p95), "ms", at_most=asked),
                ]
            return found
        finally:
            hadoop.stop()


def _policy() -> tuple[Any, bytes]:
    """Return the largest policy that may be stored, which is of 100 KB."""
    hidden = 64
    while len((larger := tiny.scoring(hidden))[1]) <= POLICY_BYTES:
        made, hidden = larger, hidden + 4
    return made


def _timed(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def _row(
    name: str,
    value: float,
    unit: str,
    at_least: float | None = None,
    *,
    at_most: float | None = None,
) -> Row:
    row: Row = {"benchmark": name, "value": value, "unit": unit}
    if at_least is not None:
        row |= {"at_least": at_least, "met": value >= at_least}
    if at_most is not None:
        row |= {"at_most": at_most, "met": value <= at_most}
    return row


if __name__ == "__main__":
    for each in rows():
        print(json.dumps(each))
