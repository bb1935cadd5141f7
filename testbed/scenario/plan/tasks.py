"""The plan of a run of tasks: a scenario with everything drawn and resolved."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, ClassVar, Final, Literal, TypeAlias

from testbed.model.distributions import mean
from testbed.model.faults import Fault, FaultSpec, Timeline, draw
from testbed.model.hook import PLACE
from testbed.model.task import Task
from testbed.model.topology import Overload, OverloadMeasure, Rules, Topology
from testbed.model.units import MILLISECOND, SECOND, Micros, counted
from testbed.model.workload import Workload, tasks_by_slot
from testbed.scenario.plan.head import (
    TASKS,
    ApplicationSpec,
    Demand,
    PlanHead,
    SchedulerSpec,
    Seeds,
    decode_distribution,
    decode_fault,
    document_of,
    encode,
    loaded,
    text_of,
)

Payload: TypeAlias = Literal["bytes", "metadata"]
"""``bytes`` moves every task's real bytes; ``metadata`` moves none and takes the same time."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(PlanHead):
    """The complete plan of a run of tasks; nothing in it is left to be drawn but their fates.

    ``scenario_hash`` covers nodes, links, tasks, fates, faults and rules, and neither the payload
    nor the limits.

    ``by_hand`` are faults that the run this one repeats met beside those of its scenario, by the
    number of the episode. They are no part of what a plan is: neither of its JSON nor of its hash,
    and plans that differ in them are equal. So a replay pairs with its original.
    """

    model: ClassVar[str] = TASKS
    hook: ClassVar[str] = PLACE
    work: ClassVar[str] = "tasks"
    success: ClassVar[str] = "succeeded"

    topology: Topology
    workload: Workload
    rules: Rules
    payload: Payload = "bytes"
    chunk_bytes: int = 64_000
    log_idle_slots: bool = True
    limits: FidelityLimits = field(default_factory=FidelityLimits)
    by_hand: Mapping[int, tuple[Fault, ...]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def size(self) -> int:
        """Number of nodes."""
        return self.topology.size

    @property
    def episode_in_short(self) -> str:
        """See ``PlanHead``."""
        return f"{counted(self.workload.slots, 'slot')} ({self.episode_seconds:g} s)"

    @property
    def demand(self) -> Demand:
        """See ``PlanHead``; no bytes arrive where only metadata is moved."""
        workload = self.workload
        rate = (
            sum(self.topology.arrival_probability)
            / self.size
            * mean(workload.size_bytes)
            / (workload.slot / SECOND)
            / self.time_scale
        )
        return Demand(workload.size_bytes.maximum, rate if self.payload == "bytes" else 0.0)

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
        encoded = encode(self)
        return text_of(self, {name: encoded[name] for name in _KEYS if name in encoded})

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Return the plan that ``to_json`` wrote.

        Raises: ValueError if the text is no plan of tasks, or of another version.
        """
        return loaded(cls, document_of(text))

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Plan:
        """See ``PlanHead``."""
        fields: dict[str, Any] = {
            name: _DECODERS[name](value) if name in _DECODERS else value
            for name, value in document.items()
        }
        if "by_hand" in fields:
            raise ValueError("not a plan: faults by hand are no part of one")
        return cls(**fields)


_KEYS: Final = (
    "name",
    "scenario_hash",
    "topology",
    "workload",
    "rules",
    "seeds",
    "scheduler",
    "episodes",
    "time_scale",
    "payload",
    "chunk_bytes",
    "application",
    "log_idle_slots",
    "storage_url",
    "artifacts_url",
    "limits",
    "faults",
    "objective",
)
"""Keys of the JSON in the order of its first version: equal plans have equal texts."""


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
        "topology": encode(topology),
        "workload": encode(workload),
        "rules": encode(rules),
        "seeds": {"workload": seeds.workload, "faults": seeds.faults},
    }
    if faults:
        content["faults"] = encode(faults)
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


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
        size_bytes=decode_distribution(data["size_bytes"]),
        complexity=decode_distribution(data["complexity"]),
        deadline=decode_distribution(data["deadline"]),
    )


def _decode_rules(data: dict[str, Any]) -> Rules:
    overload, delays = data["overload"], data.get("link_delays")
    return Rules(
        **{
            **data,
            "overload": Overload(OverloadMeasure(overload["measure"]), overload["limit"]),
            "link_delays": None if delays is None else _matrix(delays),
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
    "faults": lambda data: tuple(map(decode_fault, data)),
}
