"""The questions of a policy about a task: what it asks its peers, which a card names.

``bits`` is the paper's question: every peer answers with its overload bit. ``state`` is the same
number of questions and answers, and every peer answers with its whole state (``PeerState``).
``{"probe": k}`` asks k random peers for their state and all others for their bit, in one round: as
many messages as for bits. With ``{"gossip": period}`` nobody is asked: every node tells all its
peers its state once in a period (``1 slot``, ``1s``, ``200ms``), and decisions are made from the
newest one that was heard.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, TypeAlias

from testbed.model.encoders import ENCODERS
from testbed.model.per_destination import HEARD_NAME, NAME, STATE_NAME
from testbed.model.units import MILLISECOND, SECOND, Micros

Asks: TypeAlias = str | Mapping[str, Any]
"""As it stands in a card: a name, or an object of one name and its parameter."""

BITS: Final = "bits"
STATE: Final = "state"
PROBE: Final = "probe"
GOSSIP: Final = "gossip"

GIVEN: Final = (BITS, STATE, PROBE, GOSSIP)
"""Kinds of information that nodes and simulators give."""

FIRST_PROBED: Final = 1
"""Number of the first draw by which peers are chosen; by number 0 the destination is drawn."""

_USED_BY: Final[Mapping[str, tuple[str, ...]]] = dict.fromkeys((*ENCODERS, NAME), (BITS,)) | {
    STATE_NAME: (STATE,),
    HEARD_NAME: (PROBE, GOSSIP),
}
"""Kinds by encoder."""

KNOWN: Final = "bits, state, {probe: NUMBER} or {gossip: PERIOD}, a period as 1 slot or 200ms"
"""Kinds of information that a card may name, as text for people."""

_PERIOD: Final = re.compile(r"(\d{1,6}(?:\.\d{1,6})?) ?(slots?|us|ms|s)", re.ASCII)
_UNITS: Final[Mapping[str, Micros]] = {"us": 1, "ms": MILLISECOND, "s": SECOND}


def told(asks: Asks) -> str:
    """Return what is asked as text for people: ``state``, ``probe: 2``."""
    if isinstance(asks, str):
        return asks
    return ", ".join(f"{name}: {parameter}" for name, parameter in asks.items())


def read(text: str) -> Asks:
    """Return what a text such as ``state`` or ``probe:2`` names, as it stands in a card.

    Raises:
        ValueError: it names nothing that a card may name.
    """
    name, colon, parameter = (part.strip() for part in text.partition(":"))
    asks: Asks = name
    if colon:
        asks = {name: int(parameter) if name == PROBE and parameter.isdecimal() else parameter}
    if not is_known(asks):
        raise ValueError(f"{text!r}; it has to be {KNOWN}")
    return asks


def is_known(asks: object) -> bool:
    """Return whether a card may name this."""
    if isinstance(asks, str):
        return asks in (BITS, STATE)
    if not isinstance(asks, dict) or len(asks) != 1:
        return False
    ((name, parameter),) = asks.items()
    if name == PROBE:
        return type(parameter) is int and parameter >= 1
    if name != GOSSIP or not isinstance(parameter, str):
        return False
    found = _PERIOD.fullmatch(parameter)
    return found is not None and Decimal(found[1]) > 0


def kind_of(asks: Asks) -> str:
    """Return the kind of information: its name without a parameter."""
    return asks if isinstance(asks, str) else next(iter(asks))


def probes_of(asks: Asks) -> int:
    """Return the number of random peers that are asked for their state; 0 of other kinds."""
    return 0 if isinstance(asks, str) else int(asks.get(PROBE, 0))


def period_of(asks: Asks, slot: Micros) -> Micros:
    """Return the time from one telling to the next, where a slot takes ``slot``; 0: nobody tells.

    At least 1 us.
    """
    if kind_of(asks) != GOSSIP or isinstance(asks, str):
        return 0
    found = _PERIOD.fullmatch(asks[GOSSIP])
    assert found is not None, "a card names no other period"
    unit = _UNITS.get(found[2], slot)
    return max(1, int(Decimal(found[1]) * unit))


def gossip_period(scheduler: object) -> Micros:
    """Return how often the nodes of ``scheduler`` tell each other their state; 0: never.

    A scheduler that wants it says so in its attribute ``gossip_period``, in microseconds.
    """
    period = getattr(scheduler, "gossip_period", 0)
    return period if type(period) is int and period > 0 else 0


def longest_silence(period: Micros, control_delay: Micros) -> Micros:
    """Return the time without word of a peer after which it is not known to be free."""
    return 2 * (period + control_delay)


def used_by(encoder: str) -> tuple[str, ...]:
    """Return the kinds of information that an encoder makes its numbers of; none of unknown."""
    return _USED_BY.get(encoder, ())


def encoder_for(asks: Asks) -> str:
    """Return the per-destination encoder that makes its numbers of what is asked."""
    return {BITS: NAME, STATE: STATE_NAME}.get(kind_of(asks), HEARD_NAME)


def asked_by(encoder: str) -> Asks:
    """Return what a policy with this encoder asks its peers, as its card says it.

    Raises:
        ValueError: policies with this encoder ask for different things, which their cards tell.
    """
    kind, *_ = used_by(encoder) or (BITS,)
    if kind not in (BITS, STATE):
        raise ValueError(f"encoder {encoder} does not tell what a policy asks; its card does")
    return kind
