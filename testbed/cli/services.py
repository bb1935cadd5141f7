"""Checks of ``doctor`` on the configured services: the task log and the artifact store."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from testbed.cli.findings import Finding, Surroundings, existing, size
from testbed.errors import PrerequisiteMissing, TestbedError
from testbed.scenario.secrets import without_password

CLOCK_S: Final = 1.0
"""A clock that differs more makes times of logs and artifacts misleading."""
SPACE_BYTES: Final = 1_000_000_000
PACKET_BYTES: Final = 16_000_000
"""The largest row of a task log, a plan of many nodes, with room to spare."""
_OLDEST: Final = {"MariaDB": (10, 6), "MySQL": (8, 0), "Hadoop": (2, 7)}
_NTP: Final = "let both machines keep their clocks by NTP (chrony, systemd-timesyncd)"


def task_log(around: Surroundings) -> Iterator[Finding]:
    """Check that the task log answers and has this version, or can be created."""
    from testbed.storage.tasklog import health

    try:
        if health.is_server(around.storage):
            yield from _task_log_server(around.storage)
        else:
            yield from _task_log_file(around.storage)
    except TestbedError as error:
        yield _problem(
            "task log", error, "see that its server runs, or name another: --storage URL"
        )


def _task_log_file(url: str) -> Iterator[Finding]:
    from testbed.storage.tasklog import open_task_log

    try:
        with open_task_log(url, create=False) as log:
            count = len(log.runs())
    except PrerequisiteMissing:
        # The home or its folder has been checked for writing.
        folder = existing(Path(url.removeprefix("sqlite:///")).absolute().parent)
        if os.access(folder, os.W_OK):
            yield Finding("task log", "ok", "none yet; the first run makes it")
        else:
            yield Finding(
                "task log", "problem", f"{folder} cannot be written", "name another: --storage URL"
            )
    else:
        yield Finding("task log", "ok", f"{without_password(url)}, {count} runs")


def _task_log_server(url: str) -> Iterator[Finding]:
    from testbed.storage.tasklog import health

    found = health.examine(url)
    kind = "MariaDB" if "mariadb" in found.version.lower() else "MySQL"
    if found.refused:
        yield _problem("task log", found.refused, "let the user write there")
    else:
        held = "no tables yet; the first run makes them" if found.runs is None else ""
        yield Finding("task log", "ok", f"{found.where}, {held or f'{found.runs} runs'}")
    yield _version("task log: server", kind, found.version)
    if found.packet_bytes < PACKET_BYTES:
        yield Finding(
            "task log: server",
            "warning",
            f"takes rows of at most {size(found.packet_bytes)}",
            "raise max_allowed_packet there to 64M",
        )
    used = f"{size(found.used_bytes)} used"
    if found.free_bytes is None:
        yield Finding(
            "task log: space", "ok", f"{used}; free space is known to the server's host only"
        )
    else:
        yield _space("task log: space", f"{used}, {size(found.free_bytes)} free", found.free_bytes)
    yield _clock("task log: clock", found.clock_ahead_s, found.clock_error_s)


def artifact_store(around: Surroundings) -> Iterator[Finding]:
    """Check that the artifact store can be reached and written."""
    try:
        if around.artifacts.startswith(("webhdfs://", "swebhdfs://")):
            yield from _hdfs(around.artifacts)
        else:
            yield from _folder(around.artifacts)
    except TestbedError as error:
        yield _problem("artifacts", error, "name another: --artifacts URL")


def _folder(url: str) -> Iterator[Finding]:
    from testbed.storage.artifacts import FolderArtifactStore, open_artifact_store

    store = open_artifact_store(url)
    if not isinstance(store, FolderArtifactStore):
        yield Finding("artifacts", "ok", f"{len(store.list())} at {without_password(url)}")
        return
    folder = existing(store.root)
    if not os.access(folder, os.W_OK | os.X_OK):
        yield Finding(
            "artifacts", "problem", f"{folder} cannot be written", "name another: --artifacts DIR"
        )
        return
    free = shutil.disk_usage(folder).free
    seen = f"{store.root}, {len(store.list())} artifacts, {size(free)} free"
    yield _space("artifacts", seen, free)


def _hdfs(url: str) -> Iterator[Finding]:
    from testbed.storage.artifacts import health

    found = health.examine(url)
    if found.refused:
        yield _problem("artifacts", found.refused, "let the user write there")
    else:
        nodes = "" if found.data_nodes is None else f", {found.data_nodes} DataNodes"
        yield Finding("artifacts", "ok", f"{found.where}{nodes}")
    if found.version is None:
        yield Finding("artifacts: server", "note", "does not report its version")
    else:
        yield _version("artifacts: server", "Hadoop", found.version)
    if found.free_bytes is not None:
        yield _space("artifacts: space", f"{size(found.free_bytes)} free", found.free_bytes)
    if found.clock_ahead_s is not None:
        yield _clock("artifacts: clock", found.clock_ahead_s, found.clock_error_s)


def _problem(check: str, error: TestbedError, otherwise: str) -> Finding:
    """Return an error as a finding; ``otherwise`` says what to do where the error does not."""
    return Finding(check, "problem", error.seen, error.fix or otherwise)


def _version(check: str, kind: str, version: str) -> Finding:
    found = re.match(r"(\d+)\.(\d+)", version)
    oldest = _OLDEST[kind]
    if found is not None and tuple(map(int, found.groups())) < oldest:
        needed = ".".join(map(str, oldest))
        return Finding(check, "warning", f"{kind} {version}", f"use {kind} {needed} or newer")
    return Finding(check, "ok", f"{kind} {version}")


def _space(check: str, seen: str, free: int) -> Finding:
    if free < SPACE_BYTES:
        return Finding(check, "warning", seen, "free some space there, or raise its quota")
    return Finding(check, "ok", seen)


def _clock(check: str, ahead: float, error: float) -> Finding:
    seen = f"{abs(ahead):.3f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    if abs(ahead) - error > CLOCK_S:
        return Finding(check, "warning", seen, _NTP)
    return Finding(check, "ok", f"{seen}, +-{error:.3f} s")
