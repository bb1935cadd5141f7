"""A scenario with everything drawn and resolved: what the processes of a run are given.

A ``Plan`` travels as JSON to every controller and node, which need nothing but the standard library
and the model to read it. ``testbed.scenario.load.load`` and ``testbed.scenario.resolve.plan``
make one from a scenario file; floats survive the round trip bit for bit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final, Literal, TypeAlias

from testbed.model.distributions import Choice, Constant, Distribution, Uniform
from testbed.model.faults import Exponential, Fault, FaultSpec, Timeline, draw
from testbed.model.task import Task
from testbed.model.topology import Overload, OverloadMeasure, Rules, Topology
from testbed.model.units import MILLISECOND, SECOND, Micros
from testbed.model.workload import Workload, tasks_by_slot
from testbed.scenario.secrets import without_password

PLAN_VERSION: Final = 1
"""Version of the JSON form; another version is refused."""

Payload: TypeAlias = Literal["bytes", "metadata"]
"""``bytes`` moves every task's real bytes; ``metadata`` moves none and takes the same time."""


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


@dataclass(frozen=True, slots=True)
class FidelityLimits:
    """Limits within which a real-time run has to be near its configuration to be valid.

    The p95 of the absolute error of transmission (execution) times may be the larger of the fixed
    part and the share of the nominal time. All times are in emulated microseconds.
    Beyond them a run is ``invalid``. ``lost_tasks`` is how many tasks may end as ``lost`` before
    it is ``degraded``; a node that dies makes it so in any case.
    """

    transmission_error: Micros = 4 * MILLISECOND
    transmission_error_share: float = 0.02
    execution_error: Micros = 4 * MILLISECOND
    execution_error_share: float = 0.02
    generator_lateness: Micros = 10 * MILLISECOND
    lost_tasks: int = 0

    def transmission_limit(self, nominal: Micros) -> float:
        """Largest error that is still faithful for a transmission of ``nominal``, microseconds."""
        return max(self.transmission_error, self.transmission_error_share * nominal)

    def execution_limit(self, nominal: Micros) -> float:
        """Largest error that is still faithful for an execution of ``nominal``, microseconds."""
        return max(self.execution_error, self.execution_error_share * nominal)


