"""Comparison of turns within slots and of refusal, apart and together, over networks.

Every method meets the same episodes of the same networks in all variants. Differences are means of
a network each, with the 95 % interval over networks, as in ``evaluation``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from testbed.experiment.per_destination.evaluation import NETWORKS
from testbed.experiment.statistics import mean_interval
from testbed.model.per_destination import STATE_NAME
from testbed.model.scarcity import workload_at
from testbed.scenario.load import load
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan as resolve
from testbed.sim.engine.scoring import ScoringWeights
from testbed.sim.play import evaluate

HEURISTICS: Final = ("least-completion", "priced", "central")
REFUSING: Final = "central-reject"
PRICED: Final = "priced"
"""Refuses tasks wherever it may."""
CONTROL_DELAY: Final = "1ms"
"""One-way time of control messages in all variants: without it an order takes no time."""


class Variant(NamedTuple):
    """A way in which a network is played: whether nodes take turns, whether methods may refuse."""

    turns: bool
    refusing: bool

    @property
    def name(self) -> str:
        """Name in tables."""
        order = "in turns" if self.turns else "at once"
        return f"{order}, refusing" if self.refusing else order


VARIANTS: Final = tuple(
    Variant(turns, refusing) for refusing in (False, True) for turns in (False, True)
)


def network(name: str, seed: int, variant: Variant, at_load: float | None = None) -> Plan:
    """One network of ``evaluation.NETWORKS`` in a variant; all its seeds are ``seed``.

    ``at_load`` scales the complexity of its tasks so that the offered load is this.
    """
    scenario, overrides = NETWORKS[name]
    rules = [
        f"rules.stagger={str(variant.turns).lower()}",
        f"rules.reject={str(variant.refusing).lower()}",
    ]
    delay = f"links.controlDelay={CONTROL_DELAY}"
    plan = resolve(load(scenario, [*overrides, f"seeds={seed}", delay, *rules]))
    if at_load is None:
        return plan
    return dataclasses.replace(plan, workload=workload_at(at_load, plan.topology, plan.workload))


def compare_order(
    policies: Mapping[str, ScoringWeights],
    seeds: Sequence[int],
    episodes: int = 40,
    networks: Sequence[str] = tuple(NETWORKS),
    loads: Sequence[float | None] = (None,),
    progress: Callable[[str], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Mean success rates and differences by network (and load), variant and method.

    ``policies`` are compared with each other, the first with every other one, and with
    ``HEURISTICS``; where methods may refuse, ``priced`` and policies that ask for states do, and
    ``central-reject`` stands beside ``central``. ``differences`` has, in shares: ``turns`` (in
    turns less at once), ``refusing`` (refusing less not), ``above FIRST`` (of the other policies),
    and ``above central-reject`` (where methods may refuse) or ``above central``.
    """
    table: dict[str, dict[str, Any]] = {}
    for name in networks:
        for at_load in loads:
            title = name if at_load is None else f"{name}, load {at_load:g}"
            found = {
                variant: _rates(
                    policies,
                    [network(name, seed, variant, at_load) for seed in seeds],
                    variant,
                    episodes,
                )
                for variant in VARIANTS
            }
            table[title] = {
                "success_rate": {
                    variant.name: {
                        method: _rounded(np.mean(values)) for method, values in rates.items()
                    }
                    for variant, rates in found.items()
                },
                "differences": dict(_differences(found, list(policies))),
            }
            if progress is not None:
                progress(title)
    return table


def _rates(
    policies: Mapping[str, ScoringWeights], plans: Sequence[Plan], variant: Variant, episodes: int
) -> dict[str, list[float]]:
    """Return the mean success rate of each method in each network."""
    heuristics = (PRICED, REFUSING) if variant.refusing else HEURISTICS
    able = {
        name: weights
        for name, weights in policies.items()
        if not variant.refusing or weights.encoder == STATE_NAME
    }
    rates: dict[str, list[float]] = {}
    for plan in plans:
        found = evaluate(plan, heuristics, episodes)
        found |= evaluate(plan, list(able), episodes, able, refusing=variant.refusing)
        for method, values in found.items():
            rates.setdefault(method, []).append(float(np.nanmean(values)))
    return rates


def _differences(
    found: Mapping[Variant, Mapping[str, Sequence[float]]], policies: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    first, *others = policies
    for variant, rates in found.items():
        for method, values in rates.items():
            if variant.turns:
                yield (
                    f"turns: {method}{', refusing' if variant.refusing else ''}",
                    _difference(values, found[variant._replace(turns=False)][method]),
                )
            if variant.refusing:
                usual = found[variant._replace(refusing=False)]
                before = usual["central" if method == REFUSING else method]
                yield (
                    f"refusing: {method}, {'in turns' if variant.turns else 'at once'}",
                    _difference(values, before),
                )
        reference = REFUSING if variant.refusing else "central"
        for method in (each for each in rates if each != reference):
            yield (
                f"{variant.name}: {method} above {reference}",
                _difference(rates[method], rates[reference]),
            )
        for other in others if first in rates else ():
            yield f"{variant.name}: {other} above {first}", _difference(rates[other], rates[first])


def _difference(values: Sequence[float], before: Sequence[float]) -> dict[str, Any]:
    found = mean_interval([one - other for one, other in zip(values, before, strict=True)])
    return {
        "difference": _rounded(found.mean),
        "low": _rounded(found.low),
        "high": _rounded(found.high),
    }


def _rounded(value: Any) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)
