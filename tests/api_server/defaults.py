"""What the API server fills in when an object is written, for the kinds that a testbed uses.

After the ``defaults.go`` of each group. They matter to a client because what it reads back is not
what it sent, and to an apply because they are nobody's fields.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from typing import Any, Final

from tests.api_server.resources import Object

_addresses = itertools.count(1)


def fill(value: Object) -> None:
    """Set what ``value`` leaves out; changes nothing when called again."""
    kind = value["kind"]
    if kind in _FILLERS:
        _FILLERS[kind](value)


def allocate(value: Object) -> None:
    """Set what the server decides on besides, which is nobody's field; as ``fill`` otherwise."""
    kind, spec = value["kind"], value.get("spec", {})
    if kind == "Namespace":
        _set(value.setdefault("spec", {}), finalizers=["kubernetes"])
    elif kind == "Service":
        if not spec.get("clusterIP"):
            number = next(_addresses)
            spec["clusterIP"] = f"10.96.{number // 250 % 250}.{number % 250 + 2}"
        _set(
            spec,
            clusterIPs=[spec["clusterIP"]],
            ipFamilies=["IPv4"],
            ipFamilyPolicy="SingleStack",
        )
    elif kind == "Pod":
        _set(
            spec,
            preemptionPolicy="PreemptLowerPriority",
            priority=0,
            tolerations=[
                {
                    "key": f"node.kubernetes.io/{trouble}",
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": 300,
                }
                for trouble in ("not-ready", "unreachable")
            ],
        )


def _set(value: Object, **defaults: Any) -> None:
    for name, default in defaults.items():
        value.setdefault(name, default)


def pod_spec(spec: Object) -> None:
    """As in a pod and in every template of one."""
    _set(
        spec,
        restartPolicy="Always",
        terminationGracePeriodSeconds=30,
        dnsPolicy="ClusterFirst",
        securityContext={},
        schedulerName="default-scheduler",
    )
    if "serviceAccountName" in spec:
        spec["serviceAccount"] = spec["serviceAccountName"]
    for container in [*spec.get("initContainers", []), *spec.get("containers", [])]:
        image = container.get("image", "")
        untagged = ":" not in image.rpartition("/")[2]
        always = untagged or image.endswith(":latest")
        _set(
            container,
            terminationMessagePath="/dev/termination-log",
            terminationMessagePolicy="File",
            imagePullPolicy="Always" if always and "@" not in image else "IfNotPresent",
            resources={},
        )
        for port in container.get("ports", []):
            _set(port, protocol="TCP")
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe := container.get(name):
                _set(
                    probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1,
                    failureThreshold=3,
                )  # fmt: skip
                if "grpc" in probe:
                    _set(probe["grpc"], service="")
                if "httpGet" in probe:
                    _set(probe["httpGet"], scheme="HTTP", path="/")
        for variable in container.get("env", []):
            if "fieldRef" in variable.get("valueFrom", {}):
                _set(variable["valueFrom"]["fieldRef"], apiVersion="v1")
    for volume in spec.get("volumes", []):
        for name in ("secret", "configMap", "projected", "downwardAPI"):
            if name in volume:
                _set(volume[name], defaultMode=420)


def _template(spec: Object) -> None:
    template = spec.setdefault("template", {})
    template.setdefault("metadata", {})
    pod_spec(template.setdefault("spec", {}))


def _pod(value: Object) -> None:
    spec = value.setdefault("spec", {})
    pod_spec(spec)
    _set(spec, serviceAccountName="default", serviceAccount="default", enableServiceLinks=True)
    for container in spec.get("containers", []):
        limits = container["resources"].get("limits")
        if limits:
            requests = container["resources"].setdefault("requests", {})
            for name, amount in limits.items():
                requests.setdefault(name, amount)
    value.setdefault("status", {"phase": "Pending", "qosClass": quality(spec)})


