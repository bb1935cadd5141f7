"""Obstacles to a kind cluster, or to its working well, each with the command that removes it.

Looks and changes nothing. What the pods of a testbed need is what they request
(``rendering.requests_of``), since Kubernetes starts no pod whose request does not fit.
"""

from __future__ import annotations

import errno
import math
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from testbed.errors import PrerequisiteMissing, TestbedError
from testbed.runtime.base import Lack
from testbed.runtime.kind import engine as engines
from testbed.runtime.kind.command import KIND_FIX, OLDEST_KIND, PINNED_KIND, run
from testbed.runtime.kind.config import NODE_IMAGE, NODE_IMAGE_TAG, KindSettings, PortMapping
from testbed.runtime.kind.engine import Engine
from testbed.runtime.kubernetes.rendering import Requests

INOTIFY: Final = Path("/proc/sys/fs/inotify")
WATCHES: Final = 524288
INSTANCES: Final = 512
"""Values that kind advises for clusters of several nodes."""
WATCHES_LEAST: Final = 65536
INSTANCES_LEAST: Final = 128
"""With less, one node alone runs out. Many systems come with 128 instances."""
NODES_MANY: Final = 3
"""Number of nodes from which on kind's advice is needed: all share the limits of one user."""

CONTROL_PLANE_BYTES: Final = 1_200_000_000
WORKER_BYTES: Final = 400_000_000
"""Memory that Kubernetes itself takes on the first kind node and on a worker."""

CONTROL_PLANE_CPU_M: Final = 950
CONTROL_PLANE_REQUESTS: Final = 290 << 20
WORKER_CPU_M: Final = 100
WORKER_REQUESTS: Final = 50 << 20
"""What Kubernetes' own pods request on these: API server 250 m, controller manager 200 m, scheduler
100 m, etcd 100 m and 100 MiB, two of CoreDNS each 100 m and 70 MiB, and on every kind node kindnet
100 m and 50 MiB."""

DISK_BYTES: Final = 2_000_000_000
DISK_NODE_BYTES: Final = 2_500_000_000
"""Disk for the node image, and for what each node holds: every image loaded once."""

NODE_PODS: Final = 110
SYSTEM_PODS: Final = 9
WORKER_PODS: Final = 2
TRAINER_PODS: Final = 1
"""Pods a kubelet takes, and how many are not edge nodes: Kubernetes' own on the control-plane node
and on a worker; and the trainer, which comes later."""


@dataclass(frozen=True, slots=True)
class Preflight:
    """``lacks`` keep a cluster from working; with ``cautions`` it works less well than it could."""

    lacks: tuple[Lack, ...]
    cautions: tuple[Lack, ...] = ()


def examine(
    settings: KindSettings, *, exists: bool, wanted: Requests, pull: bool, engine: Engine
) -> Preflight:
    """Return what a cluster of ``settings`` for pods that request ``wanted`` lacks on ``engine``.

    ``exists``: it is there already, so it needs nothing more. ``pull``: images may be pulled.
    """
    lacks = [*pods_fit(settings, wanted), *requests_fit(settings, wanted, engine)]
    cautions: list[Lack] = []
    if not exists:
        lacks += [
            *_cgroup(settings, engine),
            *_node_image(settings, pull),
            *_ports(settings.ports, engine),
            *_memory(settings, wanted, engine.memory_bytes, "the Docker engine has"),
        ]
        if engine.root is not None:
            lacks += _disk(settings, engine.root)
            available = psutil.virtual_memory().available
            cautions += _memory(settings, wanted, available, "there is free")
    if engine.here:
        severe, mild = inotify(settings.nodes, *read_inotify())
        lacks += severe
        cautions += mild
    return Preflight(tuple(lacks), tuple(cautions))


def kind_program(settings: KindSettings, *, exists: bool = False) -> Iterator[Lack]:
    """Check that kind is installed, and new enough for these settings.

    ``exists``: the cluster is there already, so its node image is one that this kind could use.
    """
    try:
        version = kind_version()
    except TestbedError as error:
        yield lack_of(error)
        return
    seen = ".".join(map(str, version))
    if version < OLDEST_KIND:
        yield Lack(f"kind {seen} is too old", KIND_FIX)
    elif not exists and version < PINNED_KIND and settings.node_image == NODE_IMAGE:
        yield Lack(
            f"kind {seen} is older than the default node image, {NODE_IMAGE_TAG}",
            f"{KIND_FIX}; or name a node image that the release notes of kind {seen} list: "
            "--set deployment.kind.nodeImage=IMAGE",
        )


