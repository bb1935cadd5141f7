"""The objects of a testbed on a cluster: which are whose, and what they say of it."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from testbed.runtime.base import node_process
from testbed.runtime.kubernetes.api import Cluster, Document
from testbed.runtime.kubernetes.certificates import SECRETS
from testbed.runtime.kubernetes.rendering import (
    APPLICATION,
    ARTIFACTS_ANNOTATION,
    COMPONENT_LABEL,
    CONFIGURATION_ANNOTATION,
    EDGE_NODE,
    IMAGE_ANNOTATION,
    IN_CLUSTER_ARTIFACTS,
    IN_CLUSTER_STORE,
    INSTANCE_LABEL,
    MANAGED_LABEL,
    NAME_LABEL,
    OWNED_ANNOTATION,
    STORE_ANNOTATION,
    TRAINER_JOB,
    Services,
)

SELECTOR: Final = f"{NAME_LABEL}={APPLICATION}"
"""Label selector of all objects of all testbeds."""
WAS_UP: Final = "was-up"
"""ConfigMap that says that ``up`` has come to its end."""
KINDS: Final = (
    "StatefulSet",
    "Job",
    "Service",
    "ConfigMap",
    "Secret",
    "NetworkPolicy",
    "ServiceAccount",
)
"""Kinds a testbed is made of, in the order in which they are removed."""


class Objects:
    """The objects of testbeds on ``cluster``, which is asked each time."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def of_testbed(self, kind: str, namespace: str, selector: str) -> list[Document]:
        """Return objects of a kind; of Secrets only its own, as operators may not list them."""
        if kind != "Secret":
            return self.cluster.find_all(kind, namespace, selector)
        found = [self.cluster.get("Secret", each, namespace) for each in SECRETS]
        return [each for each in found if each is not None and labels_of(each).get(NAME_LABEL)]

    def pods(self, namespace: str) -> list[Document]:
        """Return the pods of the testbed in a namespace."""
        return self.cluster.find_all("Pod", namespace, SELECTOR)

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        """Return what a Secret of the testbed holds; empty if there is none.

        Without the end of a line: who makes one by hand makes files with it.
        """
        secret = self.cluster.get("Secret", name, namespace)
        data = (secret or {}).get("data") or {}
        found = {}
        for key, value in data.items():
            with contextlib.suppress(ValueError):
                found[key] = base64.b64decode(value).decode().strip("\r\n")
        return found

    def annotations(self, namespace: str) -> Mapping[str, str]:
        """Return the annotations that record how the testbed was brought up; empty without one."""
        described = self.cluster.get("ConfigMap", "scenario", namespace)
        return ((described or {}).get("metadata") or {}).get("annotations") or {}


def was_up_mark(name: str, namespace: str) -> Document:
    """Return the object that says that ``up`` of a testbed has come to its end."""
    labels = {NAME_LABEL: APPLICATION, INSTANCE_LABEL: name, MANAGED_LABEL: APPLICATION}
    metadata = {"name": WAS_UP, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


def is_kind(document: Document, kind: str) -> bool:
    """Return whether a document is of a kind."""
    return bool(document["kind"] == kind)


def configuration(controller: Document) -> Any:
    """Return what says which scenario a controller was started with; None if nothing does."""
    annotations = controller["spec"]["template"]["metadata"].get("annotations") or {}
    return annotations.get(CONFIGURATION_ANNOTATION)


def images(workload: Document) -> Any:
    """Return which images the pods of a StatefulSet have, with their ids where they are known."""
    template = workload["spec"]["template"]
    annotations = template["metadata"].get("annotations") or {}
    names = [each["image"] for each in template["spec"]["containers"]]
    return names, annotations.get(IMAGE_ANNOTATION)


def labels_of(document: Document) -> Mapping[str, str]:
    """Return the labels of an object."""
    return document["metadata"].get("labels") or {}


def is_ours(namespace: Document, name: str) -> bool:
    """Return whether a namespace is that of the testbed ``name``."""
    labels = labels_of(namespace)
    return labels.get(NAME_LABEL) == APPLICATION and labels.get(INSTANCE_LABEL) == name


def is_made_by_us(namespace: Document | None) -> bool:
    """Return whether a namespace was made by ``up``, and so goes with its testbed."""
    annotations = ((namespace or {}).get("metadata") or {}).get("annotations") or {}
    return annotations.get(OWNED_ANNOTATION) == APPLICATION


def services_of(annotations: Mapping[str, str]) -> Services:
    """Return the services that a testbed was brought up with, from its annotations."""
    return Services(
        annotations.get(STORE_ANNOTATION, IN_CLUSTER_STORE),
        annotations.get(ARTIFACTS_ANNOTATION, IN_CLUSTER_ARTIFACTS),
    )


def elsewhere(annotations: Mapping[str, str]) -> str | None:
    """Return the artifact store that a testbed uses and that is not on its cluster."""
    url = annotations.get(ARTIFACTS_ANNOTATION, "")
    return url if "://" in url and url != IN_CLUSTER_ARTIFACTS else None


def is_ending(document: Document) -> bool:
    """Return whether an object is being removed."""
    return "deletionTimestamp" in document["metadata"]


def version_of(document: Document) -> Any:
    """Return the version of an object; None if it has none."""
    return document["metadata"].get("resourceVersion")


def process_of(pod: str) -> str:
    """Return what a pod's process is called everywhere: ``node-3``, ``controller``, ``mysql``."""
    name, _, number = pod.rpartition("-")
    return node_process(int(number)) if name == EDGE_NODE else name


def processes(pods: Sequence[Document]) -> dict[str, Document]:
    """Return the pods by process; of several of the trainer, the newest is ``trainer``.

    The others, which have failed, go by the names of their pods.
    """
    found = {}
    # Those of one second in the order of the list; one that has not ended is the newest.
    for pod in sorted(
        pods, key=lambda each: (not has_ended(each), each["metadata"].get("creationTimestamp", ""))
    ):
        if labels_of(pod).get(COMPONENT_LABEL) != TRAINER_JOB:
            found[process_of(pod["metadata"]["name"])] = pod
            continue
        if (earlier := found.get(TRAINER_JOB)) is not None:
            found[earlier["metadata"]["name"]] = earlier
        found[TRAINER_JOB] = pod
    return found


def has_ended(pod: Document) -> bool:
    """Return whether the containers of a pod have ended and are not started again."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def is_at_work(job: Document | None) -> bool:
    """Return whether a Job has neither succeeded nor failed, so that pods of it run or will run."""
    conditions = ((job or {}).get("status") or {}).get("conditions") or ()
    return job is not None and not any(
        each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in conditions
    )


def remaining(namespace: Document) -> str:
    """Return why a namespace is not gone yet, from its conditions."""
    conditions = (namespace.get("status") or {}).get("conditions") or ()
    reasons = [
        each.get("message", "")
        for each in conditions
        if each.get("status") == "True" and each["type"].startswith("Namespace")
    ]
    return f": {'; '.join(reasons)}" if reasons else ""
