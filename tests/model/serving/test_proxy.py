"""Windows never pass a cap or limit, and turns are as their weights say."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.model.serving.events import Request, Status
from testbed.model.serving.proxy import Local, ProxyState, Refused, Remote, RoundRobin
from testbed.model.serving.route import Route
from testbed.model.units import SECOND
from tests.model.serving.network import meshed

weights = st.lists(st.integers(0, 100), min_size=1, max_size=9).map(tuple)


@given(weights=weights, requests=st.integers(1, 1500))
def test_turns_deviate_by_less_than_one_request(weights: tuple[int, ...], requests: int) -> None:
    turns = RoundRobin(weights)
    whole = sum(weights)
    if not whole:
        assert turns.next() is None
        return
    named: Counter[int] = Counter()
    for k in range(1, requests + 1):
        peer = turns.next()
        assert peer is not None
        assert weights[peer] > 0
        named[peer] += 1
        for node, weight in enumerate(weights):
            assert abs(whole * named[node] - k * weight) < whole


def test_turns_are_spread_and_not_in_blocks() -> None:
    turns = RoundRobin((5, 1, 1))
    assert [turns.next() for _ in range(14)].count(0) == 10
    turns = RoundRobin((0, 2, 3))
    assert [turns.next() for _ in range(5)] == [turns.next() for _ in range(5)]
    # The usual rule comes to lag by 1.16 requests with these.
    hard = (3, 85, 92, 1, 0, 3, 1, 0)
    assert Counter(RoundRobin(hard).next() for _ in range(1)) == {2: 1}


@given(
    gaps=st.lists(st.integers(0, SECOND // 3), min_size=1, max_size=120),
    cap=st.integers(0, 12),
    limit=st.integers(0, 5),
)
def test_no_window_has_more_than_cap_and_limit(gaps: list[int], cap: int, limit: int) -> None:
    proxy = ProxyState(0, meshed(enforce=True), 3, 0)
    proxy.set_table((Route(cap, (0, 1, 2), (None, limit, 0)),))
    now, local, forwarded = 0, Counter[int](), Counter[int]()
    for number, gap in enumerate(gaps):
        now += gap
        window = now // SECOND
        request = Request(number, 0, 0, 0)
        expected = local[window] < cap
        decided = proxy.of_user(request, now)
        assert isinstance(decided, Local) is expected
        local[window] += expected
        if not expected:
            assert isinstance(decided, Remote)
        admitted = proxy.of_peer(request, 1, now)
        if forwarded[window] < limit:
            assert admitted == Local()
            forwarded[window] += 1
        else:
            assert admitted == Refused(Status.OVER_LIMIT)
        assert proxy.of_peer(request, 2, now) == Refused(Status.OVER_LIMIT)
    assert max(local.values()) <= cap
    assert max(forwarded.values(), default=0) <= limit


def test_a_window_begins_at_a_whole_second_whatever_came_before() -> None:
    proxy = ProxyState(0, meshed((2, 9, 9)), 3, 0)
    decided = [
        isinstance(proxy.of_user(Request(number, 0, 0, 0), now), Local)
        for number, now in enumerate((999_998, 999_999, 999_999, 1_000_000, 1_000_001, 1_999_999))
    ]
    assert decided == [True, True, False, True, True, False]
    assert proxy.rates(1_999_999) == (3,)
    assert proxy.rates(2_000_000) == (3,)
    assert proxy.rates(3_000_000) == (0,)


def test_limits_count_only_where_they_are_enforced_and_strangers_never_come_in() -> None:
    route = Route(0, (0, 0, 0), (None, 0, 0))
    for enforced in (False, True):
        proxy = ProxyState(0, meshed(enforce=enforced), 3, 0)
        proxy.set_table((route,))
        served = proxy.of_peer(Request(1, 0, 1, 0), 1, 0)
        assert served == (Refused(Status.OVER_LIMIT) if enforced else Local())
        assert proxy.of_peer(Request(1, 0, 1, 0), 7, 0) == Refused(Status.FORBIDDEN)
        assert proxy.of_user(Request(1, 0, 1, 0), 0) == Refused(Status.NO_PEER)


@pytest.mark.parametrize("reject", [0.0, 0.3, 1.0])
def test_rejections_depend_on_the_request_alone(reject: float) -> None:
    def rejected(cap: int | None) -> list[int]:
        proxy = ProxyState(0, meshed(), 3, 0)
        proxy.set_table((Route(cap, (0, 1, 1), (None,) * 3, reject),))
        return [
            number
            for number in range(2000)
            if proxy.of_user(Request(number, 0, 0, 0), number) == Refused(Status.NO_PEER)
        ]

    found = rejected(None)
    assert found == rejected(0)
    assert len(found) == pytest.approx(2000 * reject, abs=90 * (0 < reject < 1))


def test_equal_weights_go_on_and_others_begin_anew() -> None:
    proxy = ProxyState(0, meshed(), 3, 0)
    table = (Route(0, (0, 1, 1), (None,) * 3),)
    proxy.set_table(table)
    first = proxy.of_user(Request(0, 0, 0, 0), 0)
    proxy.set_table((table[0]._replace(limits_in=(None, 4, 4)),))
    assert proxy.of_user(Request(1, 0, 0, 0), 0) != first
    proxy.set_table((table[0]._replace(weights=(0, 2, 2)),))
    assert proxy.of_user(Request(2, 0, 0, 0), 0) == first
