"""Colours of what becomes of tasks and requests, the same on all pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from testbed.experiment.colours import OUTCOME_COLOURS
from testbed.experiment.serving import colours as requests
from testbed.model.serving.record import RequestOutcome
from testbed.ui.palette import Palette

COLOURS: Final[Mapping[str, str]] = {
    **OUTCOME_COLOURS,
    **{each: requests.COLOURS[each] for each in requests.COLOURS if " " not in each},
    RequestOutcome.SERVED.value: requests.COLOURS[requests.HERE],
}
"""Colours by outcome, in the order in which outcomes are stacked."""


def colour(outcome: str, palette: Palette) -> str:
    """Return the colour of an outcome of tasks or requests."""
    return COLOURS.get(outcome, palette.muted)
