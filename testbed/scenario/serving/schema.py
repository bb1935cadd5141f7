"""The keys of a scenario of requests, each with its unit, default and meaning.

``ServingScenario`` holds what one file says, in microseconds and requests per second.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import ConfigDict, Field, model_validator

from testbed.scenario import units
from testbed.scenario.plan import REFUSED_RATE
from testbed.scenario.plan.serving import Logged
from testbed.scenario.schema import (
    Drawn,
    Duration,
    FaultPart,
    In,
    Named,
    NodeIndex,
    Part,
    PerNode,
    PositiveDuration,
    ScenarioFile,
    Shorthand,
    refusal,
)

NAME: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
Rate: TypeAlias = Annotated[float, In(units.REQUEST_RATE)]
FunctionName: TypeAlias = Annotated[str, Field(pattern=NAME, strict=True)]


class FunctionPart(Part):
    """A function, by its name, which is also the first part of the path of its requests."""

    time: PositiveDuration
    """Time that the service takes for a request, however many there are."""
    max_rate: Annotated[PerNode, Drawn(units.REQUEST_RATE, "node")]
    """Requests of its own users that a node is meant to serve. A window has to have a whole number
    of them."""


class Overlay(Part):
    """Which nodes know each other, and how they talk."""

    neighbours: Literal["all"] | list[list[NodeIndex]] = "all"
    """`all`, or a list with the neighbours of each node, node 0 first: `[[1], [0, 2], [1]]`. A node
    refuses the requests of a node that is not one of its neighbours."""
    delay: Duration = Field("1ms", validate_default=True)
    """One-way time between neighbours, of messages and of forwarded requests and their answers."""
    loss: Annotated[float, In(units.PROBABILITY)] = 0.0
    """Probability that a message does not reach a neighbour."""
    expiry: PositiveDuration = Field("90s", validate_default=True)
    """Time after which what a neighbour said is forgotten."""
    enforce_limits: Annotated[bool, Field(strict=True)] = False
    """Refuse requests of a neighbour above what it was told (429)."""


class Sinusoidal(Part):
    """A rate that goes up and down: mean + amplitude x sin(2 pi (t / period + phase))."""

    mean: Rate
    """Mean rate."""
    amplitude: Rate
    """Largest deviation from the mean; at most the mean."""
    period: PositiveDuration
    """Time of one oscillation."""
    phase: Annotated[float, In(units.SHARE)] = 0.0
    """Where it begins, in periods: 0.25 begins at the highest rate."""

    @model_validator(mode="after")
    def _never_negative(self) -> Self:
        if self.amplitude > self.mean:
            raise refusal(
                f"an amplitude of {self.amplitude:g}/s about a mean of {self.mean:g}/s",
                "an amplitude of at most the mean",
            )
        return self


class Step(Part):
    """A rate from an instant on."""

    at: Duration
    """When it begins, after the beginning of the episode."""
    rate: Rate
    """Requests per second from then on."""


class RateForms(Shorthand):
    """How the rate of users changes; exactly one of the keys."""

    stands_for = ("constant",)
    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    constant: Rate | None = None
    """The same all the time; a plain rate stands for it."""
    sinusoidal: Sinusoidal | None = None
    """It goes up and down."""
    steps: list[Step] | None = None
    """It changes at instants, the first of which is 0: `[{at: 0, rate: 10/s}, {at: 60s, rate:
    50/s}]`."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [value for _, value in self if value is not None]
        if len(given) != 1:
            raise refusal(
                f"{len(given)} of the three forms given",
                "a rate, or exactly one of sinusoidal and steps",
            )
        begins = [step.at for step in self.steps or ()]
        if self.steps is not None and (not begins or begins[0] != 0):
            raise refusal("no step at 0", "a first step with at: 0")
        if sorted(set(begins)) != begins:
            raise refusal("steps that are not in order", "each step later than the one before")
        return self


class UsersPart(Part):
    """Users who send requests for a function to a node."""

    kind: Literal["rate"] = "rate"
    """Users who send requests at a rate, whatever becomes of them."""
    function: FunctionName
    """Name of the function."""
    node: NodeIndex
    """Node that their requests come to, counted from 0."""
    rate: RateForms
    """Requests per second."""


class HorizonPart(Part):
    """Time of one episode."""

    length: PositiveDuration
    """Time in which users send requests."""
    window: PositiveDuration = Field("1s", validate_default=True)
    """Length of the windows in which nodes count requests."""
    drain: Duration = Field("5s", validate_default=True)
    """Time after that in which requests under way may still be answered; others are lost."""


class RoutingPart(Part):
    """When routers are called."""

    period: PositiveDuration
    """Time between two calls; a router may be called several times in each, see
    [serving-model.md](serving-model.md)."""
    offset: Duration = Field("0s", validate_default=True)
    """Time of the first call."""


class RouterPart(Named):
    """The router of a run, where the command does not say."""

    name: Annotated[str, Field(min_length=1, strict=True)] = "slack"
    """Registered name (`testbed scheduler list`), or `module:Class` of your own."""


class ServingLog(Part):
    """Contents of the task log."""

    requests: Logged = "all"
    """`all` logs every request; `windows` only the counts of each window."""


class ServingFidelity(Part):
    """Limits beyond which a run is marked `invalid`."""

    service: Duration = Field("10ms", validate_default=True)
    """Largest p95 of the error of service times."""
    forwarding: Duration = Field("10ms", validate_default=True)
    """Largest p95 of the error of the times of forwarded requests."""
    ticks: Duration = Field("50ms", validate_default=True)
    """Largest p95 of how late routers are called."""
    generator_lateness: Duration = Field("10ms", validate_default=True)
    """Largest p95 of how late requests are sent."""
    lost_requests: Annotated[int, In(units.whole(0, 10**9, 0))] = 0
    """Most requests that may be lost before the run is marked `degraded`; a node that dies marks it
    in any case."""


class ServingScenario(ScenarioFile):
    """A federation of edge nodes that serve requests of their users, and how it is run."""

    layout = (
        *("apiVersion", "kind", "model", "metadata", "nodes", "functions", "overlay", "users"),
        *("horizon", "routing", "faults", "objective", "episodes", "seeds", "scheduler"),
        *("timeScale", "storage", "artifacts", "log", "fidelity", "deployment"),
    )

    model: Literal["serving"] = "serving"
    """Family of work: `serving`, requests that are answered where they came in, or at a
    neighbour."""
    functions: dict[FunctionName, FunctionPart] = Field(min_length=1, max_length=100)
    """The functions that every node serves, by name."""
    overlay: Overlay = Field({}, validate_default=True)
    users: list[UsersPart] = Field(min_length=1, max_length=1000)
    """The users of the nodes."""
    horizon: HorizonPart
    routing: RoutingPart
    faults: list[FaultPart] = Field(default_factory=list)
    """Faults, with their times and durations; of the kinds in [faults.md](faults.md) only
    `node-down`. A `slot` is a window here."""
    objective: Annotated[str, Field(min_length=1, strict=True)] = REFUSED_RATE
    """Metric that runs are scored and compared by, unless a command names another; see
    [metrics.md](metrics.md)."""
    episodes: Annotated[int, In(units.whole(1, 10**6, 10))] = 1
    """Episodes per run, where the command does not say."""
    scheduler: RouterPart = Field({}, validate_default=True)
    log: ServingLog = Field({}, validate_default=True)
    fidelity: ServingFidelity = Field({}, validate_default=True)
