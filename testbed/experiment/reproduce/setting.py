"""The settings of a figure: the places on its x axis."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Setting:
    """One place on the x axis: a scenario with overrides, and whose logs are learned from."""

    x: str
    overrides: tuple[str, ...] = ()
    source: str = "ratc"
