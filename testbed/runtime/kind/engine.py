"""Queries to the container engine: itself, images, and the containers of kind's nodes."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from testbed.errors import PermanentError, PrerequisiteMissing, TestbedError
from testbed.runtime.kind.command import Ran, run
from testbed.runtime.kind.config import Mark, read_mark

CLUSTER_LABEL: Final = "io.x-k8s.kind.cluster"
ROLE_LABEL: Final = "io.x-k8s.kind.role"

ASK_S: Final = 30.0
"""Bound on a question to the engine."""
CHANGE_S: Final = 120.0
"""Bound on what makes it start or remove containers."""

START_FIX: Final = "start it: sudo systemctl start docker (Linux), or open Docker Desktop"
PERMISSION_FIX: Final = (
    'sudo usermod --append --groups docker "$USER", then log in again (or: newgrp docker)'
)


@dataclass(frozen=True, slots=True)
class Engine:
    """The engine that answers. What is 0 is not known.

    ``root`` is where it keeps things, None if not on this machine.
    """

    version: str
    memory_bytes: int
    processors: int
    cgroup: str
    architecture: str
    root: Path | None

    @property
    def here(self) -> bool:
        """Whether containers share this machine's kernel and disks."""
        return self.root is not None


@dataclass(frozen=True, slots=True)
class KindNode:
    """A container that is a node of a kind cluster. ``mark`` is None if no toolkit made it."""

    id: str
    name: str
    role: str
    state: str
    mark: Mark | None

    @property
    def running(self) -> bool:
        return self.state == "running"


def engine(timeout: float = ASK_S) -> Engine:
    """Return the engine that ``docker`` talks to.

    Raises: PrerequisiteMissing: it is not installed, does not run, or may not be used.
    """
    ran = run("docker", "info", "--format", "{{json .}}", timeout=timeout)
    try:
        found = json.loads(ran.stdout)
    except ValueError:
        found = {}
    if ran.code or not found.get("ServerVersion"):
        errors = found.get("ServerErrors") or [ran.stderr]
        raise refused(Ran(ran.code, "", "\n".join(errors)))
    local = found.get("Name") == platform.node()
    return Engine(
        version=str(found["ServerVersion"]),
        memory_bytes=int(found.get("MemTotal") or 0),
        processors=int(found.get("NCPU") or 0),
        cgroup=str(found.get("CgroupVersion") or ""),
        architecture={"x86_64": "amd64", "aarch64": "arm64"}.get(
            found.get("Architecture", ""), str(found.get("Architecture", ""))
        ),
        root=Path(found["DockerRootDir"]) if local and found.get("DockerRootDir") else None,
    )


def docker(*arguments: str, timeout: float = ASK_S, stdin: str | None = None) -> str:
    """Return the output of ``docker ARGUMENTS``.

    Raises: as ``refused`` says, if it failed.
    """
    ran = run("docker", *arguments, timeout=timeout, stdin=stdin)
    if ran.code:
        raise refused(ran, f"docker {' '.join(arguments[:2])}")
    return ran.stdout


def refused(ran: Ran, what: str = "docker") -> TestbedError:
    """Return the error that a failed ``docker`` command means."""
    text = ran.stderr.lower()
    if "permission denied" in text and ("connect" in text or "socket" in text):
        return PrerequisiteMissing("this user may not use the Docker engine", PERMISSION_FIX)
    if any(
        sign in text
        for sign in (
            "cannot connect to the docker",
            "failed to connect to the docker",
            "error during connect",
        )
    ):
        return PrerequisiteMissing(f"the Docker engine does not answer: {ran.said}", START_FIX)
    if "no space left" in text:
        return PermanentError(
            f"the disk of the Docker engine is full ({what})",
            fix="see docker system df, and free some space: docker image prune",
        )
    return PermanentError(f"{what}: {ran.said}")


def nodes(cluster: str) -> tuple[KindNode, ...]:
    """Return all containers, running or not, that are nodes of kind's ``cluster``, by name."""
    # An id may vanish between the two questions; then they are asked again.
    for _ in range(5):
        listed = docker(
            *("ps", "--all", "--no-trunc", "--format", "{{.ID}}"),
            *("--filter", f"label={CLUSTER_LABEL}={cluster}"),
        ).split()
        if not listed:
            return ()
        ran = run("docker", "inspect", "--type=container", *listed, timeout=ASK_S)
        if ran.code == 0:
            found = [_node(each) for each in json.loads(ran.stdout)]
            return tuple(sorted(found, key=lambda node: node.name))
        if "no such" not in ran.stderr.lower():
            raise refused(ran, "docker inspect")
    raise PermanentError(f"containers of kind cluster '{cluster}' keep appearing and disappearing")


def _node(said: dict[str, Any]) -> KindNode:
    binds: Sequence[str] = said["HostConfig"].get("Binds") or ()
    marks = [mark for bind in binds if (mark := read_mark(bind)) is not None]
    return KindNode(
        id=said["Id"],
        name=said["Name"].removeprefix("/"),
        role=said["Config"]["Labels"].get(ROLE_LABEL, ""),
        state=said["State"]["Status"],
        mark=marks[0] if marks else None,
    )


def image_id(image: str) -> str | None:
    """Return the engine's id of an image; None if it does not have the image."""
    ran = run("docker", "image", "inspect", "--format", "{{.Id}}", image, timeout=ASK_S)
    if ran.code == 0:
        return ran.stdout.strip()
    if "no such image" in ran.stderr.lower() or "not found" in ran.stderr.lower():
        return None
    raise refused(ran, "docker image inspect")


def images_called(repository: str) -> tuple[str, ...]:
    """Return names with tags of the images of ``repository`` that the engine has."""
    listed = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository)
    return tuple(sorted(name for name in listed.split() if not name.endswith(":<none>")))
