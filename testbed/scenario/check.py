"""Plain data to a scenario, or every problem with it, with its path and what is allowed."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from testbed.errors import Problem
from testbed.model.distributions import Distribution
from testbed.model.faults import ANY
from testbed.model.topology import LinkDelays
from testbed.model.units import SECOND, Micros, counted
from testbed.scenario import check_faults, resolve
from testbed.scenario.families import ByModel
from testbed.scenario.plan import SERVING, TASKS, PlanHead
from testbed.scenario.schema import (
    API_VERSION,
    FORMS,
    FaultPart,
    Links,
    Scenario,
    ScenarioFile,
    json_schema_of,
)
from testbed.scenario.serving import check as serving_check
from testbed.scenario.serving import resolve as serving_resolve
from testbed.scenario.serving.schema import ServingScenario
from testbed.scenario.units import integer, shown

MOST_CYCLES: Final = (2**63 - 1) // (2 * SECOND) - 10**9
"""Largest task: times are worked out in 64-bit integers, as twice the cycles a microsecond."""


def check(data: Any) -> ScenarioFile | list[Problem]:
    """Return the scenario that ``data`` describes, or all that is wrong with it."""
    if data is None:
        return [Problem("", "the file is empty", f"allowed: a scenario, apiVersion {API_VERSION}")]
    if not isinstance(data, dict):
        return [Problem("", f"{shown(data)} is not a scenario", "allowed: a mapping of keys")]
    if data.get("apiVersion") not in (None, API_VERSION):
        # What another version means by its keys is not for this one to judge.
        return [
            Problem("apiVersion", shown(data["apiVersion"]), f"allowed: {API_VERSION}"),
        ]
    model = data.get("model", TASKS)
    if not isinstance(model, str) or model not in FAMILIES:
        # The keys of another family mean something else.
        return [FAMILIES.problem(model)]
    family = FAMILIES.named(model)
    try:
        scenario = family.schema.model_validate(data)
    except ValidationError as error:
        found = [*_from_pydantic(error, data, family.schema), *family.structure(data)]
        return list(dict.fromkeys(found))
    return [*family.structure(data), *family.consistency(scenario)] or scenario


def fault_problems(entry: dict[str, Any], count: int | None) -> list[Problem]:
    """Return all that is wrong with one fault that begins at once, in a network of ``count`` nodes.

    None: the number of nodes is not known. ``any`` stands for nothing here: nobody draws.
    """
    data = {"faults": [entry]}
    found = [
        Problem(f"faults[0].{key}", ANY, "allowed: nodes by number, or all")
        for key in ("nodes", "from", "to")
        if entry.get(key) == ANY
    ]
    try:
        FaultPart.model_validate(entry)
    except ValidationError as error:
        found.extend(_from_pydantic(error, data, Scenario, ("faults", 0)))
    found.extend(check_faults.problems_of(entry, "faults[0]", count, None, timed=False))
    prefix = "faults[0]."
    return [
        Problem(problem.path.removeprefix(prefix), problem.seen, problem.allowed)
        for problem in dict.fromkeys(found)
    ]


KEY: Final = "[key]"
"""Stands in locations of pydantic for a key that is wrong itself."""

_PLAINLY: Final = {
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "string_type": "a text",
    "string_pattern_mismatch": "lower-case letters, digits and hyphens, at most 63",
    "string_too_short": "a text that is not empty",
}
"""Messages of pydantic in the terms of the file."""


# --- what pydantic found ------------------------------------------------------------------------


def _from_pydantic(
    error: ValidationError,
    data: Any,
    schema: type[ScenarioFile],
    under: tuple[int | str, ...] = (),
) -> Iterator[Problem]:
    for detail in error.errors(include_url=False):
        *above, last = (*under, *detail["loc"])
        keys = [key for key in above if key not in FORMS]
        if last not in FORMS or detail["type"] == "extra_forbidden":
            keys.append(last)
        yield _problem(detail, keys, data, schema)


def _problem(
    detail: ErrorDetails, keys: list[int | str], data: Any, schema: type[ScenarioFile]
) -> Problem:
    kind, found = detail["type"], detail["input"]
    context = detail.get("ctx", {})
    if kind == "extra_forbidden":
        known = _known_keys(schema, keys[:-1])
        if other := _other_family(schema, keys):
            return Problem(
                dotted(keys),
                f"a key of scenarios with model: {other}",
                f"known keys with model: {model_of(schema)}: {', '.join(known)}",
            )
        return Problem(dotted(keys), "unknown key", _suggestion(str(keys[-1]), known))
    if kind == "missing":
        return Problem(dotted(keys), "missing", f"needed: {_meaning(schema, keys)}")
    if keys and keys[-1] == KEY:
        keys = keys[:-1]
        return Problem(dotted(keys), shown(keys[-1]), f"allowed: {_PLAINLY.get(kind, kind)}")
    path = dotted(_written(keys, data))
    if kind == "refused":
        seen = context["seen"] or (
            "is empty" if found is None else f"{shown(found)} is not one of the forms of a value"
        )
        return Problem(path, seen, f"allowed: {context['allowed']}")
    if kind in {"model_type", "dict_type", "model_attributes_type"}:
        names = ", ".join(_known_keys(schema, keys)) or "keys with values"
        seen = "is empty" if found is None else f"{shown(found)} is not a mapping"
        return Problem(path, seen, f"allowed: a mapping of {names}")
    if kind == "invalid_key":
        return Problem(path, "a key that is not text", "allowed: keys as text")
    if kind in {"too_short", "too_long"}:
        return Problem(path, f"{context['actual_length']} values", "allowed: " + _count(context))
    message = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return Problem(path, shown(found), f"allowed: {_PLAINLY.get(kind, message)}")


def _other_family(schema: type[ScenarioFile], keys: list[int | str]) -> str | None:
    """Return the model whose scenarios have the key, if it is another one's."""
    for model in FAMILIES:
        other = FAMILIES.named(model).schema
        if other is not schema and keys[-1] in _known_keys(other, keys[:-1]):
            return model
    return None


