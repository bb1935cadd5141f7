"""Conformance suite of ``Router``; subclass it with a ``factory`` fixture that makes one.

The router is called at all nodes of several networks as nodes call it, with any of the neighbours
silent, and with words of neighbours that it would not say itself.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import pytest

from testbed.model.draws import uniform
from testbed.model.serving.network import Function, ServingNetwork
from testbed.model.serving.route import (
    Heard,
    RouteObservation,
    Router,
    RouterContext,
    Routing,
    checked,
    phases_of,
)
from testbed.model.units import MILLISECOND, SECOND

SIZES: Final = (1, 2, 3, 6)
PERIODS: Final = 6
PERIOD: Final = 10 * SECOND

RouterFactory: TypeAlias = Callable[[RouterContext], Router]
"""Makes the router of one node."""


class Called(NamedTuple):
    """One call of the router of a node: what it was told, and what it answered."""

    context: RouterContext
    observation: RouteObservation
    answer: Routing


def network(size: int, *, ring: bool) -> ServingNetwork:
    """Return a network of ``size`` nodes with two functions, a full mesh or a ring."""
    nodes = range(size)
    neighbours = tuple(
        tuple(
            peer
            for peer in nodes
            if peer != node and (not ring or (node - peer) % size in {1, size - 1})
        )
        for node in nodes
    )
    functions = tuple(
        Function(
            name,
            (5 + number) * MILLISECOND,
            tuple(int(40 * uniform(size, number, node)) for node in nodes),
        )
        for number, name in enumerate(("first", "second"))
    )
    return ServingNetwork(functions, neighbours, enforce_limits=ring)


def calls(
    factory: RouterFactory, options: Mapping[str, object] | None = None, *, strange: bool = False
) -> Iterator[Called]:
    """Call routers as the nodes of several networks do; every answer is checked.

    Neighbours hear what a router says, unless it is lost; with ``strange`` they hear something that
    no router of this kind says.
    """
    for size in SIZES:
        for ring in (False, True):
            yield from _episode(factory, network(size, ring=ring), options or {}, strange)


def _episode(
    factory: RouterFactory, played: ServingNetwork, options: Mapping[str, object], strange: bool
) -> Iterator[Called]:
    nodes = range(played.size)
    contexts = [RouterContext(node, played, 7, dict(options)) for node in nodes]
    routers = [factory(context) for context in contexts]
    heard: list[dict[int, Heard]] = [{} for _ in nodes]
    for period in range(PERIODS):
        for phase, share in enumerate(phases_of(routers[0])):
            now = period * PERIOD + round(share * PERIOD)
            said: dict[int, Mapping[str, Any]] = {}
            for node in nodes:
                observation = RouteObservation(
                    node,
                    now,
                    period,
                    phase,
                    tuple(int(60 * uniform(1, node, period, k)) for k in range(2)),
                    ({"local": 3, "no_peer": 1}, {}),
                    tuple(sorted(heard[node].values(), key=lambda each: each.at)),
                )
                answer = checked(routers[node].route(observation), node, played)
                yield Called(contexts[node], observation, answer)
                if answer.say is not None:
                    said[node] = answer.say
            for node, content in said.items():
                for peer in played.neighbours[node]:
                    if node in played.neighbours[peer] and uniform(2, node, peer, period) < 0.7:
                        words = _STRANGE[period % len(_STRANGE)] if strange else content
                        told = json.loads(json.dumps(words))
                        heard[peer][node] = Heard(node, told, now + MILLISECOND)


_STRANGE: Final[tuple[Mapping[str, Any], ...]] = (
    {},
    {"first": -5, "second": None},
    {"first": "many", "second": [1, 2]},
    {"first": 0.5, "second": True},
    {"first": {"second": 1}, "unknown": 3},
)


class RouterContract:
    """The contract of ``testbed.model.serving.route.Router``, as tests."""

    @pytest.fixture
    def factory(self) -> RouterFactory:
        """Return the factory of the router under test."""
        raise NotImplementedError("override this fixture")

    @pytest.fixture
    def options(self) -> dict[str, object]:
        """Return its options; none unless this fixture is overridden."""
        return {}

    def test_it_is_a_router_with_a_name(
        self, factory: RouterFactory, options: dict[str, object]
    ) -> None:
        router = factory(RouterContext(0, network(3, ring=False), 7, options))
        assert isinstance(router, Router)
        assert router.name
        assert phases_of(router)

    @pytest.mark.parametrize("strange", [False, True], ids=["usual words", "strange words"])
    def test_its_answers_are_valid_whatever_it_hears(
        self, factory: RouterFactory, options: dict[str, object], strange: bool
    ) -> None:
        """``checked`` accepts them: one route per function, no weight but for neighbours."""
        assert list(calls(factory, options, strange=strange))

    def test_it_sets_a_table_in_each_period(
        self, factory: RouterFactory, options: dict[str, object]
    ) -> None:
        with_table = {
            (called.context.network, called.observation.node, called.observation.period)
            for called in calls(factory, options)
            if called.answer.table is not None
        }
        asked = {
            (called.context.network, called.observation.node, called.observation.period)
            for called in calls(factory, options)
        }
        assert with_table == asked

    def test_equal_observations_give_equal_answers(
        self, factory: RouterFactory, options: dict[str, object]
    ) -> None:
        assert list(calls(factory, options)) == list(calls(factory, options))

    def test_it_changes_nothing_it_is_given(
        self, factory: RouterFactory, options: dict[str, object]
    ) -> None:
        def watched(context: RouterContext) -> Router:
            router = factory(context)
            route = router.route

            class Watched:
                name = router.name
                phases = router.phases

                def route(self, observation: RouteObservation) -> Routing:
                    before = copy.deepcopy((observation, context))
                    answer = route(observation)
                    assert (observation, context) == before
                    return answer

            return Watched()

        assert list(calls(watched, options))
