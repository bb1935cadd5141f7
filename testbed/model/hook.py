"""Hooks: the kinds of decision, and the description of a kind that everything else reads.

A hook is a place in the model where code of a user is asked. Its name is the key of its decisions
in messages, spools and the task log, and of the implementations that fit it in the registry of
schedulers. ``testbed.model.hooks`` has the table of all hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, Protocol, TypeAlias, TypeVar

from testbed.model.units import Micros

PLACE: Final = "place"
"""The hook of tasks: at which node a task is executed."""

Document: TypeAlias = dict[str, Any]
"""Plain values that JSON can hold."""

Implementation = TypeVar("Implementation", covariant=True)
Recorded = TypeVar("Recorded", bound="Decided")


class Decided(Protocol):
    """What the records of all kinds of decision have in common.

    A decision is found by episode, node and ``number``: that of the slot, or of the period.
    """

    @property
    def hook(self) -> str:
        """Name of the hook that was asked."""

    @property
    def node(self) -> int:
        """The node that it was made at."""

    @property
    def episode(self) -> int:
        """Number of the episode."""

    @property
    def number(self) -> int:
        """Number of the decision among those of its node in the episode."""

    @property
    def task_id(self) -> int | None:
        """The task that it is about; None if it is about none."""

    @property
    def at(self) -> Micros:
        """Instant on the clock of the node, since the episode began."""

    @property
    def scheduler(self) -> str:
        """Name of what decided."""


class HookContext(Generic[Implementation]):
    """What an implementation is made from: the base of one frozen dataclass for each hook.

    The type in brackets is the Protocol that the implementations of the hook satisfy.
    """

    hook: ClassVar[str]
    options: dict[str, object]


@dataclass(frozen=True, slots=True)
class Hook(Generic[Recorded]):
    """One kind of decision: who makes it, and how its record becomes a document and comes back.

    ``noun`` is what messages call an implementation, ``method`` is what is called of it, ``group``
    is the entry point group in which other packages name theirs. Implementations are made from a
    ``context`` and satisfy ``protocol``. ``to_document`` returns a decision's record as plain
    values for JSON, by the names of its fields; ``hook`` is not one of them. ``from_document`` is
    its inverse, and raises ValueError, KeyError or TypeError for what is no such document.
    """

    name: str
    noun: str
    method: str
    group: str
    protocol: type
    context: type
    record: type[Recorded]
    to_document: Callable[[Recorded], Document]
    from_document: Callable[[Document], Recorded]


def table(*hooks: Hook[Any]) -> Mapping[str, Hook[Any]]:
    """Return hooks by name, in the order given."""
    return {hook.name: hook for hook in hooks}
