"""A router of your own; docs/writing-a-router.md explains it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from testbed.errors import Problem, UsageError
from testbed.model.serving.route import Route, RouteObservation, RouterContext, Routing


class HalfAway:
    """Serve a share of the own limit, and send the rest to neighbours by what they can spare."""

    OPTIONS: ClassVar[Mapping[str, str]] = {"keep": "share of its limit that a node serves; 0.5"}

    def __init__(self, context: RouterContext) -> None:
        self.name = "half-away"
        self.phases: tuple[float, ...] = (0.0, 0.5)
        keep = context.options.get("keep", 0.5)
        if not isinstance(keep, int | float) or not 0 <= keep <= 1:
            raise UsageError(
                "half-away cannot be made", [Problem("keep", repr(keep), "a number, 0 to 1")]
            )
        self._caps = tuple(int(keep * rate) for rate in context.max_rates)
        self._size = context.network.size

    def route(self, observation: RouteObservation) -> Routing:
        """Say what can be spared at the first phase; weigh neighbours by it at the second."""
        if observation.phase == 0:
            seen = zip(self._caps, observation.rates, strict=True)
            return Routing(say={"spare": [max(0, cap - rate) for cap, rate in seen]})
        table = []
        for function, cap in enumerate(self._caps):
            weights = [0] * self._size
            for heard in observation.heard:
                weights[heard.peer] = _spare(heard.content, function)
            table.append(Route(cap, tuple(weights), (None,) * self._size))
        return Routing(tuple(table))


def _spare(content: Mapping[str, Any], function: int) -> int:
    """Return what a neighbour can spare; 0 of one that says something else."""
    spare = content.get("spare")
    if not isinstance(spare, list) or len(spare) <= function:
        return 0
    return spare[function] if type(spare[function]) is int and spare[function] > 0 else 0
