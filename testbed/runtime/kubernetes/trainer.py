"""The trainer of a testbed on a cluster: a Job beside its nodes."""

from __future__ import annotations

import contextlib
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from testbed.errors import PermanentError, TemporaryError, TestbedError, UsageError
from testbed.runtime.base import Report, TrainerCommand
from testbed.runtime.kubernetes import waiting
from testbed.runtime.kubernetes.api import Document, until
from testbed.runtime.kubernetes.forward import PortForward
from testbed.runtime.kubernetes.objects import (
    SELECTOR,
    Objects,
    is_at_work,
    processes,
    services_of,
)
from testbed.runtime.kubernetes.rendering import (
    COMPONENT_LABEL,
    OPTIONS_ANNOTATION,
    RESULTS,
    RESULTS_PORT,
    TRAINER_JOB,
    ClusterOptions,
    render_results,
    render_trainer,
)
from testbed.runtime.kubernetes.taking_down import GONE_S

START_S: Final = 600.0
"""Time that the trainer's pod gets to start; its image has gigabytes."""
FIRST_WORDS_S: Final = 30.0
"""Time that a trainer gets to say what it is about to do, or that it cannot."""
SETTLED_S: Final = 2.0
"""Time after its first words in which one that only says why it cannot work ends."""
RESULTS_S: Final = 120.0
"""Time that fetching results may take."""
_TAIL: Final = 10
_SELECTOR: Final = f"{SELECTOR},{COMPONENT_LABEL}={TRAINER_JOB}"
_USAGE: Final = UsageError.exit_code
PERMANENT: Final = (_USAGE, PermanentError.exit_code, 70)
"""Exit codes after which the Job does not try again (``podFailurePolicy``); 70 is a defect."""


def start(
    objects: Objects,
    name: str,
    namespace: str,
    arguments: Sequence[str],
    report: Report,
    *,
    command: TrainerCommand,
    force: bool,
    hopeless_s: float = waiting.HOPELESS_S,
) -> str:
    """Start the Job and return its name when it is at work; one that has ended is removed first.

    Its folder stays, so one that was stopped goes on where it was. ``force`` overwrites fields that
    others have changed.

    Raises:
        UsageError: it is running.
        PermanentError: its pod cannot start, or it has failed at once; says why.
    """
    kept = objects.annotations(namespace)
    options = ClusterOptions.from_json(kept.get(OPTIONS_ANNOTATION, "{}"))
    services = services_of(kept)
    job = objects.cluster.get("Job", TRAINER_JOB, namespace)
    if job is not None:
        if is_at_work(job):
            raise UsageError(
                f"the trainer of '{name}' is running; see `testbed logs trainer --name {name}`, "
                f"or stop it first: testbed trainer stop --name {name}"
            )
        # The task of a Job cannot be changed; a new Job is needed.
        report("removing the trainer that has ended")
        stop(objects, namespace)
    for document in render_trainer(
        name,
        arguments,
        namespace=namespace,
        services=services,
        options=options,
        command=command,
    ):
        objects.cluster.apply(document, force=force)
    _wait_at_work(objects, name, namespace, report, hopeless_s)
    return TRAINER_JOB


def _wait_at_work(
    objects: Objects, name: str, namespace: str, report: Report, hopeless_s: float
) -> None:
    """Return when the trainer has said what it does, or works without a word for a while."""
    deadline = until(START_S)
    told = ""
    stuck: tuple[str, float] | None = None
    runs_since = said_since = 0.0
    for pods in objects.cluster.watch("Pod", namespace, _SELECTOR, tick_s=1.0):
        now = time.monotonic()
        pod = processes(list(pods.values())).get(TRAINER_JOB)
        phase = "" if pod is None else (pod.get("status") or {}).get("phase", "")
        if pod is not None and phase == "Failed" and exit_code(pod) in PERMANENT:
            raise _failed(objects, name, namespace, pod)
        if phase in ("", "Failed") and not is_at_work(
            job := objects.cluster.get("Job", TRAINER_JOB, namespace)
        ):
            if pod is not None and job is not None:
                raise _failed(objects, name, namespace, pod, of_all=True)
            raise TemporaryError(f"the trainer of '{name}' was removed while it started")
        if pod is not None and phase in ("Running", "Succeeded"):
            runs_since = runs_since or now
            if not said_since and any(objects.cluster.log(_name(pod), namespace, lines=1)):
                said_since = now
            settled = said_since and now - said_since >= SETTLED_S
            if phase == "Succeeded" or settled or now - runs_since > FIRST_WORDS_S:
                return
        else:
            runs_since = said_since = 0.0
        obstacle = None if pod is None else waiting.obstacle(pod)
        if obstacle is not None and obstacle.hopeless:
            stuck = (
                stuck if stuck is not None and stuck[0] == obstacle.kind else (obstacle.kind, now)
            )
            if now - stuck[1] >= hopeless_s:
                _give_up(objects, namespace)
                raise PermanentError(f"the trainer does not start: {obstacle}", fix=obstacle.fix)
        else:
            stuck = None
        if now > deadline:
            _give_up(objects, namespace)
            why = f": {obstacle}" if obstacle is not None else ", because no pod of it was made"
            raise TemporaryError(f"the trainer has not started within {START_S:.0f} s{why}")
        line = f"waiting for the trainer: {obstacle or 'no pod yet'}"
        if phase != "Running" and line != told:
            report(line)
            told = line


def _give_up(objects: Objects, namespace: str) -> None:
    with contextlib.suppress(TestbedError):
        objects.cluster.delete("Job", TRAINER_JOB, namespace)


