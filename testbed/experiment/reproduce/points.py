"""Points: one method on one network, with the success rate of every episode; stored once each.

A point is stored under a hash of everything that decides its value, so that it is found again by
whichever figure needs it, and never taken for one of other settings.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from testbed.errors import PermanentError
from testbed.files import ORDINARY, write_atomically
from testbed.policies import shipped
from testbed.scenario.load import load
from testbed.scenario.plan import Plan
from testbed.scenario.resolve import plan as resolve
from testbed.schedulers.registry import find
from testbed.sim.engine.arrays import without_control_delay
from testbed.storage.folders import sha256_of
from testbed.version import __version__

FORMAT: Final = 1
"""Version of the files of points; others are not read."""

SIMULATOR: Final = "simulator"
NETWORK: Final = "network"


@dataclass(frozen=True, slots=True)
class Network:
    """A network to play on: a scenario, what is changed in it, and one seed for all.

    Without a ``seed`` it has those of the scenario. ``driver`` says what plays the episodes. In the
    simulator control messages take no time, unless ``delayed``: then what the scenario says. On the
    real network, runs outside their limits of fidelity are refused unless ``include_invalid``.
    """

    scenario: str
    overrides: tuple[str, ...]
    seed: int | None
    driver: str = SIMULATOR
    include_invalid: bool = False
    delayed: bool = False

    def plan(self) -> Plan:
        """Everything drawn. The topology, the tasks and their fates all follow from the seed."""
        return _plan(self)


@dataclass(frozen=True, slots=True)
class Learning:
    """Training of a policy on a network before it is evaluated there.

    ``source`` None: from nothing, without offline phase; then the logs and the offline phase do not
    count and are 0. ``per_update`` and ``evaluate_every`` None are the recipe's own.
    """

    recipe: str
    source: str | None
    log_episodes: int
    offline_steps: int
    online_episodes: int
    per_update: int | None = None
    evaluate_every: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Point:
    """One method on one network, ``episodes`` episodes from number 0 on."""

    network: Network
    method: str
    episodes: int
    learning: Learning | None = None

    def settings(self) -> dict[str, Any]:
        """Everything that decides the value."""
        plan = self.network.plan()
        found: dict[str, Any] = {
            "toolkit": __version__,
            "driver": self.network.driver,
            "scenario": plan.scenario_hash,
            "schedulers_seed": plan.seeds.schedulers,
            "method": self.method,
            "episodes": self.episodes,
        }
        if self.network.driver != SIMULATOR:
            # Elsewhere control messages take the time that the scenario says.
            found["control_delay"] = plan.rules.control_delay
            found["time_scale"] = plan.time_scale
            found["include_invalid"] = self.network.include_invalid
        elif self.network.delayed:
            found["control_delay"] = plan.rules.control_delay
        if ":" in self.method:
            found["code"] = _code_of(self.method)
        if self.method == "per-destination":
            found["policy"] = _shipped_id()
        if self.learning is not None:
            found["learning"] = asdict(self.learning) | {"losses": _losses(self.learning.recipe)}
        return found

    @property
    def key(self) -> str:
        """Name of the point among stored ones."""
        text = json.dumps(self.settings(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True, slots=True)
class LearningMoment:
    """A moment of the online phase: episodes learned from, and success rates then.

    ``collected`` is that of the episodes just learned from, ``evaluation`` that of the evaluation
    episodes by which policies are kept.
    """

    episodes: int
    collected: float | None
    evaluation: float | None


@dataclass(frozen=True, slots=True)
class PointResult:
    """Results at a point. NaN in an episode without a task.

    ``references`` are success rates in the episodes of the curve's evaluations, by method.
    """

    rates: tuple[float, ...]
    curve: tuple[LearningMoment, ...] = ()
    references: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PointStore:
    """A folder with one JSON file per finished point."""

    folder: Path

    def path(self, point: Point) -> Path:
        """Return the file of a point, which need not exist."""
        return self.folder / f"{point.key}.json"

    def get(self, point: Point) -> PointResult | None:
        """Return the stored results of a point; None if there are none, or the file is damaged."""
        try:
            stored = json.loads(self.path(point).read_text(encoding="utf-8"))
            return _decoded(stored, point.episodes)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, point: Point, measured: PointResult) -> None:
        """Store a point; a reader never sees half of it.

        Raises: PermanentError: the folder cannot be written.
        """
        settings = point.settings()
        document = {
            "format": FORMAT,
            "network": asdict(point.network),
            "settings": settings,
            "rates": [none_or(rate) for rate in measured.rates],
            "curve": [asdict(each) for each in measured.curve],
            "references": dict(measured.references),
            "seconds": round(measured.seconds, 3),
            "notes": list(measured.notes),
        }
        write_text(self.path(point), json.dumps(document, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file completely or not at all, making folders above it.

    Raises: PermanentError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text, ORDINARY)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise PermanentError(f"{path} cannot be written: {reason}; choose another --out") from error


def none_or(value: float) -> float | None:
    """NaN and None have no number in JSON."""
    return None if math.isnan(value) else value


def _decoded(stored: Mapping[str, Any], episodes: int) -> PointResult | None:
    rates: Sequence[float | None] = stored["rates"]
    if stored["format"] != FORMAT or len(rates) != episodes:
        return None
    return PointResult(
        rates=tuple(math.nan if rate is None else float(rate) for rate in rates),
        curve=tuple(LearningMoment(**each) for each in stored["curve"]),
        references={str(name): float(rate) for name, rate in stored["references"].items()},
        seconds=float(stored["seconds"]),
        notes=tuple(stored["notes"]),
    )


@lru_cache(maxsize=512)
def _plan(network: Network) -> Plan:
    seeds = [] if network.seed is None else [f"seeds={network.seed}"]
    found = resolve(load(network.scenario, [*network.overrides, *seeds]))
    if network.driver == SIMULATOR and not network.delayed:
        return without_control_delay(found)
    return found


@lru_cache(maxsize=64)
def _code_of(method: str) -> str:
    """Return a hash of the file with a scheduler of the user's own."""
    path = inspect.getsourcefile(find(method))
    return sha256_of(Path(path))[:12] if path else ""


@lru_cache(maxsize=1)
def _shipped_id() -> str:
    return shipped().card.id


@lru_cache(maxsize=8)
def _losses(recipe: str) -> str:
    """Return the settings that a recipe's name stands for now."""
    from trainer.o2o.recipe import recipe as named

    text = json.dumps(asdict(named(recipe)), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
