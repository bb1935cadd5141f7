"""The checks of ``doctor``, one function each; a new service adds its own to ``CHECKS``.

A check changes nothing that stays, waits for nothing longer than a few seconds and raises nothing
that it can report.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from testbed import foreign
from testbed.cli import clusters, services
from testbed.cli.access import access
from testbed.cli.findings import Finding, Surroundings, existing, size

PYTHON: Final = (3, 11)
PROCESS_BYTES: Final = 80_000_000
"""Memory of one node process, at most."""
DISK_BYTES: Final = 1_000_000_000
"""Less free space than this is a warning: a task log grows by about a kilobyte per task."""
TIMER_S: Final = 0.001
"""A monotonic clock coarser than this cannot pace a link or an execution."""


Check: TypeAlias = Callable[[Surroundings], Iterator[Finding]]
"""Looks at one thing and yields what it saw, one finding or several."""


def python(_: Surroundings) -> Iterator[Finding]:
    """Check that the interpreter is new enough."""
    seen = ".".join(map(str, sys.version_info[:3]))
    needed = ".".join(map(str, PYTHON))
    if sys.version_info < PYTHON:
        yield Finding("python", "problem", seen, f"install Python {needed} or newer")
    else:
        yield Finding("python", "ok", seen)


def packages(_: Surroundings) -> Iterator[Finding]:
    """Check that the packages it depends on are installed, in the releases that it asks for."""
    from importlib import metadata

    from packaging.requirements import InvalidRequirement, Requirement

    try:
        wanted = metadata.requires("edge-testbed") or []
    except metadata.PackageNotFoundError:
        yield Finding(
            "packages",
            "warning",
            "edge-testbed runs from its source folder and is not installed",
            "install it: make install",
        )
        return
    wrong = []
    for text in wanted:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement.name} {installed} is not {requirement.specifier}")
    others = [each for name in foreign.OWN if (each := foreign.problem_of(name, thorough=True))]
    for other in others:
        yield Finding("packages", "problem", other.seen, other.fix)
    if wrong:
        yield Finding("packages", "problem", "; ".join(wrong), "install again: make install")
    elif others:
        return
    else:
        yield Finding("packages", "ok", "all that the base install needs")


def home_folder(around: Surroundings) -> Iterator[Finding]:
    """Check that the home can be created and written."""
    folder = existing(around.home)
    if not folder.is_dir():
        name_another = "name a folder: --home DIR or TESTBED_HOME"
        yield Finding("home", "problem", f"{folder} is a file", name_another)
        return
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
            file.flush()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        yield Finding(
            "home",
            "problem",
            f"{around.home}: {reason}",
            "name a folder that you may write: --home DIR or TESTBED_HOME",
        )
    else:
        yield Finding("home", "ok", str(around.home))


def disk(around: Surroundings) -> Iterator[Finding]:
    """Check that there is space for task logs."""
    try:
        free = shutil.disk_usage(existing(around.home)).free
    except OSError as error:
        yield Finding("disk", "warning", str(error), "name another home: --home DIR")
        return
    seen = f"{size(free)} free at {around.home}"
    if free < DISK_BYTES:
        yield Finding("disk", "warning", seen, "free some space, or name another home: --home DIR")
    else:
        yield Finding("disk", "ok", seen)


def loopback(_: Surroundings) -> Iterator[Finding]:
    """Check that processes of this machine can connect to each other on free TCP ports."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(2.0)
            address = server.getsockname()
            with socket.create_connection(address, timeout=2.0) as client:
                peer, _ = server.accept()
                with peer:
                    client.sendall(b"0")
                    peer.settimeout(2.0)
                    peer.recv(1)
    except OSError as error:
        yield Finding(
            "network",
            "problem",
            f"no TCP connection over 127.0.0.1: {error}",
            "allow connections on the loopback interface (firewall, container settings)",
        )
        return
    yield Finding("network", "ok", "127.0.0.1 works, ports chosen by the system")


def memory(around: Surroundings) -> Iterator[Finding]:
    """Check that the network's processes fit into memory."""
    import psutil

    available = psutil.virtual_memory().available
    limit = _memory_limit()
    if limit is not None:
        available = min(available, limit)
    needed = (around.nodes + 1) * PROCESS_BYTES
    seen = f"{size(available)} available, {around.nodes} nodes take up to {size(needed)}"
    if available < needed:
        yield Finding("memory", "warning", seen, "use fewer nodes: --set nodes.count=N")
    else:
        yield Finding("memory", "ok", seen)


def processors(around: Surroundings) -> Iterator[Finding]:
    """Check that there are enough processors to keep the nodes on time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    seen = f"{cores} for {around.nodes} nodes"
    load = os.getloadavg()[0]
    if around.nodes > around.carried:
        yield Finding(
            "processors",
            "warning",
            seen,
            "emulate slower (--set timeScale=2), or move no bytes (--set payload=metadata); "
            "`testbed calibrate` measures what this machine carries",
        )
    elif cores and load > cores:
        yield Finding(
            "processors",
            "warning",
            f"{seen}; other programs keep them busy (load {load:.1f})",
            "end them first, or measured times will be less exact",
        )
    else:
        yield Finding("processors", "ok", seen)


def clock(_: Surroundings) -> Iterator[Finding]:
    """Check that the monotonic clock is fine enough, and that sleeping ends on time."""
    resolution = time.get_clock_info("monotonic").resolution
    late = []
    for _attempt in range(20):
        due = time.monotonic() + 0.002
        time.sleep(0.002)
        late.append(time.monotonic() - due)
    typical = sorted(late)[len(late) // 2]
    seen = f"resolution {resolution * 1e9:.0f} ns, timers {1000 * typical:.2f} ms late"
    if resolution > TIMER_S or typical > 2 * TIMER_S:
        yield Finding("clock", "warning", seen, "emulate slower: --set timeScale=2")
    else:
        yield Finding("clock", "ok", seen)


CHECKS: Final[Sequence[Check]] = (
    python,
    packages,
    home_folder,
    access,
    disk,
    services.task_log,
    services.artifact_store,
    loopback,
    memory,
    processors,
    clock,
    clusters.engine,
    clusters.kind,
    clusters.kubectl,
    clusters.cluster,
)


def _memory_limit() -> int | None:
    """Return the memory that a container allows this process, in bytes; None without a limit."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        return None if limit == "max" else max(0, int(limit) - used)
    except (OSError, ValueError):
        return None
