"""``python -m benchmarks.fidelity``: how often a network of a size is emulated faithfully.

Each series is several runs of `paper-testbed` under RATC on a network that is brought up anew, and
a simulation of the same episodes. Prints a Markdown table; with ``--write`` it puts it between its
markers in docs/performance.md. Let nothing else run meanwhile: a run of ten episodes takes a minute
or two.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from benchmarks.bench_network import SCENARIO, call
from benchmarks.performance import write

NAME: Final = "series"
SCHEDULER: Final = "ratc"
MARKERS: Final = ("<!-- fidelity: begin -->", "<!-- fidelity: end -->")
LONGEST_S: Final = 3600
"""Seconds after which a busy neighbour ends by itself, whatever became of this process."""


@dataclass(frozen=True, slots=True)
class Series:
    """Runs of one network. ``busy`` is how many cores something else keeps busy meanwhile.

    Those ``beyond`` what is asked for are run only if they are named.
    """

    name: str
    title: str
    nodes: int
    payload: str
    per_process: int = 0
    busy: int = 0
    beyond: bool = False

    @property
    def settings(self) -> list[str]:
        """Return the settings of its scenario."""
        return ["--set", f"nodes.count={self.nodes}", "--set", f"payload={self.payload}"]


SERIES: Final = (
    Series("metadata-100", "100 nodes, metadata, shared processes", 100, "metadata"),
    Series("bytes-40", "40 nodes, real bytes, shared processes", 40, "bytes"),
    Series("own-10", "10 nodes, real bytes, a process each", 10, "bytes", 1),
    Series("own-10-busy", "the same beside one busy core", 10, "bytes", 1, 1),
    Series("shared-10", "10 nodes, real bytes, shared processes", 10, "bytes", 5),
    Series("metadata-200", "200 nodes, metadata", 200, "metadata", beyond=True),
    Series("bytes-80", "80 nodes, real bytes", 80, "bytes", beyond=True),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write if asked to; 1 if a run was not valid."""
    names = [each.name for each in SERIES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity")
    parser.add_argument("--runs", type=int, default=5, help="runs of each series")
    parser.add_argument("--episodes", type=int, default=10, help="episodes of each run")
    parser.add_argument("--only", choices=names, action="append", help="one series; repeatable")
    parser.add_argument("--write", action="store_true", help="put the table into performance.md")
    given = parser.parse_args(arguments)
    lines = [
        "| network | valid | transmission p95, worst | execution p95, worst | "
        "lateness p95, worst | worst term, in limits | success | simulated | apart |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    all_valid = True
    for series in SERIES:
        if series.name not in given.only if given.only else series.beyond:
            continue
        with tempfile.TemporaryDirectory() as home:
            runs, simulated = measure(series, home, given.runs, given.episodes)
        all_valid &= all(run["certificate"]["valid"] for run in runs)
        lines.append(row(series, runs, simulated))
        sys.stderr.write(lines[-1] + "\n")
    text = "\n".join(
        (
            f"Measured {datetime.now(UTC):%Y-%m-%d}: runs of {given.episodes} episodes, load "
            f"{os.getloadavg()[0]:.1f} at the end.",
            "",
            *lines,
        )
    )
    print(text)
    if given.write:
        write(text, MARKERS)
    return 0 if all_valid else 1


def measure(
    series: Series, home: str, count: int, episodes: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the runs of a series with their certificates, and the simulation of its episodes."""
    environment = {**os.environ, "TESTBED_HOME": home}
    common = ("--scheduler", SCHEDULER, "--episodes", str(episodes), "--json")
    runs: list[dict[str, Any]] = []
    for _ in range(count):
        sharing = ("--nodes-per-process", str(series.per_process)) if series.per_process else ()
        call(environment, "up", SCENARIO, "--name", NAME, *series.settings, *sharing)
        try:
            with busy(series.busy):
                ran = call(environment, "run", "--name", NAME, *common)
        finally:
            call(environment, "teardown", "--name", NAME)
        told = call(environment, "runs", "show", ran["run"], "--json")
        runs.append({**ran, "certificate": told["certificate"]})
        sys.stderr.write(f"{series.title}: {'; '.join(_reasons(runs[-1])) or 'valid'}\n")
    simulated = call(environment, "sim", SCENARIO, *series.settings, *common)
    return runs, simulated["runs"][0] if "runs" in simulated else simulated


@contextmanager
def busy(cores: int) -> Iterator[None]:
    """Keep so many cores busy, as programs of another session would."""
    loop = f"import time\nend = time.monotonic() + {LONGEST_S}\nwhile time.monotonic() < end: pass"
    command = [sys.executable, "-c", loop]
    started = [subprocess.Popen(command, start_new_session=True) for _ in range(cores)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def row(series: Series, runs: Sequence[dict[str, Any]], simulated: dict[str, Any]) -> str:
    """Return the row of a series."""
    certificates = [run["certificate"] for run in runs]
    valid = sum(bool(each["valid"]) for each in certificates)
    real = sum(run["success_rate"]["mean"] for run in runs) / len(runs)
    virtual = simulated["success_rate"]["mean"]
    lateness = max(each["terms"]["generator"]["value"] for each in certificates) / 1000
    worst = max(
        each["terms"][name]["value"] / each["terms"][name]["high"]
        for each in certificates
        for name in ("transmission", "execution", "generator")
    )

    def error(what: str) -> str:
        return f"{max(each[what]['error']['p95'] for each in certificates) / 1000:.2f} ms"

    return (
        f"| {series.title} | {valid} of {len(runs)} | {error('transmission')} | "
        f"{error('execution')} | {lateness:.2f} ms | {worst:.2f} | {100 * real:.2f} % | "
        f"{100 * virtual:.2f} % | {100 * abs(real - virtual):.2f} points |"
    )


def _reasons(run: dict[str, Any]) -> list[str]:
    return [str(reason) for reason in run["certificate"]["reasons"]]


if __name__ == "__main__":
    sys.exit(main())
