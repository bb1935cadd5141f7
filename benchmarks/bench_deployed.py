"""Deployed policies on the real network and in the simulator: `paper-testbed`, the same episodes.

The policy that ships, and a flat one that `testbed o2o --simulate` has learned before, are deployed
to ten nodes of this machine and decide there; ``testbed sim`` plays the same policy with the same
seeds. Where a run is outside its limits of fidelity, the network is brought up again with a larger
time scale, until the certificate is valid or no scale is left.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

TESTBED: Final = str(Path(sys.executable).with_name("testbed"))
SCENARIO: Final = "paper-testbed"
NAME: Final = "bench-deployed"
EPISODES: Final = 20
TIME_SCALES: Final = (1.5, 2.0, 3.0)
"""Of ten nodes that ask all peers in the same instant; 1 is too fast for two processors."""
WITHIN: Final = 1.5
"""Points between the mean success rates."""
SHIPPED: Final = "shipped/per-destination-v1"

Row = dict[str, Any]


def rows(episodes: int = EPISODES, time_scales: tuple[float, ...] = TIME_SCALES) -> list[Row]:
    """Run all benchmarks; one row per figure, with what is asked and whether it is met."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "TESTBED_HOME": home}
        experiment = _testbed(
            environment, "o2o", SCENARIO, "--simulate", "--log-episodes", "200",
            "--online-episodes", "50", "--evaluation-episodes", "10",
            "--out", str(Path(home) / "experiment"), "--json",
        )  # fmt: skip
        policies = {"per-destination, shipped": SHIPPED, "o2o": experiment["policies"]["o2o"]}
        found = []
        for label, policy in policies.items():
            found += _agreement(environment, label, policy, episodes, time_scales)
            # What was too fast for one policy is so for the next.
            reached = max(row["value"] for row in found if row["benchmark"].endswith("time scale"))
            time_scales = tuple(scale for scale in time_scales if scale >= reached)
    return found


def _testbed(environment: Mapping[str, str], *arguments: str) -> Any:
    """Run a command; its JSON, None if it prints none."""
    done = subprocess.run(
        [TESTBED, *arguments], check=True, stdout=subprocess.PIPE, env=dict(environment)
    )
    return json.loads(done.stdout) if "--json" in arguments else None


def _agreement(
    environment: Mapping[str, str],
    label: str,
    policy: str,
    episodes: int,
    time_scales: tuple[float, ...],
) -> list[Row]:
    for scale in time_scales:
        network = _on_nodes(environment, policy, episodes, scale)
        if network["state"] == "completed":
            break
    simulated = _testbed(
        environment, "sim", SCENARIO, "--scheduler", "drl", "--option", f"policy={policy}",
        "--episodes", str(episodes), "--json",
    )  # fmt: skip
    simulated = simulated["runs"][0] if "runs" in simulated else simulated
    real, virtual = network["success_rate"]["mean"], simulated["success_rate"]["mean"]
    apart = 100 * abs(real - virtual)
    invalid = int(network["state"] != "completed")
    return [
        _row(f"{label}: time scale", scale, ""),
        _row(f"{label}: runs outside their limits of fidelity", invalid, "", 0),
        _row(f"{label}: success rate on the network", 100 * real, "%"),
        _row(f"{label}: success rate in the simulator", 100 * virtual, "%"),
        _row(f"{label}: difference of the success rates", apart, "points", WITHIN),
    ]


def _row(benchmark: str, value: float, unit: str, at_most: float | None = None) -> Row:
    row: Row = {"benchmark": benchmark, "value": value, "unit": unit}
    return row if at_most is None else {**row, "at_most": at_most, "met": value <= at_most}


def _on_nodes(environment: Mapping[str, str], policy: str, episodes: int, scale: float) -> Any:
    """Run the deployed policy after a first deploy, which loads ONNX Runtime."""
    named = ("--name", NAME)
    _testbed(environment, "up", SCENARIO, *named, "--set", f"timeScale={scale:g}")
    try:
        _testbed(environment, "policy", "deploy", policy, *named, "--json")
        return _testbed(
            environment, "run", *named, "--scheduler", "drl", "--episodes", str(episodes), "--json"
        )
    finally:
        _testbed(environment, "teardown", *named)
