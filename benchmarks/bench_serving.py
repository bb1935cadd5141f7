"""A federation that serves real requests: the shares of the DFaaS paper, and the simulator beside.

Three nodes on this machine with limits of 10, 20 and 30 requests per second, and 50 requests per
second of users at the first (``slack``, full). One run of 150 s with a period of 30 s; then five
runs with a period of 6 s, and the same episodes in the simulator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from benchmarks.bench_front import latencies, percentile, testbed
from testbed.model.serving.record import RequestOutcome
from testbed.model.units import MILLISECOND, SECOND
from testbed.sim.serving import ServingSimulation
from testbed.storage.tasklog import RequestRow
from tests.sim.serving_plans import federation

Row = dict[str, Any]

RATE: Final = 50.0
SHARES: Final = {1: 16.0, 2: 24.0}
"""Requests per second that the neighbours serve after the first weights."""

RUNS: Final = 5


def rows(seconds: int = 150, period: int = 30, runs: int = RUNS) -> list[Row]:
    """Run all benchmarks; one row per figure, with what is asked and whether it is met."""
    return [*_shares(seconds, period), *_agreement(runs)]


def _shares(seconds: int, period: int) -> list[Row]:
    plan = federation((RATE,), seconds=seconds, period=period, offset=period // 2)
    with testbed(plan) as up:
        last = up.run()
        nodes = up.nodes()
        found = up.requests()
    first = period * SECOND
    after = [row for row in found if row.at >= first]
    length = seconds - period
    served = Counter(row.server for row in after)
    refused = sum(row.outcome is RequestOutcome.NO_PEER for row in after)
    missing = int(RATE * seconds) - len(found)
    missing += sum(row.status is None or row.client_status != row.status for row in found)
    times = latencies(found)
    figures: list[Row] = []
    for node, share in SHARES.items():
        rate = served[node] / length
        off = abs(rate - share) / share
        what = f"served by node {node} after the first weights"
        figures += [
            {"benchmark": what, "value": rate, "unit": "requests/s"},
            {
                "benchmark": f"{what}, off {share:g} requests/s by",
                "value": 100 * off,
                "unit": "%",
                "at_most": 5.0,
                "met": off <= 0.05,
            },
        ]
    figures += [
        _none("503 after the first weights", refused),
        _none("requests that client and log do not tell alike", missing),
        {
            "benchmark": "p50 for their client",
            "value": percentile(times, 0.5) / MILLISECOND,
            "unit": "ms",
        },
        {
            "benchmark": "p99 for their client",
            "value": percentile(times, 0.99) / MILLISECOND,
            "unit": "ms",
        },
    ]
    memory = max(node.resident_bytes or 0 for node in nodes)
    figures += [
        {
            "benchmark": "memory of a node, the largest",
            "value": memory / 1e6,
            "unit": "MB",
            "at_most": 100.0,
            "met": memory <= 100e6,
        },
        {
            "benchmark": f"the run's certificate ({last.state})",
            "value": float(bool(last.valid)),
            "unit": "valid",
            "at_least": 1.0,
            "met": bool(last.valid),
        },
    ]
    return figures


def _none(what: str, count: int) -> Row:
    return {
        "benchmark": what,
        "value": float(count),
        "unit": "requests",
        "at_most": 0.0,
        "met": count == 0,
    }


def _agreement(runs: int) -> list[Row]:
    """Compare runs with the same episodes in the simulator, each time the router is new."""
    plan = federation((RATE, 10.0, 0.0), seconds=42, period=6, offset=3)
    worst, kinds = 0.0, 0
    with testbed(plan) as up:
        for episode in range(runs):
            up.run(episode)
            real = _counted(up.requests())
            simulated = ServingSimulation(plan).episode(episode).requests
            expected = _counted(RequestRow.of(record, "f") for record in simulated)
            kinds = max(kinds, len(expected))
            worst = max(worst, difference(real, expected))
    return [
        {
            "benchmark": f"simulator and network, {runs} runs: largest difference of {kinds} counts"
            " by outcome and server",
            "value": 100 * worst,
            "unit": "%",
            "at_most": 2.0,
            "met": worst <= 0.02,
        }
    ]


def _counted(rows: Iterable[RequestRow]) -> Counter[tuple[int, str, int | None]]:
    """Count requests by the node they came to, outcome, and the node that served them."""
    return Counter((row.source, row.outcome.value, row.server) for row in rows)


def difference(
    real: Counter[tuple[int, str, int | None]], expected: Counter[tuple[int, str, int | None]]
) -> float:
    """Return the largest difference of two counts of a kind, as a share of the larger one."""
    kinds: Sequence[tuple[int, str, int | None]] = list(real | expected)
    return max((abs(real[k] - expected[k]) / max(real[k], expected[k]) for k in kinds), default=0)
