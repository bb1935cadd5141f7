"""Testbeds on a cluster of their own: it comes with the first and goes with the last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from testbed.errors import PermanentError, PrerequisiteMissing, UsageError
from testbed.runtime.kind.runtime import KindRuntime, cluster_settings
from testbed.runtime.kubernetes import ClusterOptions, trainer
from testbed.runtime.kubernetes.bringing_up import Patience
from testbed.testing.runtime import NAME, small_plan
from tests.api_server import ApiServer
from tests.runtime.kind.engine import FakeEngine
from tests.runtime.kubernetes.standin import Controller, controllers_secret

OURS = ("controller", "edgenode", "hdfs")


@pytest.fixture
def controllers() -> dict[str, Controller]:
    """What answers as the controllers of testbeds, by name."""
    return {name: Controller(name, 2) for name in (NAME, "second")}


@pytest.fixture
def server(engine: FakeEngine, controllers: dict[str, Controller]) -> Iterator[ApiServer]:
    """What answers as the cluster that kind makes."""
    for image in OURS:
        engine.has(f"edge-testbed/{image}:0.1.0")
    engine.has("mariadb:10.11.13")
    with ApiServer() as running, ExitStack() as serving:
        running.kubeconfig(engine.folder / "kubeconfig", context="kind-edge-testbed")
        for name, controller in controllers.items():
            serving.enter_context(controller.serving(controllers_secret(running, name)))
            running.route(f"testbed-{name}", "controller-0", 7440, "127.0.0.1", controller.port)
        yield running


def make(tmp_path: Path, **settings: Any) -> KindRuntime:
    return KindRuntime(tmp_path / "home", patience=Patience(hopeless_s=0.2), **settings)


def test_the_first_makes_the_cluster_and_the_last_removes_it(
    engine: FakeEngine, server: ApiServer, tmp_path: Path
) -> None:
    said: list[str] = []
    first = make(tmp_path).up(small_plan(), NAME, report=said.append)
    assert first.nodes == 2
    assert engine.names() == ["edge-testbed-control-plane"]
    assert [each.split()[3] for each in engine.calls("kind load docker-image")] == [
        *(f"edge-testbed/{image}:0.1.0" for image in OURS),
        "mariadb:10.11.13",
    ]
    assert any("creating kind cluster" in line for line in said)

    make(tmp_path).up(small_plan(), "second")
    assert make(tmp_path).names() == (NAME, "second")
    assert len(engine.calls("kind create cluster")) == 1

    assert make(tmp_path).down(NAME).stopped
    assert engine.names() == ["edge-testbed-control-plane"]
    assert make(tmp_path).down("second").stopped
    assert engine.names() == []
    assert make(tmp_path).names() == ()
    assert make(tmp_path).down("second").stopped == ()
    assert make(tmp_path).leftovers("second") == ()


def test_the_cluster_may_be_kept(engine: FakeEngine, server: ApiServer, tmp_path: Path) -> None:
    make(tmp_path).up(small_plan(), NAME)
    make(tmp_path, keep_cluster=True).down(NAME)
    assert engine.names() == ["edge-testbed-control-plane"]


def test_one_that_is_there_is_used_as_it_is(
    engine: FakeEngine, server: ApiServer, tmp_path: Path
) -> None:
    make(tmp_path, wanted=cluster_settings(1, "", (), ())).up(small_plan(), NAME)
    assert make(tmp_path).up(small_plan(), NAME).nodes == 2
    with pytest.raises(UsageError, match="other settings"):
        make(tmp_path, wanted=cluster_settings(2, "", (), ())).up(small_plan(), NAME)
    assert len(engine.names()) == 2


def test_a_missing_image_leaves_no_cluster(
    engine: FakeEngine, server: ApiServer, tmp_path: Path
) -> None:
    engine.forgets("edge-testbed/edgenode:0.1.0")
    with pytest.raises(PrerequisiteMissing, match="make images"):
        make(tmp_path).up(small_plan(), NAME)
    assert engine.names() == []


def test_pods_that_fail_leave_no_cluster_unless_it_is_to_be_kept(
    engine: FakeEngine, server: ApiServer, tmp_path: Path
) -> None:
    server.pods_become("crash-loop")
    with pytest.raises(PermanentError, match="keeps ending"):
        make(tmp_path).up(small_plan(), NAME)
    assert engine.names() == []

    with pytest.raises(PermanentError, match="keeps ending"):
        make(tmp_path, retain=True).up(small_plan(), NAME)
    assert engine.names() == ["edge-testbed-control-plane"]


def test_images_of_a_registry_are_not_loaded(
    engine: FakeEngine, server: ApiServer, tmp_path: Path
) -> None:
    options = ClusterOptions(image_registry="registry.local/edge")
    make(tmp_path, options=options).up(small_plan(), NAME)
    assert engine.calls("kind load docker-image") == []


def test_ports_mounts_and_the_users_own_kubeconfig(
    engine: FakeEngine, server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own-kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(own))
    data = tmp_path / "data"
    data.mkdir()
    wanted = cluster_settings(0, "", ["18080:30080"], [f"{data}:/data"])
    runtime = make(tmp_path, wanted=wanted, merge_kubeconfig=True)
    runtime.up(small_plan(), NAME)

    written = (runtime.kind.folder / "config.yaml").read_text()
    assert "hostPort: 18080" in written
    assert f"hostPath: {data}" in written
    assert "kind-edge-testbed" in own.read_text()


def test_options_that_mean_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"(?s)kind.ports: 'x'.*kind.mounts: 'y'"):
        cluster_settings(0, "", ["x"], ["y"])


def test_without_an_engine_it_says_what_is_missing(
    engine: FakeEngine, server: ApiServer, tmp_path: Path
) -> None:
    engine.removes("docker")
    runtime = make(tmp_path)
    assert runtime.check()
    with pytest.raises(PrerequisiteMissing, match="docker"):
        runtime.up(small_plan(), NAME)


def test_what_is_not_there(engine: FakeEngine, server: ApiServer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="never-was"):
        make(tmp_path).find("never-was")
    with pytest.raises(UsageError, match="never-was"):
        make(tmp_path).kill("never-was", 0)


def test_images_that_are_missing_are_found_before_a_cluster_is_made(
    engine: FakeEngine, server: ApiServer, tmp_path: Path
) -> None:
    engine.forgets("edge-testbed/edgenode:0.1.0")
    engine.forgets("mariadb:10.11.13")
    with pytest.raises(PrerequisiteMissing, match=r"edgenode:0\.1\.0, mariadb"):
        make(tmp_path).up(small_plan(), NAME)
    assert engine.calls("kind create cluster") == []


def test_what_was_given_once_need_not_be_given_again(
    engine: FakeEngine, server: ApiServer, tmp_path: Path
) -> None:
    # As on a machine without a network: the usual image is not to be had.
    engine.forgets("mariadb:10.11.13")
    engine.has("lab/mariadb:10")
    options = ClusterOptions(mysql_image="lab/mariadb:10")
    make(tmp_path, options=options).up(small_plan(), NAME)

    make(tmp_path).up(small_plan(3), NAME)

    pods = server.objects("pods", f"testbed-{NAME}")
    (mysql,) = (each for each in pods if each["metadata"]["name"] == "mysql-0")
    assert mysql["spec"]["containers"][0]["image"] == "lab/mariadb:10"


def test_a_services_image_is_not_asked_for_where_the_service_is_elsewhere(
    engine: FakeEngine, server: ApiServer, tmp_path: Path
) -> None:
    engine.forgets("mariadb:10.11.13")
    make(tmp_path).up(small_plan(), NAME, store="mysql+pymysql://me:secret@db.example/log")
    assert make(tmp_path).up(small_plan(3), NAME).nodes == 3


def uids(server: ApiServer) -> dict[str, str]:
    pods = server.objects("pods", f"testbed-{NAME}")
    return {each["metadata"]["name"]: each["metadata"]["uid"] for each in pods}


def test_an_image_that_was_built_again_is_run(
    engine: FakeEngine, server: ApiServer, tmp_path: Path
) -> None:
    make(tmp_path).up(small_plan(), NAME)
    before = uids(server)
    make(tmp_path).up(small_plan(), NAME)
    assert uids(server) == before, "nothing was built"

    engine.has("edge-testbed/edgenode:0.1.0", "built again")
    said: list[str] = []
    make(tmp_path).up(small_plan(), NAME, report=said.append)

    after = uids(server)
    assert {name for name in after if after[name] != before[name]} == {"edge-node-0", "edge-node-1"}
    assert any("changed statefulset/edge-node" in line for line in said)


def test_an_image_that_was_built_again_ends_no_run(
    engine: FakeEngine, server: ApiServer, controllers: dict[str, Controller], tmp_path: Path
) -> None:
    make(tmp_path).up(small_plan(), NAME)
    before = uids(server)
    controllers[NAME].runs()
    engine.has("edge-testbed/edgenode:0.1.0", "built again")
    with pytest.raises(UsageError, match="another image would end it"):
        make(tmp_path).up(small_plan(), NAME)
    assert uids(server) == before


def test_the_trainers_image_is_loaded_when_it_is_started(
    engine: FakeEngine, server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "FIRST_WORDS_S", 0.0)
    make(tmp_path).up(small_plan(), NAME)
    cluster = make(tmp_path).on_cluster
    with pytest.raises(PrerequisiteMissing, match='make images IMAGES="trainer"'):
        cluster.start_trainer(NAME, [])
    assert server.objects("jobs") == []

    engine.has("edge-testbed/trainer:0.1.0")
    cluster.start_trainer(NAME, [])

    loaded = [each.split()[3] for each in engine.calls("kind load docker-image")]
    assert loaded[-1] == "edge-testbed/trainer:0.1.0"
    assert server.object("jobs", f"testbed-{NAME}", "trainer")


def test_an_older_kind_uses_the_cluster_that_it_has_made(
    engine: FakeEngine, server: ApiServer, tmp_path: Path
) -> None:
    engine.behaves(kind="0.30.0")
    engine.has("kindest/node:v1.34.0")
    wanted = cluster_settings(0, "kindest/node:v1.34.0", (), ())
    make(tmp_path, wanted=wanted).up(small_plan(), NAME)
    assert make(tmp_path).check() == ()
    assert make(tmp_path).up(small_plan(), NAME).nodes == 2


def test_a_node_that_was_stopped_is_started_and_waited_for(
    engine: FakeEngine, server: ApiServer, tmp_path: Path
) -> None:
    make(tmp_path).up(small_plan(), NAME)
    engine.stops("exited")
    said: list[str] = []
    # The API server answers some seconds after containerd.
    server.fail(503, times=2)

    assert make(tmp_path).up(small_plan(), NAME, report=said.append).nodes == 2

    assert "starting edge-testbed-control-plane" in said
    assert engine.names() == ["edge-testbed-control-plane"]


def test_a_cluster_that_was_stopped_is_started_to_take_its_testbed_down(
    engine: FakeEngine, server: ApiServer, tmp_path: Path
) -> None:
    make(tmp_path).up(small_plan(), NAME)
    engine.stops("exited")
    said: list[str] = []
    server.fail(503, times=2)

    make(tmp_path).start_stopped(report=said.append)

    assert "starting edge-testbed-control-plane" in said
    assert make(tmp_path).names() == (NAME,)
    again: list[str] = []
    make(tmp_path).start_stopped(report=again.append)
    assert again == []
    assert make(tmp_path).down(NAME).stopped
    assert engine.names() == []
    make(tmp_path).start_stopped()


def test_one_that_does_not_start_is_told_how_to_remove(
    engine: FakeEngine, server: ApiServer, tmp_path: Path
) -> None:
    make(tmp_path).up(small_plan(), NAME)
    engine.stops("exited")
    engine.behaves(start="port")

    with pytest.raises(PermanentError, match="port is already allocated") as caught:
        make(tmp_path).start_stopped()

    assert any("kind delete cluster --name edge-testbed" in each for each in caught.value.__notes__)
