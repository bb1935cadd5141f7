"""A cluster is made once, found again, never mistaken for another's, and gone when deleted."""

from __future__ import annotations

import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from testbed.errors import PermanentError, PrerequisiteMissing, TestbedError, UsageError
from testbed.runtime.kind import NODE_IMAGE, KindCluster, KindSettings
from testbed.runtime.kind import cluster as clusters
from testbed.runtime.kind.config import NODE_IMAGE_TAG
from testbed.runtime.kubernetes.rendering import Requests
from tests.runtime.kind.engine import FakeEngine, mark_of

ROOT = Path(__file__).resolve().parents[3]
NODES = ["edge-testbed-control-plane", "edge-testbed-worker"]
ONE_WORKER = KindSettings(workers=1)
PATIENCE_S = 60.0


@contextmanager
def ensuring(cluster: KindCluster, until: str) -> Iterator[subprocess.Popen[str]]:
    """Another process, as a command is, in the middle of ``ensure``: it has said ``until``."""
    program = textwrap.dedent(
        f"""
        from pathlib import Path
        from testbed.runtime.kind import KindCluster, KindSettings
        cluster = KindCluster(Path({str(cluster.home)!r}))
        cluster.ensure(KindSettings(workers=1), report=lambda line: print(line, flush=True))
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout is not None
            for line in child.stdout:
                if until in line:
                    break
            else:
                assert child.stderr is not None
                pytest.fail(f"never said {until!r}: {child.stderr.read()}")
            yield child
        finally:
            child.kill()


def test_made(cluster: KindCluster, engine: FakeEngine) -> None:
    lines: list[str] = []
    assert not cluster.exists()

    kubeconfig = cluster.ensure(ONE_WORKER, report=lines.append)

    assert engine.names() == NODES
    assert cluster.exists()
    assert cluster.owned()
    assert [node.role for node in cluster.nodes()] == ["control-plane", "worker"]
    assert kubeconfig == cluster.home / "kind" / "edge-testbed" / "kubeconfig"
    assert "kind-edge-testbed" in kubeconfig.read_text()
    assert cluster.context == "kind-edge-testbed"
    assert stat.S_IMODE(kubeconfig.stat().st_mode) == 0o600
    assert stat.S_IMODE(kubeconfig.parent.stat().st_mode) == 0o700
    assert lines == [
        "creating kind cluster 'edge-testbed' with 2 nodes",
        "kind: Ensuring node image (kindest/node:v1.37.0)",
        "kind: Preparing nodes",
        "kind: Starting control-plane",
        "kind: Waiting ≤ 2m0s for control-plane = Ready",
        "kind: Ready after 11s",
    ]


def test_used_again_by_a_new_shell(cluster: KindCluster, engine: FakeEngine) -> None:
    cluster.ensure(ONE_WORKER)
    before = engine.containers()

    again = KindCluster(cluster.home).ensure(ONE_WORKER)

    assert engine.containers() == before
    assert again.is_file()
    assert len(engine.calls("kind create")) == 1


def test_other_settings(cluster: KindCluster, engine: FakeEngine) -> None:
    cluster.ensure(ONE_WORKER)
    before = engine.containers()

    for other in (KindSettings(), KindSettings(workers=1, node_image="kindest/node:v1.31.0")):
        with pytest.raises(UsageError, match=r"\(1 worker\).*testbed teardown"):
            cluster.ensure(other)
    # One that is stopped is not started for that.
    engine.stops()
    with pytest.raises(UsageError, match="other settings"):
        cluster.ensure(KindSettings())

    assert [each["Id"] for each in engine.containers()] == [each["Id"] for each in before]
    assert {node.state for node in cluster.nodes()} == {"exited"}


def test_no_settings_mean_what_is_there(cluster: KindCluster, engine: FakeEngine) -> None:
    cluster.ensure(KindSettings(workers=2))

    assert cluster.ensure().is_file()
    assert cluster.check(wanted=Requests(200, 204)) == ()
    assert cluster.check(KindSettings(), wanted=Requests(200, 204)) != ()

    assert len(engine.calls("kind create")) == 1


def test_settings_that_cannot_be(cluster: KindCluster, engine: FakeEngine) -> None:
    with pytest.raises(UsageError, match="workers: -1"):
        cluster.ensure(KindSettings(workers=-1))
    with pytest.raises(UsageError, match="colon"):
        KindCluster(cluster.home / "a:b").ensure()
    with pytest.raises(UsageError, match="name of a testbed"):
        KindCluster(cluster.home, "No Name")
    assert engine.calls("") == []
    assert not cluster.home.exists()


# --- whose it is -------------------------------------------------------------------------------


def test_a_foreign_cluster_is_never_touched(cluster: KindCluster, engine: FakeEngine) -> None:
    engine.runs("edge-testbed-control-plane", "edge-testbed")
    before = engine.containers()

    assert cluster.exists()
    assert not cluster.owned()
    assert cluster.nodes() == ()
    with pytest.raises(UsageError, match="--runtime cluster --context kind-edge-testbed"):
        cluster.ensure()
    with pytest.raises(UsageError, match="did not make"):
        cluster.delete()

    assert engine.containers() == before
    for verb in ("kind create", "kind delete", "kind load", "docker rm", "docker exec"):
        assert engine.calls(verb) == []


def test_a_cluster_with_one_foreign_node_is_foreign(
    cluster: KindCluster, engine: FakeEngine
) -> None:
    cluster.ensure()
    engine.runs("edge-testbed-worker9", "edge-testbed")
    before = engine.names()

    with pytest.raises(UsageError, match="edge-testbed-worker9"):
        cluster.delete()

    assert engine.names() == before


def test_a_cluster_of_another_home(
    cluster: KindCluster, engine: FakeEngine, tmp_path: Path
) -> None:
    cluster.ensure()
    other = KindCluster(tmp_path / "other")

    assert not other.owned()
    for call in (other.ensure, other.delete):
        with pytest.raises(UsageError, match=f"--home {cluster.home}"):
            call()
    assert cluster.owned()


def test_one_home_by_two_names(cluster: KindCluster, engine: FakeEngine, tmp_path: Path) -> None:
    cluster.ensure()
    (tmp_path / "link").symlink_to(cluster.home)

    assert KindCluster(tmp_path / "link").delete()
    assert engine.names() == []


def test_clusters_side_by_side(cluster: KindCluster, engine: FakeEngine) -> None:
    other = KindCluster(cluster.home, "second")
    cluster.ensure()
    other.ensure()

    cluster.delete()

    assert not cluster.exists()
    assert other.owned()
    assert other.kubeconfig.is_file()


def test_it_is_ours_still_when_the_home_was_emptied(
    cluster: KindCluster, engine: FakeEngine
) -> None:
    cluster.ensure(ONE_WORKER)
    shutil.rmtree(cluster.home)

    assert cluster.owned()
    assert cluster.ensure(ONE_WORKER).is_file()
    assert len(engine.calls("kind create")) == 1
    shutil.rmtree(cluster.home)
    assert cluster.delete()
    assert engine.names() == []


# --- half-made ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "said"),
    [("hangs-early", "Preparing nodes"), ("hangs", "Starting control-plane")],
)
def test_interrupted(cluster: KindCluster, engine: FakeEngine, moment: str, said: str) -> None:
    engine.behaves(create=moment)

    with ensuring(cluster, said) as child:
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=PATIENCE_S)

    assert "KeyboardInterrupt" in errors
    assert engine.names() == []
    assert not cluster.kubeconfig.exists()
    assert not list(cluster.folder.parent.glob(".*.lock"))
    engine.behaves(create="works")
    cluster.ensure(ONE_WORKER)
    assert engine.names() == NODES


def test_killed_while_kind_goes_on(cluster: KindCluster, engine: FakeEngine) -> None:
    engine.behaves(create="hangs")
    with ensuring(cluster, "Starting control-plane") as child:
        child.kill()
        child.wait()

    # kind works on: nobody else may, and it is said which process that is.
    with pytest.raises(UsageError, match=r"busy with kind cluster 'edge-testbed' \(process \d+\)"):
        cluster.ensure(ONE_WORKER)
    [lock] = cluster.folder.parent.glob(".*.lock")
    kind = int(lock.read_text())
    assert kind != child.pid
    assert os.getpgid(kind) == kind
    descriptor = os.pidfd_open(kind)
    os.killpg(kind, signal.SIGKILL)
    wait_until_ended(descriptor)

    # What it has left is told from a whole one, by its nodes alone.
    assert engine.names() == NODES
    engine.behaves(create="works")
    lines: list[str] = []
    cluster.ensure(ONE_WORKER, report=lines.append)
    assert lines[0] == "removing kind cluster 'edge-testbed', which is incomplete"
    assert len(engine.calls("kind create")) == 2
    assert engine.names() == NODES


def wait_until_ended(descriptor: int) -> None:
    ready, _, _ = select.select([descriptor], [], [], PATIENCE_S)
    os.close(descriptor)
    assert ready


def test_a_half_made_one_can_be_deleted(cluster: KindCluster, engine: FakeEngine) -> None:
    engine.behaves(create="kubeadm")
    with pytest.raises(PermanentError):
        cluster.ensure(ONE_WORKER, retain=True)
    assert engine.names() == NODES
    assert cluster.owned()
    assert cluster.delete()
    assert engine.names() == []


def test_half_made_ones_of_other_settings_are_in_nobodys_way(
    cluster: KindCluster, engine: FakeEngine
) -> None:
    engine.behaves(create="kubeadm")
    with pytest.raises(PermanentError):
        cluster.ensure(KindSettings(workers=3), retain=True)
    engine.behaves(create="works")
    engine.stops("created")
    cluster.ensure(ONE_WORKER)
    assert engine.names() == NODES


@pytest.mark.parametrize("retain", [False, True])
def test_a_failed_one_is_removed_unless_it_is_wanted(
    cluster: KindCluster, engine: FakeEngine, retain: bool
) -> None:
    engine.behaves(create="kubeadm")

    with pytest.raises(PermanentError, match="kubelet is not healthy") as raised:
        cluster.ensure(ONE_WORKER, retain=retain)

    said = str(raised.value)
    assert said.startswith("kind cannot make cluster 'edge-testbed': failed to create cluster:")
    assert "| error: failed while waiting for the kubelet to start" in said
    assert len(said.splitlines()) < 8, "what kubeadm writes besides is in create.log"
    assert bool(engine.names()) == retain
    notes = getattr(raised.value, "__notes__", [])
    assert any("kind export logs --name edge-testbed" in note for note in notes) == retain
    assert "kubelet is not healthy" in (cluster.folder / "create.log").read_text()
    engine.behaves(create="works")
    cluster.ensure(ONE_WORKER)
    assert engine.names() == NODES


@pytest.mark.parametrize(
    ("failure", "what", "fix"),
    [
        ("port", "port of this machine that it maps is taken", "ss -ltnp"),
        ("systemd", "systemd does not start", "sysctl fs.inotify.max_user_watches=524288"),
        ("files", "too few inotify", "fs.inotify.max_user_instances=512"),
        ("caps", "may not run privileged containers", "virtual machine of your own"),
        ("disk", "disk of the Docker engine is full", "docker system df"),
    ],
)
def test_failures_that_are_known(
    cluster: KindCluster, engine: FakeEngine, failure: str, what: str, fix: str
) -> None:
    engine.behaves(create=failure)

    with pytest.raises(PrerequisiteMissing) as raised:
        cluster.ensure()

    assert what in raised.value.seen
    assert fix in raised.value.fix
    assert str(cluster.folder / "create.log") in raised.value.fix
    assert engine.names() == []


def test_kind_takes_for_ever(
    cluster: KindCluster, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "CREATE_S", 1.0)
    engine.behaves(create="hangs")
    with pytest.raises(TestbedError, match="`kind create cluster` has not ended within 1 s"):
        cluster.ensure()
    assert engine.names() == []


# --- after the machine was off -----------------------------------------------------------------


@pytest.mark.parametrize("state", ["exited", "paused"])
def test_stopped_nodes_are_started(cluster: KindCluster, engine: FakeEngine, state: str) -> None:
    cluster.ensure(ONE_WORKER)
    engine.stops(state)
    lines: list[str] = []

    cluster.ensure(ONE_WORKER, report=lines.append)

    assert lines == ["starting edge-testbed-control-plane, edge-testbed-worker"]
    assert all(node.running for node in cluster.nodes())
    assert len(engine.calls("kind create")) == 1


def test_a_node_that_does_not_start(cluster: KindCluster, engine: FakeEngine) -> None:
    cluster.ensure()
    engine.stops()
    engine.behaves(start="port")
    with pytest.raises(PermanentError, match=r"docker start.*port is already allocated"):
        cluster.ensure()
    assert cluster.delete()


def test_a_node_that_is_gone(cluster: KindCluster, engine: FakeEngine) -> None:
    cluster.ensure(ONE_WORKER)
    engine.loses("edge-testbed-worker")
    with pytest.raises(PermanentError, match="had 2 nodes and has only edge-testbed-control-plane"):
        cluster.ensure(ONE_WORKER)
    assert engine.names() == ["edge-testbed-control-plane"]


# --- node image --------------------------------------------------------------------------------


def test_the_node_image_is_pulled_if_it_is_missing(
    cluster: KindCluster, engine: FakeEngine
) -> None:
    engine.forgets(NODE_IMAGE)
    engine.behaves(pull="works")
    lines: list[str] = []

    cluster.ensure(report=lines.append)
    cluster.delete()
    cluster.ensure(report=lines.append)

    assert engine.calls("docker pull") == [f"docker pull {NODE_IMAGE}"]
    assert lines[0] == "pulling the node image kindest/node:v1.37.0 (about 400 MB, once)"


def test_the_node_image_cannot_be_pulled(cluster: KindCluster, engine: FakeEngine) -> None:
    engine.forgets(NODE_IMAGE)
    with pytest.raises(PrerequisiteMissing) as raised:
        cluster.ensure()
    assert "no such host" in raised.value.seen
    assert "docker load --input kind-node.tar" in raised.value.fix
    with pytest.raises(PrerequisiteMissing, match="is not on this machine\n"):
        cluster.ensure(pull=False)
    assert len(engine.calls("docker pull")) == 1
    assert engine.calls("kind create") == []


def test_the_node_image_came_from_an_archive(cluster: KindCluster, engine: FakeEngine) -> None:
    engine.forgets(NODE_IMAGE)
    engine.has(NODE_IMAGE_TAG)

    cluster.ensure(pull=False)

    written = yaml.safe_load((cluster.folder / "config.yaml").read_text())
    assert {node["image"] for node in written["nodes"]} == {NODE_IMAGE_TAG}
    # The same cluster, whichever way its image got here.
    engine.has(NODE_IMAGE)
    cluster.ensure()
    assert len(engine.calls("kind create")) == 1


# --- kubeconfigs -------------------------------------------------------------------------------


def test_the_users_kubeconfig_is_left_alone(
    cluster: KindCluster, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = tmp_path / "users"
    users.write_text("context: mine\n")
    monkeypatch.setenv("KUBECONFIG", str(users))

    cluster.ensure()
    cluster.ensure()
    cluster.delete()

    assert users.read_text() == "context: mine\n"


def test_merged_if_asked_and_taken_out_again(
    cluster: KindCluster, engine: FakeEngine, tmp_path: Path
) -> None:
    users, others = tmp_path / "users", tmp_path / "others"
    users.write_text("context: mine\ncurrent-context: mine\n")
    users.chmod(0o640)

    cluster.ensure(merge_into=users)
    cluster.ensure(merge_into=others)
    kind = "context: kind-edge-testbed\n"
    # What the user's kubectl talks to stays what it was.
    assert users.read_text() == f"context: mine\n{kind}current-context: mine\n"
    assert others.read_text() == f"{kind}current-{kind}"

    assert cluster.delete()
    assert users.read_text() == "context: mine\ncurrent-context: mine\n"
    assert others.read_text() == ""
    assert stat.S_IMODE(users.stat().st_mode) == 0o640


def test_a_kubeconfig_that_was_lost_is_written_again(
    cluster: KindCluster, engine: FakeEngine
) -> None:
    cluster.ensure().unlink()
    assert "kind-edge-testbed" in cluster.ensure().read_text()


# --- deleting ----------------------------------------------------------------------------------


def test_deleted(cluster: KindCluster, engine: FakeEngine) -> None:
    cluster.ensure(ONE_WORKER)
    lines: list[str] = []

    assert cluster.delete(lines.append)
    assert not cluster.delete(lines.append)

    assert engine.names() == []
    assert not cluster.exists()
    assert not (cluster.home / "kind").exists()
    assert lines == ["deleting kind cluster 'edge-testbed' (2 nodes)"]


def test_deleting_nothing_writes_nothing(cluster: KindCluster, engine: FakeEngine) -> None:
    assert not cluster.delete()
    assert not cluster.home.exists()


def test_deleted_without_kind(cluster: KindCluster, engine: FakeEngine) -> None:
    cluster.ensure(ONE_WORKER)
    engine.removes("kind")
    assert cluster.delete()
    assert engine.names() == []


def test_what_cannot_be_removed_is_named(cluster: KindCluster, engine: FakeEngine) -> None:
    cluster.ensure()
    engine.behaves(rm="refuses")
    with pytest.raises(
        PermanentError, match="docker rm --force --volumes edge-testbed-control-plane"
    ):
        cluster.delete()
    assert cluster.owned()
    engine.behaves(rm=None)
    assert cluster.delete()


def test_the_engine_is_not_there(cluster: KindCluster, engine: FakeEngine) -> None:
    cluster.ensure()
    engine.behaves(engine="down")
    for call in (cluster.exists, cluster.owned, cluster.ensure, cluster.delete):
        with pytest.raises(PrerequisiteMissing, match="systemctl start docker"):
            call()
    engine.behaves(engine="denied")
    with pytest.raises(PrerequisiteMissing, match="usermod"):
        cluster.delete()


def test_marks_of_other_tools_are_none_of_ours(cluster: KindCluster, engine: FakeEngine) -> None:
    digest = KindSettings().digest
    engine.runs(
        "edge-testbed-control-plane",
        "edge-testbed",
        binds=[mark_of(cluster.home, "another", digest)],
    )
    assert not cluster.owned()
    with pytest.raises(UsageError):
        cluster.delete()
    assert engine.names() == ["edge-testbed-control-plane"]
