"""The controllers that tidy: namespaces, garbage, volumes and quotas."""

from __future__ import annotations

import uuid
from typing import Final

from tests.api_server import admission, quantities
from tests.api_server.events import Recorder
from tests.api_server.registry import Place, Registry, Write
from tests.api_server.resources import (
    CLAIMS,
    EVENTS,
    NAMESPACES,
    PODS,
    QUOTAS,
    RESOURCES,
    SERVICE_ACCOUNTS,
    Object,
    key_of,
    named,
    now,
)
from tests.api_server.status import Refusal

_VOLUMES: Final = named("persistentvolumes")
_CONFIG_MAPS: Final = named("configmaps")
_PROTECTION: Final = "kubernetes.io/pvc-protection"
_MANAGER: Final = Write(manager="kube-controller-manager")


class Namespaces:
    """Furnishes new namespaces, and empties those that are to go before they go."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._store = registry.store

    def sync(self) -> None:
        for each in self._store.all(NAMESPACES):
            if "deletionTimestamp" in each["metadata"]:
                self._empty(each)
            else:
                self._furnish(each["metadata"]["name"])

    def _furnish(self, namespace: str) -> None:
        head: Object = {"apiVersion": "v1", "metadata": {"namespace": namespace}}
        for resource, name, more in (
            (SERVICE_ACCOUNTS, "default", {}),
            (_CONFIG_MAPS, "kube-root-ca.crt", {"data": {"ca.crt": "fake"}}),
        ):
            if self._store.get(resource, namespace, name) is None:
                metadata = {"metadata": {"namespace": namespace, "name": name}}
                value = head | {"kind": resource.kind} | metadata | more
                self._registry.create(Place(resource, namespace), value, _MANAGER)

    def _empty(self, namespace: Object) -> None:
        name = namespace["metadata"]["name"]
        for resource in RESOURCES:
            if resource.namespaced and resource.stored:
                for each in self._store.all(resource, name):
                    if "deletionTimestamp" not in each["metadata"]:
                        place = Place(resource, *key_of(each))
                        options = {"propagationPolicy": "Background"}
                        self._registry.delete(place, options, _MANAGER)
        left = [
            f"{resource.qualified}. has {len(found)} resource instances"
            if not resource.group
            else f"{resource.qualified} has {len(found)} resource instances"
            for resource in RESOURCES
            if resource.namespaced and (found := self._store.all(resource, name))
        ]
        if not left:
            self._store.remove(NAMESPACES, "", name)
            return
        problem = f"Some resources are remaining: {', '.join(left)}"

        def tell(value: Object) -> None:
            old = value["status"].get("conditions") or [{"lastTransitionTime": now()}]
            since = old[0]["lastTransitionTime"]
            value["status"]["conditions"] = [
                {"type": kind, "status": text, "reason": reason, "message": message,
                 "lastTransitionTime": since}
                for kind, text, reason, message in (
                    ("NamespaceDeletionDiscoveryFailure", "False", "ResourcesDiscovered",
                     "All resources successfully discovered"),
                    ("NamespaceDeletionContentFailure", "False", "ContentDeleted",
                     "All content successfully deleted, may be waiting on finalization"),
                    ("NamespaceContentRemaining", "True", "SomeResourcesRemain", problem),
                    ("NamespaceFinalizersRemaining", "False", "ContentHasNoFinalizers",
                     "All content-preserving finalizers finished"),
                )
            ]  # fmt: skip

        self._registry.edit(Place(NAMESPACES, "", name), tell)


class Garbage:
    """Deletes what has lost its owner, and carries out foreground deletion and orphaning."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._store = registry.store

    def sync(self) -> None:
        with self._store as store:
            everything = [
                (resource, value)
                for resource in store.resources()
                if resource is not EVENTS
                for value in store.all(resource)
            ]
        owners = {value["metadata"]["uid"]: value for _, value in everything}
        waiting: dict[str, list[Place]] = {}
        for resource, value in everything:
            references = value["metadata"].get("ownerReferences") or []
            place = Place(resource, *key_of(value))
            if not references:
                continue
            there = [each["uid"] for each in references if each["uid"] in owners]
            going = [uid for uid in there if _has(owners[uid], "foregroundDeletion")]
            for uid in there:
                waiting.setdefault(uid, []).append(place)
            if len(going) == len(there) and "deletionTimestamp" not in value["metadata"]:
                policy = "Foreground" if going else "Background"
                self._delete(place, policy)
        for resource, value in everything:
            place, uid = Place(resource, *key_of(value)), value["metadata"]["uid"]
            if _has(value, "orphan"):
                for each in waiting.get(uid, []):
                    self._disown(each, uid)
                self._finish(place, "orphan")
            elif _has(value, "foregroundDeletion") and uid not in waiting:
                self._finish(place, "foregroundDeletion")

    def _delete(self, place: Place, policy: str) -> None:
        try:
            self._registry.delete(place, {"propagationPolicy": policy}, _MANAGER)
        except Refusal as refusal:
            if refusal.code != 404:
                raise

    def _disown(self, place: Place, uid: str) -> None:
        def change(value: Object) -> None:
            value["metadata"]["ownerReferences"] = [
                each for each in value["metadata"].get("ownerReferences", []) if each["uid"] != uid
            ]

        self._registry.edit(place, change)

    def _finish(self, place: Place, finalizer: str) -> None:
        def change(value: Object) -> None:
            left = [each for each in value["metadata"]["finalizers"] if each != finalizer]
            value["metadata"]["finalizers"] = left

        self._registry.edit(place, change)


