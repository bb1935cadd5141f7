"""Options that charts have in common. No chart tells by colour alone."""

from __future__ import annotations

from typing import Any, TypeAlias

from testbed.ui.palette import Palette

Options: TypeAlias = dict[str, Any]
"""Options of an ECharts chart."""


def base(palette: Palette, *, legend: bool = False, empty: str = "", **more: Any) -> Options:
    """Return what all charts have in common; nothing moves, which would keep processors busy.

    ``empty`` says in words why there is nothing to draw, and stands in the place of the axes.
    """
    for name in more.keys() & {"xAxis", "yAxis"}:
        more[name] = {**more[name], "show": not empty}
    return {
        "animation": False,
        # Told in either case: what an earlier option showed stays until another one hides it.
        "title": {
            "show": bool(empty),
            "text": empty,
            "left": "center",
            "top": "middle",
            "textStyle": {"color": palette.muted, "fontSize": 13, "fontWeight": "normal"},
        },
        "color": list(palette.series),
        "textStyle": {"color": palette.text, "fontFamily": "inherit"},
        "grid": {
            "left": 12,
            "right": 24,
            "top": 40 if legend else 20,
            "bottom": 12,
            "containLabel": True,
        },
        "legend": {
            "show": legend,
            "type": "scroll",
            "top": 0,
            "textStyle": {"color": palette.text},
            "pageTextStyle": {"color": palette.text},
            "pageIconColor": palette.text,
            "pageIconInactiveColor": palette.line,
        },
        "tooltip": {
            "trigger": "axis",
            "confine": True,
            "backgroundColor": palette.card,
            "borderColor": palette.line,
            "textStyle": {"color": palette.text},
        },
        **more,
    }


def axis(palette: Palette, kind: str, name: str = "", **more: Any) -> Options:
    """Return an axis; ``kind`` is ``value`` or ``category``."""
    return {
        "type": kind,
        "name": name,
        "nameLocation": "middle",
        "nameGap": 28,
        "nameTextStyle": {"color": palette.muted},
        "axisLine": {"lineStyle": {"color": palette.line}},
        "axisLabel": {"color": palette.muted, "hideOverlap": True},
        "splitLine": {"show": kind == "value", "lineStyle": {"color": palette.line}},
        **more,
    }


def mixed(first: str, second: str, share: float) -> str:
    """Return the colour between two of ``#rrggbb``; ``share`` 0 is the first, 1 the second."""
    pairs = zip(_channels(first), _channels(second), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def shade(palette: Palette, share: float) -> str:
    """Return the colour of the palette's ramp at ``share``, from 0 to 1."""
    at = min(1.0, max(0.0, share)) * (len(palette.ramp) - 1)
    low = min(int(at), len(palette.ramp) - 2)
    return mixed(palette.ramp[low], palette.ramp[low + 1], at - low)


def readable_on(colour: str) -> str:
    """Return black or white, whichever is easier to read on a colour of ``#rrggbb``."""
    red, green, blue = _channels(colour)
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#ffffff"


def _channels(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
