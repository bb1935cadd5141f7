"""The plan of a serving run: a scenario with everything drawn and resolved."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, ClassVar, Final, Literal, TypeAlias

from testbed.model.faults import Timeline, draw
from testbed.model.later import later
from testbed.model.serving.bus import Bus
from testbed.model.serving.network import Function, ServingNetwork
from testbed.model.serving.node import Timetable
from testbed.model.serving.route import ROUTE
from testbed.model.serving.users import (
    Arrival,
    ConstantRate,
    SinusoidalRate,
    StepRate,
    Trace,
    Users,
    arrivals,
)
from testbed.model.units import MILLISECOND, SECOND, Micros, counted
from testbed.scenario.plan.head import (
    SERVING,
    ApplicationSpec,
    Demand,
    PlanHead,
    SchedulerSpec,
    Seeds,
    decode_fault,
    document_of,
    encode,
    loaded,
    text_of,
)

Logged: TypeAlias = Literal["all", "windows"]
"""``all`` enters every request into the task log; ``windows`` the counts of windows alone."""

REFUSED_RATE: Final = "refused-rate"
"""Objective of serving scenarios that name none."""

LARGEST_BODY: Final = 65_536
"""Bytes of a request's body that a node reads; a longer one is refused."""


@dataclass(frozen=True, slots=True)
class ServingLimits:
    """Limits within which a real-time serving run has to be near its configuration to be valid.

    The p95 of the absolute error of service times (forwarding times) and the p95 of how late
    routers are called and requests are sent may be that large, in emulated microseconds.
    ``lost_requests`` is how many requests may have no outcome before the run is ``degraded``.
    """

    service_error: Micros = 10 * MILLISECOND
    forwarding_error: Micros = 10 * MILLISECOND
    tick_lateness: Micros = 50 * MILLISECOND
    generator_lateness: Micros = 10 * MILLISECOND
    lost_requests: int = 0


