"""``arrivals``: more tasks arrive, or fewer."""

from __future__ import annotations

from testbed.model.faults.scene import Scene
from testbed.model.faults.seam import Fault, Parameter, Target, named_nodes


class Arrivals:
    """Tasks arrive at a multiple of their probability (a flash crowd)."""

    name = "arrivals"
    summary = "Tasks arrive at a multiple of their probability (a flash crowd)."
    target: Target = "nodes"
    parameters: tuple[Parameter, ...] = ("factor",)
    modes: tuple[str, ...] = ()

    def apply(self, fault: Fault, scene: Scene) -> None:
        """Change the scene as it is while the fault holds."""
        for node in fault.nodes:
            scene.multiply_arrivals(node, fault.factor)

    def describe(self, fault: Fault) -> str:
        """In a few words."""
        return f"{fault.factor:g} times the arrivals at {named_nodes(fault.nodes)}"