def _count(context: dict[str, Any]) -> str:
    if "min_length" in context:
        return f"at least {context['min_length']}"
    return f"exactly {context['max_length']}"


def _written(keys: list[int | str], data: Any) -> list[int | str]:
    """``keys`` as far as the file goes: a plain value may stand for a mapping."""
    for depth, key in enumerate(keys):
        inside = isinstance(data, list) and isinstance(key, int) and key < len(data)
        if inside or (isinstance(data, dict) and key in data):
            data = data[key]
        else:
            return keys[:depth]
    return keys


def dotted(keys: Sequence[int | str]) -> str:
    """``nodes.cores[2]`` for the location of a value."""
    text = ""
    for key in keys:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            text += f".{key}" if text else key
    # A key may hold what no terminal can print.
    return text.encode("utf-8", "backslashreplace").decode()


def _suggestion(key: str, known: list[str]) -> str:
    folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(key.casefold(), folded, n=1, cutoff=0.6)
    nearest = f"did you mean {folded[close[0]]}? " if close else ""
    return f"{nearest}known keys: {', '.join(known)}" if known else "allowed: no other key"


def _known_keys(schema: type[ScenarioFile], keys: Sequence[int | str]) -> list[str]:
    """Return the keys of the mapping at ``keys``, in the order of the schema."""
    if not keys:
        return list(schema.layout)
    parts = _parts_at(schema, keys)
    if not parts:
        return ["uniform", "choice"]
    return [field.alias or name for part in parts for name, field in part.model_fields.items()]


def _parts_at(schema: type[ScenarioFile], keys: Sequence[int | str]) -> list[type[BaseModel]]:
    parts: list[type[BaseModel]] = [schema]
    # Below a mapping with keys of the user's choice: any key leads to these.
    entries: list[type[BaseModel]] = []
    for key in keys:
        if isinstance(key, int):
            continue
        if entries:
            parts, entries = entries, []
            continue
        annotations = [
            field.annotation
            for part in parts
            for name, field in part.model_fields.items()
            if (field.alias or name) == key
        ]
        parts = [below for each in annotations for below in _models(each)]
        if any(typing.get_origin(each) is dict for each in annotations):
            parts, entries = [], parts
    return parts


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models(argument)


def _meaning(schema: type[ScenarioFile], keys: Sequence[int | str]) -> str:
    for part in _parts_at(schema, keys[:-1]):
        for name, field in part.model_fields.items():
            if (field.alias or name) == keys[-1]:
                if typing.get_origin(field.annotation) is typing.Literal:
                    return str(typing.get_args(field.annotation)[0])
                below = _known_keys(schema, keys) if list(_models(field.annotation)) else []
                text = " ".join((field.description or "").split())
                return text or f"a mapping of {', '.join(below)}"
    return "a value"


# --- what only several keys together can say ----------------------------------------------------


_OF_LINKS: Final = ("rate", "failureRate", "controlDelay")
"""Keys of ``links`` that have a value for each link."""


