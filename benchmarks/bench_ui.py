"""Cost of the live page: `paper-testbed` with 10 nodes, watched in a browser and not, in turn.

The browser runs on the same machine, as that of a user does, with the lowest priority. Errors are
those of the fidelity certificates of the runs.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.bench_network import NAME, SCENARIO, Row, call
from tests.services import chromium
from tests.ui.pages import Served, opened, served

EPISODES: Final = 10
PAIRS: Final = 3
SHARE: Final = 5.0
"""Percent of one core that the server may take while it shows 10 nodes."""


def rows(pairs: int = PAIRS, episodes: int = EPISODES) -> list[Row]:
    """Run all benchmarks; one row per figure, with what is asked and whether it is met."""
    without: list[Mapping[str, Any]] = []
    watched: list[Mapping[str, Any]] = []
    shares: list[float] = []
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "TESTBED_HOME": home}
        try:
            call(environment, "up", SCENARIO, "--name", NAME)
            for _ in range(pairs):
                without.append(_run(environment, episodes))
                with served(Path(home), "--name", NAME) as server, _page(server):
                    process = psutil.Process(server.process.pid)
                    before, start = sum(process.cpu_times()[:2]), time.monotonic()
                    watched.append(_run(environment, episodes))
                    used = sum(process.cpu_times()[:2]) - before
                    shares.append(100 * used / (time.monotonic() - start))
        finally:
            call(environment, "teardown", "--name", NAME)
    share = statistics.median(shares)
    return [
        {
            "benchmark": "server of the page, share of one core",
            "value": share,
            "unit": "%",
            "at_most": SHARE,
            "met": share <= SHARE,
        },
        *_fidelity("without the page", without),
        *_fidelity("with the page open", watched),
    ]


def _run(environment: Mapping[str, str], episodes: int) -> Mapping[str, Any]:
    common = ("--scheduler", "ratc", "--episodes", str(episodes), "--json")
    ran = call(environment, "run", "--name", NAME, *common)
    told = call(environment, "runs", "show", ran["run"], "--json")
    return {**ran, "certificate": told["certificate"]}


@contextmanager
def _page(server: Served) -> Iterator[None]:
    """Show the live page in a browser that leaves the processors to everybody else."""
    with chromium.browser() as browser:
        for each in psutil.Process().children(recursive=True):
            if each.pid != server.process.pid and "chrom" in each.name():
                each.nice(19)
        with opened(browser, server.address) as page:
            page.get_by_text("healthy nodes").wait_for()
            yield


def _fidelity(how: str, runs: list[Mapping[str, Any]]) -> list[Row]:
    certificates = [run["certificate"] for run in runs]
    errors = [each["transmission"]["error"]["p95"] / 1000 for each in certificates]
    rates = [100 * run["success_rate"]["mean"] for run in runs]
    return [
        {
            "benchmark": f"{how}: valid runs",
            "value": sum(each["valid"] for each in certificates),
            "unit": f"of {len(runs)}",
            "at_least": len(runs),
            "met": all(each["valid"] for each in certificates),
        },
        {
            "benchmark": f"{how}: error of transmission times, p95, median",
            "value": statistics.median(errors),
            "unit": "ms",
        },
        {
            "benchmark": f"{how}: success, mean",
            "value": statistics.mean(rates),
            "unit": "%",
        },
    ]
