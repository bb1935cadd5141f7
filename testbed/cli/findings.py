"""Input and result of a check of ``doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

Status: TypeAlias = Literal["ok", "note", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The setting that checks examine: storage locations, and the size of the network.

    ``carried`` is how many nodes this machine is expected to emulate faithfully in real time.
    """

    home: Path
    storage: str
    artifacts: str
    nodes: int
    carried: int


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    ``note`` is for things that are optional and absent, ``warning`` for what works worse than it
    could, ``problem`` for what stops commands. ``fix`` says what to do; empty if nothing.
    """

    check: str
    status: Status
    seen: str
    fix: str = ""


def existing(path: Path) -> Path:
    """Return ``path`` or the nearest folder above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def size(count: int) -> str:
    """Return ``count`` bytes in a readable unit."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
