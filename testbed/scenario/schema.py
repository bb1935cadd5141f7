"""The scenario file as it is written: every key with its unit, default and meaning.

``Scenario`` holds what one file of tasks says, in the base units of the model (bytes, hertz,
microseconds, cycles per bit, 1/s); ``testbed.scenario.serving`` has the keys of requests.
``testbed.scenario.load`` makes one from a file and reports every problem;
``testbed.scenario.resolve`` draws from it the ``Plan`` that a run is given.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from testbed.model.distributions import Choice, Constant, Distribution, Uniform
from testbed.model.faults import ANY, KINDS, Exponential
from testbed.model.units import Micros
from testbed.scenario import units
from testbed.scenario.plan import SUCCESS_RATE, Payload
from testbed.scenario.secrets import split_password
from testbed.scenario.units import Quantity, QuantityError

API_VERSION: Final = "edge-testbed/v1"
LARGEST_NETWORK: Final = 1000
LARGEST_SEED: Final = 2**63 - 1
CORES: Final = units.whole(1, 10_000, 4)


def refusal(seen: str, allowed: str) -> PydanticCustomError:
    """Return the error of a validator, which ``testbed.scenario.load`` turns into a ``Problem``."""
    return PydanticCustomError("refused", "{seen}; {allowed}", {"seen": seen, "allowed": allowed})


class In:
    """Annotation: the value is read, written and described as ``quantity`` says."""

    def __init__(self, quantity: Quantity) -> None:
        self.quantity = quantity

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return self.core_schema()

    def core_schema(self) -> CoreSchema:
        """Return how pydantic reads and writes the quantity."""
        return core_schema.no_info_plain_validator_function(
            self._read,
            serialization=core_schema.plain_serializer_function_ser_schema(self.quantity.write),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return self.quantity.json_schema()

    def _read(self, value: object) -> float:
        try:
            return self.quantity.read(value)
        except QuantityError as error:
            raise refusal(error.seen, error.allowed) from None


class InOrAuto(In):
    """Annotation: as ``In``, or the word ``auto``, which is 0."""

    def __init__(self, quantity: Quantity) -> None:
        limits = f"`auto` or {quantity.limits}"
        super().__init__(dataclasses.replace(quantity, limits=limits))

    def core_schema(self) -> CoreSchema:
        """Return how pydantic reads and writes the quantity or the word."""
        return core_schema.no_info_plain_validator_function(
            lambda value: 0 if value == "auto" else self._read(value),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value: self.quantity.write(value) if value else "auto"
            ),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"const": "auto"}, self.quantity.json_schema()]}


ON: Final = -1
"""What ``true`` stands for where a quantity may be switched on without a value."""


class InOrSwitch(In):
    """Annotation: as ``In`` of a positive quantity, or ``false`` (0), or ``true`` (``ON``)."""

    def __init__(self, quantity: Quantity) -> None:
        limits = f"{quantity.limits}, or `true` or `false`"
        super().__init__(dataclasses.replace(quantity, limits=limits))

    def core_schema(self) -> CoreSchema:
        """Return how pydantic reads and writes the quantity or the switch."""
        return core_schema.no_info_plain_validator_function(
            lambda value: (ON if value else 0) if isinstance(value, bool) else self._read(value),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value: self.quantity.write(value) if value > 0 else value == ON
            ),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"type": "boolean"}, self.quantity.json_schema()]}


LinkRate: TypeAlias = Annotated[float, In(units.LINK_RATE)]
FailureRate: TypeAlias = Annotated[float, In(units.FAILURE_RATE)]
Share: TypeAlias = Annotated[float, In(units.SHARE)]
Duration: TypeAlias = Annotated[Micros, In(units.DURATION)]
PositiveDuration: TypeAlias = Annotated[Micros, In(units.POSITIVE_DURATION)]
Seed: TypeAlias = Annotated[int, In(units.whole(0, LARGEST_SEED, 1))]
NodeIndex: TypeAlias = Annotated[int, In(units.whole(0, LARGEST_NETWORK - 1, 0))]
QueueLength: TypeAlias = Annotated[int, In(units.whole(1, 10**6, 2))]


class Part(BaseModel):
    """A mapping of the file; keys are camelCase, unknown ones are refused."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_by_name=False,
        validate_by_alias=True,
    )


