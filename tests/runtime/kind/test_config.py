"""The configuration kind is given, and the mark that tells whose a cluster is."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from testbed.errors import UsageError
from testbed.runtime.kind import NODE_IMAGE, KindSettings, Mount, PortMapping
from testbed.runtime.kind.config import MARK, Mark, owner_folder, read_mark


def test_one_node_by_default() -> None:
    document = yaml.safe_load(KindSettings().render("one", Path("/home/x/owner-0")))

    assert document["kind"] == "Cluster"
    assert document["apiVersion"] == "kind.x-k8s.io/v1alpha4"
    assert document["name"] == "one"
    [node] = document["nodes"]
    assert node["role"] == "control-plane"
    assert node["image"] == NODE_IMAGE
    assert node["extraMounts"] == [
        {"hostPath": "/home/x/owner-0", "containerPath": MARK, "readOnly": True}
    ]
    assert "extraPortMappings" not in node


def test_everything_that_can_be_set(tmp_path: Path) -> None:
    settings = KindSettings(
        workers=2,
        node_image="kindest/node:v1.31.0",
        ports=(PortMapping(8080, 30080), PortMapping(5353, 30053, "0.0.0.0", "UDP")),
        mounts=(Mount(tmp_path, "/data", read_only=False),),
    )
    settings.validate()

    nodes = yaml.safe_load(settings.render("all", tmp_path / "owner"))["nodes"]

    assert [node["role"] for node in nodes] == ["control-plane", "worker", "worker"]
    assert {node["image"] for node in nodes} == {"kindest/node:v1.31.0"}
    for node in nodes:
        assert {each["containerPath"] for each in node["extraMounts"]} == {MARK, "/data"}
    assert nodes[0]["extraPortMappings"] == [
        {
            "hostPort": 8080,
            "containerPort": 30080,
            "listenAddress": "127.0.0.1",
            "protocol": "TCP",
        },
        {"hostPort": 5353, "containerPort": 30053, "listenAddress": "0.0.0.0", "protocol": "UDP"},
    ]
    assert all("extraPortMappings" not in node for node in nodes[1:])


def test_the_digest_tells_settings_apart_and_nothing_else() -> None:
    several = [
        KindSettings(),
        KindSettings(workers=1),
        KindSettings(node_image="kindest/node:v1.31.0"),
        KindSettings(ports=(PortMapping(8080, 30080),)),
    ]

    assert len({settings.digest for settings in several}) == len(several)
    assert KindSettings().digest == KindSettings(workers=0, node_image=NODE_IMAGE).digest
    # Clusters that were made with it are found by it.
    assert KindSettings().digest == "5fb39ea1aff14207"


def test_the_mark_is_read_from_the_mount_of_a_container(tmp_path: Path) -> None:
    owner = owner_folder(tmp_path, KindSettings())

    assert read_mark(f"{owner}:{MARK}:ro") == Mark(tmp_path, KindSettings().digest)


@pytest.mark.parametrize(
    "bind",
    [
        "/lib/modules:/lib/modules:ro",
        f"/somebody/else:{MARK}:ro",
        f"/x/owner-0123456789abcdef:{MARK}-other:ro",
        f"owner-0123456789abcdef:{MARK}:ro",
    ],
)
def test_other_mounts_are_no_mark(bind: str) -> None:
    assert read_mark(bind) is None


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    settings = KindSettings(
        workers=-1,
        node_image="no such thing!",
        ports=(PortMapping(0, 30080), PortMapping(80, 70000), PortMapping(80, 30081)),
        mounts=(Mount(tmp_path / "gone", "/data"), Mount(tmp_path, "data"), Mount(tmp_path, MARK)),
    )

    with pytest.raises(UsageError) as raised:
        settings.validate()

    assert [problem.path for problem in raised.value.problems] == [
        "workers",
        "node image",
        "ports[0]: host port",
        "ports[1]: container port",
        "ports[2]",
        "mounts[0]",
        "mounts[1]",
        "mounts[2]",
    ]
