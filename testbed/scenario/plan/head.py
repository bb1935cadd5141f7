"""What everybody needs of a plan, whichever family of work it is for."""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, NamedTuple, Self, TypeVar

from testbed.model.distributions import Choice, Constant, Distribution, Uniform
from testbed.model.faults import Exponential, FaultSpec, Timeline
from testbed.model.later import later, left_out
from testbed.scenario.secrets import without_password

PLAN_VERSION: Final = 1
"""Version of the JSON form; another version is refused."""

TASKS: Final = "tasks"
"""Model of plans whose JSON names none: those of releases that had no other."""

SERVING: Final = "serving"
"""Model of plans of serving networks."""


@dataclass(frozen=True, slots=True)
class Seeds:
    """One seed per purpose, so that changing one thing leaves all others as they were."""

    topology: int
    workload: int
    faults: int
    schedulers: int


@dataclass(frozen=True, slots=True)
class SchedulerSpec:
    """A scheduler by its registered name (or ``module:Class``) and its own options."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def options_json(self) -> str:
        """The options as a message carries them: a JSON object, empty if there are none."""
        return json.dumps(self.options) if self.options else ""

    @classmethod
    def of_message(cls, name: str, options_json: str) -> SchedulerSpec:
        """Return the scheduler that a message names, with its options as `options_json` has them.

        Raises:
            ValueError: the options are not a JSON object.
        """
        try:
            options = json.loads(options_json) if options_json else {}
        except RecursionError:
            raise ValueError("scheduler options are nested too deeply") from None
        if not isinstance(options, dict):
            raise ValueError(f"scheduler options have to be a JSON object, not {options_json}")
        return cls(name, options)

    def with_policy(self, reference: str) -> SchedulerSpec:
        """Return the same scheduler with another policy."""
        return SchedulerSpec(self.name, {**self.options, "policy": reference})


@dataclass(frozen=True, slots=True)
class ApplicationSpec:
    """The application that executes tasks, by its registered name (or ``module:Class``)."""

    name: str = "emulated"
    options: dict[str, Any] = field(default_factory=dict)


SUCCESS_RATE: Final = "success-rate"
"""Objective of scenarios that name none."""


class Demand(NamedTuple):
    """Demand of a plan on the machine of one node, in real bytes and seconds.

    ``largest_bytes`` is the largest piece of data that a node holds for one piece of work,
    ``bytes_per_second`` what arrives at a node on average.
    """

    largest_bytes: float
    bytes_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanHead(ABC):
    """The part of a plan that the plans of all families of work share.

    ``model`` names the family, ``hook`` the kind of decision that its schedulers make
    (``testbed.model.hooks``), ``fronted`` whether its nodes take HTTP requests of users, ``work``
    what its runs count, in the plural, and ``success`` the outcome of what went well.
    ``scenario_hash`` says what is emulated: equal hashes mean equal work and equal fates, so runs
    can be paired. Names, scheduler, number of episodes and how it is carried out (time scale,
    application, storage) are not in it.

    ``time_scale`` is real seconds per emulated second: 2.0 runs twice as slow as real time, 0.5
    twice as fast. Every duration in the plan and in the logs is in emulated time.
    ``storage_url`` and ``artifacts_url`` None mean the embedded default in the run directory.
    ``objective`` names the metric that runs are scored by (``testbed.experiment.metrics``).
    """

    model: ClassVar[str]
    hook: ClassVar[str]
    fronted: ClassVar[bool] = False
    work: ClassVar[str]
    success: ClassVar[str]

    name: str
    scenario_hash: str
    seeds: Seeds
    scheduler: SchedulerSpec
    episodes: int
    time_scale: float = 1.0
    application: ApplicationSpec = field(default_factory=ApplicationSpec)
    storage_url: str | None = None
    artifacts_url: str | None = None
    faults: tuple[FaultSpec, ...] = later(())
    objective: str = later(SUCCESS_RATE)

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of nodes."""

    @property
    @abstractmethod
    def episode_in_short(self) -> str:
        """What an episode is, in a few words."""

    @property
    @abstractmethod
    def demand(self) -> Demand:
        """Demand on the machine of one node, for runtimes that reserve resources."""

    @abstractmethod
    def timeline(self, episode: int) -> Timeline:
        """Return the faults of an episode, drawn with its seed, equal for every scheduler."""

    @abstractmethod
    def to_json(self) -> str:
        """Return the plan as one line of JSON; ``testbed.scenario.plan.load`` reads it.

        Plans are stored and handed on: passwords in their URLs are left out.
        """

    @classmethod
    @abstractmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        """Return the plan of parsed JSON without its version and model.

        Raises: LookupError, TypeError, ValueError, AttributeError or ArithmeticError: something of
        it is missing or not what it has to be.
        """


