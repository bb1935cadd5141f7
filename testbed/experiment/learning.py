"""Learning experiments of ``testbed o2o`` in their folders: their curves, also while they learn.

Nothing here learns or loads what learns; the names of files are those that ``trainer.o2o.folder``
and ``trainer.learning.curves`` write, which a test compares.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import psutil

from testbed.errors import Problem, UsageError
from testbed.policies import CARD

State: TypeAlias = Literal["learning", "finished", "stopped"]

PHASES: Final[Mapping[str, str]] = {
    "offline": "offline",
    "o2o": "online",
    "online-only": "online-only",
}
"""Folder of each phase, by the name of the policy that it learns, in order."""

METRICS: Final = "metrics.csv"
RESULT: Final = "report/o2o.json"
SIMULATED: Final = "settings.json"
NETWORK: Final = "network.json"
IDENTITIES: Final = (SIMULATED, NETWORK)
"""The files that an experiment is known by, in the simulator and on a network."""
LOCK: Final = ".lock"
POLICIES: Final = "policies"

_LARGEST: Final = 64 * 1024 * 1024
_OWNER: Final = re.compile(r"process (\d+) on (.*)")


@dataclass(frozen=True, slots=True)
class Curve:
    """Measurements of one phase: a row of numbers for each report, in order of ``step``."""

    rows: tuple[Mapping[str, float], ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all numbers besides ``step``, in order of their first appearance."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return tuple(name for name in names if name != "step")

    def points(self, name: str, by: str = "step") -> list[tuple[float, float]]:
        """Return the values of a column, with that of the column ``by`` before each."""
        return [(row[by], row[name]) for row in self.rows if name in row and by in row]


@dataclass(frozen=True, slots=True)
class Experiment:
    """A learning experiment as its folder has it.

    ``curves`` are by policy, as ``PHASES``; ``policies`` are ids by the same names; ``result`` is
    the document of its report, empty before there is one. ``settings`` are those that identify it;
    it is ``simulated`` or on a network.
    """

    folder: Path
    state: State
    simulated: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    policies: Mapping[str, str] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def scenario(self) -> str | None:
        """The name of its scenario; None before there is a report."""
        name = self.result.get("scenario")
        return None if name is None else str(name)

    @property
    def references(self) -> dict[str, float]:
        """Success rates in the episodes that curves are measured in, by what had them."""
        found = self.result.get("during_fine_tuning", {})
        return {str(name): float(rate) for name, rate in found.items()}


def experiments(root: Path) -> list[Experiment]:
    """Return all experiments directly in ``root``, by name."""
    folders = sorted(root.iterdir()) if root.is_dir() else []
    return [read(folder) for folder in folders if is_experiment(folder)]


def is_experiment(folder: Path) -> bool:
    """Return whether a folder is that of an experiment."""
    return any((folder / name).is_file() for name in IDENTITIES)


def find(root: Path, name: str) -> Experiment:
    """Return the experiment in ``root`` with this name.

    Raises: UsageError: there is none.
    """
    if Path(name).name != name or not is_experiment(root / name):
        known = ", ".join(each.name for each in experiments(root)[-5:]) or "none yet"
        raise UsageError(
            "there is no such learning experiment",
            [Problem("experiment", repr(name), f"of {root}: {known}")],
        )
    return read(root / name)


def read(folder: Path) -> Experiment:
    """Return what the folder of an experiment has now; what is damaged or half written is not."""
    identity: dict[str, Any] = {}
    for name in IDENTITIES:
        found = _object(folder / name)
        identity = identity or found.get("identity", found)
    curves = {name: curve_of(folder / part / METRICS) for name, part in PHASES.items()}
    result = _object(folder / RESULT)
    return Experiment(
        folder=folder,
        state=_state(folder),
        simulated=(folder / SIMULATED).is_file(),
        settings=identity,
        curves={name: curve for name, curve in curves.items() if curve.rows},
        policies=_policies(folder, result),
        result=result,
    )


def stamp(folder: Path) -> tuple[tuple[int, int], ...]:
    """Return what differs as soon as something of an experiment has changed."""
    paths = [folder / part / METRICS for part in PHASES.values()]
    found = []
    for path in (*paths, folder / RESULT, folder / LOCK):
        try:
            status = path.stat()
        except OSError:
            found.append((0, 0))
        else:
            found.append((status.st_mtime_ns, status.st_size))
    return tuple(found)


def curve_of(path: Path) -> Curve:
    """Return the rows of a file of metrics; a row that is still being written is left out."""
    text = _text(path)
    rows = []
    # A row is complete with the end of its line.
    for row in csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])):
        values: dict[str, float] = {}
        for name, value in row.items():
            with suppress(TypeError, ValueError):
                number = float(value)
                if math.isfinite(number):
                    values[name] = number
        if "step" in values:
            rows.append(values)
    return Curve(tuple(rows))


def _policies(folder: Path, result: Mapping[str, Any]) -> dict[str, str]:
    told = result.get("policies", {})
    found = {str(name): str(id) for name, id in told.items()} if isinstance(told, dict) else {}
    for name in PHASES:
        card = _object(folder / POLICIES / name / CARD)
        if isinstance(card.get("id"), str):
            found[name] = card["id"]
    return found


def _state(folder: Path) -> State:
    owner = _OWNER.fullmatch(_text(folder / LOCK).strip())
    # One on another machine cannot be asked.
    if owner is not None and owner[2] == socket.gethostname() and psutil.pid_exists(int(owner[1])):
        return "learning"
    return "finished" if (folder / RESULT).is_file() else "stopped"


def _object(path: Path) -> dict[str, Any]:
    """Return a JSON object; an empty one if the file is absent, damaged or half written."""
    try:
        found = json.loads(_text(path) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _text(path: Path) -> str:
    """Return the text of a file; none if it is absent, or larger than any that is written."""
    try:
        if os.stat(path).st_size > _LARGEST:
            return ""
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
