"""Several machines: pods spread over them, one that is lost in a run, and network policies.

Needs a cluster of two machines or more that pods may run on, and network policies one whose network
enforces them. Only machines that are containers of a local engine, as kind's are, can be lost here.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from testbed.runtime.kubernetes import ClusterOptions
from testbed.runtime.kubernetes.api import Cluster
from tests.cluster.conftest import Shell, wait_for_run, wait_until, wait_until_healthy

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

NAME: Final = "wide"
NAMESPACE: Final = f"testbed-{NAME}"
NAMED: Final = ("--name", NAME)
STRANGERS: Final = "testbed-strangers"


def core(cluster: Cluster) -> Any:
    """The API of nodes and pods of the official client."""
    from kubernetes import client

    return client.CoreV1Api(cluster.client)


@pytest.fixture(scope="module")
def machines(given: Path) -> tuple[str, ...]:
    """The machines that pods may run on; at least two."""
    found = tuple(
        each.metadata.name
        for each in core(Cluster(given)).list_node().items
        if not any(taint.effect != "PreferNoSchedule" for taint in each.spec.taints or ())
    )
    if len(found) < 2:
        pytest.skip(f"the cluster has {len(found)} machine for pods")
    return found


@pytest.fixture(scope="module")
def wide(shell: Shell, given: Path, machines: tuple[str, ...]) -> Iterator[Shell]:
    """A testbed of six nodes that are to be spread evenly over the machines, without HDFS.

    Its services are on other machines than the last, which is closed until they have a place.
    """
    settings = ("nodes.count=6", "deployment.spread=true", "deployment.hdfs=false")
    api = core(Cluster(given))
    api.patch_node(machines[-1], {"spec": {"unschedulable": True}})
    try:
        said = shell.up(*(word for each in settings for word in ("--set", each)), name=NAME)
    finally:
        api.patch_node(machines[-1], {"spec": {"unschedulable": False}})
    assert said.code == 0, said.out + said.err
    yield shell
    gone = shell("teardown", *NAMED, "--verify")
    assert gone.code == 0, gone.out + gone.err


def _nodes_by_machine(shell: Shell, machines: tuple[str, ...] = ()) -> dict[str, list[int]]:
    """The edge nodes on each machine; ``machines`` are in it also if they have none."""
    found: dict[str, list[int]] = {each: [] for each in machines}
    for pod in Cluster(shell.kubeconfig).find_all("Pod", NAMESPACE):
        name, _, number = pod["metadata"]["name"].rpartition("-")
        if name == "edge-node" and (machine := pod["spec"].get("nodeName")):
            found.setdefault(machine, []).append(int(number))
    return found


def _wait_for_nodes(shell: Shell, machine: str, count: int) -> None:
    def there() -> bool:
        return len(_nodes_by_machine(shell, (machine,))[machine]) >= count

    wait_until(there, f"{machine} does not get {count} nodes")


def _unevenness(by_machine: dict[str, list[int]]) -> int:
    counts = [len(nodes) for nodes in by_machine.values()]
    return max(counts) - min(counts)


def test_nodes_are_spread_evenly_and_talk_to_each_other(
    wide: Shell, machines: tuple[str, ...]
) -> None:
    before = _nodes_by_machine(wide)
    assert set(before) == set(machines[:-1])
    assert _unevenness(before) <= 1

    # Each pod that is started again takes the machine that has the fewest.
    while _unevenness(found := _nodes_by_machine(wide, machines)) > 1:
        full = max(found, key=lambda machine: len(found[machine]))
        assert wide("kill", found[full][0], *NAMED).code == 0
        _wait_for_nodes(wide, machines[-1], len(found[machines[-1]]) + 1)
    wait_until_healthy(wide, NAME)
    ran = wide("run", *NAMED, "--scheduler", "random", "--episodes", "2", "--json").document
    assert ran["progress"]["completed"] == 2
    assert ran["progress"]["lost"] == 0
    certificate = wide("runs", "show", "latest", *NAMED, "--json").document["certificate"]
    assert certificate["transmission"]["error"]["count"] > 0


def test_a_machine_that_is_lost_takes_its_nodes_and_no_more(
    wide: Shell, machines: tuple[str, ...]
) -> None:
    victim = machines[-1]
    if not _is_container(victim):
        pytest.skip("a machine that is no container of this engine cannot be lost here")
    lost = set(_nodes_by_machine(wide, machines)[victim])
    assert lost
    wait_until_healthy(wide, NAME)

    running = wide.start("run", *NAMED, "--scheduler", "random", "--episodes", "6", "--json")
    wait_for_run(wide, NAME)
    with _away(victim):
        out, err = running.communicate(timeout=300)
        names = {each["name"] for each in wide("ps", "--json").document}

    assert running.returncode == 0, err
    ran = json.loads(out)
    assert ran["state"] == "degraded"
    assert set(ran["progress"]["dead_nodes"]) == lost
    assert ran["progress"]["lost"] > 0
    assert ran["progress"]["completed"] == 6
    assert ran["progress"]["ended"] == ran["progress"]["generated"]
    assert NAME in names
    # The machine is back, and its nodes with it.
    wait_until_healthy(wide, NAME)
    again = wide("run", *NAMED, "--episodes", "1", "--json").document
    assert again["progress"]["dead_nodes"] == []
    assert again["progress"]["lost"] == 0


CALLS: Final = """
import json, socket, sys
answered = {}
for each in sys.argv[1:]:
    host, _, port = each.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
        answered[each] = True
    except OSError:
        answered[each] = False
