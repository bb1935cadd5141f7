"""Families of work at a node: what its schedulers are made from, and what drives an episode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from edgenode.arrivals import refusal
from edgenode.background import Background
from edgenode.driver import EpisodeDriver
from edgenode.host import Host, HostedNode
from edgenode.links import PeerAt
from edgenode.seam import Link, NodeDriver, Surroundings
from edgenode.watch import BoundedScheduler, CodeWatch
from testbed.model.decision import SchedulerContext
from testbed.rpc.generated import edge_pb2 as pb
from testbed.scenario.families import ByModel
from testbed.scenario.plan import SERVING, TASKS, Plan


class Connecting(NamedTuple):
    """What a node connects to its peers with. ``tokens`` are by peer, for their HTTP fronts."""

    me: HostedNode
    host: Host
    peers: Mapping[int, PeerAt]
    tokens: Sequence[str]
    background: Background


class Family(NamedTuple):
    """What a node needs for one family of work; all of it takes the plan of that family.

    ``refusal`` returns why arrivals that the controller announces cannot be, empty if they can,
    given plan, node, episode and arrivals. ``context`` returns what the scheduler of a node is made
    from, given node, plan and options. ``bounded`` returns a scheduler as it is called, given
    scheduler, node, plan and watch. ``connect`` returns what leads to each peer. ``driver``
    prepares an episode, given its surroundings and number. ``standby`` returns an episode that goes
    on where no other does, None if there is none.
    """

    refusal: Callable[[Any, int, int, pb.Arrivals], str]
    context: Callable[[int, Any, Mapping[str, Any]], Any]
    bounded: Callable[[Any, int, Any, CodeWatch], Any]
    connect: Callable[[Any, Connecting], Mapping[int, Link]]
    driver: Callable[[Surroundings, int], NodeDriver]
    standby: Callable[[Surroundings], NodeDriver | None]


def _context(node: int, plan: Plan, options: Mapping[str, Any]) -> SchedulerContext:
    return SchedulerContext(
        node,
        plan.topology,
        plan.rules,
        plan.workload,
        plan.seeds.schedulers,
        dict(options),
        plan.artifacts_url,
    )


def _connect(_plan: Plan, by: Connecting) -> Mapping[int, Link]:
    return {
        peer: by.host.link(peer, at, by.me, by.background)
        for peer, at in by.peers.items()
        if peer != by.me.index
    }


def _driver(at: Surroundings, episode: int) -> NodeDriver:
    assert at.spool is not None
    return EpisodeDriver(
        at.node,
        at.plan,
        episode,
        at.scheduler,
        at.links,
        at.application,
        at.spool,
        at.background,
        at.complaints,
    )


def _tasks() -> Family:
    return Family(
        refusal,
        _context,
        lambda scheduler, _node, _plan, watch: BoundedScheduler(scheduler, watch),
        _connect,
        _driver,
        lambda _at: None,
    )


def _serving() -> Family:
    # It brings an HTTP server and client with it.
    from edgenode.serving import family

    return Family(
        family.refusal,
        family.context,
        family.bounded,
        lambda plan, by: family.connect(
            plan, by.me.index, by.me.me, by.peers, by.tokens, by.background, by.host.here
        ),
        family.driver,
        family.standby,
    )


FAMILIES: Final[ByModel[Callable[[], Family]]] = ByModel(
    "a node", {TASKS: _tasks, SERVING: _serving}
)
"""By the model of the plan."""


def family_of(plan: Any) -> Family:
    """Return the family of work of a plan. Raises: UsageError: this node has none for it."""
    return FAMILIES.of(plan)()
