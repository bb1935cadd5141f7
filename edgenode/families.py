"""Families of work at a node: what its schedulers are made from, and what drives an episode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from edgenode.arrivals import refusal
from edgenode.driver import EpisodeDriver
from testbed.model.decision import SchedulerContext
from testbed.rpc.generated import edge_pb2 as pb
from testbed.scenario.families import ByModel
from testbed.scenario.plan import TASKS, Plan


class Family(NamedTuple):
    """What a node needs for one family of work; all of it takes the plan of that family.

    ``refusal`` returns why arrivals that the controller announces cannot be, empty if they can,
    given plan, node, episode and arrivals. ``context`` returns what the scheduler of a node is made
    from, given node, plan and options. ``driver`` prepares an episode, with the arguments of
    ``EpisodeDriver``.
    """

    refusal: Callable[[Any, int, int, pb.Arrivals], str]
    context: Callable[[int, Any, Mapping[str, Any]], Any]
    driver: Callable[..., EpisodeDriver]


def _for_tasks(node: int, plan: Plan, options: Mapping[str, Any]) -> SchedulerContext:
    return SchedulerContext(
        node,
        plan.topology,
        plan.rules,
        plan.workload,
        plan.seeds.schedulers,
        dict(options),
        plan.artifacts_url,
    )


FAMILIES: Final = ByModel("a node", {TASKS: Family(refusal, _for_tasks, EpisodeDriver)})
"""By the model of the plan."""
