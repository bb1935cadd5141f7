"""Label and field selectors, as in queries and in specs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from tests.api_server.resources import Object, Resource, labels_of
from tests.api_server.status import bad_request

Match = Callable[[Object], bool]

_SET: Final = re.compile(r"(?P<key>\S+)\s+(?P<operator>in|notin)\s+\((?P<values>[^)]*)\)")
_PARTS: Final = re.compile(r",(?![^(]*\))")

_FIELDS: Final = {
    "pods": {
        "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
        "status.phase", "status.podIP",
    },
    "events": {
        "involvedObject.kind", "involvedObject.namespace", "involvedObject.name",
        "involvedObject.uid", "involvedObject.apiVersion", "involvedObject.resourceVersion",
        "involvedObject.fieldPath", "reason", "reportingComponent", "source", "type",
    },
    "namespaces": {"status.phase"},
    "nodes": {"spec.unschedulable"},
    "secrets": {"type"},
}  # fmt: skip
"""Besides name and namespace, which every kind has."""


def by_labels(selector: str) -> Match:
    """A label selector of a query: ``a=b,c!=d,e,!f,g in (h,i)``.

    Raises: Refusal: it is none.
    """
    tests = [_label_test(part.strip()) for part in _PARTS.split(selector) if part.strip()]
    return lambda value: all(test(labels_of(value)) for test in tests)


def _label_test(part: str) -> Callable[[dict[str, str]], bool]:
    if match := _SET.fullmatch(part):
        key = match["key"]
        values = {value.strip() for value in match["values"].split(",")}
        if match["operator"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    for operator in ("!=", "==", "="):
        if operator in part:
            key, _, wanted = (each.strip() for each in part.partition(operator))
            if operator == "!=":
                return lambda labels: labels.get(key) != wanted
            return lambda labels: labels.get(key) == wanted
    if re.fullmatch(r"!?[A-Za-z0-9._/-]+", part) is None:
        raise bad_request(
            f'unable to parse requirement: found "{part}", expected: identifier after key'
        )
    if part.startswith("!"):
        return lambda labels: part[1:] not in labels
    return lambda labels: part in labels


def by_fields(selector: str, resource: Resource) -> Match:
    """A field selector of a query: ``metadata.name=a,status.phase!=Running``.

    Raises: Refusal: it is none, or these fields of the resource cannot be selected by.
    """
    known = {"metadata.name", "metadata.namespace"} | _FIELDS.get(resource.plural, set())
    tests: list[tuple[list[str], str, bool]] = []
    for part in filter(None, selector.split(",")):
        operator = next((each for each in ("!=", "==", "=") if each in part), None)
        if operator is None:
            raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
        field, _, wanted = part.partition(operator)
        if field not in known:
            if resource.plural in _FIELDS:
                raise bad_request(f"field label not supported: {field}")
            raise bad_request(
                f'"{field}" is not a known field selector: only "metadata.name", '
                '"metadata.namespace"'
            )
        tests.append((field.split("."), wanted, operator != "!="))
    return lambda value: all(
        (_field(value, field) == wanted) == equal for field, wanted, equal in tests
    )


def _field(value: Object, field: list[str]) -> str:
    found: object = value
    for name in field:
        found = found.get(name) if isinstance(found, dict) else None
    return "" if found is None else str(found)
