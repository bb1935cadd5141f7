"""Tables of a task log as data frames and arrays, for figures and for Python."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from testbed.experiment.task_summary import RunSummary
from testbed.storage.tasklog import LogTable, TaskLog


def flows(run: RunSummary, nodes: int) -> npt.NDArray[np.float64]:
    """[N, N]: share of the tasks of node i that were decided to be executed at node j."""
    counts = np.zeros((nodes, nodes))
    for source, chosen in run.decided:
        if chosen is not None:
            counts[source, chosen] += 1
    total = counts.sum(axis=1, keepdims=True)
    shares: npt.NDArray[np.float64] = counts / np.maximum(total, 1)
    return shares


def read_table(log: TaskLog, table: LogTable, run_id: str) -> pd.DataFrame:
    """Return a table of the log of one run as a data frame, columns as stored."""
    columns = list(log.columns(table))
    rows: list[Sequence[Any]] = [row for chunk in log.rows(table, run_id) for row in chunk]
    return pd.DataFrame(rows, columns=columns)


def queue_lengths(log: TaskLog, run_id: str) -> pd.DataFrame:
    """Execution queue length of every node at every decision and idle slot it logged.

    Columns: episode, node, slot, time_s (in the episode), queue_length, sending, receiving.
    """
    columns = list(log.columns("decisions"))
    index = {name: columns.index(name) for name in ("episode", "node", "slot", "at", "observation")}
    rows = []
    for chunk in log.rows("decisions", run_id):
        for row in chunk:
            seen: Mapping[str, Any] = json.loads(row[index["observation"]])
            rows.append(
                (
                    row[index["episode"]],
                    row[index["node"]],
                    row[index["slot"]],
                    row[index["at"]] / 1e6,
                    seen["queue_length"],
                    sum(seen["sending"]),
                    sum(seen["receiving"]),
                )
            )
    return pd.DataFrame(
        rows,
        columns=["episode", "node", "slot", "time_s", "queue_length", "sending", "receiving"],
    )
