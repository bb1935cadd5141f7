"""The controllers that make pods: stateful sets and jobs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Final

from tests.api_server.events import Recorder
from tests.api_server.kubelet import is_ready
from tests.api_server.registry import Place, Registry, Write
from tests.api_server.resources import (
    CLAIMS,
    JOBS,
    PODS,
    REVISIONS,
    STATEFUL_SETS,
    Object,
    Resource,
    clone,
    key_of,
    labels_of,
    now,
    owned_by,
    owner_of,
)
from tests.api_server.status import Refusal
from tests.api_server.store import Store

_MANAGER: Final = Write(manager="kube-controller-manager")
_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
_HASH: Final = "controller-revision-hash"


def _hash(template: Object) -> str:
    digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).digest()
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:9])


class _Controller:
    """What the controllers share."""

    def __init__(self, registry: Registry, record: Recorder) -> None:
        self._registry = registry
        self._store: Store = registry.store
        self._record = record

    def _all(self, resource: Resource) -> list[Object]:
        return [
            value
            for value in self._store.all(resource)
            if "deletionTimestamp" not in value["metadata"]
        ]

    def _owned(self, resource: Resource, owner: Object) -> list[Object]:
        uid = owner["metadata"]["uid"]
        namespace = owner["metadata"]["namespace"]
        return self._store.all(
            resource, namespace, lambda value: (owner_of(value) or {}).get("uid") == uid
        )

    def _make(self, resource: Resource, value: Object) -> Object:
        namespace = value["metadata"]["namespace"]
        return self._registry.create(Place(resource, namespace), value, _MANAGER)

    def _delete(self, resource: Resource, value: Object) -> None:
        self._registry.delete(Place(resource, *key_of(value)), {}, _MANAGER)

    def _pod(self, owner: Object, template: Object, name: Object, labels: Object) -> Object:
        metadata = clone(template.get("metadata", {}))
        metadata |= {"namespace": owner["metadata"]["namespace"]} | name
        metadata["labels"] = metadata.get("labels", {}) | labels
        metadata["ownerReferences"] = [owned_by(owner)]
        spec = clone(template["spec"])
        return {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec}

    def _set_status(self, resource: Resource, value: Object, status: Object) -> None:
        def change(value: Object) -> None:
            value["status"] = status

        self._registry.edit(Place(resource, *key_of(value)), change)


class StatefulSets(_Controller):
    """Pods with names and volumes of their own, in order or in parallel, replaced one by one."""

    def sync(self) -> None:
        for each in self._all(STATEFUL_SETS):
            self._sync(each)

    def _sync(self, owner: Object) -> None:
        spec, name = owner["spec"], owner["metadata"]["name"]
        update = self._revision(owner)
        current = owner["status"].get("currentRevision") or update
        pods = {}
        for pod in self._owned(PODS, owner):
            pods[int(pod["metadata"]["name"].rpartition("-")[2])] = pod
        self._report(owner, pods, current, update)
        in_order = spec["podManagementPolicy"] == "OrderedReady"
        strategy = spec["updateStrategy"]
        partition = strategy.get("rollingUpdate", {}).get("partition", 0)
        for ordinal in range(spec["replicas"]):
            found = pods.get(ordinal)
            if found is None:
                revision = update if ordinal >= partition else current
                if not self._create(owner, ordinal, revision) or in_order:
                    return
            elif found["status"].get("phase") in {"Failed", "Succeeded"}:
                where = f"{owner['metadata']['namespace']}/{name}"
                self._record.warn(
                    owner,
                    "RecreatingFailedPod",
                    f"StatefulSet {where} is recreating failed Pod {found['metadata']['name']}",
                    "statefulset-controller",
                )
                self._remove(owner, found)
            elif in_order and not is_ready(found):
                return
        for ordinal in sorted(pods, reverse=True):
            leaving = "deletionTimestamp" in pods[ordinal]["metadata"]
            if ordinal >= spec["replicas"]:
                if not leaving:
                    self._remove(owner, pods[ordinal])
                if in_order:
                    return
        if strategy["type"] != "RollingUpdate":
            return
        for ordinal in reversed(range(partition, spec["replicas"])):
            found = pods.get(ordinal)
            if found is None or "deletionTimestamp" in found["metadata"]:
                return
            if labels_of(found)[_HASH] != update:
                self._remove(owner, found)
                return
            if not is_ready(found):
                return

    def _revision(self, owner: Object) -> str:
        """The name of the revision of the present template; stored if it is new."""
        namespace, name = key_of(owner)
        template = owner["spec"]["template"]
        revision = f"{name}-{_hash(template)}"
        there = self._store.get(REVISIONS, namespace, revision)
        if there is not None and (owner_of(there) or {}).get("uid") != owner["metadata"]["uid"]:
            # That of a set of the same name which was just deleted; told apart by collisionCount.
            revision = f"{name}-{_hash({**template, 'collision': owner['metadata']['uid']})}"
        known = self._owned(REVISIONS, owner)
        found = next((each for each in known if each["metadata"]["name"] == revision), None)
        newest = max((each["revision"] for each in known), default=0)
        if found is None:
            self._make(
                REVISIONS,
                {
                    "kind": "ControllerRevision",
                    "apiVersion": "apps/v1",
                    "metadata": {
                        "name": revision,
                        "namespace": namespace,
                        "labels": labels_of({"metadata": template.get("metadata", {})}),
                        "ownerReferences": [owned_by(owner)],
                    },
                    "data": {"spec": {"template": template | {"$patch": "replace"}}},
                    "revision": newest + 1,
                },
            )
        elif found["revision"] != newest:
            self._store.put(REVISIONS, found | {"revision": newest + 1})
        return revision

    def _create(self, owner: Object, ordinal: int, revision: str) -> bool:
        """Whether the pod and its claims are there now."""
        namespace, name = key_of(owner)
        spec, pod_name = owner["spec"], f"{name}-{ordinal}"
        template = spec["template"]
        for each in self._owned(REVISIONS, owner):
            if each["metadata"]["name"] == revision:
                template = each["data"]["spec"]["template"]
        pod = self._pod(
            owner,
            template,
            {"name": pod_name, "generateName": f"{name}-"},
            {
                "statefulset.kubernetes.io/pod-name": pod_name,
                "apps.kubernetes.io/pod-index": str(ordinal),
                _HASH: revision,
            },
        )
        pod["spec"] |= {"hostname": pod_name}
        if spec.get("serviceName"):
            pod["spec"]["subdomain"] = spec["serviceName"]
        for claim in spec.get("volumeClaimTemplates", []):
            own = f"{claim['metadata']['name']}-{pod_name}"
            pod["spec"].setdefault("volumes", []).insert(
                0,
                {
                    "name": claim["metadata"]["name"],
                    "persistentVolumeClaim": {"claimName": own},
                },
            )
            there = self._store.get(CLAIMS, namespace, own) is not None
            if not there and not self._create_claim(owner, claim, own, pod_name):
                return False
        done = f"Create Pod {pod_name} in StatefulSet {name}"
        try:
            self._make(PODS, pod)
        except Refusal as refusal:
            failed = f"{done} failed error: {refusal.message}"
            self._record.warn(owner, "FailedCreate", failed, "statefulset-controller")
            return False
        successful = f"{done} successful"
        self._record.normal(owner, "SuccessfulCreate", successful, "statefulset-controller")
        return True

    def _create_claim(self, owner: Object, template: Object, name: str, pod: str) -> bool:
        namespace, set_name = key_of(owner)
        claim = clone(template)
        claim.pop("status", None)
        labels = claim["metadata"].get("labels", {}) | owner["spec"]["selector"].get(
            "matchLabels", {}
        )
        claim["metadata"] |= {"name": name, "namespace": namespace, "labels": labels}
        done = f"Create Claim {name} Pod {pod} in StatefulSet {set_name}"
        try:
            self._make(CLAIMS, claim)
        except Refusal as refusal:
            failed = f"{done} failed error: {refusal.message}"
            self._record.warn(owner, "FailedCreate", failed, "statefulset-controller")
            return False
        success = f"{done} success"
        self._record.normal(owner, "SuccessfulCreate", success, "statefulset-controller")
        return True

    def _remove(self, owner: Object, pod: Object) -> None:
        self._delete(PODS, pod)
        done = f"Delete Pod {pod['metadata']['name']} in StatefulSet {owner['metadata']['name']}"
        self._record.normal(
            owner, "SuccessfulDelete", f"{done} successful", "statefulset-controller"
        )

    def _report(self, owner: Object, pods: dict[int, Object], current: str, update: str) -> None:
        there = list(pods.values())
        ready = sum(is_ready(pod) for pod in there)
        staying = [pod for pod in there if "deletionTimestamp" not in pod["metadata"]]
        of = [labels_of(pod).get(_HASH) for pod in staying]
        whole = len(staying) == len(there) == ready == owner["spec"]["replicas"]
        if whole and set(of) <= {update}:
            current = update
        status = {
            "observedGeneration": owner["metadata"]["generation"],
            "replicas": len(there),
            "availableReplicas": ready,
            "currentRevision": current,
            "updateRevision": update,
            "collisionCount": 0,
        }
        counts = {
            "readyReplicas": ready,
            "currentReplicas": of.count(current),
            "updatedReplicas": of.count(update),
        }
        # A count of none is left out, as Go does.
        self._set_status(
            STATEFUL_SETS, owner, status | {key: each for key, each in counts.items() if each}
        )


class Jobs(_Controller):
    """Pods that run until enough have succeeded, or too many have failed."""

    def sync(self) -> None:
        for each in self._all(JOBS):
            self._sync(each)

    def _sync(self, owner: Object) -> None:
        spec, status, name = owner["spec"], owner["status"], owner["metadata"]["name"]
        if status.get("completionTime") or any(
            each["type"] == "Failed" for each in status.get("conditions", [])
        ):
            return
        pods = self._owned(PODS, owner)
        phases = [pod["status"].get("phase") for pod in pods]
        succeeded, failed = phases.count("Succeeded"), phases.count("Failed")
        fatal = _fatal(spec, pods)
        active = len(pods) - succeeded - failed
        new: Object = {"startTime": status.get("startTime", now())}
        counts = {
            "active": active,
            "ready": sum(is_ready(pod) for pod in pods),
            "succeeded": succeeded,
            "failed": failed,
        }
        new |= {key: each for key, each in counts.items() if each or key == "ready"}
        new |= {"terminating": 0, "uncountedTerminatedPods": {}}
        wanted = spec["completions"] or 1
        if succeeded >= wanted:
            new["completionTime"] = now()
            new["conditions"] = [
                _of_job("SuccessCriteriaMet", "CompletionsReached", "Reached expected number of "
                        "succeeded pods"),
                _of_job("Complete", "CompletionsReached", "Reached expected number of succeeded "
                        "pods"),
            ]  # fmt: skip
            self._record.normal(owner, "Completed", "Job completed", "job-controller")
        elif fatal:
            new["conditions"] = [
                _of_job("FailureTarget", "PodFailurePolicy", fatal),
                _of_job("Failed", "PodFailurePolicy", fatal),
            ]
            self._record.warn(owner, "PodFailurePolicy", fatal, "job-controller")
        elif failed > spec["backoffLimit"]:
            limit = "Job has reached the specified backoff limit"
            new["conditions"] = [_of_job("Failed", "BackoffLimitExceeded", limit)]
            self._record.warn(owner, "BackoffLimitExceeded", limit, "job-controller")
        else:
            missing = min(spec["parallelism"], wanted - succeeded) - active
            for _ in range(missing if not spec["suspend"] else 0):
                made = self._pod(owner, spec["template"], {"generateName": f"{name}-"}, {})
                if not _create_pod(self._record, owner, made, self._make, "job-controller"):
                    break
        self._set_status(JOBS, owner, new)


def _fatal(spec: Object, pods: list[Object]) -> str:
    """Why no pod is tried again, by the rules of ``podFailurePolicy``; empty if one is."""
    for number, rule in enumerate((spec.get("podFailurePolicy") or {}).get("rules", ())):
        asked = rule.get("onExitCodes")
        if rule["action"] != "FailJob" or asked is None:
            continue
        for pod in pods:
            for each in pod["status"].get("containerStatuses", ()):
                code = each["state"].get("terminated", {}).get("exitCode", 0)
                if code and (code in asked["values"]) == (asked["operator"] == "In"):
                    where = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
                    return (
                        f"Container {each['name']} for pod {where} failed with exit code {code} "
                        f"matching FailJob rule at index {number}"
                    )
    return ""


def _of_job(kind: str, reason: str, message: str) -> Object:
    condition = {"type": kind, "status": "True", "reason": reason, "message": message}
    return condition | {"lastProbeTime": now(), "lastTransitionTime": now()}


def _create_pod(
    record: Recorder,
    owner: Object,
    pod: Object,
    make: Callable[[Resource, Object], Object],
    component: str,
) -> bool:
    try:
        made = make(PODS, pod)
    except Refusal as refusal:
        record.warn(owner, "FailedCreate", f"Error creating: {refusal.message}", component)
        return False
    record.normal(owner, "SuccessfulCreate", f"Created pod: {made['metadata']['name']}", component)
    return True
