"""Tokens and names of requests at the HTTP front."""

from __future__ import annotations

import pytest

from testbed.rpc import front
from testbed.rpc.identity import CONTROLLER, node_identity


def test_a_token_proves_one_caller_at_one_front() -> None:
    key, other = front.new_key(), front.new_key()
    token = front.token_for(key, node_identity(3))

    assert front.proves(key, node_identity(3), token)
    assert not front.proves(key, node_identity(4), token)
    assert not front.proves(key, CONTROLLER, token)
    assert not front.proves(other, node_identity(3), token)
    assert front.proves(key, CONTROLLER, front.token_for(key, CONTROLLER))


@pytest.mark.parametrize("token", ["", "x", "é" * 20, "Bearer "])
def test_anything_else_proves_nobody(token: str) -> None:
    assert not front.proves(front.new_key(), node_identity(3), token)
    assert not front.proves("", node_identity(3), token)


def test_where_there_is_no_front_there_is_no_token() -> None:
    assert front.token_for("", node_identity(0)) == ""


def test_names_of_requests_are_read_as_they_were_written() -> None:
    assert front.parse_request_name(front.request_name(4, 2**40 + 7)) == (4, 2**40 + 7)


@pytest.mark.parametrize(
    "text", ["", "4", "4-", "-4", "4-x", "-1-2", "1-2-3", "٣-1", "1-" + "9" * 50]
)
def test_what_is_no_name_of_a_request_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="EPISODE-ID"):
        front.parse_request_name(text)
