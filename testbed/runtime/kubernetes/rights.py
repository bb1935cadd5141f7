"""Rights that a user needs on a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final

from testbed.errors import PrerequisiteMissing, TestbedError
from testbed.runtime.base import Lack
from testbed.runtime.kubernetes.api import Access, Cluster
from testbed.runtime.kubernetes.certificates import SECRETS
from testbed.runtime.kubernetes.rendering import namespace_of

_AT_ONCE: Final = 8

NEEDED: Final = (
    *(Access(verb, "Namespace") for verb in ("get", "list", "watch", "create", "patch", "delete")),
    *(
        Access(verb, kind)
        for kind in (
            *("ConfigMap", "Service", "ServiceAccount", "NetworkPolicy", "StatefulSet", "Job"),
        )
        for verb in ("get", "list", "create", "patch", "delete")
    ),
    Access("create", "Secret"),
    *(Access(verb, "Secret", name=name) for name in SECRETS for verb in ("get", "patch", "delete")),
    *(Access(verb, "Pod") for verb in ("get", "list", "watch", "delete")),
    Access("get", "Pod", "log"),
    Access("get", "Pod", "portforward"),
    Access("create", "Pod", "portforward"),
    Access("list", "Event"),
    *(
        Access(verb, "PersistentVolumeClaim")
        for verb in ("get", "list", "watch", "create", "patch", "delete")
    ),
)
"""Rights that the commands need; ``manifests/rbac`` grants them."""

_NAMESPACE_GIVEN: Final = frozenset({"list", "watch", "create", "patch", "delete"})
"""Rights on namespaces that are not needed where the namespace is given."""


def lacks(cluster: Cluster, given: str | None) -> tuple[Lack, ...]:
    """Return what the user may not do, asked of the API server; empty if all is well.

    ``given`` is a namespace that was made for the testbed; None: ``up`` makes one.
    """
    try:
        cluster.version()
    except PrerequisiteMissing as error:
        return (Lack(error.seen, error.fix),)
    except TestbedError as error:
        return (Lack(str(error), f"see that `{cluster.kubectl} cluster-info` answers"),)
    namespace = given or namespace_of("default")
    needed: list[Access] = []
    for each in NEEDED:
        if not given or each.kind != "Namespace":
            needed.append(each)
        elif each.verb not in _NAMESPACE_GIVEN:
            needed.append(replace(each, name=given))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        allowed = pool.map(lambda each: cluster.may(each, namespace), needed)
        refused = [each for each, may in zip(needed, allowed, strict=True) if not may]
    if not refused:
        return ()
    where = f"in namespace {namespace}" if given else "on this cluster"
    fix = "have an administrator apply manifests/rbac/operator.yaml and bind its role to you"
    if not given and _of_namespaces(refused):
        fix += (
            "; or have a namespace made for you and name it: --namespace NAME "
            '(docs/kubernetes.md, "An existing namespace")'
        )
    return (Lack(f"you may not {grouped(refused)} {where}", fix),)


def _of_namespaces(refused: Sequence[Access]) -> bool:
    return any(each.kind == "Namespace" and each.verb == "create" for each in refused)


def grouped(refused: Sequence[Access]) -> str:
    """Return rights in words, those with the same verbs together: ``get, list pods, services``.

    A line each, if there are several.
    """
    verbs: dict[str, list[str]] = {}
    for each in refused:
        of_resource = verbs.setdefault(each.what, [])
        if each.verb not in of_resource:
            of_resource.append(each.verb)
    resources: dict[tuple[str, ...], list[str]] = {}
    for resource, them in verbs.items():
        resources.setdefault(tuple(them), []).append(resource)
    lines = [f"{', '.join(them)} {', '.join(of)}" for them, of in resources.items()]
    return lines[0] if len(lines) == 1 else "".join(f"\n  - {line}" for line in lines) + "\n "
