"""What the API server refuses with 422: names, labels, and changes of what may not change."""

from __future__ import annotations

import json
import re
from typing import Final

from tests.api_server.resources import Object, Resource
from tests.api_server.status import invalid

Cause = tuple[str, str, str]

_LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = rf"{_LABEL}(\.{_LABEL})*"
_VALUE: Final = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")

_SUBDOMAIN_TEXT: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    rf"for validation is '{_LABEL}(\.{_LABEL})*')"
)
_LABEL_TEXT: Final = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
    f"for validation is '{_LABEL}')"
)
_STATEFUL_SET_MAY_CHANGE: Final = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)


def check_new(resource: Resource, value: Object) -> None:
    """Raises: Refusal: 422, this cannot be stored."""
    name = value["metadata"]["name"]
    causes = _name(resource, name) + _labels(value)
    spec = value.get("spec") or {}
    if resource.plural == "statefulsets":
        wanted = (spec.get("selector") or {}).get("matchLabels") or {}
        labels = spec.get("template", {}).get("metadata", {}).get("labels") or {}
        if not spec.get("selector"):
            causes.append(("FieldValueRequired", "spec.selector", "Required value"))
        elif any(labels.get(key) != text for key, text in wanted.items()):
            causes.append(
                (
                    "FieldValueInvalid",
                    "spec.template.metadata.labels",
                    f"Invalid value: {_go(labels)}: `selector` does not match template `labels`",
                )
            )
    if causes:
        raise invalid(resource, name, causes)


def check_change(resource: Resource, old: Object, new: Object) -> None:
    """Raises: Refusal: 422, ``new`` changes what may not change, or cannot be stored."""
    name = new["metadata"]["name"]
    causes = _labels(new)
    was, now = old.get("spec") or {}, new.get("spec") or {}
    if resource.plural == "statefulsets":
        if any(
            was.get(field) != now.get(field)
            for field in {*was, *now}.difference(_STATEFUL_SET_MAY_CHANGE)
        ):
            *names, last = (f"'{field}'" for field in _STATEFUL_SET_MAY_CHANGE)
            causes.append(
                (
                    "FieldValueForbidden",
                    "spec",
                    "Forbidden: updates to statefulset spec for fields other than "
                    f"{', '.join(names)} and {last} are forbidden",
                )
            )
    elif resource.plural == "jobs":
        causes += _same(was, now, "template", "selector", "completionMode")
    elif resource.plural == "services":
        if was.get("clusterIP") != now.get("clusterIP") and was.get("clusterIP"):
            causes.append(
                (
                    "FieldValueInvalid",
                    "spec.clusterIPs[0]",
                    f"Invalid value: {json.dumps([now.get('clusterIP')])}: may not change once set",
                )
            )
    elif resource.plural == "persistentvolumeclaims":
        changed = {field for field in {*was, *now} if was.get(field) != now.get(field)}
        if changed - {"resources", "volumeAttributesClassName"} and was.get("volumeName"):
            causes.append(
                (
                    "FieldValueForbidden",
                    "spec",
                    "Forbidden: spec is immutable after creation except resources.requests and "
                    "volumeAttributesClassName for bound claims",
                )
            )
    elif resource.plural == "pods":
        changed = {field for field in {*was, *now} if was.get(field) != now.get(field)}
        if changed and [_fixed(each) for each in (was, now)] != [_fixed(was)] * 2:
            causes.append(
                (
                    "FieldValueForbidden",
                    "spec",
                    "Forbidden: pod updates may not change fields other than "
                    "`spec.containers[*].image`,`spec.initContainers[*].image`,"
                    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
                    "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 "
                    "if it was previously negative)",
                )
            )
    elif old.get("roleRef") != new.get("roleRef"):
        causes.append(
            (
                "FieldValueInvalid",
                "roleRef",
                f"Invalid value: {_go(new.get('roleRef'))}: cannot change roleRef",
            )
        )
    if causes:
        raise invalid(resource, name, causes)


def _fixed(spec: Object) -> Object:
    """What of a pod's spec may not change."""
    free = {"activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "nodeName"}
    return {
        name: [{**each, "image": ""} for each in part]
        if name in {"containers", "initContainers"}
        else part
        for name, part in spec.items()
        if name not in free
    }


def _same(was: Object, now: Object, *fields: str) -> list[Cause]:
    return [
        (
            "FieldValueInvalid",
            f"spec.{field}",
            f"Invalid value: {_go(now.get(field))}: field is immutable",
        )
        for field in fields
        if was.get(field) != now.get(field)
    ]


def _name(resource: Resource, name: str) -> list[Cause]:
    pattern, text, longest = _SUBDOMAIN, _SUBDOMAIN_TEXT, 253
    if resource.plural in {"namespaces", "services"}:
        pattern, text, longest = _LABEL, _LABEL_TEXT, 63
    elif resource.group == "rbac.authorization.k8s.io":
        pattern, text, longest = "[^/%]+", "may not contain '/'", 253
    elif resource.plural == "statefulsets":
        longest = 63
    causes: list[Cause] = []
    value = f"Invalid value: {json.dumps(name)}"
    if len(name) > longest:
        causes.append(
            (
                "FieldValueInvalid",
                "metadata.name",
                f"{value}: must be no more than {longest} characters",
            )
        )
    if re.fullmatch(pattern, name) is None:
        causes.append(("FieldValueInvalid", "metadata.name", f"{value}: {text}"))
    return causes


def _labels(value: Object) -> list[Cause]:
    causes: list[Cause] = []
    for text in (value["metadata"].get("labels") or {}).values():
        shown = f"Invalid value: {json.dumps(text)}"
        if len(text) > 63:
            causes.append(
                ("FieldValueInvalid", "metadata.labels", f"{shown}: must be no more than 63 bytes")
            )
        if _VALUE.fullmatch(text) is None:
            causes.append(
                (
                    "FieldValueInvalid",
                    "metadata.labels",
                    f"{shown}: a valid label must be an empty string or consist of alphanumeric "
                    "characters, '-', '_' or '.', and must start and end with an alphanumeric "
                    "character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for "
                    "validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
                )
            )
    return causes


def _go(value: object) -> str:
    """Roughly as the server shows a structure."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)
