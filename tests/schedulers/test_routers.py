"""The routers that ship: their contract, and the figures of the paper that they are to give."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from testbed.errors import UsageError
from testbed.model.decision import SchedulerContext
from testbed.model.serving.events import Status
from testbed.model.serving.network import Function, ServingNetwork
from testbed.model.serving.node import Timetable
from testbed.model.serving.route import ROUTE, Router, RouterContext
from testbed.model.units import SECOND
from testbed.schedulers import registry
from testbed.testing.routers import RouterContract, RouterFactory, network
from testbed.testing.schedulers import situation
from tests.model.serving.network import Network, meshed

CONTEXT = RouterContext(0, network(3, ring=False))
Counts: TypeAlias = dict[tuple[Status, int | None], int]

OK, LIMITED, NO_PEER, BROKEN = (
    Status.OK,
    Status.OVER_LIMIT,
    Status.NO_PEER,
    Status.UNREACHABLE,
)


def made(name: str) -> RouterFactory:
    return lambda context: registry.create(name, context)


@pytest.mark.parametrize("name", registry.names(ROUTE))
class ShippedRoutersTests(RouterContract):
    @pytest.fixture
    def factory(self, name: str) -> RouterFactory:
        return made(name)


@pytest.mark.parametrize("given", [{"advertise": "split"}, {"overloaded": "exceeded"}])
class SlackWithOptionsTests(RouterContract):
    @pytest.fixture
    def factory(self) -> RouterFactory:
        return made("slack")

    @pytest.fixture
    def options(self, given: dict[str, object]) -> dict[str, object]:
        return given


ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "writing-a-router.md"
EXAMPLE = ROOT / "examples" / "half_away.py"


class DocumentedRouterTests(RouterContract):
    """The example of the page is a router."""

    @pytest.fixture
    def factory(self) -> RouterFactory:
        return own_router()


def own_router() -> RouterFactory:
    names: dict[str, Any] = {"__name__": "half_away"}
    exec(compile(EXAMPLE.read_text("utf-8"), str(EXAMPLE), "exec"), names)
    made: RouterFactory = names["HalfAway"]
    return made


def test_the_page_shows_the_example() -> None:
    text = PAGE.read_text("utf-8")
    [block] = re.findall(r"example: half_away.py -->\n```python\n(.*?)```", text, re.S)
    assert block == EXAMPLE.read_text("utf-8")


def test_the_script_of_the_page_runs(tmp_path: Path) -> None:
    text = PAGE.read_text("utf-8")
    [script] = re.findall(r"<!-- example: simulate -->\n```python\n(.*?)```", text, re.S)
    shutil.copy(EXAMPLE, tmp_path)
    (tmp_path / "simulate.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "simulate.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    slack, local, own = done.stdout.splitlines()
    assert slack.startswith("slack: 0.48")
    assert local.startswith("all-local: 0.24")
    # It serves 5 of the 10 that node 0 is meant to serve, and forwards the others from 60 s on.
    assert own.startswith("half_away:HalfAway: 0.")


# --- the hook of a name -------------------------------------------------------------------------


def test_names_are_those_of_the_hook() -> None:
    assert registry.names(ROUTE) == ("slack", "all-local", "fixed-shares")
    assert not set(registry.names(ROUTE)) & set(registry.names())


def test_the_context_says_what_is_made() -> None:
    router = registry.create("slack", CONTEXT)
    assert isinstance(router, Router)
    assert registry.describe("slack", ROUTE).startswith("Nodes tell their neighbours")


def test_a_name_of_another_hook_is_refused_with_those_that_fit() -> None:
    told = (
        r"'ratc' is a scheduler, which serves the hook 'place'; this scenario needs a router for "
        r"the hook 'route': slack, all-local, fixed-shares, or module:Class"
    )
    with pytest.raises(UsageError, match=told):
        registry.check("ratc", hook=ROUTE)
    with pytest.raises(UsageError, match=r"'slack' is a router.* hook 'place': ratc, rda"):
        registry.create("slack", situation(3, 0).context)
    with pytest.raises(UsageError, match=r"unknown router 'slak'; did you mean 'slack'\? Known"):
        registry.check("slak", hook=ROUTE)


class Scheduled:
    name = "scheduled"

    def __init__(self, context: SchedulerContext) -> None: ...

    def decide(self, observation: object) -> None: ...


def test_a_class_of_another_hook_is_refused() -> None:
    told = r"serves the hook 'place' with its method `decide`; here the hook is 'route'"
    with pytest.raises(UsageError, match=told):
        registry.check(f"{__name__}:Scheduled", hook=ROUTE)


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("slack", {"advertise": "some"}, "advertise: 'some'"),
        ("slack", {"colour": 1}, "colour: unknown option"),
        ("fixed-shares", {"shares": [1, 2]}, "a list of 3 whole numbers"),
        ("fixed-shares", {"shares": [1, 2, -1]}, "a list of 3 whole numbers"),
        ("fixed-shares", {"shares": "abc"}, "a list of 3 whole numbers"),
        ("all-local", {"shares": [1]}, "it has no options"),
    ],
)
def test_options_are_checked(name: str, options: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        registry.create(name, CONTEXT, options)


# --- figures ------------------------------------------------------------------------------------


def played(rates: tuple[int, ...], seconds: int = 300, **options: object) -> Network:
    """Play users of each node with DFaaS's limits of 10, 20 and 30 requests a second."""
    split = options.get("advertise") == "split"
    found = Network(meshed(enforce=split), "slack", options=options)
    for node, rate in enumerate(rates):
        if rate:
            found.users(node, rate, seconds)
    found.run(until=seconds * SECOND + SECOND)
    return found


