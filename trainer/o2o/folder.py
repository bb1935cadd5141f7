"""The folder of an experiment: whose it is, which runs are done, and how long stages took.

A simulated one is known by ``settings.json`` and ``durations.json``, one on a network by
``network.json``; each kind continues only its own.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from testbed.errors import Problem, UsageError, differences
from testbed.files import LOCK, ORDINARY, write_atomically
from testbed.model.encoders import DEFAULT
from testbed.scenario.plan import Plan
from trainer.o2o.recipe import document
from trainer.o2o.settings import O2O, OFFLINE, ONLINE_ONLY, Driver, O2OConfig

SETTINGS: Final = "settings.json"
DURATIONS: Final = "durations.json"
RESULT: Final = "evaluation.npz"
NETWORK: Final = "network.json"

ONLINE: Final = "online"
DATA: Final = "data"
ONLINE_DATA: Final = "online-data"
FOLDERS: Final = {OFFLINE: OFFLINE, O2O: ONLINE, ONLINE_ONLY: ONLINE_ONLY}
"""Folder of the checkpoints, by learned policy."""

_CONTENT: Final[Mapping[Driver, tuple[str, ...]]] = {
    "simulator": tuple(FOLDERS.values()),
    "network": (*FOLDERS.values(), DATA, ONLINE_DATA),
}


@dataclass(slots=True)
class ExperimentLedger:
    """The record of an experiment from which it is continued."""

    out: Path
    driver: Driver
    identity: dict[str, Any]
    runs: dict[str, str] = field(default_factory=dict)
    """Runs of a network that are done, by purpose."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds by stage, added up over interruptions."""
    incomplete: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By run that was learned from: episodes with an incomplete log, and all its episodes."""

    @classmethod
    def check(
        cls, out: Path, driver: Driver, identity: dict[str, Any], *, resume: bool = True
    ) -> ExperimentLedger:
        """Return the record of ``out``, or a new one; write nothing.

        Raises:
            UsageError: ``out`` has results of a different experiment, or holds something else.
        """
        ledger = cls(out, driver, json.loads(json.dumps(identity)))
        path = ledger.path
        if not path.exists():
            if out.exists() and not (out.is_dir() and _is_empty(out)):
                raise UsageError(
                    f"{out} is not empty",
                    [
                        Problem(
                            "--out",
                            "holds something else",
                            "an empty or new folder, or one of an experiment of this kind",
                        )
                    ],
                )
        elif resume:
            ledger._read()
        return ledger

    @classmethod
    def claim(
        cls, out: Path, driver: Driver, identity: dict[str, Any], *, resume: bool = True
    ) -> ExperimentLedger:
        """Make ``out`` the folder of this experiment; without ``resume`` old results are removed.

        Raises:
            UsageError: as ``check``.
        """
        ledger = cls.check(out, driver, identity, resume=resume)
        if not (resume and ledger.path.exists()):
            out.mkdir(parents=True, exist_ok=True)
            for name in (RESULT, DURATIONS):
                (out / name).unlink(missing_ok=True)
            for name in _CONTENT[driver]:
                shutil.rmtree(out / name, ignore_errors=True)
            ledger.save()
        return ledger

    @property
    def path(self) -> Path:
        """The file by which the folder is known."""
        return self.out / (SETTINGS if self.driver == "simulator" else NETWORK)

    def save(self) -> None:
        """Write the record to the folder."""
        if self.driver == "simulator":
            write_atomically(self.path, json.dumps(self.identity, indent=2) + "\n", ORDINARY)
            write_atomically(self.out / DURATIONS, json.dumps(self.seconds) + "\n", ORDINARY)
        else:
            document = {
                "identity": self.identity,
                "runs": self.runs,
                "seconds": self.seconds,
                "incomplete": self.incomplete,
            }
            write_atomically(self.path, json.dumps(document, indent=2) + "\n", ORDINARY)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time that is spent within to ``stage``."""
        began = time.monotonic()
        try:
            yield
        finally:
            taken = time.monotonic() - began
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + taken, 3)
            self.save()

    def _read(self) -> None:
        stored = _object(self.path)
        if self.driver == "simulator":
            theirs, seconds = stored, _object(self.out / DURATIONS)
        else:
            theirs, seconds = stored.get("identity", {}), stored.get("seconds", {})
            self.runs = dict(stored.get("runs", {}))
            self.incomplete = {
                run: (some, among) for run, (some, among) in stored.get("incomplete", {}).items()
            }
        # Earlier releases knew one encoder and did not name it.
        theirs = {"encoder": DEFAULT, **theirs}
        problems = differences(f"{self.path}: ", self.identity, theirs, _short)
        if problems:
            raise UsageError(
                f"{self.out} holds results of a different experiment; choose another --out, or "
                "start over with --anew",
                problems,
            )
        self.seconds = {
            str(name): float(value)
            for name, value in seconds.items()
            if math.isfinite(float(value))
        }


def identity(plan: Plan, config: O2OConfig, **own: Any) -> dict[str, Any]:
    """Return what must be equal for a folder to be continued; ``own`` is added by the venue.

    Steps and episodes of learning may be raised, and the methods to compare may change.
    """
    recipe = document(config.recipe)
    recipe["offline"].pop("steps")
    recipe["online"].pop("episodes")
    return {
        "scenario_hash": plan.scenario_hash,
        **own,
        "recipe": recipe,
        "source": config.source,
        "encoder": config.encoder,
        "log_episodes": config.log_episodes,
        "evaluation_episodes": config.evaluation_episodes,
        "seed": config.seed,
    }


def _is_empty(out: Path) -> bool:
    return all(each.name == LOCK for each in out.iterdir())


def _object(path: Path) -> dict[str, Any]:
    """Return a JSON object; an empty one if the file is absent or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
