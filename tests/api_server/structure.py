"""How the parts of an object merge: which lists are keyed, which maps are one value.

A path is a tuple of the elements of ``FieldsV1``: ``f:spec``, ``k:{"name":"x"}``, ``v:"x"``. The
types are told by the names of fields, which is right for every kind that the fake serves; the
source is the ``x-kubernetes-list-type`` and ``-map-type`` of the published OpenAPI.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

Path: TypeAlias = tuple[str, ...]

_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "imagePullSecrets": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "hostAliases": ("ip",),
    "ownerReferences": ("uid",),
    "conditions": ("type",),
    "podIPs": ("ip",),
    "readinessGates": ("conditionType",),
    "resourceClaims": ("name",),
}

_SETS: Final = {"finalizers"}

_ATOMIC_MAPS: Final = {
    "configMapKeyRef",
    "dataSource",
    "fieldRef",
    "labelSelector",
    "matchLabels",
    "namespaceSelector",
    "nodeSelector",
    "podSelector",
    "resourceFieldRef",
    "roleRef",
    "scopeSelector",
    "secretKeyRef",
    "selector",
}

_FREE_MAPS: Final = {
    "annotations",
    "binaryData",
    "data",
    "hard",
    "labels",
    "limits",
    "requests",
    "resources",
    "stringData",
}
"""Maps whose keys are the user's; their own path counts as a field of who writes one."""

PRESENT: Final = object()
"""The value of what is only there: a map, or an item of a keyed list."""


def keys_of(name: str, items: list[Any]) -> tuple[str, ...] | None:
    """The fields that tell items of the list ``name`` apart; None if it is one value."""
    keys = _KEYS.get(name)
    if name == "ports" and items and isinstance(items[0], dict):
        keys = ("containerPort" if "containerPort" in items[0] else "port", "protocol")
    if keys is None or not all(isinstance(item, dict) for item in items):
        return None
    known = all(key in item or key == "protocol" for item in items for key in keys)
    return keys if known else None


def element(item: dict[str, Any], keys: tuple[str, ...]) -> str:
    """The path element of an item of a keyed list."""
    found = {key: item.get(key, "TCP" if key == "protocol" else None) for key in keys}
    return "k:" + json.dumps(found, separators=(",", ":"), sort_keys=True)


def is_set(name: str) -> bool:
    return name in _SETS


def is_one_value(name: str) -> bool:
    """Whether the map ``name`` is replaced as a whole."""
    return name in _ATOMIC_MAPS


def leaves(value: dict[str, Any], *, maps: bool, at: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every field of an object with its value; with ``maps``, also maps with the user's keys."""
    for name, part in value.items():
        path = (*at, f"f:{name}")
        if isinstance(part, dict) and not is_one_value(name):
            if not part or (maps and name in _FREE_MAPS):
                yield path, PRESENT
            yield from leaves(part, maps=maps, at=path)
        elif isinstance(part, list) and is_set(name):
            for item in part:
                yield (*path, f"v:{json.dumps(item)}"), item
        elif isinstance(part, list) and (keys := keys_of(name, part)):
            if maps and name != "containers":
                yield path, PRESENT
            for item in part:
                inner = (*path, element(item, keys))
                if name == "ownerReferences":
                    yield inner, item
                    continue
                yield inner, PRESENT
                yield from leaves(item, maps=maps, at=inner)
        else:
            yield path, part


def text(path: Path) -> str:
    """A path as messages write it: ``.spec.template.spec.containers[name="x"].image``."""
    written = ""
    for each in path:
        kind, rest = each[:2], each[2:]
        if kind == "f:":
            written += f".{rest}"
        elif kind == "k:":
            found = json.loads(rest).items()
            written += f"[{','.join(f'{key}={json.dumps(value)}' for key, value in found)}]"
        else:
            written += f"[={rest}]"
    return written


def merged(live: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """``live`` with everything that ``config`` says."""
    result = dict(live)
    for name, part in config.items():
        old = result.get(name)
        if isinstance(part, dict) and isinstance(old, dict) and not is_one_value(name):
            result[name] = merged(old, part)
        elif isinstance(part, list) and isinstance(old, list) and is_set(name):
            result[name] = old + [item for item in part if item not in old]
        elif isinstance(part, list) and isinstance(old, list) and (keys := keys_of(name, part)):
            result[name] = _merged_items(name, old, part, keys)
        else:
            result[name] = part
    return result


def _merged_items(
    name: str, live: list[Any], config: list[Any], keys: tuple[str, ...]
) -> list[Any]:
    """In the order of ``config``, with what only ``live`` has after what it followed there."""
    if keys_of(name, live) != keys:
        return config
    old = {element(item, keys): item for item in live}
    new = {element(item, keys): item for item in config}
    order = list(new)
    previous: str | None = None
    for each in old:
        if each not in new:
            order.insert(order.index(previous) + 1 if previous is not None else 0, each)
        previous = each
    return [
        merged(old[each], new[each])
        if each in old and each in new
        else new.get(each, old.get(each))
        for each in order
    ]


def without(value: dict[str, Any], gone: set[Path], at: Path = ()) -> dict[str, Any]:
    """``value`` less the fields ``gone``, and less the maps and lists that are empty then."""
    result: dict[str, Any] = {}
    for name, part in value.items():
        path = (*at, f"f:{name}")
        below = any(each[: len(path)] == path and len(each) > len(path) for each in gone)
        if path in gone and (not isinstance(part, dict | list) or not part or not below):
            continue
        if not below:
            result[name] = part
            continue
        left: dict[str, Any] | list[Any]
        if isinstance(part, dict):
            left = without(part, gone, path)
        elif is_set(name):
            left = [item for item in part if (*path, f"v:{json.dumps(item)}") not in gone]
        else:
            keys = keys_of(name, part) or ()
            left = [
                without(item, gone, (*path, element(item, keys)))
                for item in part
                if (*path, element(item, keys)) not in gone
            ]
        if left:
            result[name] = left
    return result
