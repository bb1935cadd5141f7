"""Taking a testbed on a cluster down: its objects, its logs, and what is left of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from testbed.errors import PermanentError, TestbedError
from testbed.runtime.base import Report
from testbed.runtime.directory import RunDirectory
from testbed.runtime.kubernetes.api import Access, Document, until
from testbed.runtime.kubernetes.objects import (
    KINDS,
    SELECTOR,
    Objects,
    is_made_by_us,
    processes,
    remaining,
)
from testbed.runtime.kubernetes.rendering import INSTANCE_LABEL

GONE_S: Final = 180.0
"""Time that removed objects get to disappear."""
VOLUMES_GONE_S: Final = 60.0
_LOG_LINES: Final = 20_000
_AT_ONCE: Final = 8
_TELL_EVERY_S: Final = 5.0


def wait_gone(objects: Objects, namespace: str, report: Report) -> None:
    """Return when a namespace is gone.

    Raises: PermanentError: it is not within ``GONE_S``; says why, as far as is known.
    """
    deadline = until(GONE_S)
    selector = f"kubernetes.io/metadata.name={namespace}"
    began, told = time.monotonic(), time.monotonic()
    for found in objects.cluster.watch("Namespace", None, selector):
        now = time.monotonic()
        if namespace not in found:
            return
        if now > deadline:
            raise PermanentError(
                f"namespace {namespace} is not gone after {now - began:.0f} s"
                + remaining(found[namespace])
            )
        if now - told >= _TELL_EVERY_S:
            report(f"waiting for namespace {namespace} to go" + remaining(found[namespace]))
            told = now


def empty(objects: Objects, namespace: str, name: str, report: Report) -> None:
    """Remove what is the testbed's from a namespace that is not, and wait until it is gone.

    Raises: PermanentError: something of it does not go.
    """
    selector = f"{SELECTOR},{INSTANCE_LABEL}={name}"
    for kind in (*KINDS, "PersistentVolumeClaim"):
        for each in objects.of_testbed(kind, namespace, selector):
            objects.cluster.delete(kind, each["metadata"]["name"], namespace)
    deadline = until(GONE_S)
    told = time.monotonic()
    for kind, what in (("Pod", "pods"), ("PersistentVolumeClaim", "volumes")):
        for found in objects.cluster.watch(kind, namespace, selector):
            if not found:
                break
            now = time.monotonic()
            if now > deadline:
                raise PermanentError(f"these {what} are still there: {', '.join(sorted(found))}")
            if now - told >= _TELL_EVERY_S:
                report(f"waiting for {len(found)} {what} to go: {', '.join(sorted(found)[:5])}")
                told = now


def keep_logs(
    objects: Objects, place: RunDirectory, namespace: str, pods: Sequence[Document]
) -> bool:
    """Write the logs of pods into ``place``, as far as they can be had; return whether it could."""

    def keep(each: tuple[str, Document]) -> None:
        process, pod = each
        with contextlib.suppress(TestbedError):
            lines = objects.cluster.log(pod["metadata"]["name"], namespace, lines=_LOG_LINES)
            text = "".join(f"{line}\n" for line in lines)
            place.log(process).write_text(text, encoding="utf-8")

    try:
        place.logs.mkdir(parents=True, exist_ok=True)
        for stale in place.logs.glob("*.log"):
            stale.unlink()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(keep, processes(pods).items()))
    except OSError:
        # A full disk or a home that is not ours keeps no testbed from being taken down.
        return False
    return True


def leftovers(objects: Objects, name: str, namespace: str) -> tuple[str, ...]:
    """Return what there still is of a testbed that was taken down, each in words.

    Looks at the namespace and at volumes that were claimed from it. Volumes that go with their
    claim get a minute to do so.
    """
    found = []
    existing = objects.cluster.get("Namespace", namespace)
    if existing is not None and is_made_by_us(existing):
        found.append(f"namespace {namespace}")
    elif existing is not None:
        for kind in ("Pod", *KINDS, "PersistentVolumeClaim"):
            selector = f"{SELECTOR},{INSTANCE_LABEL}={name}"
            listed = objects.of_testbed(kind, namespace, selector)
            found += [f"{kind.lower()} {each['metadata']['name']}" for each in listed]
    # Volumes belong to no namespace; not everybody may look at them.
    if not objects.cluster.may(Access("list", "PersistentVolume"), None):
        return tuple(found)
    deadline = until(VOLUMES_GONE_S)
    while True:
        volumes = [
            each
            for each in objects.cluster.find_all("PersistentVolume")
            if (each["spec"].get("claimRef") or {}).get("namespace") == namespace
        ]
        going = [
            each
            for each in volumes
            if each["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
        ]
        # While something of the testbed is there, its volumes stay anyway.
        if not going or found or time.monotonic() > deadline:
            return (*found, *(f"persistentvolume {v['metadata']['name']}" for v in volumes))
        # Whoever made them removes them, some time after their claims.
        time.sleep(1.0)