def _structure(data: dict[str, Any]) -> Iterator[Problem]:
    """Checks across keys that need no valid values, so that they are reported with the others."""
    nodes = data.get("nodes")
    links = data.get("links")
    nodes = nodes if isinstance(nodes, dict) else {}
    links = links if isinstance(links, dict) else {}
    if nodes:
        yield from _capacity(nodes, data.get("rules"))
    count = integer(nodes.get("count"))
    slots = data.get("slots")
    yield from check_faults.structure(
        data.get("faults"), count, integer(slots.get("count")) if isinstance(slots, dict) else None
    )
    if not count or count < 0:
        # Told already; against it lengths say nothing.
        return
    for key in ("cores", "clock", "capacity", "arrivalProbability", "failureRate"):
        values = nodes.get(key)
        if isinstance(values, list) and len(values) != count:
            yield Problem(
                f"nodes.{key}",
                f"{len(values)} values for {count} nodes",
                f"allowed: {count} values, one per node, or nodes.count={len(values)}",
            )
    for key in _OF_LINKS:
        rows = links.get(key)
        if isinstance(rows, list):
            yield from _matrix(f"links.{key}", rows, count)
    overrides = links.get("overrides")
    if isinstance(overrides, list):
        yield from _overrides(overrides, count)


def _capacity(nodes: dict[str, Any], rules: Any) -> Iterator[Problem]:
    given = {key for key in ("cores", "clock", "capacity") if nodes.get(key) is not None}
    if given not in ({"cores", "clock"}, {"capacity"}, {"capacity", "cores"}):
        yield Problem(
            "nodes",
            f"only {given.pop()} given, which leaves the capacity open"
            if len(given) == 1
            else "the capacity is given twice, by clock and capacity"
            if given
            else "no capacity given",
            "allowed: cores and clock, or capacity (with or without cores)",
        )
    rule = rules.get("overload") if isinstance(rules, dict) else None
    if isinstance(rule, dict) and "queueLengthPer4Cores" in rule and "cores" not in given:
        yield Problem(
            "rules.overload.queueLengthPer4Cores",
            "the nodes have no cores",
            "needed: nodes.cores, or another overload rule",
        )


def _matrix(path: str, rows: list[Any], count: int) -> Iterator[Problem]:
    if len(rows) != count:
        yield Problem(path, f"{len(rows)} rows for {count} nodes", f"allowed: {count} rows")
    for i, row in enumerate(rows):
        if not isinstance(row, list):
            continue
        if len(row) != count:
            yield Problem(
                f"{path}[{i}]", f"{len(row)} values for {count} nodes", f"allowed: {count} values"
            )
        for j, cell in enumerate(row):
            if i != j and cell is None:
                yield Problem(
                    f"{path}[{i}][{j}]", "nothing", "needed: a value; null only from i to i"
                )


def _overrides(overrides: list[Any], count: int) -> Iterator[Problem]:
    first: dict[tuple[int, int], int] = {}
    for index, entry in enumerate(overrides):
        if not isinstance(entry, dict):
            continue
        path = f"links.overrides[{index}]"
        ends = (integer(entry.get("from")), integer(entry.get("to")))
        for key, node in zip(("from", "to"), ends, strict=True):
            if node is not None and node >= count:
                yield Problem(f"{path}.{key}", str(node), f"allowed: a node, 0 to {count - 1}")
        match ends:
            case (int() as i, int() as j) if i == j:
                yield Problem(path, f"a link from node {i} to itself", "allowed: two nodes")
            case (int() as i, int() as j):
                earlier = first.setdefault((i, j), index)
                if earlier != index:
                    yield Problem(
                        path,
                        f"link {i} to {j} is overridden a second time",
                        f"allowed: once, see links.overrides[{earlier}]",
                    )
        if all(entry.get(key) is None for key in _OF_LINKS):
            yield Problem(
                path,
                "nothing is overridden",
                f"needed: {', '.join(_OF_LINKS[:-1])} or {_OF_LINKS[-1]}",
            )


def _consistency(scenario: Scenario) -> Iterator[Problem]:
    """Checks between values; called with a scenario whose values are valid each for itself."""
    slots = scenario.slots
    yield from check_faults.timing(
        scenario.faults, slots.count * slots.length, scenario.nodes.count
    )
    rate = scenario.links.rate
    if isinstance(rate, tuple):
        for i, row in enumerate(rate):
            for j, cell in enumerate(row):
                if i != j and cell == 0:
                    yield Problem(f"links.rate[{i}][{j}]", "a rate of 0", "allowed: 1B/s or more")
    if _of_all_links(scenario.links, scenario.nodes.count):
        yield from _control_times(scenario)
    size, complexity = scenario.tasks.size, scenario.tasks.complexity
    largest = 8 * size.maximum * complexity.maximum
    if largest > MOST_CYCLES:
        yield Problem(
            "tasks", f"a task of up to {largest:.3g} cycles", f"allowed: {MOST_CYCLES:.3g}"
        )
    if 8 * _minimum(size) * _minimum(complexity) < 0.5:
        yield Problem("tasks.complexity", "a task of 0 cycles", "allowed: at least 1 cycle")


