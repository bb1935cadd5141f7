"""Faults that were injected into a run by hand: read from its log to be met once more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Final

from testbed.model.faults import Fault
from testbed.model.faults.limits import impossible
from testbed.model.faults.seam import BY_HAND
from testbed.model.units import Micros
from testbed.storage.tasklog import Run

_KEYS: Final = tuple(field.name for field in fields(Fault))


@dataclass(frozen=True, slots=True)
class ByHand:
    """The faults by hand of a run, by the number of the episode they held in.

    ``missing`` says in words which of them the log does not tell well enough.
    """

    faults: dict[int, tuple[Fault, ...]]
    missing: tuple[str, ...]


def read(run: Run, size: int) -> ByHand:
    """Return the faults by hand that the log of ``run`` has, in its network of ``size`` nodes."""
    found: dict[int, list[Fault]] = {}
    missing: dict[str, None] = {}
    for noted in run.faults_by_hand:
        try:
            fault = Fault.from_document({key: noted[key] for key in _KEYS})
            episode = noted["episode"]
            if type(episode) is not int or not _possible(fault, size):
                raise ValueError("not a fault of this network")
        except (KeyError, ValueError):
            missing[str(noted.get("what", noted.get("kind", "a fault")))] = None
        else:
            found.setdefault(episode, []).append(fault)
    told = [f"{what}: its entry in the log cannot be read" for what in missing]
    if more := (run.certificate or {}).get("faults_not_listed"):
        told.append(f"{more} faults were not listed in the log")
    return ByHand({episode: tuple(faults) for episode, faults in found.items()}, tuple(told))


def described(run: Run, episodes: Iterable[int] | None = None) -> str:
    """Return the faults by hand of a run, each once; ``None`` takes all episodes."""
    kept = None if episodes is None else frozenset(episodes)
    return "; ".join(
        dict.fromkeys(
            str(fault["what"])
            for fault in run.faults_by_hand
            if kept is None or fault["episode"] in kept
        )
    )


def met(run: Run, episodes: Iterable[int]) -> frozenset[tuple[Any, ...]]:
    """Return what ``run`` met by hand in these episodes; equal where two runs met the same.

    A fault that ended at the instant at which it began, because it was cleared, is none.
    """
    kept = frozenset(episodes)
    return frozenset(
        (
            fault["episode"],
            *(_frozen(fault.get(key)) for key in _KEYS if key not in ("entry", "number")),
        )
        for fault in run.faults_by_hand
        if fault["episode"] in kept and _lasts(fault.get("begin"), fault.get("end"))
    )


def _lasts(begin: Micros | None, end: Micros | None) -> bool:
    return begin is None or end is None or begin < end


def _possible(fault: Fault, size: int) -> bool:
    return fault.entry == BY_HAND and 0 <= fault.begin <= fault.end and not impossible(fault, size)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