def quality(spec: Object) -> str:
    """The pod's quality-of-service class."""
    resources = [container.get("resources") or {} for container in spec.get("containers", [])]
    if not any(each.get("limits") or each.get("requests") for each in resources):
        return "BestEffort"
    whole = all(
        {"cpu", "memory"} <= set(each.get("limits", {}))
        and each.get("requests", each["limits"]) == each["limits"]
        for each in resources
    )
    return "Guaranteed" if whole else "Burstable"


def _stateful_set(value: Object) -> None:
    spec = value.setdefault("spec", {})
    _set(
        spec,
        replicas=1,
        podManagementPolicy="OrderedReady",
        updateStrategy={"type": "RollingUpdate"},
        revisionHistoryLimit=10,
        persistentVolumeClaimRetentionPolicy={"whenDeleted": "Retain", "whenScaled": "Retain"},
    )
    if spec["updateStrategy"].get("type") == "RollingUpdate":
        _set(spec["updateStrategy"].setdefault("rollingUpdate", {}), partition=0)
    _template(spec)
    for claim in spec.get("volumeClaimTemplates", []):
        _set(claim, apiVersion="v1", kind="PersistentVolumeClaim", status={"phase": "Pending"})
        _set(claim["spec"], volumeMode="Filesystem")
    value.setdefault("status", {"replicas": 0, "availableReplicas": 0})


def _job(value: Object) -> None:
    spec = value.setdefault("spec", {})
    _set(
        spec,
        parallelism=1,
        completions=1,
        backoffLimit=6,
        completionMode="NonIndexed",
        suspend=False,
        manualSelector=False,
        podReplacementPolicy="TerminatingOrFailed",
    )
    _template(spec)
    metadata = value["metadata"]
    if "uid" in metadata and "selector" not in spec:
        uid = {"batch.kubernetes.io/controller-uid": metadata["uid"]}
        spec["selector"] = {"matchLabels": uid}
        names = {"batch.kubernetes.io/job-name": metadata["name"], "job-name": metadata["name"]}
        labels = spec["template"]["metadata"].setdefault("labels", {})
        labels.update(uid | names | {"controller-uid": metadata["uid"]})
        if not metadata.get("labels"):
            metadata["labels"] = dict(labels)
    value.setdefault("status", {})


def _service(value: Object) -> None:
    spec = value.setdefault("spec", {})
    _set(spec, type="ClusterIP", sessionAffinity="None", internalTrafficPolicy="Cluster")
    for port in spec.get("ports", []):
        _set(port, protocol="TCP", targetPort=port.get("port"))
    value.setdefault("status", {"loadBalancer": {}})


def _claim(value: Object) -> None:
    _set(value.setdefault("spec", {}), volumeMode="Filesystem", storageClassName="standard")
    if "creationTimestamp" not in value["metadata"]:
        value["metadata"].setdefault("finalizers", ["kubernetes.io/pvc-protection"])
    value.setdefault("status", {"phase": "Pending"})


def _secret(value: Object) -> None:
    value.setdefault("type", "Opaque")
    if texts := value.pop("stringData", None):
        value.setdefault("data", {}).update(
            {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}
        )


def _network_policy(value: Object) -> None:
    spec = value.setdefault("spec", {})
    _set(spec, podSelector={})
    _set(spec, policyTypes=["Ingress", *(["Egress"] if spec.get("egress") else [])])
    for rule in [*spec.get("ingress", []), *spec.get("egress", [])]:
        for port in rule.get("ports", []):
            _set(port, protocol="TCP")


def _namespace(value: Object) -> None:
    metadata = value["metadata"]
    metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = metadata["name"]
    value.setdefault("status", {"phase": "Active"})


def _quota(value: Object) -> None:
    value.setdefault("status", {})


_FILLERS: Final[dict[str, Callable[[Object], None]]] = {
    "Job": _job,
    "Namespace": _namespace,
    "NetworkPolicy": _network_policy,
    "PersistentVolumeClaim": _claim,
    "Pod": _pod,
    "ResourceQuota": _quota,
    "Secret": _secret,
    "Service": _service,
    "StatefulSet": _stateful_set,
}
