"""What a calibration measures, as values, and the file in which a home keeps it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from testbed.files import write_atomically
from testbed.version import __version__

FILE: Final = "calibration.json"
"""Name of the file in a home: a calibration per machine, as a home may be shared by several."""
VERSION: Final = 1

TERMS: Final[Mapping[str, str]] = {
    "transmission": "transmission times",
    "execution": "execution times",
    "arrivals": "lateness of arrivals",
}
"""Terms of the certificate that depend on the machine, and what a message calls them."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of a calibration at one level of a question, or why there was none.

    ``terms`` has for each of ``TERMS`` the p95 of the error in units of its limit: above 1 the run
    is not faithful. ``tasks_per_s`` is per real second while tasks arrive, ``tasks_per_slot`` the
    sum over all nodes; ``mb_per_s`` is what moved between nodes, ``task_mb`` the mean size of a
    task (10^6 bytes). ``controller`` and ``nodes`` are processor time per real second (cores),
    ``others`` that of all other programs of the machine, ``busy`` the share of all cores that were
    busy, ``memory`` the proportional set size of all processes in bytes. ``reasons`` are those of
    the certificate, or what stopped the trial. ``controller_ms`` and ``nodes_ms`` are processor
    time per task in milliseconds, ``kernel`` the share of the nodes' that was spent in the kernel.
    ``ran`` is False if nothing was started.
    """

    level: int
    valid: bool
    reasons: tuple[str, ...] = ()
    terms: Mapping[str, float] = field(default_factory=dict)
    tasks_per_s: float = 0.0
    tasks_per_slot: float = 0.0
    mb_per_s: float = 0.0
    task_mb: float = 0.0
    controller: float = 0.0
    nodes: float = 0.0
    others: float = 0.0
    busy: float = 0.0
    memory: int = 0
    controller_ms: float = 0.0
    nodes_ms: float = 0.0
    kernel: float = 0.0
    seconds: float = 0.0
    ran: bool = True

    @property
    def worst(self) -> float:
        """The largest of ``terms``; 0 without any."""
        return max(self.terms.values(), default=0.0)

    @property
    def worst_term(self) -> str:
        """The name of the largest of ``terms``; empty without any."""
        return max(self.terms, key=self.terms.__getitem__) if self.terms else ""


@dataclass(frozen=True, slots=True)
class Knee:
    """The answer to one question: the largest level that was valid, None if none was.

    ``beyond`` is the smallest level above it that was not, None if the last level was valid.
    ``limit`` says what ended it. ``trials`` are all that were made, in their order.
    """

    question: str
    level: int | None
    beyond: int | None
    limit: str
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial | None:
        """The valid trial at the knee; None if no level was valid."""
        valid = [each for each in self.trials if each.valid and each.level == self.level]
        return valid[-1] if valid else None


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """The machine of a calibration; ``memory`` in bytes."""

    host: str
    cores: int
    memory: int
    python: str = field(default_factory=platform.python_version)
    version: str = __version__

    @classmethod
    def here(cls) -> MachineFacts:
        """Return the facts about this machine: cores this process may use, physical memory."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return cls(platform.node(), cores or 1, memory)

    def same_machine(self, other: MachineFacts) -> bool:
        """Return whether both have the same cores and about the same memory."""
        return (
            self.cores == other.cores
            and abs(self.memory - other.memory) <= max(self.memory, other.memory) / 10
        )


@dataclass(frozen=True, slots=True)
class Calibration:
    """All knees of one machine; ``when`` is in UTC, ISO 8601. ``quick``: fewer, shorter trials."""

    machine: MachineFacts
    when: str
    quick: bool
    knees: Mapping[str, Knee]

    def with_knees_of(self, other: Calibration) -> Calibration:
        """Return this one with those knees of ``other`` that it lacks."""
        return replace(self, knees={**other.knees, **self.knees})

    def to_document(self) -> dict[str, Any]:
        """Return plain values for JSON, with ``best`` of each knee, for readers, beside it."""
        document = {"version": VERSION, **asdict(self)}
        for name, knee in self.knees.items():
            best = knee.best
            document["knees"][name]["best"] = None if best is None else asdict(best)
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Calibration:
        """Return the calibration of plain values.

        Raises: ValueError: it has another version or lacks something.
        """
        if document.get("version") != VERSION:
            raise ValueError(f"calibration version {document.get('version')}, not {VERSION}")
        try:
            return cls(
                machine=MachineFacts(**document["machine"]),
                when=document["when"],
                quick=document["quick"],
                knees={name: _knee(each) for name, each in document["knees"].items()},
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not a complete calibration: {error!r}") from None


def _knee(document: Mapping[str, Any]) -> Knee:
    trials = tuple(
        Trial(**{**each, "reasons": tuple(each["reasons"])}) for each in document["trials"]
    )
    values = {key: value for key, value in document.items() if key != "best"}
    return Knee(**{**values, "trials": trials})


def load(home: Path, machine: MachineFacts) -> Calibration | None:
    """Return the calibration of ``machine`` in ``home``; None without one that can be read.

    One of another host counts if it is equal in cores and memory, as containers change their names.
    """
    found = [each for each in _all(home) if each.machine.same_machine(machine)]
    own = [each for each in found if each.machine.host == machine.host]
    return max(own or found, key=lambda each: each.when, default=None)


def store(home: Path, calibration: Calibration) -> Path:
    """Put ``calibration`` into the file of ``home``, in place of one of that machine.

    Raises: OSError: the file cannot be written.
    """
    machine = calibration.machine
    others = [
        each
        for each in _all(home)
        if not (each.machine.same_machine(machine) and each.machine.host == machine.host)
    ]
    document = {"version": VERSION, "calibrations": _documents([*others, calibration])}
    path = home / FILE
    write_atomically(path, json.dumps(document, indent=1) + "\n")
    return path


def _documents(calibrations: Sequence[Calibration]) -> list[dict[str, Any]]:
    return [each.to_document() for each in calibrations]


def _all(home: Path) -> list[Calibration]:
    try:
        document = json.loads((home / FILE).read_text(encoding="utf-8"))
        entries = document["calibrations"]
    except (OSError, ValueError, KeyError, TypeError):
        # None yet, or damaged: to be measured again.
        return []
    found = []
    for entry in entries if isinstance(entries, list) else ():
        try:
            found.append(Calibration.from_document(entry))
        except (ValueError, AttributeError):
            continue
    return found
