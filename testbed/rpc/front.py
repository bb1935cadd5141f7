"""What requests to the HTTP front of a node carry beside what their user sends, and its answers.

Anybody may send requests. A node that forwards one, and the controller when it sends one, prove
who they are with a token that is good at one front only. Each front draws a key when it starts and
gives it to the controller with its registration; the controller makes the tokens, as those of
processes are made (``testbed.rpc.credentials``), and gives each node its own when it configures it.
So no credentials of gRPC go over a connection that is not encrypted.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Final

from testbed.rpc.credentials import Secrets
from testbed.rpc.identity import Identity

REQUEST: Final = "Testbed-Request"
"""Id of a request, ``EPISODE-ID``; taken from the controller and from nodes that forward it."""

TOKEN: Final = "Testbed-Token"
"""Token of the controller, or of the node that forwards the request."""

FORWARDED_BY: Final = "Testbed-Forwarded-By"
"""Index of the node that forwards the request."""

NODE: Final = "Testbed-Node"
"""In answers: index of the node that the request came in at."""

SERVER: Final = "Testbed-Server"
"""In answers with status 200: index of the node whose service answered."""

OUTCOME: Final = "Testbed-Outcome"
"""In answers: what became of the request, as in the task log."""


STANDBY: Final = 2**31 - 1
"""Number of the episode in which nodes serve between runs; ``standby`` in ``REQUEST``."""


def new_key() -> str:
    """Return a key for a front, which nobody else has."""
    return secrets.token_hex(32)


def token_for(key: str, caller: Identity) -> str:
    """Return the token of ``caller`` for the front with this key; empty if there is no front."""
    return Secrets(caller, key).expected_of(caller)


def equal(token: str, expected: str) -> bool:
    """Return whether a token is the expected one, which must not be empty; in constant time."""
    return bool(expected) and hmac.compare_digest(token.encode(errors="replace"), expected.encode())


def request_name(episode: int, request: int) -> str:
    """Return the value of ``REQUEST``."""
    return f"{'standby' if episode == STANDBY else episode}-{request}"


def parse_request_name(text: str) -> tuple[int, int]:
    """Return episode and id of a value of ``REQUEST``.

    Raises: ValueError: it is none.
    """
    episode, _, request = text.partition("-")
    if episode == "standby":
        episode = str(STANDBY)
    if not (episode.isdecimal() and request.isdecimal() and text.isascii() and len(text) <= 40):
        raise ValueError(f"{REQUEST} {text[:60]!r}; it has to be EPISODE-ID")
    return int(episode), int(request)
