"""Compare the offline learners of ``testbed o2o`` on the same logs, before any fine-tuning.

``python -m benchmarks.learners paper-simulation 20-22 1500`` trains each learner on each network
from RATC's logs with this many gradient steps, and prints success rates in percent and the
differences from ``cql`` with their 95 % interval over networks. The figures stand in docs/o2o.md.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from testbed.experiment.statistics import mean_interval
from testbed.scenario.load import load
from testbed.scenario.resolve import plan as plan_of
from trainer.learning.learners import LEARNERS
from trainer.learning.shared_target import SharedTargetConfig
from trainer.o2o.pipeline import run
from trainer.o2o.recipe import DEFAULT, sized
from trainer.o2o.settings import OFFLINE, O2OConfig
from trainer.o2o.simulated import SimulatedVenue

METHODS = ("ratc", "untrained", "local-or-reliable")

# Without a discount nothing is learned towards a target, so one for both is the same as two.
NAMES = tuple(name for name in LEARNERS if name != SharedTargetConfig.name)


def main(scenario: str, seeds: Sequence[int], steps: int) -> None:
    """Print a row per network, then the differences."""
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    for seed in seeds:
        plan = plan_of(load(scenario, [f"seeds.topology={seed}"]))
        line: dict[str, float] = {}
        for name in NAMES:
            recipe = sized(DEFAULT, offline_steps=steps, learner=name)
            config = O2OConfig(recipe=recipe, methods=METHODS, online=False, with_bound=False)
            with tempfile.TemporaryDirectory(prefix="edge-testbed-") as folder:
                result = run(SimulatedVenue(plan), config, Path(folder))
            rates = {each: 100 * float(np.nanmean(r)) for each, r in result.rates.items()}
            found[name].append(rates[OFFLINE])
            line |= {each: rates[each] for each in METHODS} | {name: rates[OFFLINE]}
        shown = "  ".join(f"{name} {rate:.1f}" for name, rate in line.items())
        print(f"{scenario} {seed}: {shown}", flush=True)
    for name in NAMES[1:]:
        gap = mean_interval([a - b for a, b in zip(found[name], found["cql"], strict=True)])
        print(f"{name} less cql: {gap.mean:+.1f} ({gap.low:+.1f} to {gap.high:+.1f})")


if __name__ == "__main__":
    first, _, last = (sys.argv[2] if len(sys.argv) > 2 else "20-22").partition("-")
    main(
        sys.argv[1] if len(sys.argv) > 1 else "paper-simulation",
        range(int(first), int(last or first) + 1),
        int(sys.argv[3]) if len(sys.argv) > 3 else 1_500,
    )
