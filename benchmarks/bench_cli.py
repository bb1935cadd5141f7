"""Waiting times of the command line: whole commands, from the shell's point of view.

Each figure is the median of several runs after one that warms the file cache.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

TESTBED: Final = str(Path(sys.executable).with_name("testbed"))

Row = dict[str, Any]


def rows() -> list[Row]:
    """Run all benchmarks; one row per figure, with what is asked and whether it is met."""
    found = []
    for command, asked in (
        (["--help"], 0.4),
        (["run", "--help"], None),
        (["scheduler", "list"], None),
        (["sim", "quickstart", "--scheduler", "ratc", "--episodes", "1"], None),
    ):
        value = _median_seconds(command)
        row: Row = {"benchmark": f"`testbed {' '.join(command)}`", "value": value, "unit": "s"}
        if asked is not None:
            row |= {"at_most": asked, "met": value <= asked}
        found.append(row)
    return found


def _median_seconds(command: list[str], runs: int = 9) -> float:
    seconds = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        subprocess.run([TESTBED, *command], check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])
