"""Configuration of nodes before a run: the plan, their peers, and the scheduler."""

from __future__ import annotations

from collections.abc import Sequence

from controller.registry import Node
from testbed.rpc.front import token_for
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.identity import CONTROLLER, node_identity
from testbed.scenario.plan import SchedulerSpec


def configuration(
    node: int,
    nodes: Sequence[Node],
    plan_json: str,
    scheduler: SchedulerSpec,
    *,
    run: str = "",
    standby: bool = False,
) -> pb.ConfigureRequest:
    """Return what node ``node`` of ``nodes`` is told.

    Where nodes take requests of users, it gets what it has to show at the others' fronts. With
    ``standby`` it serves at once, without a run.
    """
    me = node_identity(node)
    fronts = any(each.http_key for each in nodes)
    return pb.ConfigureRequest(
        run=run,
        plan_json=plan_json,
        peers=[
            pb.PeerAddress(node=each.node, address=each.address, trunk=each.trunk, http=each.http)
            for each in nodes
        ],
        scheduler=scheduler.name,
        options_json=scheduler.options_json,
        standby=standby,
        http_tokens=[token_for(each.http_key, me) for each in nodes] if fronts else (),
    )


def proof(node: Node) -> str:
    """Return what the controller shows at the front of a node."""
    return token_for(node.http_key, CONTROLLER)
