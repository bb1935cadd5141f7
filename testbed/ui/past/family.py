"""The family tree of policies: which was made from which, as rows and as a chart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from testbed.policies import PolicyCard
from testbed.ui.options import Options, base
from testbed.ui.palette import Palette

_ROW: Final = 46
"""Pixels of the chart for each policy below another."""


class Member(NamedTuple):
    """A policy in its family: below its first parent, after that one's earlier children.

    ``card`` is None where only its children are known. ``depth`` is 0 at the root of a family.
    """

    id: str
    depth: int
    card: PolicyCard | None = None

    @property
    def rate(self) -> float | None:
        """The success rate that its trainer measured; None where its card has none."""
        found = {} if self.card is None else self.card.evaluation
        rate = found.get("success_rate")
        return float(rate) if isinstance(rate, int | float) else None

    @property
    def others(self) -> tuple[str, ...]:
        """The parents that it does not stand below."""
        return () if self.card is None else self.card.parents[1:]


def members(cards: Iterable[PolicyCard]) -> list[Member]:
    """Return policies so that each stands below its first parent; families in order of time.

    Parents that are not among them stand at the root of their family, without a card.
    """
    known = {card.id: card for card in sorted(cards, key=lambda card: (card.created, card.id))}
    children: dict[str | None, list[str]] = {}
    for card in known.values():
        parent = card.parents[0] if card.parents else None
        if parent is not None and parent not in known and parent not in children:
            children.setdefault(None, []).append(parent)
        children.setdefault(parent, []).append(card.id)
    found: list[Member] = []
    waiting = [(id, 0) for id in reversed(children.get(None, []))]
    seen = set()
    while waiting:
        id, depth = waiting.pop()
        # The id of a card has a hash of its parents: a circle cannot be made, only forged.
        if id in seen:
            continue
        seen.add(id)
        found.append(Member(id, depth, known.get(id)))
        waiting += [(child, depth + 1) for child in reversed(children.get(id, []))]
    return found


def tree(family: Iterable[Member], palette: Palette) -> Options:
    """Draw policies from left to right, an arrow from each to those that were made from it."""
    rows = list(family)
    place = {member.id: (member.depth, row) for row, member in enumerate(rows)}
    links = [
        {"source": parent, "target": member.id}
        for member in rows
        if member.card is not None
        for parent in member.card.parents
        if parent in place
    ]
    deepest = max((depth for depth, _ in place.values()), default=0)
    hidden = {"type": "value", "show": False}
    return base(
        palette,
        tooltip={"show": False},
        grid={"left": 16, "right": 8, "top": 8, "bottom": 8},
        # Not wider than names need it where there are few generations.
        xAxis={**hidden, "min": -0.1, "max": max(2.0, deepest + 1.0)},
        yAxis={**hidden, "min": -0.6, "max": len(rows) - 0.4, "inverse": True},
        series=[
            {
                "type": "graph",
                "coordinateSystem": "cartesian2d",
                "layout": "none",
                "edgeSymbol": ["none", "arrow"],
                "edgeSymbolSize": 8,
                "lineStyle": {"color": palette.muted, "width": 1.5},
                "label": {
                    "show": True,
                    "position": "right",
                    # Above the arrows, which go to the right and down.
                    "verticalAlign": "bottom",
                    "offset": [-2, 2],
                    "color": palette.text,
                    "fontSize": 12,
                    "lineHeight": 15,
                    "textBorderColor": palette.card,
                    "textBorderWidth": 3,
                },
                "data": [_node(member, *place[member.id], palette) for member in rows],
                "links": links,
            }
        ],
    )


def height_of(family: Iterable[Member]) -> int:
    """Return the pixels of the chart."""
    return 60 + _ROW * max(1, sum(1 for _ in family))


def short(id: str) -> str:
    """Return an id as it is drawn: its name and the beginning of its hash."""
    name, _, digest = id.rpartition("-")
    return f"{name}-{digest[:4]}" if name else id


def _node(member: Member, depth: int, row: int, palette: Palette) -> Options:
    rate = "" if member.rate is None else f"\n{100 * member.rate:.1f} %"
    known = member.card is not None
    return {
        "name": member.id,
        "value": [depth, row],
        "symbol": "circle",
        "symbolSize": 14,
        "itemStyle": {
            "color": palette.accent if known else palette.card,
            "borderColor": palette.accent if known else palette.muted,
            "borderWidth": 2,
        },
        "label": {"formatter": f"{short(member.id)}{rate}"},
    }
