"""The trainer of a testbed on a cluster: a Job beside its nodes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from testbed.errors import PermanentError, UsageError
from testbed.runtime.base import Report
from testbed.runtime.kubernetes.api import until
from testbed.runtime.kubernetes.objects import SELECTOR, Objects, services_of
from testbed.runtime.kubernetes.rendering import (
    COMPONENT_LABEL,
    OPTIONS_ANNOTATION,
    ClusterOptions,
    render_trainer,
)
from testbed.runtime.kubernetes.taking_down import GONE_S

TRAINER_JOB: Final = "trainer"


def start(
    objects: Objects,
    name: str,
    namespace: str,
    arguments: Sequence[str],
    report: Report,
    *,
    force: bool,
) -> str:
    """Start the Job and return its name; one that has ended is removed first.

    Its folder stays, so one that was stopped goes on where it was. ``force`` overwrites fields that
    others have changed.

    Raises: UsageError: it is running.
    """
    kept = objects.annotations(namespace)
    options = ClusterOptions.from_json(kept.get(OPTIONS_ANNOTATION, "{}"))
    services = services_of(kept)
    job = objects.cluster.get("Job", TRAINER_JOB, namespace)
    if job is not None:
        if (job.get("status") or {}).get("active"):
            raise UsageError(
                f"the trainer of '{name}' is running; see `testbed logs trainer`, or stop it "
                f"first: testbed trainer stop --name {name}"
            )
        # The task of a Job cannot be changed; a new Job is needed.
        report("removing the trainer that has ended")
        stop(objects, namespace)
    for document in render_trainer(
        name, arguments, namespace=namespace, services=services, options=options
    ):
        objects.cluster.apply(document, force=force)
    return TRAINER_JOB


def stop(objects: Objects, namespace: str) -> bool:
    """End the Job and return whether there was one.

    Raises: PermanentError: its pods do not end.
    """
    if not objects.cluster.delete("Job", TRAINER_JOB, namespace):
        return False
    deadline = until(GONE_S)
    selector = f"{SELECTOR},{COMPONENT_LABEL}=trainer"
    for pods in objects.cluster.watch("Pod", namespace, selector):
        if not pods:
            return True
        if time.monotonic() > deadline:
            break
    raise PermanentError(f"the trainer's pods do not end: {', '.join(sorted(pods))}")
