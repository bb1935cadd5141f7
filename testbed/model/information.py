"""The questions of a policy about a task: what it asks its peers, which a card names.

``bits`` is the paper's question: every peer answers with its overload bit. ``state`` is the same
number of questions and answers, and every peer answers with its whole state (``PeerState``).
``{"probe": k}`` (the state of k random peers) and ``{"gossip": period}`` (states that are sent
unasked) have names, so that a card can name them; nodes and simulators do not give them yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from testbed.model.encoders import ENCODERS
from testbed.model.per_destination import NAME, STATE_NAME

Asks: TypeAlias = str | Mapping[str, Any]
"""As it stands in a card: a name, or an object of one name and its parameter."""

BITS: Final = "bits"
STATE: Final = "state"
PROBE: Final = "probe"
GOSSIP: Final = "gossip"

GIVEN: Final = (BITS, STATE)
"""What nodes and simulators answer."""

_USES: Final[Mapping[str, str]] = dict.fromkeys((*ENCODERS, NAME), BITS) | {STATE_NAME: STATE}


def told(asks: Asks) -> str:
    """Return what is asked as text for people: ``state``, ``probe: 2``."""
    if isinstance(asks, str):
        return asks
    return ", ".join(f"{name}: {parameter}" for name, parameter in asks.items())


def is_known(asks: object) -> bool:
    """Return whether a card may name this."""
    if isinstance(asks, str):
        return asks in GIVEN
    if not isinstance(asks, dict) or len(asks) != 1:
        return False
    ((name, parameter),) = asks.items()
    if name == PROBE:
        return type(parameter) is int and parameter >= 1
    return name == GOSSIP and isinstance(parameter, str) and bool(parameter)


def used_by(encoder: str) -> str | None:
    """Return what an encoder makes its numbers of; None for an unknown encoder."""
    return _USES.get(encoder)


def asked_by(encoder: str) -> str:
    """Return what a policy with this encoder asks its peers, as its card says it."""
    return used_by(encoder) or BITS