def _of_all_links(links: Links, count: int) -> bool:
    """Return whether there is a control delay for each link of ``count`` nodes, and no other."""
    ends = [end for entry in links.overrides for end in (entry.source, entry.destination)]
    values = links.control_delay
    rows = [*map(list, values)] if isinstance(values, tuple) else None
    whole = rows is None or not any(_matrix("links.controlDelay", rows, count))
    return whole and max(ends, default=0) < count


def _control_times(scenario: Scenario) -> Iterator[Problem]:
    """Check what has to be long enough for control messages."""
    slot, count = scenario.slots.length, scenario.nodes.count
    delay, link_delays = resolve.control_delays(scenario)
    yield from _probe_timeout(scenario.rules.probe_timeout, delay, link_delays)
    last = (count - 1) * resolve.stagger(scenario, delay)
    if last >= slot:
        yield Problem(
            "rules.stagger",
            f"the last of {count} nodes would decide {last} us after its slot began",
            f"allowed: less than the {slot} us of a slot: fewer nodes, or a smaller step",
        )


def _probe_timeout(
    timeout: Micros, delay: Micros, link_delays: LinkDelays | None
) -> Iterator[Problem]:
    # A peer behind slow links may never answer in time; who asks must be able to hear from one.
    there_and_back = 2 * delay if link_delays is None else min(_round_trips(link_delays))
    if timeout > there_and_back:
        return
    takes = (
        f"links.controlDelay is {delay} us each way"
        if link_delays is None
        else f"the fastest takes {there_and_back} us by links.controlDelay"
    )
    yield Problem(
        "rules.probeTimeout",
        f"{timeout} us are over before any answer can come: {takes}",
        f"allowed: more than {there_and_back}us",
    )


def _round_trips(link_delays: LinkDelays) -> Iterator[Micros]:
    """Return the times of a question and its answer between each two nodes."""
    for i, row in enumerate(link_delays):
        for j in range(i):
            yield row[j] + link_delays[j][i]


def _warnings(scenario: Scenario) -> Iterator[str]:
    """Return what is allowed, but perhaps not meant."""
    _, link_delays = resolve.control_delays(scenario)
    timeout = scenario.rules.probe_timeout
    late = sum(trip > timeout for trip in _round_trips(link_delays or ()))
    if late:
        pairs = counted(late, "pair")
        yield f"rules.probeTimeout: {pairs} of nodes never hear of each other in time when they ask"


def _minimum(distribution: Distribution) -> float:
    return distribution.at(0.0) if not hasattr(distribution, "values") else min(distribution.values)


# --- families of work ---------------------------------------------------------------------------


class Family(NamedTuple):
    """What a family of work makes of a scenario file.

    ``structure`` names the problems of lists and counts in plain data, ``consistency`` those
    between the values of a scenario, and ``warnings`` what is allowed but hardly meant; ``plan``
    draws its plan (``testbed.scenario.resolve.plan``).
    """

    schema: type[ScenarioFile]
    structure: Callable[[dict[str, Any]], Iterator[Problem]]
    consistency: Callable[[Any], Iterator[Problem]]
    warnings: Callable[[Any], Iterator[str]]
    plan: Callable[..., PlanHead]


FAMILIES: Final = ByModel(
    "a scenario",
    {
        TASKS: Family(Scenario, _structure, _consistency, _warnings, resolve.plan),
        SERVING: Family(
            ServingScenario,
            serving_check.structure,
            serving_check.consistency,
            serving_check.warnings,
            serving_resolve.plan,
        ),
    },
)
"""The family of each model that a scenario file may name."""


def model_of(schema: type[ScenarioFile]) -> str:
    """Return the model of the files of a schema."""
    return str(schema.model_fields["model"].default)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a scenario file, for editors.

    It says less than ``testbed.scenario.load`` checks: not that a list has one value per node.
    """
    whole = json_schema_of(Scenario)
    other = json_schema_of(ServingScenario)
    definitions = {**other.pop("$defs"), **whole.pop("$defs")}
    serving = {"properties": {"model": {"const": SERVING}}, "required": ["model"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"https://{API_VERSION}/scenario.schema.json",
        "$defs": definitions,
        "if": serving,
        "then": other,
        "else": whole,
    }
