"""Who wrote which field: ``managedFields``, server-side apply and its conflicts.

After https://kubernetes.io/docs/reference/using-api/server-side-apply/ and its implementation in
sigs.k8s.io/structured-merge-diff: appliers own what they apply and lose what they leave out,
everybody else owns what they change, and an apply that would change what somebody else owns is a
conflict unless it is forced.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from tests.api_server import structure
from tests.api_server.resources import Object, clone, now
from tests.api_server.status import Refusal
from tests.api_server.structure import Path

_NOBODYS: Final[set[Path]] = {
    ("f:apiVersion",),
    ("f:kind",),
    ("f:metadata",),
    *(
        ("f:metadata", f"f:{name}")
        for name in (
            "creationTimestamp",
            "deletionGracePeriodSeconds",
            "deletionTimestamp",
            "generation",
            "managedFields",
            "name",
            "namespace",
            "resourceVersion",
            "selfLink",
            "uid",
        )
    ),
}


class _Owner(NamedTuple):
    """An entry of ``managedFields`` but for its fields and its time."""

    manager: str
    operation: str
    subresource: str
    api_version: str

    def __str__(self) -> str:
        text = f'"{self.manager}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        return f"{text} using {self.api_version}" if self.operation == "Update" else text


class _Owned(NamedTuple):
    fields: frozenset[Path]
    time: str


_Owners = dict[_Owner, _Owned]


def applied(
    live: Object | None,
    config: Object,
    manager: str,
    *,
    force: bool = False,
    subresource: str = "",
) -> Object:
    """What ``live`` is after ``manager`` has applied ``config``; the same object if no change.

    Raises: Refusal: 409, fields are somebody else's and would change.
    """
    config = clone(config)
    if subresource != "status":
        config.pop("status", None)
    owner = _Owner(manager, "Apply", subresource, config["apiVersion"])
    fields = _fields(config, maps=False, subresource=subresource)
    if live is None:
        return _with_owners(config, {owner: _Owned(fields, now())})
    owners = _owners(live) or {
        _Owner("before-first-apply", "Update", "", config["apiVersion"]): _Owned(
            _fields(live, maps=True, subresource=""), now()
        )
    }
    others = {who: owned for who, owned in owners.items() if who[:3] != owner[:3]}
    before = next((owned for who, owned in owners.items() if who[:3] == owner[:3]), None)
    result: Object = structure.merged(live, _without_server_fields(config))
    if before is not None:
        elsewhere = frozenset[Path]().union(*(owned.fields for owned in others.values()))
        inside = {path[:length] for path in elsewhere for length in range(1, len(path))}
        gone = {path for path in before.fields - fields - elsewhere if path not in inside}
        result = structure.without(result, gone)
        for name in ("apiVersion", "kind", "metadata"):
            result.setdefault(name, live[name])
    changed, removed = _difference(live, result, subresource)
    conflicts = {who: owned.fields & changed for who, owned in others.items()}
    if any(conflicts.values()) and not force:
        raise _conflict(conflicts)
    left = {
        who: _Owned(owned.fields - changed - removed, owned.time) for who, owned in others.items()
    }
    same = before is not None and before.fields == fields
    left[owner] = _Owned(fields, before.time if same and before is not None else now())
    return _with_owners(result, left)


def written(live: Object | None, new: Object, manager: str, *, subresource: str = "") -> Object:
    """``new``, written by ``manager`` in any other way, with its owners brought up to date."""
    owners = _owners(live) if live is not None else {}
    changed, removed = _difference(live or {}, new, subresource)
    owner = _Owner(manager, "Update", subresource, new["apiVersion"])
    result = {
        who: _Owned(owned.fields - removed - (changed if who != owner else set()), owned.time)
        for who, owned in owners.items()
    }
    if changed:
        before = result[owner].fields if owner in result else frozenset[Path]()
        result[owner] = _Owned(before | changed, now())
    return _with_owners(new, result)


def _without_server_fields(config: Object) -> Object:
    metadata = dict(config.get("metadata", {}))
    for name in ("managedFields", "resourceVersion", "uid", "creationTimestamp", "generation"):
        metadata.pop(name, None)
    return config | {"metadata": metadata}


def _fields(value: Object, *, maps: bool, subresource: str) -> frozenset[Path]:
    return frozenset(
        path for path, _ in structure.leaves(value, maps=maps) if _may_be_owned(path, subresource)
    )


def _may_be_owned(path: Path, subresource: str) -> bool:
    if path in _NOBODYS or path[:2] == ("f:metadata", "f:managedFields"):
        return False
    return (path[0] == "f:status") == (subresource == "status")


def _difference(
    old: Object, new: Object, subresource: str
) -> tuple[frozenset[Path], frozenset[Path]]:
    """Fields that are new or other in ``new``, and those it lacks."""
    before = dict(structure.leaves(old, maps=True))
    after = dict(structure.leaves(new, maps=True))
    absent = object()
    changed = (
        path
        for path, value in after.items()
        if before.get(path, absent) != value and _may_be_owned(path, subresource)
    )
    removed = (path for path in before if path not in after)
    return frozenset(changed), frozenset(removed)


def _conflict(conflicts: dict[_Owner, frozenset[Path]]) -> Refusal:
    found = sorted(
        (str(who), structure.text(path)) for who, paths in conflicts.items() for path in paths
    )
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": field}
        for who, field in found
    ]
    if len(found) == 1:
        text = f"Apply failed with 1 conflict: conflict with {found[0][0]}: {found[0][1]}"
    else:
        lines = []
        for manager in dict.fromkeys(who for who, _ in found):
            lines.append(f"conflicts with {manager}:")
            lines += [f"- {field}" for who, field in found if who == manager]
        text = f"Apply failed with {len(found)} conflicts: " + "\n".join(lines)
    return Refusal(409, "Conflict", text, {"causes": causes})


def _with_owners(value: Object, owners: _Owners) -> Object:
    entries = [
        {
            "manager": who.manager,
            "operation": who.operation,
            "apiVersion": who.api_version,
            "time": owned.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": _nested(owned.fields),
        }
        | ({"subresource": who.subresource} if who.subresource else {})
        for who, owned in owners.items()
        if owned.fields
    ]
    entries.sort(key=lambda each: (each["operation"], each["time"], each["manager"]))
    metadata = {name: part for name, part in value["metadata"].items() if name != "managedFields"}
    if entries:
        metadata["managedFields"] = entries
    return value | {"metadata": metadata}


def _owners(value: Object) -> _Owners:
    return {
        _Owner(
            entry["manager"],
            entry["operation"],
            entry.get("subresource", ""),
            entry.get("apiVersion", ""),
        ): _Owned(frozenset(_paths(entry.get("fieldsV1", {}))), entry.get("time", ""))
        for entry in value["metadata"].get("managedFields") or []
    }


def _nested(paths: Iterable[Path]) -> Object:
    tree: Object = {}
    for path in sorted(paths):
        node = tree
        for each in path:
            node = node.setdefault(each, {})
        node["."] = {}

    def compact(node: Object) -> Object:
        if list(node) == ["."]:
            return {}
        return {name: part if name == "." else compact(part) for name, part in node.items()}

    return compact(tree)


def _paths(tree: dict[str, Any], at: Path = ()) -> Iterable[Path]:
    for name, part in tree.items():
        if name == ".":
            yield at
        elif not part:
            yield (*at, name)
        else:
            yield from _paths(part, (*at, name))
