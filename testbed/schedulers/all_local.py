"""Serves everything where it came in."""

from __future__ import annotations

from typing import ClassVar

from testbed.model.serving.route import Route, RouteObservation, RouterContext, Routing


class AllLocal:
    """All requests of users are served at the node that they came to, whatever its limits."""

    OPTIONS: ClassVar[dict[str, str]] = {}
    name = "all-local"
    phases = (0.0,)

    def __init__(self, context: RouterContext) -> None:
        size = context.network.size
        route = Route(None, (0,) * size, (None,) * size)
        self._table = (route,) * len(context.network.functions)

    def route(self, observation: RouteObservation) -> Routing:
        """See ``Router``."""
        return Routing(self._table)
