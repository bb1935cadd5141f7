"""Admission of new objects: namespaces, service accounts, quotas, pod security.

After the plug-ins NamespaceLifecycle, ServiceAccount, ResourceQuota and PodSecurity.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from tests.api_server import quantities
from tests.api_server.resources import (
    CLAIMS,
    NAMESPACES,
    PODS,
    QUOTAS,
    SERVICE_ACCOUNTS,
    Object,
    Resource,
    labels_of,
)
from tests.api_server.status import forbidden, not_found, terminating
from tests.api_server.store import Store

_ENDED: Final = {"Succeeded", "Failed"}

_RESTRICTED_VOLUMES: Final = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip

_BASELINE_CAPABILITIES: Final = {
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD",
    "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}  # fmt: skip


def admit_home(store: Store, resource: Resource, value: Object) -> None:
    """Raises: Refusal: a new object's namespace is not there, or about to go."""
    metadata = value["metadata"]
    namespace, name = metadata.get("namespace", ""), metadata["name"]
    if not resource.namespaced:
        return
    home = store.get(NAMESPACES, "", namespace)
    if home is None:
        raise not_found(NAMESPACES, namespace)
    if "deletionTimestamp" in home["metadata"]:
        raise terminating(resource, name, namespace)


def admit(store: Store, resource: Resource, value: Object) -> None:
    """Raises: Refusal: a new object may not be stored, now or ever."""
    if not resource.namespaced:
        return
    namespace, name = value["metadata"]["namespace"], value["metadata"]["name"]
    home = store.get(NAMESPACES, "", namespace)
    if resource is PODS and home is not None:
        account = value["spec"]["serviceAccountName"]
        if store.get(SERVICE_ACCOUNTS, namespace, account) is None:
            raise forbidden(
                resource,
                name,
                f"error looking up service account {namespace}/{account}: "
                f'serviceaccount "{account}" not found',
            )
        level = labels_of(home).get("pod-security.kubernetes.io/enforce", "privileged")
        version = labels_of(home).get("pod-security.kubernetes.io/enforce-version", "latest")
        if found := violations(value["spec"], level):
            raise forbidden(
                resource, name, f'violates PodSecurity "{level}:{version}": {", ".join(found)}'
            )
    _check_quotas(store, resource, value)


def warning(store: Store, resource: Resource, value: Object) -> str | None:
    """What the server says of a workload whose pods a namespace's level would refuse."""
    template = value.get("spec", {}).get("template")
    home = store.get(NAMESPACES, "", value["metadata"].get("namespace", ""))
    if template is None or home is None:
        return None
    level = labels_of(home).get("pod-security.kubernetes.io/warn", "privileged")
    version = labels_of(home).get("pod-security.kubernetes.io/warn-version", "latest")
    found = violations(template["spec"], level)
    return f'would violate PodSecurity "{level}:{version}": {", ".join(found)}' if found else None


def violations(spec: Object, level: str) -> list[str]:
    """How a pod breaks a Pod Security Standard, in the server's words and order."""
    if level == "privileged":
        return []
    pod = spec.get("securityContext") or {}
    containers = [*spec.get("initContainers", []), *spec.get("containers", [])]
    contexts = {each["name"]: each.get("securityContext") or {} for each in containers}
    volumes = spec.get("volumes", [])
    found: list[str] = []

    def of(names: list[str], must: str) -> str:
        quoted = ", ".join(f'"{name}"' for name in names)
        return f"{'container' if len(names) == 1 else 'containers'} {quoted} {must}"

    restricted = level == "restricted"
    if hosts := [each for each in ("hostNetwork", "hostPID", "hostIPC") if spec.get(each)]:
        found.append(f"host namespaces ({', '.join(f'{each}=true' for each in hosts)})")
    if names := [name for name, each in contexts.items() if each.get("privileged")]:
        found.append(f"privileged ({of(names, 'must not set securityContext.privileged=true')})")
    if restricted and (
        names := [
            name
            for name, each in contexts.items()
            if each.get("allowPrivilegeEscalation") is not False
        ]
    ):
        must = "must set securityContext.allowPrivilegeEscalation=false"
        found.append(f"allowPrivilegeEscalation != false ({of(names, must)})")
    added = {
        name: set((each.get("capabilities") or {}).get("add", []))
        for name, each in contexts.items()
    }
    allowed = {"NET_BIND_SERVICE"} if restricted else _BASELINE_CAPABILITIES
    if restricted:
        undropped = [
            name
            for name, each in contexts.items()
            if "ALL" not in (each.get("capabilities") or {}).get("drop", [])
        ]
        if undropped:
            must = 'must set securityContext.capabilities.drop=["ALL"]'
            found.append(f"unrestricted capabilities ({of(undropped, must)})")
    for name, more in added.items():
        if beyond := sorted(more - allowed):
            listed = ", ".join(f'"{each}"' for each in beyond)
            must = f"must not include {listed} in securityContext.capabilities.add"
            found.append(
                f"{'unrestricted' if restricted else 'non-default'} capabilities "
                f"({of([name], must)})"
            )
    paths = [each["name"] for each in volumes if "hostPath" in each]
    if paths and not restricted:
        listed = ", ".join(f'"{each}"' for each in paths)
        found.append(f"hostPath volumes (volume{'s' if len(paths) > 1 else ''} {listed})")
    if restricted:
        found += [
            f'restricted volume types (volume "{each["name"]}" uses restricted volume type '
            f'"{min(kinds)}")'
            for each in volumes
            if (kinds := set(each) - {"name"} - _RESTRICTED_VOLUMES)
        ]
        bare = [
            name
            for name, each in contexts.items()
            if each.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True
        ]
        if bare:
            must = "must set securityContext.runAsNonRoot=true"
            found.append(f"runAsNonRoot != true (pod or {of(bare, must)})")
        rooted = [name for name, each in contexts.items() if each.get("runAsUser") == 0]
        who = ["pod"] if pod.get("runAsUser") == 0 else []
        if rooted:
            who.append(of(rooted, "").strip())
        if who:
            found.append(f"runAsUser=0 ({' and '.join(who)} must not set runAsUser=0)")
        loose = [
            name
            for name, each in contexts.items()
            if (each.get("seccompProfile") or pod.get("seccompProfile") or {}).get("type")
            not in {"RuntimeDefault", "Localhost"}
        ]
        if loose:
            must = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
            found.append(f"seccompProfile (pod or {of(loose, must)})")
    return found


