"""What is missing is said before anything is made, with the command that puts it right."""

from __future__ import annotations

import platform
import socket
from pathlib import Path

import pytest

from testbed.runtime.base import Lack
from testbed.runtime.kind import NODE_IMAGE, KindCluster, KindSettings, PortMapping, preflight
from testbed.runtime.kind import engine as engines
from testbed.runtime.kind.config import NODE_IMAGE_TAG
from testbed.runtime.kubernetes.rendering import Requests, node_resources, render, requests_of
from testbed.scenario.load import load
from testbed.scenario.resolve import plan
from tests.runtime.kind.engine import FakeEngine


def only(lacks: tuple[Lack, ...]) -> Lack:
    [lack] = lacks
    return lack


def usual(nodes: int) -> Requests:
    """What a testbed of the quickstart with this many nodes requests."""
    return requests_of(
        render(plan(load("quickstart", [f"nodes.count={nodes}"])), "usual", scenario="")
    )


def test_nothing_is_missing(cluster: KindCluster, engine: FakeEngine, tmp_path: Path) -> None:
    assert cluster.check(wanted=usual(5)) == ()
    assert not cluster.home.exists()


def test_kind_is_not_installed(cluster: KindCluster, engine: FakeEngine) -> None:
    engine.removes("kind")

    lack = only(cluster.check())

    assert lack.what == "kind is not installed"
    assert "go install sigs.k8s.io/kind@v0.33.0" in lack.fix


@pytest.mark.parametrize(
    ("version", "settings", "said"),
    [
        ("0.20.0", KindSettings(), "kind 0.20 is too old"),
        ("0.20.0", KindSettings(node_image="kindest/node:v1.29.0"), "kind 0.20 is too old"),
        ("0.30.0", KindSettings(), "kind 0.30 is older than the default node image"),
    ],
)
def test_kind_is_too_old(
    cluster: KindCluster, engine: FakeEngine, version: str, settings: KindSettings, said: str
) -> None:
    engine.behaves(kind=version)

    lack = only(cluster.check(settings))

    assert lack.what.startswith(said)
    assert "install kind 0.33 or newer" in lack.fix


@pytest.mark.parametrize("version", ["0.33.1", "0.34.0-alpha+a1b2c3", "1.0.0"])
def test_kind_is_new_enough(cluster: KindCluster, engine: FakeEngine, version: str) -> None:
    engine.behaves(kind=version)
    assert cluster.check() == ()


def test_another_node_image_goes_with_an_older_kind(
    cluster: KindCluster, engine: FakeEngine
) -> None:
    engine.behaves(kind="0.30.0")
    assert cluster.check(KindSettings(node_image="kindest/node:v1.34.0")) == ()


def test_something_else_is_called_kind(cluster: KindCluster, engine: FakeEngine) -> None:
    (engine.bin / "kind").write_text("#!/bin/sh\necho of magic\n")
    assert "of magic" in only(cluster.check()).what


def test_docker_is_not_installed(cluster: KindCluster, engine: FakeEngine) -> None:
    engine.removes("docker")
    assert only(cluster.check()).what == "docker is not installed"


@pytest.mark.parametrize(
    ("state", "said", "fix"),
    [
        ("down", "the Docker engine does not answer: Cannot connect", "systemctl start docker"),
        ("denied", "this user may not use the Docker engine", "usermod --append --groups docker"),
    ],
)
def test_the_engine_cannot_be_used(
    cluster: KindCluster, engine: FakeEngine, state: str, said: str, fix: str
) -> None:
    engine.behaves(engine=state)

    lack = only(cluster.check())

    assert lack.what.startswith(said)
    assert fix in lack.fix


