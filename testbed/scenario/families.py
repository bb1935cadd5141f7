"""Families of work: a table for each layer says what serves which model of a scenario.

A scenario names its family with the key ``model``. Nothing else than these tables asks which one it
is; there is one for scenarios (here), one for plans (``testbed.scenario.plan.load``), and one each
for simulations, node drivers, episodes of the controller and summaries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Generic, Protocol, TypeVar

from testbed.errors import Problem, UsageError

MODELS: Final = ("tasks", "serving")
"""All models that a scenario may name; a table need not have all of them."""

Row = TypeVar("Row")


class Modelled(Protocol):
    """Something with a model: a plan, or a scenario."""

    @property
    def model(self) -> str: ...


class ByModel(Generic[Row]):
    """The table of one layer, which ``layer`` names in messages: a row for each model it has."""

    def __init__(self, layer: str, rows: Mapping[str, Row]) -> None:
        if unknown := set(rows) - set(MODELS):
            raise ValueError(f"unknown models: {', '.join(sorted(unknown))}")
        self.layer = layer
        self._rows = rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def named(self, model: str) -> Row:
        """Return the row of a model. Raises: UsageError: there is none."""
        if model not in self._rows:
            raise UsageError(f"{self.layer} has no model {model!r}", [self.problem(model)])
        return self._rows[model]

    def of(self, modelled: Modelled) -> Row:
        """Return the row for a plan or a scenario. Raises: UsageError: there is none."""
        return self.named(modelled.model)

    def problem(self, model: object) -> Problem:
        """Return what is wrong with a model that has no row."""
        seen = f"{model!r} is not supported by this version" if model in MODELS else repr(model)
        return Problem("model", seen, f"allowed: {', '.join(self._rows)}")
