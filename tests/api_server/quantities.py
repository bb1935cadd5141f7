"""Quantities such as ``500m`` and ``64Mi``."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

_SUFFIXES: Final = {
    "Ki": Decimal(1024),
    "Mi": Decimal(1024**2),
    "Gi": Decimal(1024**3),
    "Ti": Decimal(1024**4),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal("1e3"),
    "M": Decimal("1e6"),
    "G": Decimal("1e9"),
    "T": Decimal("1e12"),
}


def parse(text: object) -> Decimal:
    """The amount that ``text`` means."""
    text = str(text)
    for suffix, factor in _SUFFIXES.items():
        if text.endswith(suffix):
            return Decimal(text.removesuffix(suffix)) * factor
    return Decimal(text)


def show(amount: Decimal, like: str) -> str:
    """``amount`` in the unit that the server would choose for a sum of ``like``."""
    for suffix in ("Ti", "Gi", "Mi", "Ki"):
        if like.endswith("i") and amount and amount % _SUFFIXES[suffix] == 0:
            return f"{amount / _SUFFIXES[suffix]:f}" + suffix
    if amount == amount.to_integral_value():
        return f"{amount.to_integral_value():f}"
    return f"{(amount * 1000).to_integral_value():f}m"
