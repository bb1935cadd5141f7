"""Colours of the pages, by light and dark. Differences in colour are never the only ones."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from testbed.experiment import colours


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours as CSS writes them.

    ``ramp`` goes from none to much. ``series`` are the colours of curves and bars in their order.
    """

    dark: bool
    page: str
    card: str
    text: str
    muted: str
    line: str
    accent: str
    good: str
    warning: str
    bad: str
    ramp: tuple[str, ...]
    series: tuple[str, ...]

    def shade(self, index: int) -> str:
        """Return the colour of series number ``index``."""
        return self.series[index % len(self.series)]

    def variables(self) -> str:
        """Return the single colours as declarations of CSS variables: ``--text: #...;``."""
        single = [each.name for each in fields(self) if isinstance(getattr(self, each.name), str)]
        return " ".join(f"--{name}: {getattr(self, name)};" for name in single)


LIGHT: Final = Palette(
    dark=False,
    page="#f4f6f8",
    card="#ffffff",
    text="#1b1f24",
    muted="#57606a",
    line="#d0d7de",
    accent="#0a5c94",
    good="#00704f",
    warning="#8a5a00",
    bad="#b3401a",
    ramp=("#fff3c4", "#fed36a", "#fb9a29", "#d95f0e", "#8c2d04"),
    series=colours.PALETTE,
)
DARK: Final = Palette(
    dark=True,
    page="#12151a",
    card="#1c2027",
    text="#e6e9ec",
    muted="#9ba5b0",
    line="#3a424d",
    accent="#6cb6ea",
    good="#3fc79a",
    warning="#e9b44c",
    bad="#f08a5d",
    ramp=("#3a3422", "#7a5a1c", "#c0741d", "#f09a3e", "#ffd9a0"),
    # Black, and the blue that is hard to see on a dark page, in lighter shades.
    series=("#4aa3df", *colours.PALETTE[1:7], "#f5f5f5"),
)


def palette(dark: bool) -> Palette:
    """Return the palette of the dark or the light pages."""
    return DARK if dark else LIGHT
