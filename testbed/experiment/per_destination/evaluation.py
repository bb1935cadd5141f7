"""Comparison of a per-destination policy with heuristics, over networks it did not train on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from testbed.experiment.statistics import chance_of, holm, mean_interval
from testbed.model.information import BITS, Asks, asked_by, told
from testbed.model.per_destination import HEARD_NAME, NAME
from testbed.scenario.load import load
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan as resolve
from testbed.schedulers.catalogue import EQUALS, HEURISTICS, REFERENCES
from testbed.sim.engine.arrays import without_control_delay
from testbed.sim.engine.scoring import ScoringWeights
from testbed.sim.play import PER_DESTINATION, AnyPolicy, evaluate
from trainer.per_destination.price import price_of_policy, price_of_scheduler

CHOICE_TOPOLOGIES: Final = tuple(range(200, 208))
"""Seeds of networks by which settings are chosen."""

FINAL_TOPOLOGIES: Final = tuple(range(80, 88))
"""Seeds of networks for the final test alone; never look at them to choose anything."""

MORE: Final = (PER_DESTINATION, "central")
"""Further references for a policy that asks for states: the shipped one that asks for bits, and
one that sees all queues."""

NETWORKS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "paper-simulation": ("paper-simulation", ()),
    "paper-simulation, overloaded at a backlog of 1 s": (
        "paper-simulation",
        ("rules.overload={backlog: 1s}",),
    ),
    "paper-simulation, N = 10": ("paper-simulation", ("nodes.count=10",)),
    "paper-simulation, N = 50": ("paper-simulation", ("nodes.count=50",)),
    "paper-testbed": ("paper-testbed", ()),
    "quickstart": ("quickstart", ()),
}
"""Scenario and overrides by the name in the table."""


def network(name: str, seed: int) -> Plan:
    """One network of ``NETWORKS``, without control delay.

    Topology, workload, failures and schedulers all have this seed: networks share nothing.
    """
    scenario, overrides = NETWORKS[name]
    return without_control_delay(resolve(load(scenario, [*overrides, f"seeds={seed}"])))


def compare(
    weights: ScoringWeights,
    seeds: Sequence[int],
    episodes: int = 40,
    networks: Sequence[str] = tuple(NETWORKS),
    progress: Callable[[str], None] | None = None,
    asks: Asks | None = None,
) -> dict[str, dict[str, Any]]:
    """Mean success rates by kind of network, and by how much the policy is above each reference.

    Every method meets the same episodes. Differences are means of a network each, and ``low`` and
    ``high`` the 95 % interval over networks (None with one): networks differ more from each other
    than episodes of one do, and the interval is for networks not seen yet. ``p_value`` is corrected
    by Holm's method for all comparisons of the table. ``best_equal`` is the best of ``EQUALS`` by
    its mean. ``asks`` is what the policy asks its peers, None where its encoder tells; one that
    asks for more than bits, named by its encoder and by that, is also compared with ``MORE``.
    ``price`` has messages and bytes per task, of schedulers in the first episode of the first
    network.
    """
    table: dict[str, dict[str, Any]] = {}
    p_values: dict[tuple[str, str], float] = {}
    title, more = (PER_DESTINATION, ()) if weights.encoder == NAME else (weights.encoder, MORE)
    learned: AnyPolicy = weights
    if asks is not None and weights.encoder == HEARD_NAME:
        # An installation without the extra `train` has no onnx.
        from trainer.per_destination.export import policy_of

        title = f"{title}, {told(asks)}"
        learned = policy_of(weights, "learned", asks)
    for name in networks:
        rates: dict[str, list[float]] = {}
        gaps: dict[str, list[float]] = {}
        for seed in seeds:
            methods = [*HEURISTICS, *more, _LEARNED]
            found = evaluate(network(name, seed), methods, episodes, {_LEARNED: learned})
            for method, values in found.items():
                rates.setdefault(method, []).append(float(np.nanmean(values)))
            for method in (*REFERENCES, *more):
                gap = np.nanmean(found[_LEARNED] - found[method])
                gaps.setdefault(method, []).append(float(gap))
        intervals = {method: mean_interval(values) for method, values in gaps.items()}
        for method, each in intervals.items():
            if each.count > 1:
                p_values[name, method] = 2 * min(chance_of(each))
        table[name] = {
            "success_rate": {
                (title if method == _LEARNED else method): _rounded(np.mean(values))
                for method, values in rates.items()
            },
            "best_equal": max(EQUALS, key=lambda method: float(np.mean(rates[method]))),
            "price": _prices(
                network(name, seeds[0]), title, asked_by(weights.encoder) if asks is None else asks
            ),
            "against": {
                method: {
                    "difference": _rounded(each.mean),
                    "low": _rounded(each.low),
                    "high": _rounded(each.high),
                    "p_value": None,
                }
                for method, each in intervals.items()
            },
        }
        if progress is not None:
            progress(name)
    for (name, method), p_value in zip(p_values, holm(list(p_values.values())), strict=True):
        table[name]["against"][method]["p_value"] = _rounded(p_value, 6)
    return table


_LEARNED: Final = "learned"


def _prices(plan: Plan, title: str, asks: Asks) -> dict[str, dict[str, float]]:
    size = plan.topology.size
    prices = {name: price_of_scheduler(plan, name) for name in HEURISTICS}
    prices[PER_DESTINATION] = price_of_policy(BITS, size)
    prices[title] = price_of_policy(asks, size, plan)
    return {
        name: {"messages": round(price.messages, 1), "bytes": round(price.bytes)}
        for name, price in prices.items()
    }


def _rounded(value: Any, digits: int = 4) -> float | None:
    return None if math.isnan(value) else round(float(value), digits)
