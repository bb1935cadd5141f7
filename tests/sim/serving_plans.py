"""Plans of serving networks, for tests of the simulator."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from testbed.model.distributions import Constant
from testbed.model.faults import FaultSpec
from testbed.model.serving.bus import Bus
from testbed.model.serving.network import Function, ServingNetwork
from testbed.model.serving.node import Timetable
from testbed.model.serving.users import ConstantRate, Users
from testbed.model.units import MILLISECOND, SECOND
from testbed.scenario.plan import SchedulerSpec, Seeds, ServingPlan
from testbed.scenario.plan.serving import Horizon, identity


def federation(
    rates: Sequence[float] = (50.0,),
    max_rates: Sequence[int] = (10, 20, 30),
    *,
    enforce: bool = False,
    seconds: int = 300,
    period: int = 60,
    offset: int = 30,
    options: dict[str, Any] | None = None,
    **changes: Any,
) -> ServingPlan:
    """Return the plan of the paper's figure 3: users of ``rates[i]`` at node i, a full mesh."""
    nodes = range(len(max_rates))
    network = ServingNetwork(
        (Function("f", 5 * MILLISECOND, tuple(max_rates)),),
        tuple(tuple(peer for peer in nodes if peer != node) for node in nodes),
        enforce_limits=enforce,
    )
    plan = ServingPlan(
        name="federation",
        scenario_hash="",
        seeds=Seeds(1, 2, 3, 4),
        scheduler=SchedulerSpec("slack", options or {}),
        episodes=1,
        network=network,
        bus=Bus(seed=2),
        timetable=Timetable(period * SECOND, offset * SECOND),
        users=tuple(
            Users(node, 0, ConstantRate(float(rate))) for node, rate in enumerate(rates) if rate
        ),
        horizon=Horizon(seconds * SECOND),
    )
    plan = dataclasses.replace(plan, **changes)
    return dataclasses.replace(plan, scenario_hash=identity(plan))


def down(node: int, at: float, seconds: float, mode: str = "killed") -> FaultSpec:
    """Return the fault of a node that is down for a while."""
    return FaultSpec(
        "node-down",
        Constant(seconds * SECOND),
        at=Constant(at * SECOND),
        nodes=(node,),
        mode=mode,
    )
