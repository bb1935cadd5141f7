"""``link-failures``: transmissions fail more often."""

from __future__ import annotations

from testbed.model.faults.scene import Scene
from testbed.model.faults.seam import Fault, Parameter, Target, named_links


class LinkFailures:
    """Transmissions on a link fail more often."""

    name = "link-failures"
    summary = "Transmissions on a link fail more often."
    target: Target = "links"
    parameters: tuple[Parameter, ...] = ("failureRate",)
    modes: tuple[str, ...] = ()

    def apply(self, fault: Fault, scene: Scene) -> None:
        """Change the scene as it is while the fault holds."""
        for link in fault.links:
            scene.endanger_link(link, fault.failure_rate)

    def describe(self, fault: Fault) -> str:
        """In a few words."""
        return f"{named_links(fault.links)} fail {fault.failure_rate:g}/s more often"
