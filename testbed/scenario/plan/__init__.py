"""A scenario with everything drawn and resolved: what the processes of a run are given.

A plan travels as JSON to every controller and node, which need nothing but the standard library
and the model to read it. ``testbed.scenario.load.load`` and ``testbed.scenario.resolve.plan``
make one from a scenario file; floats survive the round trip bit for bit. Each family of work has a
plan of its own; ``PlanHead`` is what they share.
"""

from __future__ import annotations

from typing import Final

from testbed.errors import UsageError
from testbed.scenario.families import ByModel
from testbed.scenario.plan.head import (
    PLAN_VERSION,
    SERVING,
    SUCCESS_RATE,
    TASKS,
    ApplicationSpec,
    Demand,
    PlanHead,
    SchedulerSpec,
    Seeds,
    document_of,
    loaded,
)
from testbed.scenario.plan.serving import REFUSED_RATE, ServingPlan
from testbed.scenario.plan.tasks import FidelityLimits, Payload, Plan, identity

__all__ = [
    "PLAN_VERSION",
    "REFUSED_RATE",
    "SERVING",
    "SUCCESS_RATE",
    "TASKS",
    "ApplicationSpec",
    "Demand",
    "FidelityLimits",
    "Payload",
    "Plan",
    "PlanHead",
    "SchedulerSpec",
    "Seeds",
    "ServingPlan",
    "identity",
    "load",
]

PLANS: Final[ByModel[type[PlanHead]]] = ByModel("a plan", {TASKS: Plan, SERVING: ServingPlan})
"""The class of plans of each model."""


def load(text: str) -> PlanHead:
    """Return the plan that the ``to_json`` of a plan of any model wrote.

    Raises: ValueError: the text is no plan of this version, or of a model that this version has
    not.
    """
    document = document_of(text)
    try:
        kind = PLANS.named(document["model"])
    except UsageError as error:
        raise ValueError(f"not a plan that can be read: {error}") from None
    return loaded(kind, document)