Kind = TypeVar("Kind", bound=PlanHead)


def document_of(text: str) -> dict[str, Any]:
    """Return the parsed JSON of a plan without its version; it has the key ``model``.

    Raises: ValueError: the text is no plan of this version.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a plan: {error}") from None
    if not isinstance(data, dict) or "planVersion" not in data:
        raise ValueError("not a plan: no planVersion")
    version = data.pop("planVersion")
    if version != PLAN_VERSION:
        raise ValueError(f"plan version {version}; this toolkit reads version {PLAN_VERSION}")
    return {"model": TASKS, **data}


def loaded(kind: type[Kind], document: dict[str, Any]) -> Kind:
    """Return the plan of a class from what ``document_of`` gave.

    Raises: ValueError: it is of another model, or not complete.
    """
    model = document.pop("model")
    if model != kind.model:
        raise ValueError(f"a plan of model {model!r}; expected model {kind.model!r}")
    try:
        return kind.from_document(document)
    except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"not a complete plan: {error!r}") from None


def text_of(plan: PlanHead, document: dict[str, Any]) -> str:
    """Return the JSON of a plan whose fields are in ``document``; takes passwords out of it.

    The model is left out if it is ``tasks``, as in the plans of releases that had no other.
    """
    for name in ("storage_url", "artifacts_url"):
        if document[name] is not None:
            document[name] = without_password(document[name])
    model = {} if plan.model == TASKS else {"model": plan.model}
    return json.dumps(
        {"planVersion": PLAN_VERSION, **model, **document},
        separators=(",", ":"),
        allow_nan=False,
    )


_DISTRIBUTIONS: Final = {
    Constant: "constant",
    Uniform: "uniform",
    Choice: "choice",
    Exponential: "exponential",
}


def encode(value: Any) -> Any:
    """Return a value of a plan as plain ones: dataclasses as objects, tuples as lists.

    Fields that are ``testbed.model.later`` and at their default are left out.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        encoded = {
            declared.name: encode(field_value)
            for declared in dataclasses.fields(value)
            if not left_out(declared, field_value := getattr(value, declared.name))
        }
        kind = _DISTRIBUTIONS.get(type(value))
        return encoded if kind is None else {"distribution": kind, **encoded}
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    return value


def decode_distribution(data: dict[str, Any]) -> Distribution:
    """Return the distribution that ``encode`` wrote."""
    match data["distribution"]:
        case "constant":
            return Constant(data["value"])
        case "uniform":
            return Uniform(data["low"], data["high"])
        case "choice":
            return Choice(tuple(data["values"]))
        case other:
            raise ValueError(f"unknown distribution {other!r} in a plan")


def decode_fault(data: dict[str, Any]) -> FaultSpec:
    """Return the fault that ``encode`` wrote."""
    every = data["every"]
    if every is not None:
        exponential = every["distribution"] == "exponential"
        every = Exponential(every["mean"]) if exponential else decode_distribution(every)
    targets = {
        name: value if isinstance(value := data[name], str) else tuple(value)
        for name in ("nodes", "sources", "destinations")
    }
    return FaultSpec(
        **{
            **data,
            **targets,
            "duration": decode_distribution(data["duration"]),
            "at": None if data["at"] is None else decode_distribution(data["at"]),
            "every": every,
        }
    )
