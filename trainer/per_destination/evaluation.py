"""Comparison of a per-destination policy with heuristics that have the same information."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from testbed.model.information import BITS
from testbed.model.per_destination import NAME
from testbed.scenario.load import load
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan as resolve
from testbed.schedulers.catalogue import EQUALS, HEURISTICS
from testbed.sim.engine.arrays import without_control_delay
from testbed.sim.engine.scoring import ScoringWeights
from testbed.sim.play import PER_DESTINATION, evaluate
from trainer.per_destination.export import asks_of
from trainer.per_destination.price import price_of_policy, price_of_scheduler

CHOICE_TOPOLOGIES: Final = tuple(range(200, 208))
"""Topology seeds by which settings are chosen."""

FINAL_TOPOLOGIES: Final = tuple(range(80, 88))
"""Topology seeds for the final test alone; never look at them to choose anything."""

MORE: Final = (PER_DESTINATION, "least-completion", "central")
"""What a policy that asks for states is held against besides: the shipped one that asks for bits,
a heuristic with the same information, and one that sees all."""

_IT: Final = "learned"

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


def network(name: str, topology: int) -> Plan:
    """One network of ``NETWORKS``, without control delay."""
    scenario, overrides = NETWORKS[name]
    return without_control_delay(
        resolve(load(scenario, [*overrides, f"seeds.topology={topology}"]))
    )


def compare(
    weights: ScoringWeights,
    topologies: Sequence[int],
    episodes: int = 40,
    networks: Sequence[str] = tuple(NETWORKS),
    progress: Callable[[str], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Mean success rates by network, and the differences that count, with standard errors.

    Paired: every method meets the same episodes. ``against`` says by how much the policy is above
    ``rda-masked`` and above the best of ``EQUALS`` (by its mean over all topologies); the standard
    error is that of the mean paired difference over all episodes. A policy that asks for states,
    named by its encoder, is also compared with ``MORE``. ``price`` has messages and bytes per task,
    of schedulers in the first episode of the first topology.
    """
    table: dict[str, dict[str, Any]] = {}
    title, more = (PER_DESTINATION, ()) if weights.encoder == NAME else (weights.encoder, MORE)
    for name in networks:
        rates: dict[str, list[np.ndarray[Any, np.dtype[np.float64]]]] = {}
        for topology in topologies:
            found = evaluate(
                network(name, topology), [*HEURISTICS, *more, _IT], episodes, {_IT: weights}
            )
            for method, values in found.items():
                rates.setdefault(method, []).append(values)
        joined = {method: np.concatenate(values) for method, values in rates.items()}
        best = max(EQUALS, key=lambda method: float(np.nanmean(joined[method])))
        table[name] = {
            "success_rate": {
                (title if method == _IT else method): _rounded(np.nanmean(values))
                for method, values in joined.items()
            },
            "best_equal": best,
            "price": _prices(network(name, topologies[0]), title, weights),
            "against": {
                other: {"difference": _rounded(np.nanmean(gap)), "standard_error": _error(gap)}
                for other in dict.fromkeys(("rda-masked", best, *more))
                for gap in (joined[_IT] - joined[other],)
            },
        }
        if progress is not None:
            progress(name)
    return table


def _prices(plan: Plan, title: str, weights: ScoringWeights) -> dict[str, dict[str, float]]:
    size = plan.topology.size
    prices = {name: price_of_scheduler(plan, name) for name in (*HEURISTICS, "least-completion")}
    prices[PER_DESTINATION] = price_of_policy(BITS, size)
    prices[title] = price_of_policy(asks_of(weights), size)
    return {
        name: {"messages": round(price.messages, 1), "bytes": round(price.bytes)}
        for name, price in prices.items()
    }


def _rounded(value: Any) -> float:
    return round(float(value), 4)


def _error(gap: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    told = gap[np.isfinite(gap)]
    return _rounded(told.std(ddof=1) / np.sqrt(len(told)))
