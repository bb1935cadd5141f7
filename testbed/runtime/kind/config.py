"""Settings of a kind cluster, and the configuration file for kind.

Every node mounts a folder of the home. It holds nothing of use to a node: that it is mounted says,
in what the container engine knows of the container, which home made the cluster and of which
settings. That is there from the moment a container exists, so also for a cluster left incomplete,
and stays when the folder is removed; it is not in the file, not on the node, and cannot get lost.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

import yaml

from testbed.errors import Problem, UsageError

FORMAT: Final = "edge-testbed.kind/v1"
"""Version of what is written here. It is part of a cluster's digest: one that another version of
this toolkit made in another way is not taken for one made in this."""

NODE_IMAGE_TAG: Final = "kindest/node:v1.37.0"
NODE_IMAGE: Final = (
    f"{NODE_IMAGE_TAG}@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5"
)
"""The default node image of kind 0.33.0."""

MARK: Final = "/etc/edge-testbed"
"""Path where a node mounts the folder that identifies its owner; the file in it is ``owner``."""

WORKERS_MAX: Final = 32
_OWNER: Final = re.compile(r"owner-([0-9a-f]{16})")
_IMAGE: Final = re.compile(r"[a-z0-9][\w./:-]*(@sha256:[0-9a-f]{64})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A port of this machine that leads to one of the first node (say, of a NodePort service)."""

    host_port: int
    container_port: int
    listen_address: str = "127.0.0.1"
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder or file of this machine that every node sees, for `hostPath` volumes."""

    host_path: Path
    container_path: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class KindSettings:
    """Settings of a cluster: one control-plane node and ``workers`` worker nodes.

    Without workers everything runs on the control-plane node. ``node_image`` decides the version
    of Kubernetes; another one is for where the default cannot be pulled.
    """

    workers: int = 0
    node_image: str = NODE_IMAGE
    ports: tuple[PortMapping, ...] = ()
    mounts: tuple[Mount, ...] = ()

    @property
    def nodes(self) -> int:
        """Number of its nodes, all containers of the engine."""
        return 1 + self.workers

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that are the same for the same settings, on every machine."""
        said = {"format": FORMAT, **asdict(self)}
        text = json.dumps(said, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def validate(self) -> None:
        """See that kind can make this.

        Raises: UsageError: with every problem.
        """
        if problems := list(self._problems()):
            raise UsageError("invalid settings of a kind cluster", problems)

    def _problems(self) -> Iterator[Problem]:
        if not 0 <= self.workers <= WORKERS_MAX:
            yield Problem("workers", str(self.workers), f"0 to {WORKERS_MAX}")
        if _IMAGE.fullmatch(self.node_image) is None:
            yield Problem(
                "node image", repr(self.node_image), "an image, like kindest/node:v1.37.0"
            )
        taken: set[tuple[int, str]] = set()
        for index, port in enumerate(self.ports):
            for field, number in (
                ("host port", port.host_port),
                ("container port", port.container_port),
            ):
                if not 1 <= number <= 65535:
                    yield Problem(f"ports[{index}]: {field}", str(number), "1 to 65535")
            if (port.host_port, port.protocol) in taken:
                yield Problem(f"ports[{index}]", f"{port.host_port} again", "each host port once")
            taken.add((port.host_port, port.protocol))
        for index, mount in enumerate(self.mounts):
            where = f"mounts[{index}]"
            if not mount.host_path.is_absolute() or not mount.host_path.exists():
                yield Problem(where, str(mount.host_path), "an absolute path that exists")
            if not mount.container_path.startswith("/"):
                yield Problem(where, mount.container_path, "an absolute path")
            elif f"{mount.container_path.rstrip('/')}/".startswith(f"{MARK}/"):
                yield Problem(where, mount.container_path, f"{MARK} is the toolkit's own")

    def render(self, name: str, owner: Path, *, node_image: str | None = None) -> str:
        """Return the file for ``kind create cluster --config``.

        ``owner`` is the folder that marks the nodes; ``node_image`` another name of the same image.
        """
        mounts = [
            {"hostPath": str(owner), "containerPath": MARK, "readOnly": True},
            *(
                {
                    "hostPath": str(mount.host_path),
                    "containerPath": mount.container_path,
                    "readOnly": mount.read_only,
                }
                for mount in self.mounts
            ),
        ]
        common = {"image": node_image or self.node_image, "extraMounts": mounts}
        first: dict[str, object] = {"role": "control-plane", **common}
        if self.ports:
            first["extraPortMappings"] = [
                {
                    "hostPort": port.host_port,
                    "containerPort": port.container_port,
                    "listenAddress": port.listen_address,
                    "protocol": port.protocol,
                }
                for port in self.ports
            ]
        document = {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "name": name,
            "nodes": [first, *({"role": "worker", **common} for _ in range(self.workers))],
        }
        head = f"# {FORMAT} {self.digest}: written by edge-testbed for kind; not read again.\n"
        # Without aliases: people read this too.
        return head + yaml.dump(document, Dumper=_Plain, sort_keys=False)


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Mark:
    """The content of a node's mount: the home's folder that made it, and its settings."""

    folder: Path
    digest: str


def owner_folder(folder: Path, settings: KindSettings) -> Path:
    """Return the folder below ``folder`` whose mount marks nodes made of ``settings``."""
    return folder / f"owner-{settings.digest}"


def read_mark(bind: str) -> Mark | None:
    """Return the mark in ``SOURCE:TARGET[:OPTIONS]`` of a container; None for other mounts."""
    source, separator, rest = bind.partition(f":{MARK}")
    if not separator or rest not in ("", ":ro", ":ro,Z") or not source.startswith("/"):
        return None
    path = Path(source)
    found = _OWNER.fullmatch(path.name)
    return None if found is None else Mark(path.parent, found.group(1))