def kind_version() -> tuple[int, int]:
    """Return major and minor version of the installed kind.

    Raises: PrerequisiteMissing: it is not installed, or is something else.
    """
    ran = run("kind", "version", timeout=engines.ASK_S)
    found = re.search(r"\bv(\d+)\.(\d+)\.", ran.stdout)
    if found is None:
        raise PrerequisiteMissing(f"`kind version` says {ran.said!r}", KIND_FIX)
    return int(found[1]), int(found[2])


def read_inotify(folder: Path = INOTIFY) -> tuple[int | None, int | None]:
    """Return this machine's limits of watches and instances per user; None if unknown."""

    def limit(name: str) -> int | None:
        with suppress(OSError, ValueError):
            return int((folder / name).read_text())
        return None

    return limit("max_user_watches"), limit("max_user_instances")


def inotify(
    nodes: int, watches: int | None, instances: int | None
) -> tuple[list[Lack], list[Lack]]:
    """Yield what these limits lack for a cluster of ``nodes``, and what would be better."""
    severe: list[Lack] = []
    mild: list[Lack] = []
    for name, seen, least, advised in (
        ("fs.inotify.max_user_watches", watches, WATCHES_LEAST, WATCHES),
        ("fs.inotify.max_user_instances", instances, INSTANCES_LEAST, INSTANCES),
    ):
        if seen is None or seen >= advised:
            continue
        lack = Lack(
            f"{name} is {seen}, kind advises {advised}",
            f"sudo sysctl {name}={advised}; to keep it: "
            f"echo '{name}={advised}' | sudo tee -a /etc/sysctl.d/60-edge-testbed.conf",
        )
        (severe if seen < least or nodes >= NODES_MANY else mild).append(lack)
    return severe, mild


def pods_fit(settings: KindSettings, wanted: Requests) -> Iterator[Lack]:
    """Check that the kubelets take this many pods, and the trainer's."""
    workers = settings.workers
    room = workers * (NODE_PODS - WORKER_PODS) if workers else NODE_PODS - SYSTEM_PODS
    services = wanted.pods - wanted.nodes + TRAINER_PODS
    if wanted.pods + TRAINER_PODS > room:
        needed = math.ceil((wanted.pods + TRAINER_PODS) / (NODE_PODS - WORKER_PODS))
        yield Lack(
            f"{wanted.nodes} edge nodes do not fit: {settings.nodes} kind nodes take "
            f"{room - services} of them",
            f"--workers {needed}",
        )


def requests_fit(settings: KindSettings, wanted: Requests, engine: Engine) -> Iterator[Lack]:
    """Check that the requests of the pods fit, as Kubernetes counts.

    Every kind node has all processors and all memory of the machine, so workers multiply both.
    """
    takers, has_memory = settings.workers or 1, engine.memory_bytes
    own_cpu_m = WORKER_CPU_M if settings.workers else CONTROL_PLANE_CPU_M
    own_bytes = WORKER_REQUESTS if settings.workers else CONTROL_PLANE_REQUESTS
    for asked, has, own, of_worker, shown, what in (
        (wanted.cpu_m, 1000 * engine.processors, own_cpu_m, WORKER_CPU_M, _cores, "processors"),
        (wanted.memory_bytes, has_memory, own_bytes, WORKER_REQUESTS, _gigabytes, "memory"),
    ):
        room = takers * max(0, has - own)
        if has and asked > room:
            fix = "use fewer edge nodes (--set nodes.count=N)"
            if what == "processors" and has > of_worker:
                fix += (
                    f", or --workers {math.ceil(asked / (has - of_worker))}: Kubernetes counts the "
                    "processors for each worker again, and the certificate of a run tells whether "
                    "they were enough"
                )
            yield Lack(
                f"the pods of {wanted.nodes} edge nodes and their services request {shown(asked)} "
                f"of {what}, and Kubernetes has {shown(room)} for them on this machine",
                fix,
            )


