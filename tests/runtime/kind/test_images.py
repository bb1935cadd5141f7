"""Images get onto the nodes once, and again when they have changed."""

from __future__ import annotations

import pytest

from testbed.errors import PermanentError, PrerequisiteMissing, UsageError
from testbed.runtime.kind import KindCluster, KindSettings
from testbed.runtime.kind.images import full_name
from tests.runtime.kind.engine import FakeEngine

NODE, CONTROLLER, MARIADB = "edge-testbed/edgenode:1", "edge-testbed/controller:1", "mariadb:10.11"


@pytest.fixture
def two(engine: FakeEngine, cluster: KindCluster) -> KindCluster:
    engine.has(NODE)
    engine.has(CONTROLLER)
    cluster.ensure(KindSettings(workers=1))
    return cluster


def loads(engine: FakeEngine) -> list[str]:
    return [call.split()[3] for call in engine.calls("kind load docker-image")]


def test_once(engine: FakeEngine, two: KindCluster) -> None:
    lines: list[str] = []

    first = two.load_images([NODE, CONTROLLER, NODE], lines.append)
    second = two.load_images([NODE, CONTROLLER], lines.append)

    assert (first.loaded, first.present) == ((NODE, CONTROLLER), ())
    assert (second.loaded, second.present) == ((), (NODE, CONTROLLER))
    assert loads(engine) == [NODE, CONTROLLER]
    assert lines == [f"loading {NODE} into 2 nodes", f"loading {CONTROLLER} into 2 nodes"]


def test_again_when_changed(engine: FakeEngine, two: KindCluster) -> None:
    two.load_images([NODE, CONTROLLER])
    engine.has(NODE, "built anew")

    assert two.load_images([NODE, CONTROLLER]).loaded == (NODE,)
    assert loads(engine) == [NODE, CONTROLLER, NODE]
    assert two.load_images([NODE]).loaded == ()


def test_only_into_nodes_that_have_it_not(engine: FakeEngine, two: KindCluster) -> None:
    two.load_images([NODE])
    [worker] = [each for each in engine.containers() if each["Name"].endswith("worker")]
    (engine.folder / "disks" / worker["Id"] / "images.json").unlink()

    two.load_images([NODE])

    assert engine.calls("kind load")[-1].endswith("--nodes edge-testbed-worker")


@pytest.mark.parametrize("platforms", [False, True])
def test_an_engine_that_calls_images_otherwise_than_nodes_do(
    engine: FakeEngine, two: KindCluster, platforms: bool
) -> None:
    engine.has(MARIADB, node_id="sha256:of-the-node", platforms=platforms)

    # An image of several platforms goes by an archive of one.
    assert two.load_images([MARIADB]).loaded == (MARIADB,)
    assert two.load_images([MARIADB]).loaded == ()
    assert bool(engine.calls("docker image save --platform linux/amd64")) == platforms

    engine.has(MARIADB, "newer", node_id="sha256:of-the-node-too", platforms=platforms)
    assert two.load_images([MARIADB]).loaded == (MARIADB,)


def test_an_engine_too_old_to_save_one_platform(engine: FakeEngine, two: KindCluster) -> None:
    engine.has(MARIADB, platforms=True)
    engine.behaves(save="old")
    with pytest.raises(PermanentError, match="use Docker 28 or newer"):
        two.load_images([MARIADB])


def test_what_is_noted_does_not_outlive_the_image(engine: FakeEngine, two: KindCluster) -> None:
    engine.has(NODE, node_id="sha256:first")
    two.load_images([NODE])
    for each in engine.containers():
        path = engine.folder / "disks" / each["Id"] / "images.json"
        path.write_text(path.read_text().replace("sha256:first", "sha256:by-somebody-else"))

    assert two.load_images([NODE]).loaded == (NODE,)


def test_images_that_are_not_there(engine: FakeEngine, two: KindCluster) -> None:
    with pytest.raises(PrerequisiteMissing) as raised:
        two.load_images([NODE, "edge-testbed/hdfs:1", MARIADB])

    assert raised.value.seen == f"the Docker engine has no edge-testbed/hdfs:1, {MARIADB}"
    assert 'make images IMAGES="hdfs"; docker pull mariadb:10.11' in raised.value.fix
    assert loads(engine) == []


def test_a_full_disk(engine: FakeEngine, two: KindCluster) -> None:
    engine.behaves(load="full")
    with pytest.raises(PermanentError, match=r"does not fit on the disk.*docker system df"):
        two.load_images([NODE])
    engine.behaves(load=None)
    assert two.load_images([NODE]).loaded == (NODE,)


def test_no_cluster_and_a_foreign_one(engine: FakeEngine, cluster: KindCluster) -> None:
    engine.has(NODE)
    with pytest.raises(UsageError, match="there is no kind cluster 'edge-testbed'"):
        cluster.load_images([NODE])
    engine.runs("edge-testbed-control-plane", "edge-testbed")
    with pytest.raises(UsageError, match="did not make"):
        cluster.load_images([NODE])
    assert loads(engine) == []


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("mariadb", "docker.io/library/mariadb:latest"),
        ("mariadb:10.11", "docker.io/library/mariadb:10.11"),
        ("edge-testbed/edgenode:1", "docker.io/edge-testbed/edgenode:1"),
        ("localhost/x:1", "localhost/x:1"),
        ("registry.example.com:5000/edge/x", "registry.example.com:5000/edge/x:latest"),
        ("x@sha256:0", "docker.io/library/x@sha256:0"),
    ],
)
def test_names_in_full(name: str, full: str) -> None:
    assert full_name(name) == full