def near(found: Counts, expected: Counts) -> None:
    """Compare counts of 60 seconds with rates per second, at most one off."""
    assert set(found) == set(expected), (found, expected)
    for key, rate in expected.items():
        assert abs(found[key] / 60 - rate) <= 1, (key, found, expected)


def test_one_node_above_its_limit_shares_its_excess_by_slack() -> None:
    run = played((50, 0, 0))
    near(run.counts(0, 120, 180), {(OK, 0): 10, (OK, 1): 16, (OK, 2): 24})
    totals = run.counts(0, 0, 300)
    expected = {(OK, 0): 3000, (OK, 1): 3840, (OK, 2): 5760, (NO_PEER, None): 2400}
    assert set(totals) == set(expected)
    for key, total in expected.items():
        assert totals[key] == pytest.approx(total, rel=0.01)


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ((50, 0, 0), {0: {(OK, 0): 10, (OK, 1): 10, (OK, 2): 15, (LIMITED, None): 15}}),
        (
            (50, 10, 0),
            {0: {(OK, 0): 10, (OK, 1): 5, (OK, 2): 15, (LIMITED, None): 20}, 1: {(OK, 1): 10}},
        ),
        (
            (50, 30, 0),
            {
                0: {(OK, 0): 10, (OK, 2): 15, (LIMITED, None): 25},
                1: {(OK, 1): 20, (OK, 2): 10},
            },
        ),
        (
            (50, 50, 50),
            {
                0: {(OK, 0): 10, (NO_PEER, None): 40},
                1: {(OK, 1): 20, (NO_PEER, None): 30},
                2: {(OK, 2): 30, (NO_PEER, None): 20},
            },
        ),
    ],
)
def test_limits_that_are_split_and_enforced(
    rates: tuple[int, ...], expected: dict[int, Counts]
) -> None:
    run = played(rates, 180, advertise="split")
    for node, counts in expected.items():
        near(run.counts(node, 120, 180), counts)


def test_a_sender_that_nobody_knows_is_forbidden() -> None:
    """Node 0 takes node 1 for its neighbour, which does not know it."""
    one_way = ServingNetwork((Function("f", 5_000, (0, 20)),), ((1,), ()))
    run = Network(one_way, "fixed-shares", timetable=Timetable(60 * SECOND))
    run.users(0, 50, 10, first=1)
    run.run(until=11 * SECOND)
    assert run.counts(0, 0, 10) == {(Status.FORBIDDEN, None): 450}


@pytest.mark.parametrize(
    ("period", "offset", "refused"),
    [
        *((60, 0, 1200), (60, 15, 1800), (60, 30, 2400), (60, 45, 3000)),
        *((30, 15, 1200), (10, 5, 400)),
    ],
)
def test_what_is_refused_follows_the_first_weights(period: int, offset: int, refused: int) -> None:
    timetable = Timetable(period * SECOND, offset * SECOND)
    run = Network(meshed(), "slack", timetable=timetable)
    run.users(0, 50, 300)
    run.run(until=301 * SECOND)
    assert run.counts(0, 0, 300)[NO_PEER, None] == pytest.approx(refused, rel=0.02)


@pytest.mark.parametrize("split", [False, True])
def test_the_share_of_a_node_that_dies_is_lost_until_its_words_expire(split: bool) -> None:
    options = {"advertise": "split"} if split else {}
    run = Network(meshed(enforce=split), "slack", options=options)
    run.dead[2] = 180 * SECOND
    run.users(0, 50, 420)
    run.run(until=421 * SECOND)
    # With parts of 10 and 15 the weights are 40 and 60 too.
    before: Counts = {(OK, 1): 10, (LIMITED, None): 6} if split else {(OK, 1): 16}
    near(run.counts(0, 181, 241), {(OK, 0): 10, (BROKEN, None): 24, **before})
    near(run.counts(0, 240, 300), {(OK, 0): 10, (BROKEN, None): 24, **before})
    # From then on node 1 is offered all 40; split by two neighbours it takes 10.
    after: Counts = {(OK, 1): 10, (LIMITED, None): 30} if split else {(OK, 1): 40}
    near(run.counts(0, 301, 361), {(OK, 0): 10, **after})


def test_words_that_are_lost_are_weighed_as_nothing() -> None:
    run = Network(meshed(), "slack", unheard=lambda node, peer: node == 2)
    run.users(0, 50, 180)
    run.run(until=181 * SECOND)
    near(run.counts(0, 120, 180), {(OK, 0): 10, (OK, 1): 40})


def test_all_local_and_fixed_shares() -> None:
    run = Network(meshed(), "all-local")
    run.users(0, 50, 90)
    run.run(until=91 * SECOND)
    assert run.counts(0, 31, 90) == {(OK, 0): 59 * 50}
    run = Network(meshed(), "fixed-shares", options={"shares": [9, 1, 3]})
    run.users(0, 50, 120)
    run.run(until=121 * SECOND)
    near(run.counts(0, 31, 91), {(OK, 0): 10, (OK, 1): 10, (OK, 2): 30})
