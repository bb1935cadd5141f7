"""The real thing, from ``up`` to ``teardown``, with faults: ``make test-cluster``."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from testbed.runtime.kubernetes.api import Cluster
from testbed.storage.tasklog import open_task_log
from tests.cluster.conftest import (
    NAME,
    NAMESPACE,
    ROOT,
    Shell,
    wait_for_run,
    wait_until_healthy,
)
from tests.manifests.golden import expected

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

NAMED = ("--name", NAME)
NO_HDFS = ("--set", "deployment.hdfs=false")
SHIPPED = ROOT / "testbed" / "policies" / "shipped" / "per-destination-v1"


def uids(shell: Shell) -> dict[str, str]:
    pods = Cluster(shell.kubeconfig).find_all("Pod", NAMESPACE)
    return {each["metadata"]["name"]: each["metadata"]["uid"] for each in pods}


def test_up_again_changes_nothing(up: Shell) -> None:
    before = uids(up)

    again = up.up()

    assert again.code == 0, again.err
    assert "no differences" in again.err
    assert uids(up) == before


def test_it_is_found_from_another_machine(up: Shell, tmp_path: Path) -> None:
    elsewhere = Shell(tmp_path / "home", up.kubeconfig, up.way)
    where = ("--runtime", "cluster", "--kubeconfig", up.kubeconfig)

    status = elsewhere("status", *NAMED, *where, "--json").document

    assert status["testbed"] == NAME
    assert len(status["nodes"]) == 5
    assert NAME in {each["name"] for each in elsewhere("ps", *where, "--json").document}


def test_a_run_is_logged_and_can_be_exported(up: Shell, tmp_path: Path) -> None:
    wait_until_healthy(up)
    ran = up("run", *NAMED, "--scheduler", "ratc", "--episodes", "2", "--json").document
    progress = ran["progress"]

    assert progress["completed"] == 2
    assert progress["lost"] == 0
    assert progress["ended"] == progress["generated"] > 0
    exported = up("export", ran["run"], *NAMED, "--out", tmp_path / "data")
    assert exported.code == 0, exported.err
    assert any((tmp_path / "data").rglob("*.parquet"))
    listed = up("runs", "list", *NAMED, "--json").document
    assert ran["run"] in {each["run"] for each in listed}


def test_the_certificate_measures_our_links_and_processors(up: Shell) -> None:
    shown = up("runs", "show", "latest", *NAMED, "--json").document
    certificate = shown["certificate"]

    # Whatever the machine gave: it was measured, against what the scenario configures.
    assert certificate["transmission"]["error"]["count"] > 0
    assert certificate["execution"]["error"]["count"] > 0
    assert certificate["valid"] in (True, False)
    assert certificate["valid"] or certificate["reasons"]


def test_the_scheduler_changes_while_a_run_goes_on(up: Shell) -> None:
    wait_until_healthy(up)
    running = up.start("run", *NAMED, "--scheduler", "ratc", "--episodes", "3", "--json")
    wait_for_run(up)
    changed = up("scheduler", "set", "rda", *NAMED, "--nodes", "0,2", "--json").document
    out, err = running.communicate(timeout=200)

    assert running.returncode == 0, err
    assert {each["node"] for each in changed if each["accepted"]} == {0, 2}
    assert json.loads(out)["progress"]["completed"] == 3


def test_a_policy_goes_to_all_pods_through_hdfs(up: Shell) -> None:
    wait_until_healthy(up)
    imported = up("policy", "import", SHIPPED, *NAMED, "--json").document

    deployed = up("policy", "deploy", imported["reference"], *NAMED, "--json").document
    ran = up("run", *NAMED, "--scheduler", "drl", "--episodes", "1", "--json").document

    assert deployed["complete"]
    assert {each["state"] for each in deployed["nodes"]} == {"ready"}
    assert ran["progress"]["completed"] == 1


def test_a_pod_deleted_in_the_middle_of_a_run_loses_its_tasks_and_no_more(up: Shell) -> None:
    wait_until_healthy(up)
    running = up.start("run", *NAMED, "--scheduler", "random", "--episodes", "4", "--json")
    wait_for_run(up)
    killed = up("kill", "3", *NAMED)
    out, err = running.communicate(timeout=200)

    assert killed.code == 0, killed.err
    assert running.returncode == 0, err
    ran = json.loads(out)
    assert ran["state"] == "degraded"
    assert ran["progress"]["dead_nodes"] == [3]
    assert ran["progress"]["lost"] > 0
    assert ran["progress"]["completed"] == 4
    assert ran["progress"]["ended"] == ran["progress"]["generated"]
    wait_until_healthy(up)


def test_an_evicted_pod_is_as_good_as_a_dead_node(up: Shell) -> None:
    wait_until_healthy(up)
    running = up.start("run", *NAMED, "--scheduler", "random", "--episodes", "4", "--json")
    wait_for_run(up)
    # The way of the kubelet and of `kubectl drain`: with time to leave in order.
    cluster = Cluster(up.kubeconfig)
    cluster.evict("edge-node-1", NAMESPACE)
    out, err = running.communicate(timeout=200)

    assert running.returncode == 0, err
    ran = json.loads(out)
    assert ran["state"] == "degraded"
    assert ran["progress"]["dead_nodes"] == [1]
    assert ran["progress"]["completed"] == 4
    wait_until_healthy(up)


def test_an_api_server_that_is_away_for_30_s_is_no_matter_to_a_run(up: Shell) -> None:
    wait_until_healthy(up)
    running = up.start("run", *NAMED, "--scheduler", "local", "--episodes", "12", "--json")
    wait_for_run(up)
    with up.way.closed():
        time.sleep(30)
    out, err = running.communicate(timeout=300)

    assert running.returncode == 0, err
    assert "the run goes on, trying again" in err
    ran = json.loads(out)["progress"]
    assert ran["completed"] == 12
    assert ran["lost"] == 0
    assert ran["dead_nodes"] == []


def test_a_controller_that_is_replaced_comes_back_to_its_nodes_and_runs(up: Shell) -> None:
    cluster = Cluster(up.kubeconfig)
    before = uids(up)
    cluster.delete("Pod", "controller-0", NAMESPACE)
    until = time.monotonic() + 120
    while uids(up).get("controller-0") in (None, before["controller-0"]):
        assert time.monotonic() < until
        time.sleep(1.0)
    said = up.up()
    assert said.code == 0, said.err

    wait_until_healthy(up)
    after = uids(up)
    assert {k: v for k, v in after.items() if k.startswith("edge-node")} == {
        k: v for k, v in before.items() if k.startswith("edge-node")
    }
    assert up("run", *NAMED, "--episodes", "1", "--json").document["progress"]["completed"] == 1


def test_logs_of_pods(up: Shell) -> None:
    log = up("logs", "0", *NAMED, "--json").document
    assert any("registered with testbed" in line for line in log["lines"])
    assert up("logs", "controller", *NAMED, "--tail", "3", "--json").document["lines"]


def test_scale_up_and_down(up: Shell) -> None:
    for count in (7, 5):
        said = up("scale", str(count), *NAMED)
        assert said.code == 0, said.err
        assert len(up("status", *NAMED, "--json").document["nodes"]) == count
    assert up("run", *NAMED, "--episodes", "1", "--json").document["progress"]["completed"] == 1


def test_an_image_that_cannot_be_had_is_named_and_nothing_stays(shell: Shell) -> None:
    said = shell.up("--set", "deployment.images.tag=never-built", *NO_HDFS, name="broken")

    assert said.code == 5, said.out
    assert "edge-testbed" in said.err
    assert "its image" in said.err
    assert "deployment.images" in said.err
    assert Cluster(shell.kubeconfig).get("Namespace", "testbed-broken") is None


def test_interrupted_it_is_cleaned_up_and_can_be_made_again(shell: Shell) -> None:
    where = ("--runtime", "cluster", "--kubeconfig", shell.kubeconfig)
    running = shell.start("up", "quickstart", "--name", "cut", *where, *NO_HDFS)
    cluster = Cluster(shell.kubeconfig)
    until = time.monotonic() + 60
    while not cluster.find_all("Pod", "testbed-cut"):
        assert time.monotonic() < until
        time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=200)

    assert running.returncode == 130, err
    assert cluster.get("Namespace", "testbed-cut") is None
    assert "cut" not in {each["name"] for each in shell("ps", "--json").document}


def test_killed_it_is_taken_up_by_the_next(shell: Shell) -> None:
    where = ("--runtime", "cluster", "--kubeconfig", shell.kubeconfig)
    running = shell.start("up", "quickstart", "--name", "cut", *where, *NO_HDFS)
    cluster = Cluster(shell.kubeconfig)
    until = time.monotonic() + 60
    while not cluster.find_all("StatefulSet", "testbed-cut"):
        assert time.monotonic() < until
        time.sleep(0.2)
    running.kill()
    running.communicate()

    gone = shell("teardown", "--name", "cut", "--verify")
    assert gone.code == 0, gone.err
    assert cluster.get("Namespace", "testbed-cut") is None


def test_runs_outlive_their_testbed(shell: Shell) -> None:
    said = shell.up(*NO_HDFS, "--set", "nodes.count=2", name="short")
    assert said.code == 0, said.err
    ran = shell("run", "--name", "short", "--episodes", "1", "--json").document

    gone = shell("teardown", "--name", "short", "--verify", "--json")

    assert gone.code == 0, gone.err
    with open_task_log(str(shell.home / "tasklog.sqlite"), create=False) as log:
        kept = log.run(ran["run"])
        assert sum(log.outcomes(kept.id).values()) == ran["progress"]["ended"]
        assert log.counts(kept.id)["decisions"] > 0
    assert shell("runs", "show", ran["run"], "--json").code == 0
    assert list(shell("logs", "0", "--name", "short", "--json").document["lines"])


def test_the_manifests_alone_are_enough(given: Path, shell: Shell) -> None:
    """Accepted by the API server as they are, pod security included."""
    cluster = Cluster(given)
    try:
        for document in expected("kind"):
            text = json.dumps(document).replace("testbed-default", "testbed-plain")
            cluster.apply(json.loads(text))
        sets = cluster.find_all("StatefulSet", "testbed-plain")
        assert {each["metadata"]["name"] for each in sets} >= {"controller", "edge-node", "mysql"}
    finally:
        cluster.delete("Namespace", "testbed-plain")
