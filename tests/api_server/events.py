"""Events: what the cluster's parts say about objects."""

from __future__ import annotations

import datetime
import itertools
import uuid
from typing import Final

from tests.api_server.resources import EVENTS, NAMESPACES, Object, now
from tests.api_server.store import Store

_numbers = itertools.count(0x17C0FFEE00000000)

NODE: Final = "fake-node"
"""The only node of the cluster."""


class Recorder:
    """Writes events; one that says the same of the same object again is counted, not repeated."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[tuple[str, str, str], str] = {}

    def normal(self, value: Object, reason: str, message: str, component: str) -> None:
        self._record("Normal", value, reason, message, component, again=True)

    def warn(
        self, value: Object, reason: str, message: str, component: str, *, again: bool = False
    ) -> None:
        """``again`` counts it; otherwise saying the same again does nothing."""
        self._record("Warning", value, reason, message, component, again=again)

    def _record(
        self, kind: str, value: Object, reason: str, message: str, component: str, *, again: bool
    ) -> None:
        metadata = value["metadata"]
        namespace = metadata.get("namespace", "default")
        involved = {
            "kind": value["kind"],
            "namespace": namespace,
            "name": metadata["name"],
            "uid": metadata["uid"],
            "apiVersion": value["apiVersion"],
            "resourceVersion": metadata["resourceVersion"],
        }
        if component == "kubelet" and reason in _OF_CONTAINERS:
            container = value["spec"]["containers"][0]["name"]
            involved["fieldPath"] = f"spec.containers{{{container}}}"
        with self._store as store:
            home = store.get(NAMESPACES, "", namespace)
            if home is None or "deletionTimestamp" in home["metadata"]:
                return
            same = (metadata["uid"], reason, message)
            event = store.get(EVENTS, namespace, self._known.get(same, ""))
            if event is not None:
                if again and "count" in event:
                    count = {"count": event["count"] + 1, "lastTimestamp": now()}
                    store.put(EVENTS, event | count)
                return
            self._known[same] = f"{metadata['name']}.{next(_numbers):x}"
            metadata = {
                "name": self._known[same],
                "namespace": namespace,
                "uid": str(uuid.uuid4()),
                "creationTimestamp": now(),
            }
            event = {"kind": "Event", "apiVersion": "v1", "metadata": metadata, "type": kind}
            event |= {"involvedObject": involved, "reason": reason, "message": message}
            store.put(EVENTS, event | _told_by(component, reason))


def _told_by(component: str, reason: str) -> Object:
    """Who says it and when; the scheduler does so in a newer form, without count and times."""
    if component == "default-scheduler":
        at = datetime.datetime.now(datetime.UTC)
        return {
            "source": {},
            "firstTimestamp": None,
            "lastTimestamp": None,
            "eventTime": f"{at:%Y-%m-%dT%H:%M:%S.%f}Z",
            "action": "Binding" if reason == "Scheduled" else "Scheduling",
            "reportingComponent": component,
            "reportingInstance": f"{component}-fake",
        }
    host = {"host": NODE} if component == "kubelet" else {}
    return {
        "source": {"component": component} | host,
        "firstTimestamp": now(),
        "lastTimestamp": now(),
        "count": 1,
        "eventTime": None,
        "reportingComponent": component,
        "reportingInstance": host.get("host", ""),
    }


_OF_CONTAINERS: Final = {
    "BackOff", "Created", "Failed", "Killing", "Pulled", "Pulling", "Started", "Unhealthy",
}  # fmt: skip
