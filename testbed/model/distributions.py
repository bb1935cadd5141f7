"""Distributions a scenario may name: constant, uniform, choice. Pure functions of a draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Constant:
    """Always ``value``."""

    value: float

    def at(self, u: float) -> float:
        """Return the value for a draw ``u`` in (0, 1)."""
        return self.value

    @property
    def maximum(self) -> float:
        """Largest value that can come, used to scale observations."""
        return self.value

    @property
    def mean(self) -> float:
        """Expected value."""
        return self.value


@dataclass(frozen=True, slots=True)
class Uniform:
    """Continuous uniform on [``low``, ``high``]."""

    low: float
    high: float

    def at(self, u: float) -> float:
        """Return the value for a draw ``u`` in (0, 1)."""
        return self.low + (self.high - self.low) * u

    @property
    def maximum(self) -> float:
        """Largest value that can come, used to scale observations."""
        return self.high

    @property
    def mean(self) -> float:
        """Expected value."""
        return (self.low + self.high) / 2


@dataclass(frozen=True, slots=True)
class Choice:
    """One of ``values``, each equally likely."""

    values: tuple[float, ...]

    def at(self, u: float) -> float:
        """Return the value for a draw ``u`` in (0, 1)."""
        return self.values[int(u * len(self.values))]

    @property
    def maximum(self) -> float:
        """Largest value that can come, used to scale observations."""
        return max(self.values)

    @property
    def mean(self) -> float:
        """Expected value."""
        return sum(self.values) / len(self.values)


Distribution: TypeAlias = Constant | Uniform | Choice


def mean(distribution: Distribution) -> float:
    """Return the expected value of a draw."""
    match distribution:
        case Constant(value):
            return value
        case Choice(values):
            return sum(values) / len(values)
        case _:
            return (distribution.low + distribution.high) / 2