def test_the_engine_hangs(
    cluster: KindCluster, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.behaves(engine="hangs")
    monkeypatch.setattr(engines.engine, "__defaults__", (0.2,))

    lack = only(cluster.check())

    assert "has not ended within 0.2 s" in lack.what
    assert "restart docker" in lack.fix


def test_several_things_are_said_at_once(cluster: KindCluster, engine: FakeEngine) -> None:
    engine.behaves(kind="0.20.0", info={"MemTotal": 2_000_000_000, "CgroupVersion": "1"})

    said = " | ".join(lack.what for lack in cluster.check(wanted=usual(200)))

    for part in ("too old", "200 edge nodes do not fit", "control groups", "2.0 GB of memory"):
        assert part in said


def test_the_node_image_is_missing_and_may_not_be_pulled(
    cluster: KindCluster, engine: FakeEngine
) -> None:
    engine.has("kindest/node:v1.33.1")
    settings = KindSettings(node_image="registry.example.com/kindest/node:v1.31.0")

    lack = only(cluster.check(settings, pull=False))

    assert lack.what == f"the node image {settings.node_image} is not on this machine"
    assert "docker load --input kind-node.tar" in lack.fix
    assert f"docker pull {settings.node_image} &&" in lack.fix
    assert "there is kindest/node:v1.33.1" in lack.fix
    assert cluster.check(settings) == ()


def test_a_node_image_that_came_from_an_archive_has_no_digest(
    cluster: KindCluster, engine: FakeEngine
) -> None:
    engine.forgets(NODE_IMAGE)
    assert cluster.check(pull=False) != ()
    engine.has(NODE_IMAGE_TAG)
    assert cluster.check(pull=False) == ()


def test_a_port_is_taken(cluster: KindCluster, engine: FakeEngine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        lack = only(cluster.check(KindSettings(ports=(PortMapping(port, 30080),))))
        assert lack.what == f"port {port} of 127.0.0.1 is taken"
        assert f"ss -ltnp 'sport = :{port}'" in lack.fix
        # Ports of TCP and UDP are not the same.
        udp = PortMapping(port, 30080, protocol="UDP")
        assert cluster.check(KindSettings(ports=(udp,))) == ()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        udp = PortMapping(other.getsockname()[1], 30080, protocol="UDP")
        assert "ss -lunp" in only(cluster.check(KindSettings(ports=(udp,)))).fix


def test_an_address_of_another_machine(cluster: KindCluster, engine: FakeEngine) -> None:
    settings = KindSettings(ports=(PortMapping(8080, 30080, "192.0.2.1"),))
    assert cluster.check(settings) == ()
    engine.behaves(info={"Name": platform.node()})
    assert "192.0.2.1 is no address" in only(cluster.check(settings)).what


def test_a_disk_that_is_too_small(cluster: KindCluster, engine: FakeEngine) -> None:
    engine.behaves(info={"Name": platform.node()})
    # As many nodes as there may be want more than the machine of a test has, wherever it is.
    needed = preflight.DISK_BYTES + 10**6 * preflight.DISK_NODE_BYTES
    found = list(preflight._disk(KindSettings(workers=10**6 - 1), cluster.home))
    assert "docker system df" in only(tuple(found)).fix
    assert f"{needed / 1e9:.1f} GB" in found[0].what


def test_what_is_there_needs_nothing_more(cluster: KindCluster, engine: FakeEngine) -> None:
    cluster.ensure()
    engine.forgets(NODE_IMAGE)
    engine.behaves(info={"MemTotal": 1_000_000_000})
    assert cluster.check(pull=False) == ()


@pytest.mark.parametrize(
    ("workers", "pods", "fix"),
    [
        (0, 96, None),
        (0, 97, "--workers 1"),
        (1, 103, None),
        (1, 104, "--workers 2"),
        (1, 200, "--workers 2"),
        (2, 200, None),
    ],
)
def test_kubelets_take_so_many_pods(workers: int, pods: int, fix: str | None) -> None:
    found = list(preflight.pods_fit(KindSettings(workers=workers), usual(pods)))
    assert [lack.fix for lack in found] == ([] if fix is None else [fix])


@pytest.mark.parametrize(
    ("workers", "processors", "nodes", "fix"),
    [
        (0, 2, 26, "--workers 1: Kubernetes counts"),
        (0, 2, 5, None),
        (1, 2, 26, None),
        (1, 2, 50, "--workers 2: Kubernetes counts"),
        (0, 1, 5, "--workers 1: Kubernetes counts"),
        (0, 0, 26, None),
    ],
)
def test_processors_that_pods_request(
    cluster: KindCluster,
    engine: FakeEngine,
    workers: int,
    processors: int,
    nodes: int,
    fix: str | None,
) -> None:
    engine.behaves(info={"NCPU": processors})
    lacks = cluster.check(KindSettings(workers=workers), wanted=usual(nodes))
    assert len(lacks) == (fix is not None)
    if fix is not None:
        assert "of processors, and Kubernetes has" in lacks[0].what
        assert fix in lacks[0].fix


def test_what_is_counted_is_what_pods_request() -> None:
    objects = render(plan(load("quickstart")), "usual", scenario="")
    five, six = usual(5), usual(6)
    node = node_resources(plan(load("quickstart", ["nodes.count=6"])))["requests"]
    assert (five.nodes, five.pods) == (5, 9)
    assert f"{six.cpu_m - five.cpu_m}m" == node["cpu"]
    assert f"{(six.memory_bytes - five.memory_bytes) >> 20}Mi" == node["memory"]
    assert requests_of(objects) == five


@pytest.mark.parametrize(
    ("nodes", "watches", "instances", "severe", "mild"),
    [
        (1, 524288, 512, 0, 0),
        (1, 192536, 128, 0, 2),
        (2, 524288, 128, 0, 1),
        (3, 524288, 128, 1, 0),
        (3, 65536, 128, 2, 0),
        (1, 8192, 512, 1, 0),
        (1, None, None, 0, 0),
    ],
)
def test_inotify(
    nodes: int, watches: int | None, instances: int | None, severe: int, mild: int
) -> None:
    found = preflight.inotify(nodes, watches, instances)

    assert (len(found[0]), len(found[1])) == (severe, mild)
    for lack in (*found[0], *found[1]):
        assert lack.fix.startswith("sudo sysctl fs.inotify.max_user_")


def test_inotify_is_read_from_this_kernel(tmp_path: Path) -> None:
    (tmp_path / "max_user_watches").write_text("8192\n")
    assert preflight.read_inotify(tmp_path) == (8192, None)


def test_limits_of_another_machine_are_not_known(cluster: KindCluster, engine: FakeEngine) -> None:
    assert cluster.preflight(KindSettings(workers=2)).cautions == ()
