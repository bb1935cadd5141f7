"""The scheduler and the kubelet: what pods go through, one step at a time.

A pod goes Pending, scheduled, creating, running, ready, as far as the state that is switched for
it lets it. Every step is a version of its own, so a watch sees them all.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from tests.api_server.events import NODE, Recorder
from tests.api_server.logs import Logs
from tests.api_server.portforward import Routes
from tests.api_server.registry import Place, Registry
from tests.api_server.resources import (
    CLAIMS,
    PODS,
    Object,
    key_of,
    labels_of,
    named,
    now,
)

PodState: TypeAlias = Literal[
    "ready",
    "running",
    "unschedulable",
    "stuck-creating",
    "image-pull-backoff",
    "crash-loop",
    "succeeded",
    "failed",
    "stuck-terminating",
]
"""How far pods get. ``running`` is not ready; ``stuck-terminating`` is ready until deleted."""

STATES: Final[tuple[str, ...]] = get_args(PodState)

_ORDER: Final = (
    "DisruptionTarget",
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
)

_SECRETS: Final = named("secrets")
_CONFIG_MAPS: Final = named("configmaps")


class Rule(NamedTuple):
    """The state of the pods that have these labels (all in ``namespace``, or everywhere)."""

    state: PodState
    namespace: str | None
    labels: dict[str, str]
    after_s: float
    exit_code: int = 1
    """That of a pod that is ``failed``."""

    def covers(self, pod: Object) -> bool:
        return (
            self.namespace in {None, pod["metadata"]["namespace"]}
            and self.labels.items() <= labels_of(pod).items()
        )


class Kubelet:
    """Moves every pod by at most one step per ``sync``."""

    def __init__(self, registry: Registry, record: Recorder, logs: Logs, routes: Routes) -> None:
        self._registry = registry
        self._store = registry.store
        self._record = record
        self._logs = logs
        self._routes = routes
        self._rules = [Rule("ready", None, {}, 0.0)]
        self._seen: dict[str, float] = {}
        self._addresses = itertools.count(2)

    def become(self, rule: Rule) -> None:
        """From now on; a later rule goes before an earlier one."""
        with self._store:
            self._rules.insert(0, rule)
            self._store.poke()

    def sync(self) -> float | None:
        """Move the pods on; returns when the next one is due by ``time.monotonic``, if one is."""
        due = [self._step(pod) for pod in self._store.all(PODS)]
        return min((each for each in due if each is not None), default=None)

    def kill_container(self, namespace: str, name: str, reason: str, exit_code: int) -> None:
        """End the containers of a running pod; they are restarted.

        Raises: KeyError: it has none that run.
        """
        pod = self._store.get(PODS, namespace, name)
        if pod is None or not _containers(pod, "running"):
            raise KeyError(f"{namespace}/{name} is not running")
        self._edit(pod, lambda value: _restarted(value, reason, exit_code))
        self._restart_logs(pod)

    def _rule(self, pod: Object) -> Rule:
        return next(rule for rule in self._rules if rule.covers(pod))

    def _step(self, pod: Object) -> float | None:
        rule, spec, status = self._rule(pod), pod["spec"], pod["status"]
        metadata = pod["metadata"]
        if "deletionTimestamp" in metadata:
            self._terminate(pod, rule)
        elif status.get("phase") in {"Succeeded", "Failed"}:
            self._logs.end(metadata["uid"])
        elif not spec.get("nodeName"):
            self._schedule(pod, rule)
        elif not status.get("containerStatuses"):
            self._edit(pod, _accepted)
        elif _containers(pod, "waiting"):
            return self._start(pod, rule)
        elif _containers(pod, "running"):
            self._run(pod, rule)
        return None

    def _schedule(self, pod: Object, rule: Rule) -> None:
        namespace, name = key_of(pod)
        problem = None
        if rule.state == "unschedulable":
            problem = (
                "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, "
                "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
            )
        for volume in pod["spec"].get("volumes", []):
            if claim := volume.get("persistentVolumeClaim", {}).get("claimName"):
                found = self._store.get(CLAIMS, namespace, claim)
                if found is None:
                    problem = (
                        f'0/1 nodes are available: persistentvolumeclaim "{claim}" not found. '
                        "not found"
                    )
                elif found["status"].get("phase") != "Bound":
                    problem = (
                        "0/1 nodes are available: pod has unbound immediate "
                        "PersistentVolumeClaims. not found"
                    )
        if problem is not None:
            why = problem
            self._edit(
                pod,
                lambda value: _condition(value, "PodScheduled", False, "Unschedulable", why),
            )
            self._record.warn(pod, "FailedScheduling", problem, "default-scheduler")
            return

        def bind(value: Object) -> None:
            value["spec"]["nodeName"] = NODE
            _condition(value, "PodScheduled", True)

        self._edit(pod, bind)
        self._record.normal(
            pod,
            "Scheduled",
            f"Successfully assigned {namespace}/{name} to {NODE}",
            "default-scheduler",
        )

    def _start(self, pod: Object, rule: Rule) -> float | None:
        """Containers that wait: let them run, or say why they cannot."""
        uid = pod["metadata"]["uid"]
        seen = self._seen.setdefault(uid, time.monotonic())
        restarted = any(each["restartCount"] for each in pod["status"]["containerStatuses"])
        if rule.state == "crash-loop" and restarted:
            return None
        if rule.state == "stuck-creating":
            return None
        if (lacking := self._lacking_volume(pod)) is not None:
            self._record.warn(pod, "FailedMount", lacking, "kubelet")
            return None
        if rule.state == "image-pull-backoff" and not restarted:
            self._fail_pull(pod)
            return None
        if (lacking := self._lacking_variable(pod)) is not None:
            why = lacking
            self._make_sandbox(pod)
            self._edit(pod, lambda value: _wait(value, "CreateContainerConfigError", why))
            self._record.warn(pod, "Failed", f"Error: {lacking}", "kubelet")
            return None
        if not restarted and time.monotonic() < seen + rule.after_s:
            return seen + rule.after_s
        for container in pod["spec"]["containers"]:
            image = container["image"]
            there = f'Container image "{image}" already present on machine'
            self._record.normal(pod, "Pulled", f"{there} and can be accessed by the pod", "kubelet")
            self._record.normal(pod, "Created", "Container created", "kubelet")
            self._record.normal(pod, "Started", "Container started", "kubelet")
        self._make_sandbox(pod)
        self._edit(pod, _started)
        return None

    def _make_sandbox(self, pod: Object) -> None:
        """Give the pod its address, which is before its containers run."""
        if pod["status"].get("podIP"):
            return
        number = next(self._addresses)
        address = f"10.244.{number // 250}.{number % 250}"

        def change(value: Object) -> None:
            value["status"] |= {"podIP": address, "podIPs": [{"ip": address}]}
            _condition(value, "PodReadyToStartContainers", True)

        self._edit(pod, change)

    def _run(self, pod: Object, rule: Rule) -> None:
        """Running containers: ready or not, or ended."""
        if rule.state in {"ready", "stuck-terminating", "running"}:
            ready = rule.state != "running"
            if not ready:
                self._record.warn(
                    pod,
                    "Unhealthy",
                    'Readiness probe failed: service unhealthy (responded with "NOT_SERVING")',
                    "kubelet",
                )
            self._edit(pod, lambda value: _made_ready(value, ready))
        elif rule.state == "crash-loop" or (
            rule.state in {"succeeded", "failed"} and pod["spec"]["restartPolicy"] == "Always"
        ):
            namespace, name = key_of(pod)
            container = pod["spec"]["containers"][0]["name"]
            where = f"{name}_{namespace}({pod['metadata']['uid']})"

            def crash(value: Object) -> None:
                code = 0 if rule.state == "succeeded" else 1
                _restarted(value, "Completed" if code == 0 else "Error", code)
                _wait(
                    value,
                    "CrashLoopBackOff",
                    f"back-off 10s restarting failed container={container} pod={where}",
                )

            self._edit(pod, crash)
            self._restart_logs(pod)
            message = f"Back-off restarting failed container {container} in pod {where}"
            self._record.warn(pod, "BackOff", message, "kubelet")
        elif rule.state in {"succeeded", "failed"}:
            failed = rule.state == "failed"
            self._edit(pod, lambda value: _ended(value, rule.exit_code if failed else 0))

    def _terminate(self, pod: Object, rule: Rule) -> None:
        namespace, name = key_of(pod)
        if rule.state == "stuck-terminating" and pod["metadata"]["deletionGracePeriodSeconds"]:
            return
        if _containers(pod, "running"):
            for container in pod["spec"]["containers"]:
                stopping = f"Stopping container {container['name']}"
                self._record.normal(pod, "Killing", stopping, "kubelet")
        self._logs.end(pod["metadata"]["uid"])
        self._routes.cut(namespace, name)
        if not pod["metadata"].get("finalizers"):
            self._store.remove(PODS, namespace, name)

    def _fail_pull(self, pod: Object) -> None:
        image = pod["spec"]["containers"][0]["image"]
        error = (
            f'failed to pull and unpack image "{image}": failed to resolve image: {image}: not '
            "found"
        )
        waiting = pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
        if waiting == "ImagePullBackOff":
            return
        if waiting == "ErrImagePull":
            back_off = f'Back-off pulling image "{image}"'
            self._edit(
                pod,
                lambda value: _wait(
                    value, "ImagePullBackOff", f"{back_off}: ErrImagePull: {error}"
                ),
            )
            self._record.normal(pod, "BackOff", back_off, "kubelet")
            self._record.warn(pod, "Failed", "Error: ImagePullBackOff", "kubelet")
            return
        self._make_sandbox(pod)
        self._edit(pod, lambda value: _wait(value, "ErrImagePull", error))
        self._record.normal(pod, "Pulling", f'Pulling image "{image}"', "kubelet")
        self._record.warn(pod, "Failed", f'Failed to pull image "{image}": {error}', "kubelet")
        self._record.warn(pod, "Failed", "Error: ErrImagePull", "kubelet")

    def _lacking_volume(self, pod: Object) -> str | None:
        namespace = pod["metadata"]["namespace"]
        mounted = {
            mount["name"]
            for container in pod["spec"]["containers"]
            for mount in container.get("volumeMounts", [])
        }
        for volume in pod["spec"].get("volumes", []):
            if volume["name"] not in mounted:
                continue
            for kind, resource, name in (
                ("secret", _SECRETS, volume.get("secret", {}).get("secretName")),
                ("configmap", _CONFIG_MAPS, volume.get("configMap", {}).get("name")),
            ):
                source = volume.get("secret") or volume.get("configMap") or {}
                if not name or source.get("optional"):
                    continue
                found = self._store.get(resource, namespace, name)
                failed = f'MountVolume.SetUp failed for volume "{volume["name"]}" : '
                if found is None:
                    return f'{failed}{kind} "{name}" not found'
                for item in source.get("items", []):
                    if item["key"] not in found.get("data", {}):
                        return f"{failed}references non-existent {kind} key: {item['key']}"
        return None

    def _lacking_variable(self, pod: Object) -> str | None:
        namespace = pod["metadata"]["namespace"]
        for container in pod["spec"]["containers"]:
            for variable in container.get("env", []):
                source = variable.get("valueFrom", {})
                for field, resource in (
                    ("secretKeyRef", _SECRETS),
                    ("configMapKeyRef", _CONFIG_MAPS),
                ):
                    wanted = source.get(field)
                    if not wanted or wanted.get("optional"):
                        continue
                    found = self._store.get(resource, namespace, wanted["name"])
                    kind = resource.kind
                    if found is None:
                        return f'{kind.lower()} "{wanted["name"]}" not found'
                    if wanted["key"] not in found.get("data", {}):
                        where = f"{namespace}/{wanted['name']}"
                        return f"couldn't find key {wanted['key']} in {kind} {where}"
        return None

    def _restart_logs(self, pod: Object) -> None:
        for container in pod["spec"]["containers"]:
            self._logs.restart(pod["metadata"]["uid"], container["name"])

    def _edit(self, pod: Object, change: Callable[[Object], None]) -> None:
        namespace, name = key_of(pod)
        uid = pod["metadata"]["uid"]

        def same_pod(value: Object) -> None:
            if value["metadata"]["uid"] == uid:
                change(value)

        self._registry.edit(Place(PODS, namespace, name), same_pod)


def is_ready(pod: Object) -> bool:
    """Whether a pod is ready and stays."""
    return "deletionTimestamp" not in pod["metadata"] and any(
        each["type"] == "Ready" and each["status"] == "True"
        for each in pod["status"].get("conditions", [])
    )


def evicted(value: Object) -> None:
    """Make a pod one that the kubelet has evicted."""
    names = [container["name"] for container in value["spec"]["containers"]]
    for each in value["status"].get("containerStatuses", []):
        each["state"] = {"terminated": {"exitCode": 137, "reason": "Error", "finishedAt": now()}}
        each |= {"ready": False, "started": False}
    value["status"] |= {
        "phase": "Failed",
        "reason": "Evicted",
        "message": "The node was low on resource: memory. Threshold quantity: 100Mi, available: "
        f"80Mi. Container {names[0]} was using 200Mi, request is 128Mi, has larger consumption of "
        "memory. ",
    }
    _condition(value, "DisruptionTarget", True, "TerminationByKubelet", value["status"]["message"])
    _unready(value, "PodFailed", "")


def _containers(pod: Object, state: str) -> bool:
    return any(state in each["state"] for each in pod["status"].get("containerStatuses", []))


def _accepted(value: Object) -> None:
    """By the kubelet: the containers are being created."""
    spec, status = value["spec"], value["status"]
    status["observedGeneration"] = value["metadata"]["generation"]
    status |= {"startTime": now(), "hostIP": "192.0.2.10", "hostIPs": [{"ip": "192.0.2.10"}]}
    status["containerStatuses"] = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "lastState": {},
            "ready": False,
            "restartCount": 0,
            "started": False,
            "state": {"waiting": {"reason": "ContainerCreating"}},
        }
        for container in spec["containers"]
    ]
    _condition(value, "PodReadyToStartContainers", False)
    _condition(value, "Initialized", True)
    _unready(value)


def _unready(value: Object, reason: str = "ContainersNotReady", message: str | None = None) -> None:
    if message is None:
        names = " ".join(each["name"] for each in value["status"]["containerStatuses"])
        message = f"containers with unready status: [{names}]"
    for kind in ("Ready", "ContainersReady"):
        _condition(value, kind, False, reason, message)


def _started(value: Object) -> None:
    status = value["status"]
    status["phase"] = "Running"
    for container in value["spec"].get("initContainers", []):
        done = {"exitCode": 0, "reason": "Completed", "startedAt": now(), "finishedAt": now()}
        status.setdefault("initContainerStatuses", []).append(
            {"name": container["name"], "image": container["image"], "imageID": "",
             "ready": True, "restartCount": 0, "state": {"terminated": done}}
        )  # fmt: skip
    for each in status["containerStatuses"]:
        each["state"] = {"running": {"startedAt": now()}}
        each |= {"started": True, "containerID": f"containerd://{value['metadata']['uid']}"}
        each["imageID"] = f"sha256:{each['image']}"


def _made_ready(value: Object, ready: bool) -> None:
    for each in value["status"]["containerStatuses"]:
        each["ready"] = ready
    if not ready:
        _unready(value)
        return
    for kind in ("Ready", "ContainersReady"):
        _condition(value, kind, True)


def _wait(value: Object, reason: str, message: str) -> None:
    for each in value["status"]["containerStatuses"]:
        each["state"] = {"waiting": {"reason": reason, "message": message}}


def _restarted(value: Object, reason: str, exit_code: int) -> None:
    """The containers have ended and are about to run again."""
    for each in value["status"]["containerStatuses"]:
        started = each["state"].get("running", {}).get("startedAt", now())
        ended = {
            "exitCode": exit_code,
            "reason": reason,
            "startedAt": started,
            "finishedAt": now(),
            "containerID": each.get("containerID", ""),
        }
        each["lastState"] = {"terminated": ended}
        each["state"] = {"waiting": {"reason": "ContainerCreating"}}
        each |= {"ready": False, "started": False, "restartCount": each["restartCount"] + 1}
    _unready(value)


def _ended(value: Object, exit_code: int) -> None:
    for each in value["status"]["containerStatuses"]:
        ended = {
            "exitCode": exit_code,
            "reason": "Error" if exit_code else "Completed",
            "startedAt": each["state"].get("running", {}).get("startedAt", now()),
            "finishedAt": now(),
            "containerID": each.get("containerID", ""),
        }
        each["state"] = {"terminated": ended}
        each |= {"ready": False, "started": False}
    _condition(value, "PodReadyToStartContainers", False)
    if not exit_code:
        _condition(value, "Initialized", True, "PodCompleted")
    value["status"]["phase"] = "Failed" if exit_code else "Succeeded"
    _unready(value, "PodFailed" if exit_code else "PodCompleted", "")


def _condition(value: Object, kind: str, holds: bool, reason: str = "", message: str = "") -> None:
    conditions = value["status"].setdefault("conditions", [])
    new: Object = {"type": kind, "status": "True" if holds else "False"}
    if reason:
        new["reason"] = reason
    if message:
        new["message"] = message
    new["observedGeneration"] = value["metadata"]["generation"]
    old = next((each for each in conditions if each["type"] == kind), None)
    if old is None:
        conditions.append(new | {"lastProbeTime": None, "lastTransitionTime": now()})
        conditions.sort(key=lambda each: _ORDER.index(each["type"]))
        return
    if old["status"] != new["status"]:
        new["lastTransitionTime"] = now()
    for field in ("reason", "message"):
        old.pop(field, None)
    old |= new
