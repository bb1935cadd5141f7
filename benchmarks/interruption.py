"""Measure how soon ``testbed o2o`` ends after SIGTERM, stage by stage, and that it goes on after.

``python -m benchmarks.interruption paper-simulation 3`` starts a simulated experiment in a folder
of its own, ends it three times in each stage at some moment, starts the same command again each
time, and lets it come to its end. It prints a row per stage: the seconds from the signal to the end
of the process, the seconds of processor time that these took, which other programs do not lengthen,
and what was done of the stage when it was taken up. The figures stand in docs/o2o.md.
"""

from __future__ import annotations

import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import psutil

STAGES: Final = ("logs", "offline", "online", "evaluation")
MOST_DELAY_S: Final = 2.0
"""The signal comes at most this long after the stage has been reported."""

_REPORT: Final = re.compile(r"^(\w[\w-]*) (\d+)/(\d+):")


class Ended(NamedTuple):
    """End of a process that was told to end in a stage.

    ``seconds`` and ``processor`` (seconds of processor time) are from the signal to the end.
    ``begun`` is what was reported as done when the stage began in this process.
    """

    seconds: float
    processor: float
    code: int
    begun: int


def interrupted(command: list[str], stage: str, delay: float) -> Ended | None:
    """Run ``command`` until ``stage``, and end it ``delay`` seconds later; None if it was over."""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        begun = next((n for name, n in _reports(process.stderr) if name == stage), None)
        if begun is None:
            return None
        time.sleep(delay)
        if process.poll() is not None:
            return None
        times = psutil.Process(process.pid).cpu_times()
        before = _of_children()
        sent = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        code = process.wait()
        seconds = time.monotonic() - sent
        return Ended(seconds, _of_children() - before - times.user - times.system, code, begun)


def _of_children() -> float:
    """Return the processor time of all processes that this one has waited for, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _reports(lines: Iterator[str]) -> Iterator[tuple[str, int]]:
    for line in lines:
        if found := _REPORT.match(line):
            yield found[1], int(found[2])


def main(scenario: str, times: int) -> None:
    """Print a row per stage, then how the experiment ended."""
    draw = random.Random(0)
    with tempfile.TemporaryDirectory(prefix="edge-testbed-") as folder:
        command = [
            *(sys.executable, "-c", "from testbed.cli.main import main; main()"),
            *("--home", str(Path(folder) / "home")),
            *("o2o", "--simulate", "--scenario", scenario, "--out", str(Path(folder) / "out")),
        ]
        for stage in STAGES:
            found = [
                each
                for _ in range(times)
                if (each := interrupted(command, stage, draw.uniform(0, MOST_DELAY_S))) is not None
            ]
            seconds = ", ".join(f"{each.seconds:.2f} ({each.processor:.2f})" for each in found)
            begun = ", ".join(str(each.begun) for each in found)
            codes = sorted({each.code for each in found})
            ended = f"{seconds} s (of processor time)" if found else "over before the signal"
            print(f"{stage}: {ended}; exit codes {codes}; began at {begun}", flush=True)
        began = time.monotonic()
        code = subprocess.run(command, check=False, capture_output=True).returncode
        print(f"then to the end: exit code {code} after {time.monotonic() - began:.0f} s")
        print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main(
        sys.argv[1] if len(sys.argv) > 1 else "paper-simulation",
        int(sys.argv[2]) if len(sys.argv) > 2 else 3,
    )
