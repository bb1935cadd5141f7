"""Routings are keyed by their hook in documents, messages and spools."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.model import hooks
from testbed.model.events import DecisionRecord
from testbed.model.hooks import HOOKS
from testbed.model.serving.route import (
    Heard,
    Route,
    RouteObservation,
    Routing,
    RoutingRecord,
    checked,
)
from testbed.rpc.codec import decode_decision, encode_decision
from testbed.testing.tasklog import sample_decision
from tests.model.serving.network import meshed

counts = st.integers(0, 2**31 - 1)
texts = st.text(max_size=6)
words = st.dictionaries(
    texts, st.none() | counts | texts | st.lists(counts, max_size=2), max_size=3
)


def tuples(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(values, max_size=3).map(tuple)


routes = st.builds(
    Route, st.none() | counts, tuples(counts), tuples(st.none() | counts), st.floats(0, 1)
)
routings = st.builds(
    RoutingRecord,
    node=counts,
    episode=counts,
    number=counts,
    at=counts,
    scheduler=texts,
    observation=st.builds(
        RouteObservation,
        *(counts,) * 4,
        tuples(counts),
        tuples(st.dictionaries(texts, counts, max_size=3)),
        tuples(st.builds(Heard, counts, words, counts)),
    ),
    routing=st.builds(Routing, st.none() | tuples(routes), st.none() | words),
)


@given(routings)
def test_a_routing_comes_back_as_it_was(record: RoutingRecord) -> None:
    again = decode_decision(encode_decision(record))
    assert again == record
    assert type(again) is RoutingRecord
    assert type(again.observation) is RouteObservation
    assert json.loads(encode_decision(record))["hook"] == "route"


def test_the_hooks_are_told_apart_by_their_documents() -> None:
    assert list(HOOKS) == ["place", "route"]
    placed = sample_decision(None, 1, 0, 3)
    assert "hook" not in hooks.to_document(placed)
    assert type(decode_decision(encode_decision(placed))) is DecisionRecord
    assert (placed.hook, placed.number) == ("place", 3)
    strange: tuple[object, ...] = ({"hook": "weigh"}, [], {"hook": "route"}, {"hook": []})
    for document in strange:
        with pytest.raises((ValueError, KeyError, TypeError)):
            decode_decision(json.dumps(document).encode())


def test_every_hook_describes_itself() -> None:
    groups = [hook.group for hook in HOOKS.values()]
    methods = [hook.method for hook in HOOKS.values()]
    assert len(set(groups)) == len(set(methods)) == len(HOOKS)
    for name, hook in HOOKS.items():
        assert hook.name == name == hook.context.hook  # type: ignore[attr-defined]
        assert callable(getattr(hook.protocol, hook.method))


def test_numbers_of_other_libraries_become_plain() -> None:
    np = pytest.importorskip("numpy")
    limits: Any = [None, 1, np.int32(2)]
    given_table: Any = [Route(np.int64(3), np.array([0, 1, 2]), limits, np.float32(0.5))]
    plain = checked(Routing(given_table, {"f": 1}), 0, meshed())
    assert plain == Routing((Route(3, (0, 1, 2), (None, 1, 2), 0.5),), {"f": 1})
    assert plain.table is not None
    assert {type(each) for each in (plain.table[0].local_cap, *plain.table[0].weights)} == {int}
