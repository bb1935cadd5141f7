"""Reasons why pods are not ready, each with what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Document: TypeAlias = dict[str, Any]

HOPELESS_S: Final = 30.0
"""Time that a pod may spend in a state that seldom improves by itself before ``up`` gives up."""
_RESTARTS: Final = 3
"""Number of crashes that is more than waiting for another service to start."""

_IMAGE: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"}
)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a pod is not ready. ``hopeless``: it seldom gets better by itself; ``fix`` may be empty.

    ``kind`` is the same for all pods with the same trouble.
    """

    pod: str
    kind: str
    seen: str
    fix: str = ""
    hopeless: bool = False

    def __str__(self) -> str:
        return f"{self.pod}: {self.seen}"


def ready(pod: Document) -> bool:
    """Return whether the pod is ready by its own conditions and not being deleted."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def obstacle(pod: Document) -> Obstacle | None:
    """Return what keeps this pod from being ready; None if it is."""
    if ready(pod):
        return None
    name = pod["metadata"]["name"]
    namespace = pod["metadata"].get("namespace", "")
    status = pod.get("status", {})
    if pod["metadata"].get("deletionTimestamp"):
        return Obstacle(name, "ending", "is being removed")
    if status.get("phase") == "Failed":
        reason = status.get("reason") or "failed"
        message = status.get("message") or ""
        return Obstacle(name, reason, f"{reason.lower()}: {message}".rstrip(": "))
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("reason") == "Unschedulable":
        return Obstacle(
            name,
            "Unschedulable",
            f"no machine takes it: {scheduled.get('message', '')}",
            "free processors or memory there, add machines, or change deployment.nodeSelector",
            hopeless=True,
        )
    statuses = [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]
    for container in statuses:
        found = _of_container(name, namespace, container)
        if found is not None:
            return found
    if status.get("phase") == "Running":
        return Obstacle(name, "starting", "is running and not ready yet")
    return Obstacle(name, "pending", (status.get("phase") or "pending").lower())


def _of_container(pod: str, namespace: str, container: Document) -> Obstacle | None:
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    image = container.get("image", "")
    if reason in _IMAGE:
        return Obstacle(
            pod,
            "image",
            f"its image {image} cannot be had: {_short(message) or reason}",
            "build it (`make images`) and have it loaded or pushed (deployment.images)",
            hopeless=True,
        )
    if reason == "CrashLoopBackOff" or (
        container.get("restartCount", 0) >= _RESTARTS and not container.get("ready")
    ):
        last = (container.get("lastState") or {}).get("terminated") or {}
        code = last.get("exitCode")
        why = last.get("reason", "")
        told = f"exit code {code}" + (f", {why}" if why not in ("", "Error") else "")
        if words := last.get("message"):
            told += f": {_short(words)}"
        return Obstacle(
            pod,
            "crash",
            f"it keeps ending ({told}, {container.get('restartCount', 0)} times)",
            f"see `kubectl --namespace {namespace} logs {pod} --previous`",
            hopeless=True,
        )
    if reason in ("CreateContainerConfigError", "CreateContainerError"):
        return Obstacle(pod, reason, f"its container cannot be made: {message}", "", hopeless=True)
    if (ended := state.get("terminated")) is not None and ended.get("exitCode"):
        return Obstacle(pod, "ended", f"ended with exit code {ended.get('exitCode')}")
    if reason not in ("", "ContainerCreating", "PodInitializing"):
        return Obstacle(pod, reason, f"waits ({reason}): {_short(message)}".rstrip(": "))
    return None


def refusals(events: Iterable[Document], workloads: Mapping[str, str]) -> list[Obstacle]:
    """Return why pods are not created, from the events of their StatefulSets (name to uid)."""
    newest: dict[str, tuple[str, str]] = {}
    for event in events:
        regarding = event.get("involvedObject") or {}
        name = regarding.get("name", "")
        refused = event.get("type") == "Warning" and event.get("reason") == "FailedCreate"
        if refused and workloads.get(name) == regarding.get("uid"):
            at = event.get("lastTimestamp") or event.get("eventTime") or ""
            newest[name] = max(newest.get(name, ("", "")), (at, event.get("message", "")))
    found = []
    for name, (_, message) in sorted(newest.items()):
        if "exceeded quota" in message:
            fix = "have the quota of the namespace raised, or run fewer nodes"
            if "must specify limits.cpu" in message or "limits.cpu" in message:
                fix += "; where it asks for limits, give --set deployment.cpuLimits=true"
        elif "violates PodSecurity" in message:
            fix = "the namespace asks for more than `restricted`: see its labels"
        else:
            fix = ""
        found.append(Obstacle(name, "refused", f"pods are refused: {_short(message)}", fix, True))
    return found


def last_events(events: Iterable[Document], pod: str, most: int) -> list[str]:
    """Return the last ``most`` events about a pod, oldest first, each in a line."""
    about = [each for each in events if (each.get("involvedObject") or {}).get("name") == pod]
    about.sort(key=lambda each: str(each.get("lastTimestamp") or each.get("eventTime") or ""))
    lines = []
    for each in about[-most:]:
        count = int(each.get("count") or 1)
        times = f" ({count} times)" if count > 1 else ""
        lines.append(f"{each.get('reason', '')}: {_short(each.get('message', ''))}{times}")
    return lines


def told(obstacles: Iterable[Obstacle], most: int = 6, *, kubectl: str = "kubectl") -> list[str]:
    """Return one line per kind of obstacle, with the pods it concerns.

    ``kubectl`` is how a kubectl command for this cluster begins.
    """
    groups: dict[tuple[str, str], list[Obstacle]] = {}
    for each in obstacles:
        key = (each.kind, each.seen if each.kind not in ("starting", "pending", "ending") else "")
        groups.setdefault(key, []).append(each)
    # What will not get better by itself first.
    ordered = sorted(groups.values(), key=lambda group: not group[0].hopeless)
    lines = []
    for group in ordered[:most]:
        first = group[0]
        more = f" and {len(group) - 1} more" if len(group) > 1 else ""
        fix = first.fix.replace("`kubectl ", f"`{kubectl} ")
        lines.append(f"{first.pod}{more}: {first.seen}" + (f"; {fix}" if fix else ""))
    return lines


def _condition(status: Document, kind: str) -> Document:
    return next((c for c in status.get("conditions") or () if c["type"] == kind), {})


def _short(message: str) -> str:
    line = message.strip().partition("\n")[0]
    return line if len(line) <= 300 else f"{line[:297]}..."
