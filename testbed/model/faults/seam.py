"""The seam of faults: one occurrence of a fault, and the interface of a kind of fault."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias

from testbed.model.faults.scene import Scene
from testbed.model.units import Micros

Target: TypeAlias = Literal["nodes", "links"]
Parameter: TypeAlias = Literal["factor", "failureRate", "mode"]

BY_HAND: Final = -1
"""``entry`` of a fault that no scenario names: it was injected into a run under way."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One occurrence of a fault: it holds from ``begin`` on and no longer at ``end``.

    Instants are microseconds since the start of the episode. ``nodes`` or ``links`` (directed, from
    and to) is what it acts on. ``entry`` is the number of the fault in the scenario and ``number``
    counts its occurrences in the episode. Parameters its kind does not take keep their defaults.
    """

    kind: str
    begin: Micros
    end: Micros
    nodes: tuple[int, ...] = ()
    links: tuple[tuple[int, int], ...] = ()
    factor: float = 1.0
    failure_rate: float = 0.0
    mode: str = ""
    entry: int = BY_HAND
    number: int = 0

    @property
    def id(self) -> str:
        """Return what logs call it: the entry in the scenario and the occurrence, or ``hand-N``."""
        return f"hand-{self.number}" if self.entry == BY_HAND else f"{self.entry}.{self.number}"

    def holds(self, at: Micros) -> bool:
        """Return whether it is active at an instant."""
        return self.begin <= at < self.end

    def to_document(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Fault:
        """Return the fault of plain values.

        Raises: ValueError: it is not one.
        """
        try:
            found = cls(
                **{
                    **document,
                    "nodes": tuple(document["nodes"]),
                    "links": tuple((source, to) for source, to in document["links"]),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a fault: {error!r}") from None
        numbers = (found.begin, found.end, found.entry, found.number)
        ends = (*found.nodes, *(node for link in found.links for node in link))
        if (
            not all(type(number) is int for number in (*numbers, *ends))
            or not all(type(rate) in (int, float) for rate in (found.factor, found.failure_rate))
            or not all(isinstance(text, str) for text in (found.kind, found.mode))
        ):
            raise ValueError("not a fault: a value of another type")
        return found


class FaultKind(Protocol):
    """One kind of fault; stateless.

    ``name`` is what scenarios call it, ``summary`` one line for help and docs. ``parameters`` are
    the keys it needs beside what it acts on and when; ``modes`` are the values of ``mode``, the
    default first. ``factor`` is from 0 to 1000.
    """

    name: str
    summary: str
    target: Target
    parameters: tuple[Parameter, ...]
    modes: tuple[str, ...]

    def apply(self, fault: Fault, scene: Scene) -> None:
        """Change ``scene`` as it is while ``fault`` holds."""
        ...

    def describe(self, fault: Fault) -> str:
        """Return what it does to which nodes or links, in a few words."""
        ...


def named_nodes(nodes: tuple[int, ...]) -> str:
    """``node 3`` or ``nodes 0, 2``."""
    return f"node{'s' if len(nodes) > 1 else ''} {', '.join(map(str, nodes))}"


def named_links(links: tuple[tuple[int, int], ...]) -> str:
    """``link 0->1`` or, of more than three, their number."""
    if len(links) > 3:
        return f"{len(links)} links"
    shown = ", ".join(f"{source}->{destination}" for source, destination in links)
    return f"link{'s' if len(links) > 1 else ''} {shown}"
