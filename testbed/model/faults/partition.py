"""``partition``: links or groups of nodes are cut off from each other."""

from __future__ import annotations

from testbed.model.faults.scene import Scene
from testbed.model.faults.seam import Fault, Parameter, Target, named_links


class Partition:
    """Nothing gets through on a link; what is on its way waits."""

    name = "partition"
    summary = "Nothing gets through on a link; what is on its way waits."
    target: Target = "links"
    parameters: tuple[Parameter, ...] = ()
    modes: tuple[str, ...] = ()

    def apply(self, fault: Fault, scene: Scene) -> None:
        """Change the scene as it is while the fault holds."""
        for link in fault.links:
            scene.cut(link)

    def describe(self, fault: Fault) -> str:
        """In a few words."""
        return f"{named_links(fault.links)} cut"
