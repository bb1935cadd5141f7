"""``node-down``: a node goes down and comes back."""

from __future__ import annotations

from testbed.model.faults.scene import Scene, State
from testbed.model.faults.seam import Fault, Parameter, Target, named_nodes


class NodeDown:
    """A node is down: killed (it loses its tasks) or hung (it stands still)."""

    name = "node-down"
    summary = "A node is down: killed (it loses its tasks) or hung (it stands still)."
    target: Target = "nodes"
    parameters: tuple[Parameter, ...] = ("mode",)
    modes: tuple[str, ...] = ("killed", "hung")

    def apply(self, fault: Fault, scene: Scene) -> None:
        """Change the scene as it is while the fault holds."""
        state = State.HUNG if fault.mode == "hung" else State.KILLED
        for node in fault.nodes:
            scene.stop(node, state)

    def describe(self, fault: Fault) -> str:
        """In a few words."""
        return f"{named_nodes(fault.nodes)} {fault.mode}"
