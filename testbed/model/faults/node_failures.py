"""``node-failures``: executions fail more often."""

from __future__ import annotations

from testbed.model.faults.scene import Scene
from testbed.model.faults.seam import Fault, Parameter, Target, named_nodes


class NodeFailures:
    """Executions of a node fail more often."""

    name = "node-failures"
    summary = "Executions of a node fail more often."
    target: Target = "nodes"
    parameters: tuple[Parameter, ...] = ("failureRate",)
    modes: tuple[str, ...] = ()

    def apply(self, fault: Fault, scene: Scene) -> None:
        """Change the scene as it is while the fault holds."""
        for node in fault.nodes:
            scene.endanger_node(node, fault.failure_rate)

    def describe(self, fault: Fault) -> str:
        """In a few words."""
        return f"executions at {named_nodes(fault.nodes)} fail {fault.failure_rate:g}/s more often"
