"""Tokens and names of requests at the HTTP front."""

from __future__ import annotations

import pytest

from testbed.rpc import front
from testbed.rpc.identity import CONTROLLER, node_identity


def test_a_token_is_good_for_one_caller_at_one_front() -> None:
    key, other = front.new_key(), front.new_key()
    callers = (node_identity(3), node_identity(4), CONTROLLER)
    tokens = {front.token_for(each, caller) for each in (key, other) for caller in callers}

    assert len(tokens) == 6
    assert front.equal(front.token_for(key, CONTROLLER), front.token_for(key, CONTROLLER))
    assert not front.equal(front.token_for(key, node_identity(3)), front.token_for(key, CONTROLLER))


@pytest.mark.parametrize("token", ["", "x", "é" * 20, "\udcff"])
def test_anything_else_is_no_token(token: str) -> None:
    assert not front.equal(token, front.token_for(front.new_key(), CONTROLLER))
    assert not front.equal(token, front.token_for("", CONTROLLER))


def test_where_there_is_no_front_there_is_no_token() -> None:
    assert front.token_for("", node_identity(0)) == ""


def test_names_of_requests_are_read_as_they_were_written() -> None:
    for episode in (0, 4, front.STANDBY):
        name = front.request_name(episode, 2**40 + 7)
        assert front.parse_request_name(name) == (episode, 2**40 + 7)
    assert front.request_name(front.STANDBY, 5) == "standby-5"


@pytest.mark.parametrize(
    "text", ["", "4", "4-", "-4", "4-x", "-1-2", "1-2-3", "٣-1", "1-" + "9" * 50]
)
def test_what_is_no_name_of_a_request_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="EPISODE-ID"):
        front.parse_request_name(text)