class Shorthand(Part):
    """A mapping for which a plain value may stand: the value of all keys in ``stands_for``."""

    stands_for: ClassVar[tuple[str, ...]]

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        if value is None or isinstance(value, dict | list | cls):
            return value
        return dict.fromkeys(cls.stands_for, value)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        mapping = handler.resolve_ref_schema(handler(schema))
        plain = {**mapping["properties"][cls.stands_for[0]]}
        plain.pop("default", None)
        return {"anyOf": [plain, mapping]}


# --- distributions ------------------------------------------------------------------------------

PerTask: TypeAlias = Distribution
"""One value, or a distribution that is drawn from once per task."""
PerNode: TypeAlias = Distribution | tuple[float, ...]
"""The same drawn once per node, or a list with one value per node."""
PerLink: TypeAlias = Distribution | tuple[tuple[float | None, ...], ...]
"""The same drawn once per directed link, or a matrix: row i, column j is the link from i to j."""

# In angle brackets, so that they can be told from keys of the file in the location of an error.
FORMS = CONSTANT, UNIFORM, CHOICE, LIST, EXPONENTIAL = (
    "<constant>",
    "<uniform>",
    "<choice>",
    "<list>",
    "<exponential>",
)


class Drawn:
    """Annotation: a constant, ``{uniform: [a, b]}``, ``{choice: [...]}``, or explicit values.

    ``once_per`` says what is drawn for, and with that what an explicit list holds: nothing for
    tasks and faults, a value per node, a row per node for links. A ``gap`` between faults may be
    ``{exponential: mean}`` too. ``cell`` is for rows, whose diagonal may hold
    what no link may.
    """

    def __init__(
        self,
        quantity: Quantity,
        once_per: Literal["task", "node", "link", "fault", "gap"],
        cell: Quantity | None = None,
    ) -> None:
        self.cell = cell or quantity
        self.quantity = quantity
        self.once_per = once_per

    @property
    def allowed(self) -> str:
        """The forms that may stand here, in words."""
        example = self.quantity.example
        forms = f"{example}, {{uniform: [low, high]}} or {{choice: [{example}, ...]}}"
        match self.once_per:
            case "node":
                return f"{forms}, or a list with one value per node"
            case "link":
                return f"{forms}, or a matrix with one row per node"
            case "gap":
                return f"{example}, {{exponential: mean}}, {forms.partition(', ')[2]}"
            case _:
                return forms

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        value = In(self.quantity).core_schema()
        choices: dict[str, CoreSchema] = {
            CONSTANT: core_schema.no_info_after_validator_function(_constant, value),
            UNIFORM: _keyed("uniform", core_schema.tuple_schema([value, value]), _uniform),
            CHOICE: _keyed(
                "choice", core_schema.tuple_variable_schema(value, min_length=1), _choice
            ),
        }
        if self.once_per == "gap":
            choices[EXPONENTIAL] = _keyed("exponential", value, _exponential)
        if self.once_per == "node":
            choices[LIST] = core_schema.tuple_variable_schema(value)
        elif self.once_per == "link":
            cell = core_schema.nullable_schema(In(self.cell).core_schema())
            choices[LIST] = core_schema.tuple_variable_schema(
                core_schema.tuple_variable_schema(cell)
            )
        return core_schema.tagged_union_schema(
            choices,
            discriminator=_form,
            custom_error_type="refused",
            custom_error_message="not one of the forms of a value",
            custom_error_context={"seen": "", "allowed": self.allowed},
            serialization=core_schema.plain_serializer_function_ser_schema(self._write),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        value = self.quantity.json_schema()
        pair = {"type": "array", "items": value, "minItems": 2, "maxItems": 2}
        forms = [
            value,
            _keyed_json("uniform", pair, "Every value from low to high equally likely."),
            _keyed_json(
                "choice",
                {"type": "array", "items": value, "minItems": 1},
                "One of the values, each equally likely.",
            ),
        ]
        if self.once_per == "gap":
            forms.append(_keyed_json("exponential", value, "Exponentially distributed, by mean."))
        if self.once_per == "node":
            forms.append({"type": "array", "items": value, "description": "One value per node."})
        elif self.once_per == "link":
            row = {"type": "array", "items": {"anyOf": [self.cell.json_schema(), {"type": "null"}]}}
            forms.append({"type": "array", "items": row, "description": "One row per node."})
        return {"anyOf": forms}

    def _write(self, value: PerNode | PerLink | Exponential) -> object:
        write = self.quantity.write
        match value:
            case Constant():
                return write(value.value)
            case Uniform():
                return {"uniform": [write(value.low), write(value.high)]}
            case Choice():
                return {"choice": [write(each) for each in value.values]}
            case Exponential():
                return {"exponential": write(value.mean)}
        return [
            [None if cell is None else self.cell.write(cell) for cell in row]
            if isinstance(row, tuple)
            else write(row)
            for row in value
        ]


def _form(value: object) -> str | None:
    match value:
        case dict():
            for key, form in (
                ("uniform", UNIFORM),
                ("choice", CHOICE),
                ("exponential", EXPONENTIAL),
            ):
                if key in value:
                    return form
            return None
        case list() | tuple():
            return LIST
        case None:
            return None
        case _:
            return CONSTANT


def _keyed(
    key: str, values: CoreSchema, make: Callable[[Any], Distribution | Exponential]
) -> CoreSchema:
    mapping = core_schema.typed_dict_schema(
        {key: core_schema.typed_dict_field(values)}, extra_behavior="forbid"
    )
    return core_schema.no_info_after_validator_function(lambda found: make(found[key]), mapping)


def _keyed_json(key: str, values: dict[str, Any], description: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {key: values},
        "required": [key],
        "additionalProperties": False,
        "description": description,
    }


def _constant(value: float) -> Distribution:
    return Constant(float(value))


def _exponential(mean: float) -> Exponential:
    return Exponential(float(mean))


def _uniform(bounds: tuple[float, float]) -> Distribution:
    low, high = bounds
    if low > high:
        raise refusal("the first value of uniform is above the second", "{uniform: [low, high]}")
    return Uniform(float(low), float(high))


def _choice(values: tuple[float, ...]) -> Distribution:
    return Choice(tuple(float(value) for value in values))


# --- the file -----------------------------------------------------------------------------------


class Metadata(Part):
    """Name of the scenario."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", strict=True)]
    """Name in lists and logs: lower-case letters, digits and hyphens, at most 63."""
    description: Annotated[str, Field(strict=True)] = ""
    """One sentence for `testbed scenario list`."""


class Counted(Part):
    """The edge nodes."""

    count: Annotated[int, In(units.whole(1, LARGEST_NETWORK, 10))]
    """N, the number of nodes."""


class Nodes(Counted):
    """The edge nodes. Each value may be constant, drawn once per node, or a list, one per node."""

    cores: Annotated[PerNode, Drawn(CORES, "node")] | None = None
    """Processor cores. With `clock` they give the capacity F = cores x clock; the overload rule
    `queueLengthPer4Cores` needs them too. With `capacity` they may be left out."""
    clock: Annotated[PerNode, Drawn(units.FREQUENCY, "node")] | None = None
    """Clock of one core."""
    capacity: Annotated[PerNode, Drawn(units.FREQUENCY, "node")] | None = None
    """Capacity F in cycles per second, instead of `clock`."""
    arrival_probability: Annotated[PerNode, Drawn(units.PROBABILITY, "node")]
    """Probability that a task arrives at the node in a slot."""
    failure_rate: Annotated[PerNode, Drawn(units.FAILURE_RATE, "node")] = Field(
        0, validate_default=True
    )
    """Execution failure rate alpha, failures per second of execution."""


class LinkOverride(Part):
    """One directed link that differs from the others."""

    source: Annotated[NodeIndex, Field(alias="from")]
    """Node that sends, counted from 0."""
    destination: Annotated[NodeIndex, Field(alias="to")]
    """Node that receives, counted from 0."""
    rate: LinkRate | None = None
    """Rate of this link; left out, it stays as it is."""
    failure_rate: FailureRate | None = None
    """Failure rate of this link; left out, it stays as it is."""
    control_delay: Duration | None = None
    """Time of a control message over this link; left out, it stays as it is."""


class Links(Part):
    """The directed links; every node has one to every other node."""

    rate: Annotated[PerLink, Drawn(units.LINK_RATE, "link", units.LINK_RATE_OR_NONE)]
    """Rate r of a link."""
    failure_rate: Annotated[PerLink, Drawn(units.FAILURE_RATE, "link")] = Field(
        0, validate_default=True
    )
    """Transmission failure rate beta, failures per second of transmission."""
    overrides: list[LinkOverride] = Field(default_factory=list)
    """Links that differ: `{from: 0, to: 1, rate: 5MB/s}`. Links are directed: the way back is an
    entry of its own."""
    control_delay: Annotated[PerLink, Drawn(units.DURATION, "link")] = Field(
        "0s", validate_default=True
    )
    """One-way time of a control message (probe, answer, announcement, gossip) over a link; where
    links differ, an answer comes back after the times of both directions."""


class Tasks(Part):
    """Tasks that arrive; each value is constant or drawn once per task."""

    size: Annotated[PerTask, Drawn(units.SIZE, "task")]
    """Input size s."""
    complexity: Annotated[PerTask, Drawn(units.COMPLEXITY, "task")]
    """Cycles per bit delta; a task takes 8 x size x complexity cycles."""
    deadline: Annotated[PerTask, Drawn(units.DEADLINE, "task")]
    """Time after its arrival by which a task must have ended."""


class Slots(Part):
    """Time of one episode."""

    count: Annotated[int, In(units.whole(1, 10**6, 100))]
    """T, slots per episode; no task is generated after the last."""
    length: PositiveDuration
    """Length of a slot."""


class OverloadRule(Part):
    """When a node calls itself overloaded; exactly one of the keys."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    queue_length: QueueLength | None = None
    """Overloaded from this many tasks, waiting and running."""
    queue_length_per_4_cores: Annotated[QueueLength | None, Field(alias="queueLengthPer4Cores")] = (
        None
    )
    """The same, for every four cores of the node (at least 1 task)."""
    backlog: PositiveDuration | None = None
    """Overloaded when the execution queue needs this long to be empty."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [value for _, value in self if value is not None]
        if len(given) != 1:
            raise refusal(
                f"{len(given)} of the three measures given",
                "exactly one of queueLength, queueLengthPer4Cores, backlog",
            )
        return self


class RuleSet(Part):
    """Rules that hold for every node."""

    overload: OverloadRule = Field({"queueLength": 2}, validate_default=True)
    """When a node is overloaded; it then tells its peers so."""
    drop_hopeless: Annotated[bool, Field(strict=True)] = True
    """Drop a task at the head of the execution queue that can no longer end in time."""
    execution_queue_limit: QueueLength | None = None
    """Most tasks waiting for execution, without the running one; null is no limit."""
    probe_timeout: PositiveDuration = Field("250ms", validate_default=True)
    """Longest time that a decision waits for answers of peers."""
    reject: Annotated[bool, Field(strict=True)] = False
    """Let schedulers refuse tasks. A refused task ends at once and counts as failed; without this,
    refusing one is an error of the scheduler."""
    stagger: Annotated[Micros, InOrSwitch(units.POSITIVE_DURATION)] = Field(
        False, validate_default=True
    )
    """Order within a slot: node i begins to decide i times this long after the slot began. `true`
    is two control delays and 1 us; `false` lets all nodes decide at once; see
    [model.md](model.md#order-within-a-slot)."""


class SeedSet(Shorthand):
    """Seeds by purpose."""

    stands_for = ("topology", "workload", "faults", "schedulers")

    topology: Seed = 1
    """Draws of nodes and links."""
    workload: Seed = 1
    """Arrivals and the tasks that arrive."""
    faults: Seed = 1
    """Which executions and transmissions fail, and when."""
    schedulers: Seed = 1
    """Draws of the schedulers, such as which peers are probed."""


class Named(Shorthand):
    """Something registered under a name, with options of its own."""

    stands_for = ("name",)

    name: Annotated[str, Field(min_length=1, strict=True)]
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of its own, handed over unchanged: anything that JSON can hold."""

    @field_validator("options")
    @classmethod
    def _is_json(cls, options: dict[str, Any]) -> dict[str, Any]:
        try:
            same = json.loads(json.dumps(options, allow_nan=False)) == options
        except (TypeError, ValueError):
            same = False
        if not same:
            raise refusal(
                "a value that JSON cannot hold",
                "texts, finite numbers, booleans, lists, mappings",
            )
        return options


class SchedulerPart(Named):
    """The scheduler of a run, where the command does not say."""

    name: Annotated[str, Field(min_length=1, strict=True)] = "ratc"
    """Registered name (`testbed scheduler list`), or `module:Class` of your own."""


class ApplicationPart(Named):
    """Application that executes tasks."""

    name: Annotated[str, Field(min_length=1, strict=True)] = "emulated"
    """`emulated` waits the modelled time, `busy` burns processor time for it, `matrix` works on the
    payload; or `module:callable` of your own, which runs for real."""


class PayloadSpec(Shorthand):
    """Data that is sent with a task."""

    stands_for = ("mode",)

    mode: Payload = "bytes"
    """`bytes` sends the task's real bytes; `metadata` sends none and takes the same time."""
    chunk: Annotated[int, In(units.CHUNK)] = Field("64KB", validate_default=True)
    """Bytes per message of a transfer; the pace of a link is kept chunk by chunk."""


class Log(Part):
    """Contents of the task log."""

    idle_slots: Annotated[bool, Field(strict=True)] = True
    """Log an observation for slots without a task too, which data sets for learning need."""


class StageLimit(Part):
    """Largest p95 of the error of measured times: the larger of both."""

    error: Duration = Field("4ms", validate_default=True)
    """Fixed part."""
    share: Share = Field("2%", validate_default=True)
    """Share of the nominal time."""


class Fidelity(Part):
    """Limits beyond which a run is marked `invalid`."""

    transmission: StageLimit = Field({}, validate_default=True)
    """Error of transmission times."""
    execution: StageLimit = Field({}, validate_default=True)
    """Error of execution times."""
    generator_lateness: Duration = Field("10ms", validate_default=True)
    """Largest p95 of how late tasks are generated."""
    lost_tasks: Annotated[int, In(units.whole(0, 10**9, 0))] = 0
    """Most tasks that may be lost (an application or scheduler of yours crashed, say) before the
    run is marked `degraded`; a node that dies marks it in any case."""


class Places:
    """Annotation: a node, a list of nodes, ``all``, or ``any`` (one drawn per occurrence)."""

    allowed: Final = "a node such as 0, a list of nodes, `all`, or `any` (one drawn each time)"

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _places, serialization=core_schema.plain_serializer_function_ser_schema(_write_places)
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        node = _NODE.json_schema()
        return {
            "anyOf": [
                node,
                {"type": "array", "items": node, "minItems": 1, "uniqueItems": True},
                {"enum": [ALL, ANY]},
                {"type": "null"},
            ]
        }


ALL: Final = "all"
_NODE: Final = units.whole(0, LARGEST_NETWORK - 1, 0)
PlacesOrName: TypeAlias = tuple[int, ...] | str


def _places(value: object) -> PlacesOrName | None:
    if value is None:
        return None
    if value in (ALL, ANY):
        return str(value)
    entries = value if isinstance(value, list | tuple) else [value]
    try:
        nodes = tuple(int(_NODE.read(entry)) for entry in entries)
    except QuantityError as error:
        raise refusal(error.seen, Places.allowed) from None
    if not nodes or len(set(nodes)) < len(nodes):
        raise refusal("a node twice" if nodes else "an empty list", Places.allowed)
    return nodes


def _write_places(value: PlacesOrName | None) -> object:
    return list(value) if isinstance(value, tuple) else value


class FaultPart(Part):
    """Something that goes wrong for a while; docs/faults.md explains the kinds."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": [key]} for key in ("at", "slot", "every", "perSlot")]
        }
    )

    kind: Literal[tuple(KINDS)]  # type: ignore[valid-type]
    """Kind of the fault."""
    nodes: Annotated[PlacesOrName | None, Places()] = None
    """Nodes it acts on, for kinds that act on nodes."""
    sources: Annotated[PlacesOrName | None, Places(), Field(alias="from")] = None
    """Links it acts on, for kinds that act on links: from each of these nodes."""
    destinations: Annotated[PlacesOrName | None, Places(), Field(alias="to")] = None
    """To each of these nodes."""
    both_ways: Annotated[bool, Field(strict=True)] = False
    """The links back as well."""
    at: Annotated[PerTask, Drawn(units.DURATION, "fault")] | None = None
    """Once in every episode, so long after its beginning."""
    slot: Annotated[int, In(units.whole(0, 10**6, 10))] | None = None
    """Once in every episode, when this slot begins, counted from 0."""
    every: Annotated[Any, Drawn(units.POSITIVE_DURATION, "gap")] | None = None
    """Again and again: time from the end of one (at first: the beginning of the episode) to the
    beginning of the next."""
    per_slot: Annotated[float, In(units.PROBABILITY)] | None = None
    """Probability that it begins with a slot, unless it is going on."""
    duration: Annotated[PerTask, Drawn(units.POSITIVE_DURATION, "fault"), Field(alias="for")]
    """Duration of the fault; drawn for each occurrence."""
    together: Annotated[bool, Field(strict=True)] = True
    """All nodes or links at the same time. `false`: each of them has times of its own."""
    factor: Annotated[float, In(units.FACTOR)] | None = None
    """Factor of the rate or the arrivals."""
    failure_rate: FailureRate | None = None
    """Failures per second, added to those configured."""
    mode: Annotated[str, Field(strict=True)] | None = None
    """`killed` (loses its tasks) or `hung` (stands still), of a node that is down."""


Text: TypeAlias = Annotated[str, Field(strict=True)]


class Images(Part):
    """Names of the images that a cluster runs, and the registry that has them."""

    registry: Text = ""
    """Host and path before their names; empty if they are on the machines of the cluster."""
    tag: Text = ""
    """Their tag; empty for this version of the toolkit."""
    mysql: Text = ""
    """Image of the task log's server; empty for the public MariaDB."""
    pull_secret: Text = ""
    """Secret in the namespace that holds the password of the registry."""


class KindDeployment(Part):
    """The kind cluster that is made for testbeds. One that is there already is used as it is,
    unless it differs from what is given here."""

    workers: Annotated[int, In(units.whole(0, 32, 2))] = 0
    """Worker nodes; 0 runs everything on the control-plane node."""
    node_image: Text = ""
    """Image of kind's nodes; empty for the pinned one."""
    ports: list[Text] = Field(default_factory=list)
    """`HOST:NODE`: ports of this machine that lead to ports of the cluster's first node."""
    mounts: list[Text] = Field(default_factory=list)
    """`HERE:THERE`: folders that all nodes see, read-only. A relative path begins in the folder
    where the command is given."""


class Deployment(Part):
    """Deployment of a testbed: the first four keys are for this machine, the others for a cluster.
    Nothing here changes the network, its draws or the hash of the scenario, and a simulation does
    not need it."""

    nodes_per_process: Annotated[int, InOrAuto(units.whole(1, LARGEST_NETWORK, 50))] = Field(
        "auto", validate_default=True
    )
    """Nodes that share a process on this machine; see [runtime.md](runtime.md). `auto`: one process
    per node if the machine carries that, else as many processes as it has cores."""
    transport: Literal["auto", "trunk", "grpc"] = "auto"
    """Carrier of messages between nodes on this machine: `auto` and `trunk` use Unix sockets shared
    by all nodes of a process, `grpc` a connection per pair of nodes, as between machines."""
    http_port: Annotated[int, In(units.whole(0, 65_535, 8000))] = 0
    """Port of this machine at which node 0 takes HTTP requests, if its scenario has any; node I has
    the port I above it. `0`: any free ports."""
    metrics_port: Annotated[int, In(units.whole(0, 65535, 9464))] = 0
    """Port of this machine's loopback interface at which the controller serves metrics for
    Prometheus; 0: none. See [monitoring.md](monitoring.md)."""

    images: Images = Field({}, validate_default=True)
    node_selector: dict[Text, Text] = Field(default_factory=dict)
    """Labels of the machines that edge nodes may run on."""
    spread: Annotated[bool, Field(strict=True)] = False
    """Spread edge nodes evenly over the machines, or do not start them."""
    hdfs: Annotated[bool, Field(strict=True)] = True
    """Run an HDFS for policies. Without, none can be deployed, but the shipped one runs."""
    storage_class: Text = ""
    """Storage class of the volumes; empty for the default of the cluster."""
    cpu_limits: Annotated[bool, Field(strict=True)] = False
    """Give pods processor limits too, where a quota demands them. That costs fidelity."""
    kind: KindDeployment = Field({}, validate_default=True)


class ScenarioFile(Part):
    """The keys that files of all families of work have.

    ``layout`` has all keys of the file in their order: own ones of the family stand among them.
    """

    layout: ClassVar[tuple[str, ...]]

    api_version: Literal["edge-testbed/v1"]
    """Version of this format."""
    kind: Literal["Scenario"]
    """Always `Scenario`."""
    model: str
    """Family of work."""
    metadata: Metadata
    nodes: Counted
    faults: list[FaultPart] = Field(default_factory=list)
    """Faults, with their times and durations; see [faults.md](faults.md). Faults that overlap
    combine: factors multiply, failure rates add."""
    objective: Annotated[str, Field(min_length=1, strict=True)]
    """Metric that runs are scored and compared by, unless a command names another; see
    [metrics.md](metrics.md)."""
    episodes: Annotated[int, In(units.whole(1, 10**6, 10))] = 10
    """Episodes per run, where the command does not say."""
    seeds: SeedSet = Field({}, validate_default=True)
    scheduler: Named
    time_scale: Annotated[float, In(units.TIME_SCALE)] = 1.0
    """Real seconds per emulated second: 2 is twice as slow as real time, 0.5 twice as fast."""
    storage: Annotated[str, Field(min_length=1, strict=True)] | None = None
    """URL of the task log's database; null is the SQLite file of the home, which all its testbeds
    and simulations share (on a cluster a database of the testbed's own)."""
    artifacts: Annotated[str, Field(min_length=1, strict=True)] | None = None
    """URL of the store for policies and data sets; null is a folder of the home, which all
    its testbeds share (on a cluster an HDFS or a volume of the testbed's own)."""
    deployment: Deployment | None = None
    """Deployment of a testbed: the first four keys are for this machine, the others for a cluster.
    Nothing here changes the network, its draws or the hash of the scenario, and a simulation does
    not need it."""

    @field_validator("storage", "artifacts")
    @classmethod
    def _no_password(cls, url: str | None) -> str | None:
        # The file is kept with every run and given to others.
        if url is not None and (split := split_password(url))[1] is not None:
            raise refusal(
                f"{split[0]} is written with a password",
                "the URL without it, and the password in the environment variable "
                "TESTBED_MYSQL_PASSWORD or in a file named by ?password_file=PATH",
            )
        return url

    def document(self) -> dict[str, Any]:
        """Return the complete file as plain values, defaults included, in its usual order."""
        data = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return {key: data[key] for key in self.layout if key in data}


class Scenario(ScenarioFile):
    """One edge network, its tasks and faults, and how it is run."""

    layout = (
        *("apiVersion", "kind", "model", "metadata", "nodes", "links", "tasks", "slots", "rules"),
        *("faults", "objective", "episodes", "seeds", "scheduler", "application", "payload"),
        *("timeScale", "storage", "artifacts", "log", "fidelity", "deployment"),
    )

    model: Literal["tasks"] = "tasks"
    """Family of work: `tasks`, which are placed at nodes, queued and executed; or `serving`, which
    has other keys ([serving-scenario.md](serving-scenario.md))."""
    nodes: Nodes
    links: Links
    tasks: Tasks
    slots: Slots
    rules: RuleSet = Field({}, validate_default=True)
    objective: Annotated[str, Field(min_length=1, strict=True)] = SUCCESS_RATE
    """Metric that runs are scored and compared by, unless a command names another; see
    [metrics.md](metrics.md)."""
    scheduler: SchedulerPart = Field({}, validate_default=True)
    application: ApplicationPart = Field({}, validate_default=True)
    payload: PayloadSpec = Field({}, validate_default=True)
    log: Log = Field({}, validate_default=True)
    fidelity: Fidelity = Field({}, validate_default=True)


def json_schema_of(kind: type[ScenarioFile]) -> dict[str, Any]:
    """Return the JSON Schema of the files of one family of work."""
    schema = kind.model_json_schema(by_alias=True, mode="validation")
    _without_titles(schema)
    return schema


def _without_titles(schema: Any) -> None:
    # pydantic makes titles of the keys, such as "Drophopeless"; editors show the key anyway.
    if isinstance(schema, dict):
        if isinstance(schema.get("title"), str):
            del schema["title"]
        for value in schema.values():
            _without_titles(value)
    elif isinstance(schema, list):
        for value in schema:
            _without_titles(value)
