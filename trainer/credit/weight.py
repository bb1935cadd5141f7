"""The share of a decision's effect on later decisions that counts as its own."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np

from testbed.model.distributions import mean
from testbed.model.scarcity import mean_cycles, offered_load
from testbed.model.topology import OverloadMeasure
from testbed.model.units import SECOND
from testbed.scenario.plan import Plan

LaterWeight: TypeAlias = "float | tuple[float, float]"
"""A fixed weight from 0 to 1, or (lowest, slope) of a weight that grows with the load."""

BY_LOAD: Final[LaterWeight] = (0.3, 3.5)
"""The default (lowest, slope); docs/o2o.md has the measurement."""

_BLIND: Final = 0.8
"""By how many deadlines the longest queue that is not overloaded exceeds one where the whole effect
counts."""


def later_weight(plan: Plan, setting: LaterWeight = BY_LOAD) -> float:
    """Return the weight, 0 to 1, of effects on later decisions in the network of ``plan``.

    Nodes that decide later react to overload bits, the less there is to spare the less well: the
    weight is clip(lowest + slope * (load - 1), lowest, 1). Where a node counts as overloaded only
    when its queue already takes longer than a deadline, the bits come too late to react to, and the
    whole effect counts. A fixed weight is returned as it is.
    """
    if isinstance(setting, (int, float)):
        return float(setting)
    lowest, slope = setting
    by_load = lowest + slope * (offered_load(plan.topology, plan.workload) - 1.0)
    return float(np.clip(max(by_load, _blindness(plan) / _BLIND), lowest, 1.0))


def _blindness(plan: Plan) -> float:
    """Return by how many deadlines the longest queue that is not overloaded exceeds one."""
    workload, overload = plan.workload, plan.rules.overload
    cycles = mean_cycles(workload)
    queues = [
        limit / SECOND if overload.measure is OverloadMeasure.BACKLOG else limit * cycles / hz
        for limit, hz in zip(
            map(overload.limit_for, plan.topology.cores), plan.topology.capacity_hz, strict=True
        )
    ]
    return float(np.mean(queues)) / (mean(workload.deadline) / SECOND) - 1.0
