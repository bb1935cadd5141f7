"""Compare weights of effects on later decisions in the credit of ``testbed o2o``.

``python -m benchmarks.credit_weight paper-testbed 20-27`` plays the whole experiment on each
topology once per weight, on the same logs, seeds and evaluation episodes, and prints success rates
after fine-tuning and the paired differences with their standard error over topologies. The figures
stand in docs/o2o.md.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from testbed.scenario.load import load
from testbed.scenario.resolve import plan as plan_of
from trainer.credit.weight import later_weight
from trainer.o2o.pipeline import run
from trainer.o2o.recipe import DEFAULT, sized
from trainer.o2o.settings import O2O, O2OConfig
from trainer.o2o.simulated import SimulatedVenue

METHODS = ("ratc", "per-destination", "central")


def rates(scenario: str, topology: int, weight: float) -> dict[str, float]:
    """Return mean success rates in percent by method, with a fixed weight."""
    plan = plan_of(load(scenario, [f"seeds.topology={topology}"]))
    config = O2OConfig(
        recipe=replace(sized(DEFAULT), later_weight=weight), methods=METHODS, with_bound=False
    )
    with tempfile.TemporaryDirectory(prefix="edge-testbed-") as folder:
        result = run(SimulatedVenue(plan), config, Path(folder))
    return {name: 100 * float(np.nanmean(scores)) for name, scores in result.rates.items()}


def main(scenario: str, topologies: Sequence[int], weights: Sequence[float]) -> None:
    """Print a row per topology, then the differences to the first weight."""
    found: dict[float, list[float]] = {weight: [] for weight in weights}
    chosen = later_weight(plan_of(load(scenario)))
    print(f"{scenario}: the weight by load and overload rule is {chosen:.2f}", flush=True)
    for topology in topologies:
        line = [f"topology {topology}"]
        for weight in weights:
            by_method = rates(scenario, topology, weight)
            found[weight].append(by_method[O2O])
            line.append(f"w={weight:g}: {by_method[O2O]:.2f}")
        line += [f"{name} {by_method[name]:.2f}" for name in ("offline", *METHODS)]
        print("  ".join(line), flush=True)
    base = np.array(found[weights[0]])
    for weight in weights[1:]:
        gap = np.array(found[weight]) - base
        error = gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else float("nan")
        print(f"w={weight:g} less w={weights[0]:g}: {gap.mean():+.2f} (s.e. {error:.2f})")


if __name__ == "__main__":
    first, _, last = (sys.argv[2] if len(sys.argv) > 2 else "20-27").partition("-")
    main(
        sys.argv[1] if len(sys.argv) > 1 else "paper-testbed",
        range(int(first), int(last or first) + 1),
        [float(weight) for weight in sys.argv[3:]] or [0.3, 1.0],
    )
