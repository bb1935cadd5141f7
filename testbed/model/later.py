"""Fields that were added to a value after plans with it had been stored and hashed.

A plan and the hash of a scenario hold every field of its values. So that those of earlier releases
stay what they are, a field that is added later has a default, and is left out while it is at it.
"""

from __future__ import annotations

from dataclasses import Field, field
from typing import Any, Final

_MARK: Final = "left out at its default"


def later(default: Any) -> Any:
    """Return the declaration of such a dataclass field, with its default (an immutable value)."""
    return field(default=default, metadata={_MARK: True})


def left_out(declared: Field[Any], value: object) -> bool:
    """Return whether a field of a dataclass is left out of plan and hash with this value."""
    return _MARK in declared.metadata and value == declared.default
