"""``slow-node``: a node executes more slowly, or faster."""

from __future__ import annotations

from testbed.model.faults.scene import Scene
from testbed.model.faults.seam import Fault, Parameter, Target, named_nodes


class SlowNode:
    """A node executes at a multiple of its rate."""

    name = "slow-node"
    summary = "A node executes at a multiple of its rate."
    target: Target = "nodes"
    parameters: tuple[Parameter, ...] = ("factor",)
    modes: tuple[str, ...] = ()

    def apply(self, fault: Fault, scene: Scene) -> None:
        """Change the scene as it is while the fault holds."""
        for node in fault.nodes:
            scene.slow_node(node, fault.factor)

    def describe(self, fault: Fault) -> str:
        """In a few words."""
        return f"{named_nodes(fault.nodes)} executes at {fault.factor:g} times its rate"
