"""Testbeds on a cluster of their own: it comes with the first and goes with the last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from testbed.errors import PermanentError, PrerequisiteMissing, UsageError
from testbed.runtime.kind.runtime import KindRuntime, cluster_settings
from testbed.runtime.kubernetes import ClusterOptions
from testbed.runtime.kubernetes.bringing_up import Patience
from testbed.testing.runtime import NAME, small_plan
from tests.api_server import ApiServer
from tests.runtime.kind.engine import FakeEngine
from tests.runtime.kubernetes.standin import Controller, controllers_secret

OURS = ("controller", "edgenode", "hdfs")


@pytest.fixture
def server(engine: FakeEngine) -> Iterator[ApiServer]:
    """What answers as the cluster that kind makes."""
    for image in OURS:
        engine.has(f"edge-testbed/{image}:0.1.0")
    engine.has("mariadb:10.11.13")
    with ApiServer() as running, ExitStack() as controllers:
        running.kubeconfig(engine.folder / "kubeconfig", context="kind-edge-testbed")
        for name in (NAME, "second"):
            namespace = f"testbed-{name}"
            controller = controllers.enter_context(
                Controller(name, 2).serving(controllers_secret(running, name))
            )
            running.route(namespace, "controller-0", 7440, "127.0.0.1", controller.port)
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