def _cgroup(settings: KindSettings, engine: Engine) -> Iterator[Lack]:
    if engine.cgroup == "1" and settings.node_image == NODE_IMAGE:
        yield Lack(
            "this system uses control groups of version 1, which Kubernetes 1.35 and newer refuse",
            "boot with systemd.unified_cgroup_hierarchy=1, or name an image of Kubernetes 1.34 "
            "that the release notes of your kind list: --set deployment.kind.nodeImage=IMAGE",
        )


def _node_image(settings: KindSettings, pull: bool) -> Iterator[Lack]:
    if not pull and local_node_image(settings.node_image) is None:
        yield Lack(
            f"the node image {settings.node_image} is not on this machine",
            node_image_fix(settings.node_image),
        )


def local_node_image(image: str) -> str | None:
    """Return a name by which the engine has ``image``; None if it does not.

    An image that came from an archive has its tag and not the digest it was pulled by.
    """
    names = (NODE_IMAGE, NODE_IMAGE_TAG) if image == NODE_IMAGE else (image,)
    return next((name for name in names if engines.image_id(name) is not None), None)


def node_image_fix(image: str) -> str:
    """Return what to do where the node image ``image`` is missing."""
    wanted = NODE_IMAGE_TAG if image == NODE_IMAGE else image
    others = [each for each in engines.images_called("kindest/node") if each != wanted]
    here = ", ".join(others)
    return (
        f"where there is a network: docker pull {wanted} && docker save --output "
        f"kind-node.tar {wanted}; then here: docker load --input kind-node.tar; or use "
        "another: --set deployment.kind.nodeImage=IMAGE "
        f"({f'there is {here}' if here else 'there is none here'}), which has to be one for your "
        "version of kind; docs/air-gapped.md says more"
    )


def _ports(ports: Iterable[PortMapping], engine: Engine) -> Iterator[Lack]:
    for port in ports:
        if port.protocol == "SCTP":
            continue
        kind = socket.SOCK_STREAM if port.protocol == "TCP" else socket.SOCK_DGRAM
        family = socket.AF_INET6 if ":" in port.listen_address else socket.AF_INET
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((port.listen_address, port.host_port))
                if port.protocol == "TCP":
                    probe.listen()
            except OSError as error:
                # Ports below 1024 are the engine's to open, and addresses where it runs.
                if error.errno == errno.EADDRINUSE:
                    flags = "-ltnp" if port.protocol == "TCP" else "-lunp"
                    yield Lack(
                        f"port {port.host_port} of {port.listen_address} is taken",
                        f"see who has it: sudo ss {flags} 'sport = :{port.host_port}'; end that, "
                        "or map another port",
                    )
                elif error.errno == errno.EADDRNOTAVAIL and engine.here:
                    yield Lack(
                        f"{port.listen_address} is no address of this machine",
                        "map to 127.0.0.1, or to an address that `ip address` lists",
                    )


def _memory(settings: KindSettings, wanted: Requests, available: int, says: str) -> Iterator[Lack]:
    needed = CONTROL_PLANE_BYTES + settings.workers * WORKER_BYTES + wanted.memory_bytes
    if 0 < available < needed:
        yield Lack(
            f"{says} {_gigabytes(available)} of memory; {settings.nodes} kind nodes and "
            f"{wanted.nodes} edge nodes take {_gigabytes(needed)}",
            "use fewer edge nodes (--set nodes.count=N) or fewer --workers, or end other programs; "
            "Docker Desktop: Settings > Resources > Memory",
        )


def _disk(settings: KindSettings, root: Path) -> Iterator[Lack]:
    while not root.exists() and root != root.parent:
        root = root.parent
    try:
        free = psutil.disk_usage(str(root)).free
    except OSError:
        return
    needed = DISK_BYTES + settings.nodes * DISK_NODE_BYTES
    if free < needed:
        yield Lack(
            f"{root} has {_gigabytes(free)} free; {settings.nodes} kind nodes with their images "
            f"take {_gigabytes(needed)}",
            "see what images and containers take: docker system df; remove what nothing uses: "
            "docker image prune",
        )


def lack_of(error: TestbedError) -> Lack:
    """Return what is missing according to an error."""
    return Lack(error.seen, error.fix or "see docs/kubernetes-troubleshooting.md")


def _cores(count: int) -> str:
    return f"{count / 1000:.2f}"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