print(json.dumps(answered))
"""


def test_strangers_reach_nothing_of_a_testbed(wide: Shell, given: Path) -> None:
    api = core(Cluster(given))
    api.create_namespace({"metadata": {"name": STRANGERS}})
    try:
        _policy(given)
        for name in ("closed", "open"):
            _start(api, name, "-m", "http.server", "8080")
        wait_until(lambda: all(_address(api, each) for each in ("closed", "open")), "no pods")
        both = [f"{_address(api, each)}:8080" for each in ("closed", "open")]
        wait_until(lambda: _called(api, *both)[both[1]], "pods do not reach each other")
        if _called(api, *both)[both[0]]:
            pytest.skip("the network of this cluster does not enforce network policies")

        services = [
            f"controller.{NAMESPACE}:7440",
            f"mysql.{NAMESPACE}:3306",
            *(f"edge-node-{n}.edge-nodes.{NAMESPACE}:7441" for n in (0, 1)),
        ]
        called = _called(api, *services)
        assert called == dict.fromkeys(services, False)
    finally:
        api.delete_namespace(STRANGERS)
        wait_until(
            lambda: Cluster(given).get("Namespace", STRANGERS) is None, "the namespace stays"
        )


def _policy(given: Path) -> None:
    Cluster(given).apply(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "closed", "namespace": STRANGERS},
            "spec": {
                "podSelector": {"matchLabels": {"app": "closed"}},
                "policyTypes": ["Ingress"],
            },
        }
    )


def _start(api: Any, name: str, *arguments: str) -> None:
    """Start a pod ``name`` that runs Python."""
    container = {
        "name": "python",
        "image": ClusterOptions().image("edgenode"),
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", *arguments],
    }
    api.create_namespaced_pod(
        STRANGERS,
        {
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 0,
                "containers": [container],
            },
        },
    )


def _address(api: Any, name: str) -> str:
    status = api.read_namespaced_pod(name, STRANGERS).status
    return (status.pod_ip or "") if status.phase == "Running" else ""


def _called(api: Any, *addresses: str) -> dict[str, bool]:
    """Return which of these a pod of its own reaches."""
    name = f"caller-{time.monotonic_ns()}"
    _start(api, name, "-c", CALLS, *addresses)

    def over() -> bool:
        phase = api.read_namespaced_pod(name, STRANGERS).status.phase
        return phase in ("Succeeded", "Failed")

    wait_until(over, f"pod {name} does not end")
    # As bytes: the client makes a repr of what looks like JSON.
    raw = api.read_namespaced_pod_log(name, STRANGERS, _preload_content=False).data
    found: dict[str, bool] = json.loads(raw)
    return found


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def _is_container(machine: str) -> bool:
    try:
        return _docker("inspect", "--type=container", machine).returncode == 0
    except OSError:
        return False


@contextmanager
def _away(machine: str) -> Iterator[None]:
    """The machine answers nobody meanwhile, as if it had lost its power."""
    paused = _docker("pause", machine)
    assert paused.returncode == 0, paused.stderr
    try:
        yield
    finally:
        _docker("unpause", machine)
