"""What the API does to stored objects: create, read, replace, patch, apply, delete.

Each call is one transaction. Refusals are raised as ``Refusal``.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from tests.api_server import (
    admission,
    defaults,
    ownership,
    patches,
    status,
    validation,
)
from tests.api_server.faults import Faults, Target
from tests.api_server.resources import (
    NAMESPACES,
    PODS,
    QUOTAS,
    Object,
    Resource,
    clone,
    now,
)
from tests.api_server.store import Store

_SUFFIX: Final = "bcdfghjklmnpqrstvwxz2456789"


class Place(NamedTuple):
    """An object, or a collection where ``name`` is empty."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""


class Write(NamedTuple):
    """How a write is made, besides its content."""

    manager: str = "unknown"
    dry_run: bool = False
    force: bool = False


class Registry:
    """The API's verbs over a store."""

    def __init__(self, store: Store, faults: Faults) -> None:
        self.store = store
        self.faults = faults
        self.quotas: list[tuple[str | None, Object]] = []
        """Quotas with which new namespaces begin: the one of that name, or all."""
        self._random = random.Random()

    def get(self, place: Place) -> Object:
        found = self.store.get(place.resource, place.namespace, place.name)
        if found is None:
            raise status.not_found(place.resource, place.name)
        return found

    def create(self, place: Place, value: Object, write: Write) -> Object:
        resource = place.resource
        value = self._checked(place, _typed(place, value))
        metadata = value["metadata"]
        if not metadata.get("name") and (prefix := metadata.get("generateName")):
            metadata["name"] = prefix + self.suffix()
        if not metadata.get("name"):
            cause = (
                "FieldValueRequired",
                "metadata.name",
                "Required value: name or generateName is required",
            )
            raise status.invalid(resource, "", [cause])
        return self._store_new(place._replace(name=metadata["name"]), value, write, None)

    def replace(self, place: Place, value: Object, write: Write) -> Object:
        value = self._checked(place, _typed(place, value))
        with self.store:
            live = self._live(place)
            version = value["metadata"].get("resourceVersion")
            if version and version != live["metadata"]["resourceVersion"]:
                raise status.modified(place.resource, place.name)
            if place.resource.plural == "services":
                for name in ("clusterIP", "clusterIPs"):
                    value["spec"].setdefault(name, live["spec"][name])
            return self._store_changed(place, live, value, write)

    def patch(self, place: Place, patch: Any, kind: str, write: Write) -> tuple[Object, bool]:
        """The object as it is now, and whether this made it."""
        with self.store:
            if kind == patches.APPLY_PATCH:
                return self._apply(place, patch, write)
            live = self._live(place)
            value = patches.patched(live, patch)
            wanted = value["metadata"].get("resourceVersion")
            if wanted != live["metadata"]["resourceVersion"]:
                raise status.modified(place.resource, place.name)
            return self._store_changed(place, live, value, write), False

    def _apply(self, place: Place, config: Any, write: Write) -> tuple[Object, bool]:
        if not isinstance(config, dict) or not config.get("kind"):
            raise status.bad_request("invalid object type: /, Kind=")
        config = self._checked(place, config)
        if config["metadata"].get("managedFields"):
            raise status.bad_request("metadata.managedFields must be nil")
        config["metadata"].pop("managedFields", None)
        live = self.store.get(place.resource, place.namespace, place.name)
        version = config["metadata"].get("resourceVersion")
        if live is None:
            if place.subresource:
                raise status.not_found(place.resource, place.name)
            if version:
                raise status.modified(place.resource, place.name)
            namespace, name = place.namespace, place.name
            self.faults.authorize(Target("create", place.resource, namespace=namespace, name=name))
            value = ownership.applied(None, config, write.manager)
            return self._store_new(place, value, write, _owners(value)), True
        if version and version != live["metadata"]["resourceVersion"]:
            raise status.modified(place.resource, place.name)
        value = ownership.applied(
            live, config, write.manager, force=write.force, subresource=place.subresource
        )
        owners = _owners(value)
        return self._store_changed(place, live, value, write, owners), False

    def _checked(self, place: Place, value: Any) -> Object:
        """A copy of a body of a request, with the name and namespace of its path."""
        resource = place.resource
        if not isinstance(value, dict) or not value.get("kind") or not value.get("apiVersion"):
            missing = (
                "Kind" if not isinstance(value, dict) or not value.get("kind") else "apiVersion"
            )
            raise status.bad_request(f"Object '{missing}' is missing in '{_shown(value)}'")
        found = clone(value)
        kind = resource.kind
        if found["kind"] != kind:
            version, group = found["apiVersion"].rpartition("/")[2], resource.group or "core"
            raise status.bad_request(
                f'{found["kind"]} in version "{version}" cannot be handled as a {kind}: '
                f"converting ({version}.{found['kind']}) to ({group.partition('.')[0]}.{kind}): "
                "unknown conversion"
            )
        if kind != "Scale" and found["apiVersion"] != resource.api_version:
            raise status.bad_request(
                f"the API version in the data ({found['apiVersion']}) does not match the expected "
                f"API version ({resource.api_version})"
            )
        metadata = found.setdefault("metadata", {})
        for name in [name for name, part in metadata.items() if part is None]:
            del metadata[name]
        if resource.namespaced:
            if metadata.setdefault("namespace", place.namespace) != place.namespace:
                raise status.bad_request(
                    "the namespace of the provided object does not match the namespace sent on "
                    "the request"
                )
        else:
            metadata.pop("namespace", None)
        if place.name and metadata.setdefault("name", place.name) != place.name:
            raise status.bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the URL "
                f"({place.name})"
            )
        return found

    def _live(self, place: Place) -> Object:
        found = self.store.get(place.resource, place.namespace, place.name)
        if found is None:
            raise status.not_found(place.resource, place.name)
        return found

    def suffix(self) -> str:
        """Five characters for a generated name."""
        return "".join(self._random.choices(_SUFFIX, k=5))

    def _store_new(
        self, place: Place, value: Object, write: Write, owners: list[Object] | None
    ) -> Object:
        resource = place.resource
        value = clone(value)
        metadata = value["metadata"]
        if resource.plural not in {"nodes", "resourcequotas", "persistentvolumes"}:
            value.pop("status", None)
        for name in ("resourceVersion", "deletionTimestamp", "selfLink", "managedFields"):
            metadata.pop(name, None)
        metadata["uid"] = str(uuid.uuid4())
        defaults.fill(value)
        metadata["creationTimestamp"] = now()
        if resource.generation:
            metadata["generation"] = 1
        with self.store:
            admission.admit_home(self.store, resource, value)
            self.faults.admit(
                Target("create", resource, namespace=place.namespace, name=metadata["name"])
            )
            if self.store.get(resource, place.namespace, metadata["name"]) is not None:
                raise status.already_exists(resource, metadata["name"])
            validation.check_new(resource, value)
            admission.admit(self.store, resource, value)
            if owners is None:
                value = ownership.written(None, value, write.manager)
            elif owners:
                metadata["managedFields"] = owners
            defaults.allocate(value)
            if write.dry_run:
                return value
            stored = self.store.put(resource, value)
            if resource is NAMESPACES:
                for namespace, quota in self.quotas:
                    if namespace in {None, metadata["name"]}:
                        self.create(Place(QUOTAS, metadata["name"]), quota, Write("admin"))
            return stored

    def _store_changed(
        self,
        place: Place,
        live: Object,
        value: Object,
        write: Write,
        owners: list[Object] | None = None,
    ) -> Object:
        resource, name = place.resource, place.name
        value = clone(value)
        kept = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "namespace",
                "deletionGracePeriodSeconds")  # fmt: skip
        for field in kept:
            value["metadata"].pop(field, None)
            if field in live["metadata"]:
                value["metadata"][field] = live["metadata"][field]
        if place.subresource == "status":
            value = live | {"status": value.get("status", {})} | _metadata(live, value)
        elif "status" in resource.subresources:
            value["status"] = live.get("status", {})
        value["metadata"] = {
            **{field: part for field, part in value["metadata"].items() if part is not None},
            "managedFields": _owners(live),
        }
        defaults.fill(value)
        defaults.allocate(value)
        self.faults.admit(Target("update", resource, "", place.namespace, name))
        if place.subresource != "status":
            validation.check_change(resource, live, value)
            if resource.generation and value.get("spec") != live.get("spec"):
                value["metadata"]["generation"] = live["metadata"]["generation"] + 1
        if owners is None:
            subresource = place.subresource
            value = ownership.written(live, value, write.manager, subresource=subresource)
        else:
            value["metadata"]["managedFields"] = owners
        if write.dry_run:
            return value
        done = "deletionTimestamp" in live["metadata"] and not value["metadata"].get("finalizers")
        if done and resource is not PODS and resource is not NAMESPACES:
            self.store.remove(resource, place.namespace, name)
            return value
        return self.store.put(resource, value)

    def delete(self, place: Place, options: Object, write: Write) -> Object:
        """Delete one object; returns the object if it lingers or as its kind does, or a Status."""
        with self.store:
            live = self._live(place)
            _check_preconditions(place, live, options.get("preconditions") or {})
            self.faults.admit(Target("delete", place.resource, "", place.namespace, place.name))
            if write.dry_run:
                return live
            policy = options.get("propagationPolicy") or _old_policy(options)
            if policy is None:
                policy = "Orphan" if place.resource.orphans else "Background"
            return self._delete(place, live, policy, options.get("gracePeriodSeconds"))

    def _delete(self, place: Place, live: Object, policy: str, grace: int | None) -> Object:
        resource = place.resource
        value = clone(live)
        metadata = value["metadata"]
        finalizers = set(metadata.get("finalizers", []))
        if policy == "Foreground":
            finalizers.add("foregroundDeletion")
        elif policy == "Orphan":
            finalizers.add("orphan")
        if resource is NAMESPACES:
            if "deletionTimestamp" not in metadata:
                metadata["deletionTimestamp"] = now()
                value["status"] = value.get("status", {}) | {"phase": "Terminating"}
            return self.store.put(resource, value)
        if resource is PODS:
            spec, phase = value["spec"], value["status"].get("phase")
            if grace is None:
                grace = int(spec["terminationGracePeriodSeconds"])
            if not spec.get("nodeName") or phase in {"Succeeded", "Failed"}:
                grace = 0
            before = metadata.get("deletionGracePeriodSeconds", grace)
            if "deletionTimestamp" not in metadata:
                metadata["deletionTimestamp"] = now()
                metadata["generation"] += 1
            metadata["deletionGracePeriodSeconds"] = min(before, grace)
            if finalizers:
                metadata["finalizers"] = sorted(finalizers)
            stored = self.store.put(resource, value)
            if grace > 0 or finalizers:
                return stored
        elif finalizers:
            if "deletionTimestamp" not in metadata:
                metadata["deletionTimestamp"] = now()
                metadata["deletionGracePeriodSeconds"] = 0
                metadata["finalizers"] = sorted(finalizers)
                if resource.generation:
                    metadata["generation"] += 1
            return self.store.put(resource, value)
        last = self.store.remove(resource, place.namespace, place.name)
        assert last is not None
        return last if resource.returned else status.success(resource, last)

    def delete_all(
        self, place: Place, options: Object, match: Callable[[Object], bool], write: Write
    ) -> list[Object]:
        """Delete a collection; returns what was in it."""
        with self.store:
            found = self.store.all(place.resource, place.namespace, match)
            for each in found:
                namespace = each["metadata"].get("namespace", "")
                one = place._replace(namespace=namespace, name=each["metadata"]["name"])
                self.delete(one, options, write)
            return found

    def edit(self, place: Place, change: Callable[[Object], None]) -> Object | None:
        """Change an object as the server's own parts do; None if it is not there any more.

        ``change`` gets a copy. A deletion that waited for what it changed takes place.
        """
        with self.store:
            live = self.store.get(place.resource, place.namespace, place.name)
            if live is None:
                return None
            value = clone(live)
            change(value)
            lingering = value["metadata"].get("finalizers")
            gone = "deletionTimestamp" in value["metadata"] and not lingering
            if gone and place.resource not in {PODS, NAMESPACES}:
                return self.store.remove(place.resource, place.namespace, place.name)
            return self.store.put(place.resource, value)


def _owners(value: Object) -> list[Object]:
    owners: list[Object] = value["metadata"].get("managedFields") or []
    return owners


def _typed(place: Place, value: Any) -> Any:
    """A body that does not say what it is, is what its path says."""
    if not isinstance(value, dict):
        return value
    return {"kind": place.resource.kind, "apiVersion": place.resource.api_version} | value


def _metadata(live: Object, value: Object) -> Object:
    """A write of a status changes no more of the metadata than its owners."""
    return {"metadata": dict(live["metadata"])}


def _old_policy(options: Object) -> str | None:
    orphan = options.get("orphanDependents")
    return None if orphan is None else "Orphan" if orphan else "Background"


def _check_preconditions(place: Place, live: Object, preconditions: Object) -> None:
    for field, name in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        wanted, found = preconditions.get(field), live["metadata"][field]
        if wanted and wanted != found:
            raise status.precondition(place.resource, place.name, name, wanted, found)


def _shown(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