def _failed(
    objects: Objects, name: str, namespace: str, pod: Document, *, of_all: bool = False
) -> PermanentError:
    """Return the error of a trainer that has ended at once, with its last words.

    With ``of_all`` the Job has tried as often as it may, and ``pod`` is its last.
    """
    code = exit_code(pod)
    lines: list[str] = []
    with contextlib.suppress(TestbedError):
        lines = list(objects.cluster.log(_name(pod), namespace, lines=_TAIL))
    said = "".join(f"\n  | {line}" for line in lines)
    fix = f"its log: testbed logs trainer --name {name}"
    if code == _USAGE:
        learns = pod["spec"]["containers"][0].get("args", ())[:1] == ["learn"]
        fix += (
            "; what it did before is in its volume; to start over and discard that: "
            f"testbed trainer start --name {name}{' --learn' if learns else ''} -- --anew"
        )
    often = " as often as its Job tries it" if of_all else ""
    return PermanentError(
        f"the trainer of '{name}' has failed{often} (exit code {code}){said}\n", fix=fix
    )


def exit_code(pod: Document) -> int | None:
    """Return the exit code of a pod's container; None if it has not ended."""
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated")
        if ended is not None:
            return int(ended.get("exitCode", 0))
    return None


def stop(objects: Objects, namespace: str) -> bool:
    """End the Job and return whether there was one.

    Raises: PermanentError: its pods do not end.
    """
    if not objects.cluster.delete("Job", TRAINER_JOB, namespace):
        return False
    deadline = until(GONE_S)
    for pods in objects.cluster.watch("Pod", namespace, _SELECTOR):
        if not pods:
            return True
        if time.monotonic() > deadline:
            break
    raise PermanentError(f"the trainer's pods do not end: {', '.join(sorted(pods))}")


def has_results(objects: Objects, namespace: str) -> bool:
    """Return whether there is a volume in which a trainer has left something."""
    return objects.cluster.get("PersistentVolumeClaim", TRAINER_JOB, namespace) is not None


def fetch(objects: Objects, name: str, namespace: str, folder: Path, report: Report) -> list[Path]:
    """Copy report, figures and policies of the trainer into ``folder``; return what is there then.

    A pod with the trainer's image reads its volume meanwhile, and is removed again.

    Raises:
        UsageError: no trainer was started, or it has no results yet.
        PermanentError: that pod cannot start; says why.
        TemporaryError: it takes too long.
    """
    if not has_results(objects, namespace):
        raise UsageError(
            f"no trainer was started on '{name}'",
            fix=f"testbed trainer start --name {name}",
        )
    options = ClusterOptions.from_json(objects.annotations(namespace).get(OPTIONS_ANNOTATION, "{}"))
    deadline = until(RESULTS_S)
    report("reading the trainer's volume")
    try:
        objects.cluster.apply(render_results(name, namespace=namespace, options=options))
        _wait_running(objects, namespace, deadline)
        forward = PortForward(objects.cluster, namespace, f"{RESULTS}-0", RESULTS_PORT)
        try:
            return _unpack(forward.address, folder, name, deadline)
        finally:
            forward.close()
    finally:
        objects.cluster.delete("StatefulSet", RESULTS, namespace)


def _wait_running(objects: Objects, namespace: str, deadline: float) -> None:
    selector = f"{SELECTOR},{COMPONENT_LABEL}={RESULTS}"
    seen: waiting.Obstacle | None = None
    since = time.monotonic()
    for pods in objects.cluster.watch("Pod", namespace, selector, tick_s=1.0):
        now = time.monotonic()
        for pod in pods.values():
            if waiting.ready(pod):
                return
            found = waiting.obstacle(pod)
            if found is not None and (seen is None or found.kind != seen.kind):
                seen, since = found, now
        if seen is not None and seen.hopeless and now - since >= waiting.HOPELESS_S:
            raise PermanentError(f"the trainer's volume cannot be read: {seen}", fix=seen.fix)
        if now > deadline:
            why = f": {seen}" if seen is not None else ""
            raise TemporaryError(f"the trainer's volume cannot be read in time{why}")


def _unpack(address: str, folder: Path, name: str, deadline: float) -> list[Path]:
    """Copy what a pod hands out at ``address``; it may not listen yet."""
    tar = _tar()
    while True:
        try:
            with (
                urllib.request.urlopen(f"http://{address}/", timeout=RESULTS_S) as answer,
                tar.open(fileobj=answer, mode="r|gz") as archive,
            ):
                folder.mkdir(parents=True, exist_ok=True)
                names = []
                for member in archive:
                    archive.extract(member, folder, filter="data")
                    names.append(member.name.partition("/")[0])
                return [folder / each for each in dict.fromkeys(names)]
        except urllib.error.HTTPError as error:
            raise UsageError(
                f"the trainer of '{name}' has no results yet ({error.reason})",
                fix=f"see what it does: testbed logs trainer --name {name}",
            ) from None
        except tar.FilterError as error:
            raise PermanentError(f"the trainer's results lead out of {folder}: {error}") from None
        except (OSError, EOFError, tar.TarError) as error:
            if isinstance(error, PermissionError | FileExistsError | NotADirectoryError):
                raise PermanentError(f"{folder} cannot be written: {error}") from None
            if time.monotonic() > deadline:
                raise TemporaryError(f"the trainer's results cannot be read: {error}") from None
            time.sleep(0.5)


def _tar() -> Any:
    """Return a ``tarfile`` that keeps members inside the folder; Python has it from 3.11.4 on."""
    return tarfile if hasattr(tarfile, "data_filter") else import_module("backports.tarfile")


def _name(pod: Document) -> str:
    return str(pod["metadata"]["name"])