def _check_quotas(store: Store, resource: Resource, value: Object) -> None:
    namespace, name = value["metadata"]["namespace"], value["metadata"]["name"]
    for quota in store.all(QUOTAS, namespace):
        hard = quota["spec"].get("hard", {})
        wanted = usage(resource, value)
        if resource is PODS and (lacking := _lacking(value, hard)):
            where = quota["metadata"]["name"]
            raise forbidden(resource, name, f"failed quota: {where}: must specify {lacking}")
        used = total(store, namespace, hard)
        over = sorted(
            each
            for each in hard
            if wanted.get(each) and used[each] + wanted[each] > quantities.parse(hard[each])
        )
        if over:

            def listed(amounts: dict[str, Decimal], over: list[str] = over) -> str:
                return ",".join(f"{each}={_shown(each, amounts[each])}" for each in over)

            limits = {each: quantities.parse(hard[each]) for each in over}
            raise forbidden(
                resource,
                name,
                f"exceeded quota: {quota['metadata']['name']}, requested: {listed(wanted)}, "
                f"used: {listed(used)}, limited: {listed(limits)}",
            )


def total(store: Store, namespace: str, hard: Object) -> dict[str, Decimal]:
    """What a namespace uses of each thing that ``hard`` limits."""
    used = dict.fromkeys(hard, Decimal(0))
    for resource in store.resources():
        for value in store.all(resource, namespace):
            for each, amount in usage(resource, value).items():
                if each in used:
                    used[each] += amount
    return used


def usage(resource: Resource, value: Object) -> dict[str, Decimal]:
    """What one object counts for in quotas."""
    counted = {f"count/{resource.qualified}": Decimal(1), resource.plural: Decimal(1)}
    spec = value.get("spec") or {}
    if resource is CLAIMS:
        size = spec.get("resources", {}).get("requests", {}).get("storage", "0")
        counted["requests.storage"] = quantities.parse(size)
    if resource is not PODS:
        return counted
    if value.get("status", {}).get("phase") in _ENDED:
        return {f"count/{resource.qualified}": Decimal(1)}
    for container in spec.get("containers", []):
        for kind in ("requests", "limits"):
            for what, text in (container.get("resources") or {}).get(kind, {}).items():
                amount = quantities.parse(text)
                names = [f"{kind}.{what}", *([what] if kind == "requests" else [])]
                for each in names:
                    counted[each] = counted.get(each, Decimal(0)) + amount
    return counted


def _lacking(value: Object, hard: Object) -> str:
    """Which containers do not say how much they need of what is limited."""
    lacks = []
    for each in sorted(hard):
        kind, _, what = each.rpartition(".")
        kind = kind or "requests"
        if what not in {"cpu", "memory"} or kind not in {"requests", "limits"}:
            continue
        names = [
            container["name"]
            for container in value["spec"].get("containers", [])
            if what not in (container.get("resources") or {}).get(kind, {})
        ]
        if names:
            lacks.append(f"{each} for: {','.join(names)}")
    return "; ".join(lacks)


def _shown(name: str, amount: Decimal) -> str:
    return quantities.show(amount, "Mi" if "memory" in name or "storage" in name else "m")
