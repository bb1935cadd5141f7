"""Forwards in fixed shares what is above the node's own limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from testbed.errors import Problem, UsageError
from testbed.model.own_code import shown
from testbed.model.serving.route import Route, RouteObservation, RouterContext, Routing


class FixedShares:
    """Requests above the node's own limit go to its neighbours in shares that never change."""

    OPTIONS: ClassVar[dict[str, str]] = {
        "shares": "a whole number for each node, also those that are no neighbours; equal if absent"
    }
    name = "fixed-shares"
    phases = (0.0,)

    def __init__(self, context: RouterContext) -> None:
        size = context.network.size
        given = context.options.get("shares", [1] * size)
        if (
            not isinstance(given, Sequence)
            or len(given) != size
            or any(type(share) is not int or not 0 <= share < 2**31 for share in given)
        ):
            raise UsageError(
                f"router '{self.name}' has invalid options",
                [Problem("shares", shown(given), f"a list of {size} whole numbers from 0 on")],
            )
        weights = tuple(
            share if node in context.neighbours else 0 for node, share in enumerate(given)
        )
        self._table = tuple(Route(rate, weights, (None,) * size) for rate in context.max_rates)

    def route(self, observation: RouteObservation) -> Routing:
        """See ``Router``."""
        return Routing(self._table)