@dataclass(frozen=True, slots=True)
class Horizon:
    """How long users send requests, and how long those under way get to be answered after that."""

    length: Micros
    drain: Micros = 5 * SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingPlan(PlanHead):
    """The complete plan of a serving run; nothing in it is left to be drawn but losses.

    ``scenario_hash`` covers network, bus, timetable, users, horizon and faults, and neither what is
    logged nor the limits. Of the faults, those that kill nodes for a time are known here.
    """

    model: ClassVar[str] = SERVING
    hook: ClassVar[str] = ROUTE
    work: ClassVar[str] = "requests"
    success: ClassVar[str] = "served"
    fronted: ClassVar[bool] = True

    network: ServingNetwork
    bus: Bus
    timetable: Timetable
    users: tuple[Users, ...]
    horizon: Horizon
    log_requests: Logged = "all"
    limits: ServingLimits = field(default_factory=ServingLimits)
    objective: str = later(REFUSED_RATE)

    @property
    def size(self) -> int:
        """Number of nodes."""
        return self.network.size

    @property
    def episode_in_short(self) -> str:
        """See ``PlanHead``."""
        requests = sum(each.trace.total(self.horizon.length) for each in self.users)
        return f"{self.horizon.length / SECOND:g} s with {counted(round(requests), 'request')}"

    @property
    def demand(self) -> Demand:
        """See ``PlanHead``; requests have no payload to speak of."""
        return Demand(LARGEST_BODY, 0.0)

    @property
    def windows(self) -> int:
        """Number of windows in which requests come."""
        return -(-self.horizon.length // self.network.window)

    @property
    def highest_rate(self) -> float:
        """Highest real requests per second that all users send together."""
        return sum(each.trace.highest for each in self.users) / self.time_scale

    def differences(self, other: ServingPlan) -> tuple[str, ...]:
        """Return which parts of what is emulated differ."""
        parts = ("network", "bus", "timetable", "users", "horizon")
        return tuple(part for part in parts if getattr(self, part) != getattr(other, part))

    def arrivals(self, episode: int) -> Iterator[Arrival]:
        """Return the requests of the users in an episode, in order."""
        return arrivals(self.users, self.horizon.length, episode)

    def timeline(self, episode: int) -> Timeline:
        """Return the faults of an episode, drawn with the faults seed, equal for every router."""
        return Timeline(
            chain.from_iterable(
                draw(
                    spec,
                    entry,
                    seed=self.seeds.faults,
                    episode=episode,
                    size=self.size,
                    slots=self.windows,
                    slot=self.network.window,
                )
                for entry, spec in enumerate(self.faults)
            ),
            self.size,
        )

    @property
    def episode_seconds(self) -> float:
        """Real seconds during which one episode generates requests."""
        return self.horizon.length / SECOND * self.time_scale

    def to_json(self) -> str:
        """Return the plan as one line of JSON; ``from_json`` gives an equal plan back.

        Plans are stored and handed on: passwords in their URLs are left out.
        """
        document = encode(self)
        document["users"] = [
            {**encode(users), "trace": _encode_trace(users.trace)} for users in self.users
        ]
        document["network"]["functions"] = [
            {**each._asdict(), "max_rate": list(each.max_rate)} for each in self.network.functions
        ]
        document["timetable"] = self.timetable._asdict()
        return text_of(self, document)

    @classmethod
    def from_json(cls, text: str) -> ServingPlan:
        """Return the plan that ``to_json`` wrote.

        Raises: ValueError: the text is no serving plan, or of another version.
        """
        return loaded(cls, document_of(text))

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> ServingPlan:
        """See ``PlanHead``."""
        decoders = _DECODERS
        return cls(
            **{
                name: decoders[name](value) if name in decoders else value
                for name, value in document.items()
            }
        )


_TRACES: Final[Mapping[str, type[Trace]]] = {
    "constant": ConstantRate,
    "step": StepRate,
    "sinusoidal": SinusoidalRate,
}
_TRACE_NAMES: Final = {kind: name for name, kind in _TRACES.items()}


def _encode_trace(trace: Trace) -> dict[str, Any]:
    return {"kind": _TRACE_NAMES[type(trace)], **encode(trace)}


def _decode_users(data: dict[str, Any]) -> Users:
    trace = dict(data["trace"])
    kind: Callable[..., Trace] = _TRACES[trace.pop("kind")]
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in trace.items()}
    return Users(data["node"], data["function"], kind(**values))


def _decode_network(data: dict[str, Any]) -> ServingNetwork:
    functions = tuple(
        Function(each["name"], each["time"], tuple(each["max_rate"])) for each in data["functions"]
    )
    neighbours = tuple(tuple(each) for each in data["neighbours"])
    return ServingNetwork(**{**data, "functions": functions, "neighbours": neighbours})


_DECODERS: Final[Mapping[str, Any]] = {
    "network": _decode_network,
    "bus": lambda data: Bus(**data),
    "timetable": lambda data: Timetable(**data),
    "users": lambda data: tuple(map(_decode_users, data)),
    "horizon": lambda data: Horizon(**data),
    "limits": lambda data: ServingLimits(**data),
    "seeds": lambda data: Seeds(**data),
    "scheduler": lambda data: SchedulerSpec(**data),
    "application": lambda data: ApplicationSpec(**data),
    "faults": lambda data: tuple(map(decode_fault, data)),
}


def identity(plan: ServingPlan) -> str:
    """Return the ``scenario_hash``: sha256 over everything that decides what becomes of a request.

    Of the seeds, those of the workload and the faults count.
    """
    document = json.loads(plan.to_json())
    parts = ("network", "bus", "timetable", "users", "horizon", "faults")
    content = {name: document[name] for name in parts if name in document}
    content["seeds"] = {"workload": plan.seeds.workload, "faults": plan.seeds.faults}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
