"""Colours of figures and charts.

They are the Okabe-Ito set, which people with impaired colour vision can tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from testbed.model.task import Outcome

PALETTE: Final = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#000000",
)
OUTCOME_COLOURS: Final[Mapping[str, str]] = {
    Outcome.SUCCEEDED.value: "#009E73",
    Outcome.DROPPED.value: "#E69F00",
    Outcome.REFUSED.value: "#56B4E9",
    Outcome.TRANSMISSION_FAILED.value: "#CC79A7",
    Outcome.EXECUTION_FAILED.value: "#D55E00",
    Outcome.LOST.value: "#7F7F7F",
}
FAULT: Final = "#c0392b"
"""Colour of the slots in which a fault held."""


def colour(index: int) -> str:
    """Return the colour of series number ``index``."""
    return PALETTE[index % len(PALETTE)]
