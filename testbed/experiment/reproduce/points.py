"""Points: one method on one network, with the score of every episode; stored once each.

The score is the objective of the scenario: the success rate of tasks unless it names another.

A point is stored under a hash of everything that decides its value, so that it is found again by
whichever figure needs it, and never taken for one of other settings.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from testbed.errors import PermanentError, Problem, UsageError
from testbed.experiment.reproduce.methods import label
from testbed.files import ORDINARY, write_atomically
from testbed.model.topology import Rules
from testbed.policies import shipped
from testbed.scenario.families import ByModel
from testbed.scenario.load import draw, load
from testbed.scenario.plan import SERVING, SUCCESS_RATE, TASKS, Plan, PlanHead
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

    def head(self) -> PlanHead:
        """Everything drawn, whatever the model: all that happens follows from the seed."""
        return _plan(self)

    def plan(self) -> Plan:
        """Return the same, of a scenario of tasks. Raises: UsageError: it is of another model."""
        found = self.head()
        if not isinstance(found, Plan):
            raise UsageError(
                f"scenario {found.name} has no tasks, but {found.work}",
                [Problem("model", repr(found.model), f"needed: a scenario with model: {TASKS}")],
            )
        return found


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
    """One method on one network, ``episodes`` episodes from number 0 on.

    ``options`` are those that a scheduler is made with, as pairs of name and value.
    """

    network: Network
    method: str
    episodes: int
    learning: Learning | None = None
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def title(self) -> str:
        """Return the method's name in figures, and its options if it has any."""
        given = ", ".join(f"{name}={value}" for name, value in self.options)
        return f"{label(self.method)} ({given})" if given else label(self.method)

    def settings(self) -> dict[str, Any]:
        """Everything that decides the value."""
        plan = self.network.head()
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
            found |= delays_of(plan)
            found["time_scale"] = plan.time_scale
            found["include_invalid"] = self.network.include_invalid
        elif self.network.delayed:
            found |= delays_of(plan)
        # What earlier releases could not have is named only where it is there: their points stay.
        if plan.objective != SUCCESS_RATE:
            found["objective"] = plan.objective
        if self.options:
            found["options"] = dict(self.options)
        if ":" in self.method:
            found["code"] = _code_of(self.method, plan.hook)
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
    """Results at a point.

    ``rates`` are scores by episode, NaN in one that has none, as without a task. They are success
    rates, or the values of the objective that the scenario names. ``references`` are success rates
    in the episodes of the curve's evaluations, by method.
    """

    rates: tuple[float, ...]
    curve: tuple[LearningMoment, ...] = ()
    references: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def evaluations(self) -> dict[int, float]:
        """Return the evaluations of the curve by the number of online episodes."""
        return {
            moment.episodes: moment.evaluation
            for moment in self.curve
            if moment.evaluation is not None
        }


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
def _plan(network: Network) -> PlanHead:
    seeds = [] if network.seed is None else [f"seeds={network.seed}"]
    found = draw(load(network.scenario, [*network.overrides, *seeds]))
    if network.driver == SIMULATOR and not network.delayed:
        undelayed: PlanHead = _CONTROL.of(found).without(found)
        return undelayed
    return found


class _Control(NamedTuple):
    """Control messages of a family: ``delays`` are what of them decides results and is not in the
    hash of a scenario, ``without`` returns a plan in which they take no time.
    """

    delays: Callable[[Any], dict[str, Any]]
    without: Callable[[Any], PlanHead]


def _delays(rules: Rules) -> dict[str, Any]:
    delays: dict[str, Any] = {"control_delay": rules.control_delay}
    if rules.link_delays is not None:
        delays["link_delays"] = rules.link_delays
    return delays


_CONTROL: Final[ByModel[_Control]] = ByModel(
    "a point",
    {
        TASKS: _Control(lambda plan: _delays(plan.rules), without_control_delay),
        # What nodes say to each other takes the time of the overlay, which is in the hash.
        SERVING: _Control(lambda plan: {}, lambda plan: plan),
    },
)


def delays_of(plan: PlanHead) -> dict[str, Any]:
    """Return what decides results beside the hash of a scenario where messages take their time."""
    return _CONTROL.of(plan).delays(plan)


@lru_cache(maxsize=64)
def _code_of(method: str, hook: str) -> str:
    """Return a hash of the file with a scheduler of the user's own."""
    path = inspect.getsourcefile(find(method, hook))
    return sha256_of(Path(path))[:12] if path else ""


@lru_cache(maxsize=1)
def _shipped_id() -> str:
    return shipped().card.id


@lru_cache(maxsize=8)
def _losses(recipe: str) -> str:
    """Return the settings that a recipe's name stands for now."""
    from trainer.o2o.recipe import document
    from trainer.o2o.recipe import recipe as named

    text = json.dumps(document(named(recipe)), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