class Claims:
    """Binds claims to volumes, keeps them while a pod uses them, and frees the volumes."""

    def __init__(self, registry: Registry, record: Recorder) -> None:
        self._registry = registry
        self._store = registry.store
        self._record = record
        self.binding = True

    def sync(self) -> None:
        for claim in self._store.all(CLAIMS):
            if "deletionTimestamp" in claim["metadata"]:
                self._release(claim)
            elif claim["status"].get("phase") == "Pending" and self.binding:
                self._bind(claim)
        for volume in self._store.all(_VOLUMES):
            reference = volume["spec"].get("claimRef", {})
            found = self._store.get(
                CLAIMS, reference.get("namespace", ""), reference.get("name", "")
            )
            if reference and found is None:
                self._store.remove(_VOLUMES, "", volume["metadata"]["name"])

    def _bind(self, claim: Object) -> None:
        namespace, name = key_of(claim)
        volume = f"pvc-{claim['metadata']['uid']}"
        spec = claim["spec"]
        capacity = {"storage": spec["resources"]["requests"]["storage"]}
        self._store.put(
            _VOLUMES,
            {
                "kind": "PersistentVolume",
                "apiVersion": "v1",
                "metadata": {
                    "name": volume,
                    "uid": str(uuid.uuid4()),
                    "creationTimestamp": now(),
                },
                "spec": {
                    "accessModes": spec["accessModes"],
                    "capacity": capacity,
                    "claimRef": {
                        "kind": "PersistentVolumeClaim",
                        "apiVersion": "v1",
                        "namespace": namespace,
                        "name": name,
                        "uid": claim["metadata"]["uid"],
                    },
                    "persistentVolumeReclaimPolicy": "Delete",
                    "storageClassName": spec["storageClassName"],
                    "volumeMode": spec["volumeMode"],
                },
                "status": {"phase": "Bound"},
            },
        )

        def change(value: Object) -> None:
            value["spec"]["volumeName"] = volume
            value["status"] = {
                "phase": "Bound",
                "accessModes": spec["accessModes"],
                "capacity": capacity,
            }

        self._registry.edit(Place(CLAIMS, namespace, name), change)
        self._record.normal(
            claim,
            "ProvisioningSucceeded",
            f"Successfully provisioned volume {volume}",
            "persistentvolume-controller",
        )

    def _release(self, claim: Object) -> None:
        namespace, name = key_of(claim)
        used = any(
            volume.get("persistentVolumeClaim", {}).get("claimName") == name
            for pod in self._store.all(PODS, namespace)
            for volume in pod["spec"].get("volumes", [])
        )
        if used or not _has(claim, _PROTECTION):
            return

        def change(value: Object) -> None:
            left = [each for each in value["metadata"]["finalizers"] if each != _PROTECTION]
            value["metadata"]["finalizers"] = left

        self._registry.edit(Place(CLAIMS, namespace, name), change)


class Quotas:
    """Writes into each quota what is used of it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._store = registry.store

    def sync(self) -> None:
        for quota in self._store.all(QUOTAS):
            namespace, name = key_of(quota)
            hard = quota["spec"].get("hard", {})
            used = {
                each: quantities.show(amount, str(hard[each]))
                for each, amount in admission.total(self._store, namespace, hard).items()
            }

            def change(value: Object, hard: Object = hard, used: Object = used) -> None:
                value["status"] = {"hard": hard, "used": used}

            self._registry.edit(Place(QUOTAS, namespace, name), change)


def _has(value: Object, finalizer: str) -> bool:
    metadata = value["metadata"]
    return "deletionTimestamp" in metadata and finalizer in metadata.get("finalizers", [])