@dataclass(frozen=True, slots=True)
class Plan:
    """One run's complete description; nothing in it is left to be drawn but the tasks' fates.

    ``scenario_hash`` says what is emulated: nodes, links, tasks, fates, faults and rules. Equal
    hashes mean the same tasks meet the same fates, so runs can be paired. Names, scheduler, number
    of episodes and how it is carried out (payload, time scale, application, storage, limits) are
    not in it.

    ``time_scale`` is real seconds per emulated second: 2.0 runs twice as slow as real time, 0.5
    twice as fast. Every duration in the plan and in the logs is in emulated time.
    ``storage_url`` and ``artifacts_url`` None mean the embedded default in the run directory.

    ``by_hand`` are faults that the run this one repeats met beside those of its scenario, by the
    number of the episode. They are no part of what a plan is: neither of its JSON nor of its hash,
    and plans that differ in them are equal. So a replay pairs with its original.
    """

    name: str
    scenario_hash: str
    topology: Topology
    workload: Workload
    rules: Rules
    seeds: Seeds
    scheduler: SchedulerSpec
    episodes: int
    time_scale: float = 1.0
    payload: Payload = "bytes"
    chunk_bytes: int = 64_000
    application: ApplicationSpec = field(default_factory=ApplicationSpec)
    log_idle_slots: bool = True
    storage_url: str | None = None
    artifacts_url: str | None = None
    limits: FidelityLimits = field(default_factory=FidelityLimits)
    faults: tuple[FaultSpec, ...] = ()
    by_hand: Mapping[int, tuple[Fault, ...]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def differences(self, other: Plan) -> tuple[str, ...]:
        """Return which of topology, workload and rules differ; one policy learns from no two."""
        parts = ("topology", "workload", "rules")
        return tuple(part for part in parts if getattr(self, part) != getattr(other, part))

    def timeline(self, episode: int) -> Timeline:
        """Return the faults of an episode, drawn with the faults seed, equal for every scheduler.

        Those of ``by_hand`` are among them.
        """
        workload, size = self.workload, self.topology.size
        return Timeline(
            chain(
                self.by_hand.get(episode, ()),
                (
                    fault
                    for entry, spec in enumerate(self.faults)
                    for fault in draw(
                        spec,
                        entry,
                        seed=self.seeds.faults,
                        episode=episode,
                        size=size,
                        slots=workload.slots,
                        slot=workload.slot,
                    )
                ),
            ),
            size,
        )

    def tasks(self, episode: int, timeline: Timeline | None = None) -> list[list[Task]]:
        """Return all tasks of an episode: a list per slot, in order of the node they arrive at.

        ``timeline`` are its faults, None for those of the plan. A fault that changes arrivals adds
        tasks or leaves some out; those that come with and without it are the same tasks.
        """
        return list(self.tasks_by_slot(episode, timeline))

    def tasks_by_slot(
        self, episode: int, timeline: Timeline | None = None, first: int = 0
    ) -> Iterator[list[Task]]:
        """Draw the same slot by slot, from slot ``first`` on, as they are asked for."""
        if timeline is None:
            timeline = self.timeline(episode)
        workload, probabilities = self.workload, self.topology.arrival_probability
        factors = None
        if timeline:
            scenes = timeline.scene

            def factors(slot: int, node: int) -> float:
                return scenes(slot * workload.slot).arrival_factor(node)

        return tasks_by_slot(workload, probabilities, self.seeds.workload, episode, factors, first)

    @property
    def episode_seconds(self) -> float:
        """Real seconds during which one episode generates tasks."""
        return self.workload.slots * self.workload.slot / SECOND * self.time_scale

    def to_json(self) -> str:
        """Return the plan as one line of JSON; ``from_json`` gives an equal plan back.

        Plans are stored and handed on: passwords in their URLs are left out.
        """
        data = {"planVersion": PLAN_VERSION, **_encode(self)}
        del data["by_hand"]
        if not self.faults:
            # As it was before there were faults.
            del data["faults"]
        for name in ("storage_url", "artifacts_url"):
            if data[name] is not None:
                data[name] = without_password(data[name])
        return json.dumps(data, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Return the plan that ``to_json`` wrote.

        Raises: ValueError if the text is no plan of this version.
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
        try:
            return _decode_plan(data)
        except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            raise ValueError(f"not a complete plan: {error!r}") from None


def identity(
    topology: Topology,
    workload: Workload,
    rules: Rules,
    seeds: Seeds,
    faults: tuple[FaultSpec, ...] = (),
) -> str:
    """Return the ``scenario_hash``: sha256 over everything that decides what happens to a task.

    Of the seeds, those of the workload and the faults count: the topology is drawn already, and
    the schedulers' own draws are not part of what is emulated.
    """
    content = {
        "topology": _encode(topology),
        "workload": _encode(workload),
        "rules": _encode(rules),
        "seeds": {"workload": seeds.workload, "faults": seeds.faults},
    }
    if faults:
        content["faults"] = _encode(faults)
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


_DISTRIBUTIONS: Final[Mapping[type, str]] = {
    Constant: "constant",
    Uniform: "uniform",
    Choice: "choice",
    Exponential: "exponential",
}


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        encoded = {f.name: _encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        kind = _DISTRIBUTIONS.get(type(value))
        return encoded if kind is None else {"distribution": kind, **encoded}
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    return value


def _decode_distribution(data: dict[str, Any]) -> Distribution:
    match data["distribution"]:
        case "constant":
            return Constant(data["value"])
        case "uniform":
            return Uniform(data["low"], data["high"])
        case "choice":
            return Choice(tuple(data["values"]))
        case other:
            raise ValueError(f"unknown distribution {other!r} in a plan")


def _decode_fault(data: dict[str, Any]) -> FaultSpec:
    every = data["every"]
    if every is not None:
        exponential = every["distribution"] == "exponential"
        every = Exponential(every["mean"]) if exponential else _decode_distribution(every)
    targets = {
        name: value if isinstance(value := data[name], str) else tuple(value)
        for name in ("nodes", "sources", "destinations")
    }
    return FaultSpec(
        **{
            **data,
            **targets,
            "duration": _decode_distribution(data["duration"]),
            "at": None if data["at"] is None else _decode_distribution(data["at"]),
            "every": every,
        }
    )


def _matrix(rows: Sequence[Sequence[Any]]) -> tuple[tuple[Any, ...], ...]:
    return tuple(tuple(row) for row in rows)


def _decode_topology(data: dict[str, Any]) -> Topology:
    return Topology(
        cores=tuple(data["cores"]),
        capacity_hz=tuple(data["capacity_hz"]),
        arrival_probability=tuple(data["arrival_probability"]),
        execution_failure_rate=tuple(data["execution_failure_rate"]),
        link_rate=_matrix(data["link_rate"]),
        link_failure_rate=_matrix(data["link_failure_rate"]),
    )


def _decode_workload(data: dict[str, Any]) -> Workload:
    return Workload(
        slots=data["slots"],
        slot=data["slot"],
        size_bytes=_decode_distribution(data["size_bytes"]),
        complexity=_decode_distribution(data["complexity"]),
        deadline=_decode_distribution(data["deadline"]),
    )


def _decode_rules(data: dict[str, Any]) -> Rules:
    overload = data["overload"]
    return Rules(
        **{
            **data,
            "overload": Overload(OverloadMeasure(overload["measure"]), overload["limit"]),
        }
    )


_DECODERS: Final[Mapping[str, Callable[[Any], object]]] = {
    "topology": _decode_topology,
    "workload": _decode_workload,
    "rules": _decode_rules,
    "seeds": lambda data: Seeds(**data),
    "scheduler": lambda data: SchedulerSpec(**data),
    "application": lambda data: ApplicationSpec(**data),
    "limits": lambda data: FidelityLimits(**data),
    "faults": lambda data: tuple(map(_decode_fault, data)),
}


def _decode_plan(data: dict[str, Any]) -> Plan:
    fields: dict[str, Any] = {
        name: _DECODERS[name](value) if name in _DECODERS else value for name, value in data.items()
    }
    if "by_hand" in fields:
        raise ValueError("not a plan: faults by hand are no part of one")
    return Plan(**fields)
