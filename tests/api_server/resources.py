"""Which resources the fake serves, and what it knows of each besides its name.

Everything else about a kind (defaults, checks, what controllers do with it) is elsewhere; a
resource that only has to be stored needs no more than its line here.
"""

from __future__ import annotations

import datetime
import marshal
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Object: TypeAlias = dict[str, Any]
"""A Kubernetes object as JSON. One that is stored is never changed, only replaced."""

VERSION: Final = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.2",
    "gitCommit": "0000000000000000000000000000000000000000",
    "gitTreeState": "clean",
    "buildDate": "2026-08-21T00:00:00Z",
    "goVersion": "go1.26.8",
    "compiler": "gc",
    "platform": "linux/amd64",
}


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource of the API; ``group`` is empty for core.

    ``generation`` says whether a change of its spec counts; ``returned`` whether DELETE answers
    with the object rather than with a Status; ``orphans`` whether its dependents stay by default.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    generation: bool = False
    returned: bool = False
    orphans: bool = False
    collected: bool = True
    stored: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """As in messages: ``pods``, ``statefulsets.apps``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified_kind(self) -> str:
        return f"{self.kind}.{self.group}" if self.group else self.kind

    def matches(self, name: str) -> bool:
        """Whether ``name`` means this resource: ``*``, ``pods`` or ``statefulsets.apps``."""
        return name in {"*", self.plural, self.qualified}


RESOURCES: Final = (
    Resource("", "v1", "namespaces", "Namespace", namespaced=False, short=("ns",),
             subresources=("status", "finalize"), collected=False),
    Resource("", "v1", "nodes", "Node", namespaced=False, short=("no",), subresources=("status",)),
    Resource("", "v1", "serviceaccounts", "ServiceAccount", short=("sa",), returned=True),
    Resource("", "v1", "configmaps", "ConfigMap", short=("cm",)),
    Resource("", "v1", "secrets", "Secret"),
    Resource("", "v1", "services", "Service", short=("svc",), subresources=("status",),
             returned=True),
    Resource("", "v1", "endpoints", "Endpoints", short=("ep",)),
    Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", short=("pvc",),
             subresources=("status",), returned=True),
    Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False, short=("pv",),
             subresources=("status",), returned=True),
    Resource("", "v1", "pods", "Pod", short=("po",), generation=True, returned=True,
             subresources=("status", "log", "portforward", "eviction")),
    Resource("", "v1", "events", "Event", short=("ev",)),
    Resource("", "v1", "resourcequotas", "ResourceQuota", short=("quota",),
             subresources=("status",), returned=True),
    Resource("", "v1", "limitranges", "LimitRange", short=("limits",)),
    Resource("apps", "v1", "statefulsets", "StatefulSet", short=("sts",), generation=True,
             subresources=("status",)),
    Resource("apps", "v1", "controllerrevisions", "ControllerRevision"),
    Resource("batch", "v1", "jobs", "Job", generation=True, orphans=True,
             subresources=("status",)),
    Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", short=("netpol",),
             generation=True),
    Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", short=("pdb",),
             generation=True, subresources=("status",)),
    Resource("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False),
    Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding",
             namespaced=False),
    Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False,
             short=("sc",), returned=True),
    Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview",
             namespaced=False, stored=False),
    Resource("authorization.k8s.io", "v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview",
             namespaced=False, stored=False),
)  # fmt: skip

BY_PATH: Final = {(each.group, each.version, each.plural): each for each in RESOURCES}
GROUPS: Final = tuple(dict.fromkeys((each.group, each.version) for each in RESOURCES))

VERBS: Final = (
    "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch",
)  # fmt: skip


def named(name: str) -> Resource:
    """The resource called ``pods`` or ``statefulsets.apps``.

    Raises: KeyError: the fake serves none of that name.
    """
    for each in RESOURCES:
        if name != "*" and each.matches(name):
            return each
    raise KeyError(name)


NAMESPACES: Final = named("namespaces")
PODS: Final = named("pods")
EVENTS: Final = named("events")
SERVICES: Final = named("services")
SERVICE_ACCOUNTS: Final = named("serviceaccounts")
CLAIMS: Final = named("persistentvolumeclaims")
QUOTAS: Final = named("resourcequotas")
STATEFUL_SETS: Final = named("statefulsets")
REVISIONS: Final = named("controllerrevisions")
JOBS: Final = named("jobs")


def clone(value: Object) -> Object:
    """A copy that may be changed."""
    # Several times as fast as copy.deepcopy, and all that JSON has.
    copy: Object = marshal.loads(marshal.dumps(value))
    return copy


def now() -> str:
    """The time as objects carry it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def key_of(value: Object) -> tuple[str, str]:
    """Namespace (empty if it has none) and name."""
    metadata = value["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def labels_of(value: Object) -> dict[str, str]:
    labels: dict[str, str] = value["metadata"].get("labels") or {}
    return labels


def owner_of(value: Object) -> Object | None:
    """The reference to the controller that made ``value``, if one did."""
    for reference in value["metadata"].get("ownerReferences") or []:
        if reference.get("controller"):
            owner: Object = reference
            return owner
    return None


def owned_by(owner: Object) -> Object:
    """The reference that a controller puts into what it makes for ``owner``."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
