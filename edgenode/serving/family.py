"""The serving family of a node: see ``edgenode.families.Family``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgenode.background import Background
from edgenode.links import PeerAt
from edgenode.seam import Surroundings
from edgenode.serving.driver import ServingDriver
from edgenode.serving.neighbours import Hears, Neighbour
from edgenode.serving.routing import called_safely
from edgenode.watch import CodeWatch
from testbed.model.serving.route import Router, RouterContext
from testbed.rpc import front
from testbed.rpc.credentials import Credentials
from testbed.rpc.generated import edge_pb2 as pb
from testbed.scenario.plan import ServingPlan


def refusal(_plan: ServingPlan, node: int, _episode: int, _told: pb.Arrivals) -> str:
    """Return why a node takes no arrivals."""
    return f"node {node} serves requests, which come over HTTP"


def context(node: int, plan: ServingPlan, options: Mapping[str, Any]) -> RouterContext:
    """Return what the router of a node is made from."""
    return RouterContext(node, plan.network, plan.seeds.schedulers, dict(options))


def bounded(router: Router, node: int, plan: ServingPlan, _watch: CodeWatch) -> Router:
    """Return a router as it is called; one that goes on too long does not stop its node."""
    return called_safely(router, node, plan.network)


def connect(
    plan: ServingPlan,
    node: int,
    me: Credentials,
    peers: Mapping[int, PeerAt],
    tokens: Sequence[str],
    background: Background,
    here: Callable[[str], Hears | None],
) -> Mapping[int, Neighbour]:
    """Return the neighbours of a node. ``here`` finds the node of this process at an address."""
    return {
        peer: Neighbour(
            peer,
            me,
            node,
            at=peers[peer],
            token=tokens[peer] if peer < len(tokens) else "",
            background=background,
            here=here,
        )
        for peer in plan.network.neighbours[node]
        if peer in peers
    }


def driver(at: Surroundings, episode: int) -> ServingDriver:
    """Prepare an episode."""
    return ServingDriver(at, at.run, episode, at.spool)


def standby(at: Surroundings) -> ServingDriver:
    """Begin to serve without an episode of a run; nothing is logged."""
    serving = ServingDriver(at, "", front.STANDBY, None)
    serving.begin()
    return serving
