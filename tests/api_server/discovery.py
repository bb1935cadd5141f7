"""The documents from which a client learns what is served."""

from __future__ import annotations

from tests.api_server.resources import GROUPS, RESOURCES, VERBS, Object, Resource


def document(path: str) -> Object | None:
    """What is at a path of discovery; None if it is none."""
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    groups = {f"/apis/{group}": _group(group, version) for group, version in GROUPS if group}
    if path == "/apis":
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": list(groups.values())}
    if path in groups:
        return {"kind": "APIGroup", "apiVersion": "v1"} | groups[path]
    for group, version in GROUPS:
        if path == (f"/apis/{group}/{version}" if group else f"/api/{version}"):
            return {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": f"{group}/{version}" if group else version,
                "resources": [
                    entry
                    for resource in RESOURCES
                    if (resource.group, resource.version) == (group, version)
                    for entry in _entries(resource)
                ],
            }
    return None


def _group(group: str, version: str) -> Object:
    preferred = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [preferred], "preferredVersion": preferred}


def _entries(resource: Resource) -> list[Object]:
    verbs = [verb for verb in VERBS if resource.collected or verb != "deletecollection"]
    entry: Object = {
        "name": resource.plural,
        "singularName": resource.kind.lower(),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": verbs if resource.stored else ["create"],
    }
    if resource.short:
        entry["shortNames"] = list(resource.short)
    below = [
        {
            "name": f"{resource.plural}/{each}",
            "singularName": "",
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": ["create", "get"] if each in {"portforward", "eviction", "log"}
            else ["get", "patch", "update"],
        }
        for each in resource.subresources
    ]  # fmt: skip
    return [entry, *below]
