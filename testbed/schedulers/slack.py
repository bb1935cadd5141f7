"""Shares out what is above the own limit by what the neighbours have to spare.

Ciavotta, Motterlini, Savi and Tundo, "DFaaS: Decentralized Function-as-a-Service for Federated Edge
Computing", IEEE CloudNet 2021, section IV.
"""

from __future__ import annotations

from typing import ClassVar, Final

from testbed.errors import Problem, UsageError
from testbed.model.own_code import shown
from testbed.model.serving.route import Route, RouteObservation, RouterContext, Routing

_ALLOWED: Final = {"advertise": ("full", "split"), "overloaded": ("reached", "exceeded")}

SAY, WEIGH = 0, 1
"""Its phases: to say what it has to spare, and half a period later to use what it has heard."""


class Slack:
    """Nodes tell their neighbours what they have to spare, and get requests in that proportion."""

    OPTIONS: ClassVar[dict[str, str]] = {
        "advertise": "full: each neighbour is told all that is spare (the paper); split: its part",
        "overloaded": "nothing is spare if the rate has reached (the authors' code) or exceeded "
        "(the paper) the limit",
    }
    name = "slack"
    phases = (0.0, 0.5)

    def __init__(self, context: RouterContext) -> None:
        problems = [
            Problem(option, shown(context.options[option]), f"allowed: {' or '.join(allowed)}")
            for option, allowed in _ALLOWED.items()
            if context.options.get(option, allowed[0]) not in allowed
        ]
        if problems:
            raise UsageError(f"router '{self.name}' has invalid options", problems)
        self._split = context.options.get("advertise") == "split"
        self._strictly = context.options.get("overloaded") == "exceeded"
        self._neighbours = context.neighbours
        self._names = tuple(function.name for function in context.network.functions)
        self._max_rates = context.max_rates
        size = context.network.size
        none = (None,) * size
        self._first = tuple(Route(rate, (0,) * size, none) for rate in context.max_rates)
        self._table = self._first

    def route(self, observation: RouteObservation) -> Routing:
        """See ``Router``."""
        if observation.period == 0 and observation.phase == SAY:
            # Another episode: what was heard in the last one counts no more.
            self._table = self._first
        if observation.phase == SAY:
            return self._advertise(observation)
        routes = []
        for name, route in zip(self._names, self._table, strict=True):
            offered = {
                heard.peer: _count(heard.content.get(name))
                for heard in observation.heard
                if heard.peer in self._neighbours
            }
            whole = sum(offered.values())
            weights = tuple(
                100 * offered.get(node, 0) // whole if whole else 0
                for node in range(len(route.weights))
            )
            routes.append(route._replace(weights=weights))
        self._table = tuple(routes)
        return Routing(self._table)

    def _advertise(self, observation: RouteObservation) -> Routing:
        parts = len(self._neighbours) if self._split else 1
        routes, said = [], {}
        for name, limit, rate, route in zip(
            self._names, self._max_rates, observation.rates, self._table, strict=True
        ):
            overloaded = rate > limit if self._strictly else rate >= limit
            spare = 0 if overloaded else limit - rate
            said[name] = spare // max(1, parts)
            limits = tuple(
                said[name] if node in self._neighbours else None
                for node in range(len(route.limits_in))
            )
            routes.append(route._replace(limits_in=limits))
        self._table = tuple(routes)
        return Routing(self._table, said)


def _count(value: object) -> int:
    """Return what a neighbour offers; 0 of one that says something else."""
    return value if type(value) is int and value > 0 else 0
