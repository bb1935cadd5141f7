"""Colours of what becomes of requests, in figures and charts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from testbed.model.serving.record import RequestOutcome

HERE: Final = "served here"
PEERS: Final = "served at peers"
COLOURS: Final[Mapping[str, str]] = {
    HERE: "#009E73",
    PEERS: "#56B4E9",
    RequestOutcome.NO_PEER.value: "#E69F00",
    RequestOutcome.OVER_LIMIT.value: "#CC79A7",
    RequestOutcome.FORBIDDEN.value: "#F0E442",
    RequestOutcome.UNREACHABLE.value: "#D55E00",
    RequestOutcome.OVERLOAD.value: "#8C564B",
    RequestOutcome.LOST.value: "#7F7F7F",
}
"""Colours of what becomes of requests, in the order in which they are stacked."""
