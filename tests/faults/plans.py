"""Plans with faults for tests."""

from __future__ import annotations

import dataclasses

from testbed.model.distributions import Constant
from testbed.model.faults import FaultSpec
from testbed.model.units import Micros
from testbed.scenario.plan import Plan, identity


def with_faults(plan: Plan, *faults: FaultSpec) -> Plan:
    """``plan`` with these faults."""
    return dataclasses.replace(
        plan,
        faults=faults,
        scenario_hash=identity(plan.topology, plan.workload, plan.rules, plan.seeds, faults),
    )


def fault(kind: str, begin: Micros, end: Micros, **more: object) -> FaultSpec:
    """A fault that holds from ``begin`` to ``end`` in every episode."""
    return FaultSpec(kind, Constant(end - begin), at=Constant(begin), **more)  # type: ignore[arg-type]
