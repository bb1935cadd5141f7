"""``link-rate``: a link becomes slower, or faster."""

from __future__ import annotations

from testbed.model.faults.scene import Scene
from testbed.model.faults.seam import Fault, Parameter, Target, named_links


class LinkRate:
    """A link has a multiple of its rate."""

    name = "link-rate"
    summary = "A link has a multiple of its rate."
    target: Target = "links"
    parameters: tuple[Parameter, ...] = ("factor",)
    modes: tuple[str, ...] = ()

    def apply(self, fault: Fault, scene: Scene) -> None:
        """Change the scene as it is while the fault holds."""
        for link in fault.links:
            scene.slow_link(link, fault.factor)

    def describe(self, fault: Fault) -> str:
        """In a few words."""
        return f"{named_links(fault.links)} at {fault.factor:g} times the rate"
