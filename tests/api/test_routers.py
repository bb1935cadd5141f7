"""Plans of requests and routers of one's own from Python."""

from __future__ import annotations

import pytest

import testbed as tb
from testbed.model.serving.route import Route, RouteObservation, RouterContext, Routing

SHORT = {"horizon.length": "20s", "routing.period": "10s", "routing.offset": "1s"}


class Cap:
    """Serve a number of requests a second, and refuse the others."""

    def __init__(self, context: RouterContext | None = None) -> None:
        self.name = "cap"
        self.phases: tuple[float, ...] = (0.0,)
        self._cap = int(str(context.options["cap"])) if context is not None else 20

    def route(self, observation: RouteObservation) -> Routing:
        return Routing((Route(self._cap, (0, 0, 0), (None,) * 3),))


def test_a_plan_of_requests_is_loaded_and_simulated() -> None:
    plan = tb.load("dfaas", set=SHORT)
    assert (plan.nodes, plan.plan.model) == (3, "serving")
    assert "20 s with 1000 requests" in plan._repr_html_()
    result = tb.simulate(plan)
    assert result.scheduler == "slack"
    assert sum(result.outcomes.values()) == 1000
    # Node 0 weighs the others at 6 s.
    assert result.outcomes["no_peer"] == 240
    with pytest.raises(tb.UsageError, match="needed: a scenario with model: tasks"):
        plan.figure()


def test_routers_of_ones_own_are_given_as_a_class_or_an_instance() -> None:
    plan = tb.load("dfaas", set=SHORT)
    by_class = tb.simulate(plan, Cap, options={"cap": 30})
    assert (by_class.scheduler, by_class.outcomes["served"]) == ("cap", 10 + 19 * 30)
    by_instance = tb.simulate(plan, Cap())
    assert by_instance.outcomes["served"] == 10 + 19 * 20
    compared = tb.compare(plan, ["slack", "all-local"])
    assert compared["all-local"].outcomes["served"] == 10 + 19 * 50


def test_what_is_no_router_is_refused() -> None:
    plan = tb.load("dfaas", set=SHORT)
    with pytest.raises(tb.UsageError, match="this router cannot be used"):
        tb.simulate(plan, 7)  # type: ignore[arg-type]
    with pytest.raises(tb.UsageError, match="serves the hook 'place'"):
        tb.simulate(plan, "ratc")


def test_what_is_perhaps_not_meant_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    tb.load("dfaas", set={"overlay.loss": 1})
    assert "every message is lost" in capsys.readouterr().err
