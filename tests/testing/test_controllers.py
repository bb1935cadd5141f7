"""The fake cluster behind the API: what becomes of workloads, pods and volumes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kubernetes import watch
from kubernetes.client.exceptions import ApiException

from tests.api_server import ApiServer
from tests.testing.cluster import (
    NAMESPACE,
    Api,
    Object,
    events_of,
    job,
    pod,
    pod_template,
    ready,
    stateful_set,
)


def _up(server: ApiServer, api: Api, replicas: int = 3, **spec: Any) -> None:
    api.apps.create_namespaced_stateful_set(NAMESPACE, stateful_set(replicas=replicas, **spec))
    server.wait_for(lambda: _status(server).get("readyReplicas") == replicas)


def _status(server: ApiServer, name: str = "node") -> Object:
    status: Object = server.object("statefulsets", NAMESPACE, name)["status"]
    return status


def _uid(server: ApiServer, name: str) -> str:
    uid: str = server.object("pods", NAMESPACE, name)["metadata"]["uid"]
    return uid


def _waiting(server: ApiServer, name: str) -> str:
    status = server.object("pods", NAMESPACE, name)["status"]["containerStatuses"][0]
    reason: str = status["state"]["waiting"]["reason"]
    return reason


# --- stateful sets -----------------------------------------------------------------------------


def test_a_stateful_set_makes_its_pods(server: ApiServer, api: Api) -> None:
    _up(server, api)
    names = [each.metadata.name for each in api.core.list_namespaced_pod(NAMESPACE).items]
    assert names == ["node-0", "node-1", "node-2"]
    made = api.core.read_namespaced_pod("node-1", NAMESPACE)
    assert made.metadata.labels["apps.kubernetes.io/pod-index"] == "1"
    assert made.metadata.labels["statefulset.kubernetes.io/pod-name"] == "node-1"
    (owner,) = made.metadata.owner_references
    assert (owner.kind, owner.name, owner.controller) == ("StatefulSet", "node", True)
    assert (made.spec.hostname, made.spec.subdomain) == ("node-1", "node")
    status = api.apps.read_namespaced_stateful_set("node", NAMESPACE).status
    assert status.replicas == status.updated_replicas == status.available_replicas == 3
    assert status.current_revision == status.update_revision
    assert status.current_revision == made.metadata.labels["controller-revision-hash"]
    assert ("SuccessfulCreate", "Create Pod node-2 in StatefulSet node successful") in events_of(
        server, NAMESPACE, "node"
    )


def test_pods_come_in_order(server: ApiServer, api: Api) -> None:
    server.pods_become("running", {"apps.kubernetes.io/pod-index": "1"})
    value = stateful_set(podManagementPolicy="OrderedReady")
    api.apps.create_namespaced_stateful_set(NAMESPACE, value)
    server.wait_for(lambda: server.object("pods", NAMESPACE, "node-1")["status"].get("podIP"))
    assert len(server.objects("pods", NAMESPACE)) == 2
    server.pods_become("ready")
    server.wait_for(lambda: ready(server, "node-2"))


def test_a_deleted_pod_is_replaced(server: ApiServer, api: Api) -> None:
    _up(server, api)
    before = _uid(server, "node-1")
    api.core.delete_namespaced_pod("node-1", NAMESPACE, grace_period_seconds=0)
    server.wait_for(lambda: _uid(server, "node-1") != before and ready(server, "node-1"))


def test_scaling_down_takes_the_last(server: ApiServer, api: Api) -> None:
    _up(server, api)
    server.edit("statefulsets", NAMESPACE, "node", {"spec": {"replicas": 1}})
    server.wait_for(lambda: len(server.objects("pods", NAMESPACE)) == 1)
    assert server.objects("pods", NAMESPACE)[0]["metadata"]["name"] == "node-0"
    server.wait_for(lambda: _status(server)["replicas"] == 1)


def test_a_new_template_replaces_pods_from_the_last(server: ApiServer, api: Api) -> None:
    _up(server, api)
    first = _status(server)["currentRevision"]
    before = {name: _uid(server, name) for name in ("node-0", "node-1", "node-2")}
    server.pods_become("image-pull-backoff")
    template = pod_template({"app": "node"}, "registry.example.com/node:2")
    server.edit("statefulsets", NAMESPACE, "node", {"spec": {"template": template}})
    server.wait_for(lambda: _waiting(server, "node-2") == "ImagePullBackOff")
    status = server.wait_for(
        lambda: status if (status := _status(server)).get("updatedReplicas") == 1 else None
    )
    assert status is not None
    assert status["currentRevision"] == first != status["updateRevision"]
    assert _uid(server, "node-1") == before["node-1"], "it waits for the broken one"
    server.pods_become("ready")
    server.wait_for(lambda: _status(server)["currentRevision"] != first)
    assert all(_uid(server, name) != uid for name, uid in before.items())
    assert _status(server)["updatedReplicas"] == 3


def test_volumes_outlive_the_pods(server: ApiServer, api: Api) -> None:
    claim = {
        "metadata": {"name": "state"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    server.claims_bind(False)
    value = stateful_set(replicas=1, volumeClaimTemplates=[claim])
    api.apps.create_namespaced_stateful_set(NAMESPACE, value)
    server.wait_for(
        lambda: any(
            "unbound immediate PersistentVolumeClaims" in message
            for _, message in events_of(server, NAMESPACE, "node-0")
        )
    )
    server.claims_bind(True)
    server.wait_for(lambda: ready(server, "node-0"))
    bound = server.object("persistentvolumeclaims", NAMESPACE, "state-node-0")
    assert bound["status"]["phase"] == "Bound"
    assert bound["metadata"]["labels"] == {"app": "node"}
    api.core.delete_namespaced_persistent_volume_claim("state-node-0", NAMESPACE)
    there = server.object("persistentvolumeclaims", NAMESPACE, "state-node-0")
    assert there["metadata"]["deletionTimestamp"], "a pod still uses it"
    api.apps.delete_namespaced_stateful_set("node", NAMESPACE)
    server.wait_for(lambda: not server.objects("persistentvolumeclaims", NAMESPACE))
    server.wait_for(lambda: not server.objects("persistentvolumes"))


def test_two_hundred_pods(server: ApiServer, api: Api) -> None:
    _up(server, api, replicas=200)
    assert len(server.objects("pods", NAMESPACE)) == 200


# --- pods --------------------------------------------------------------------------------------


def test_a_watch_sees_every_step(server: ApiServer, api: Api) -> None:
    version = api.core.list_namespaced_pod(NAMESPACE).metadata.resource_version
    api.core.create_namespaced_pod(NAMESPACE, pod())
    watching, seen = watch.Watch(), []
    for event in watching.stream(api.core.list_namespaced_pod, NAMESPACE, resource_version=version):
        status = event["object"].status
        conditions = {each.type: each.status for each in status.conditions or []}
        seen.append((status.phase, conditions.get("PodScheduled"), conditions.get("Ready")))
        if conditions.get("Ready") == "True":
            watching.stop()
    assert seen == [
        ("Pending", None, None),
        ("Pending", "True", None),
        ("Pending", "True", "False"),
        ("Pending", "True", "False"),
        ("Running", "True", "False"),
        ("Running", "True", "True"),
    ]


@pytest.mark.parametrize(
    ("state", "reason", "event"),
    [
        ("image-pull-backoff", "ImagePullBackOff", "Error: ErrImagePull"),
        ("crash-loop", "CrashLoopBackOff", "Back-off restarting failed container main in pod"),
        ("stuck-creating", "ContainerCreating", "Successfully assigned edge/single"),
    ],
)
def test_pods_that_do_not_start(
    server: ApiServer, api: Api, state: Any, reason: str, event: str
) -> None:
    server.pods_become(state, {"app": "single"})
    api.core.create_namespaced_pod(NAMESPACE, pod())
    server.wait_for(lambda: _waiting(server, "single") == reason)
    server.wait_for(
        lambda: any(event in message for _, message in events_of(server, NAMESPACE, "single"))
    )
    assert not ready(server, "single")
    server.pods_become("ready", {"app": "single"})
    server.wait_for(lambda: ready(server, "single"))


def test_a_pod_that_fits_nowhere(server: ApiServer, api: Api) -> None:
    server.pods_become("unschedulable")
    api.core.create_namespaced_pod(NAMESPACE, pod())
    (condition,) = server.wait_for(
        lambda: server.object("pods", NAMESPACE, "single")["status"]["conditions"]
    )
    assert condition["reason"] == "Unschedulable"
    assert condition["message"].startswith("0/1 nodes are available: 1 Insufficient cpu.")
    server.wait_for(
        lambda: ("FailedScheduling", condition["message"]) in events_of(server, NAMESPACE)
    )
    api.core.delete_namespaced_pod("single", NAMESPACE)
    assert server.objects("pods", NAMESPACE) == [], "nothing has to stop"


def test_a_pod_waits_for_what_it_mounts(server: ApiServer, api: Api) -> None:
    value = pod()
    value["spec"]["volumes"] = [{"name": "keys", "secret": {"secretName": "credentials"}}]
    value["spec"]["containers"][0]["volumeMounts"] = [{"name": "keys", "mountPath": "/keys"}]
    api.core.create_namespaced_pod(NAMESPACE, value)
    server.wait_for(
        lambda: (
            (
                "FailedMount",
                'MountVolume.SetUp failed for volume "keys" : secret "credentials" not found',
            )
            in events_of(server, NAMESPACE, "single")
        )
    )
    server.create("secrets", {"metadata": {"name": "credentials", "namespace": NAMESPACE}})
    server.wait_for(lambda: ready(server, "single"))


def test_an_evicted_pod_is_replaced(server: ApiServer, api: Api) -> None:
    _up(server, api)
    before = _uid(server, "node-1")
    version = api.core.list_namespaced_pod(NAMESPACE).metadata.resource_version
    server.evict(NAMESPACE, "node-1")
    server.wait_for(lambda: _uid(server, "node-1") != before and ready(server, "node-1"))
    events = watch.Watch().stream(
        api.core.list_namespaced_pod, NAMESPACE, resource_version=version, timeout_seconds=1
    )
    first = next(iter(events))["object"]
    assert (first.status.phase, first.status.reason) == ("Failed", "Evicted")
    assert "The node was low on resource: memory." in first.status.message
    assert (
        "RecreatingFailedPod",
        "StatefulSet edge/node is recreating failed Pod node-1",
    ) in events_of(server, NAMESPACE, "node")


def test_an_oom_killed_container_is_restarted(server: ApiServer, api: Api) -> None:
    _up(server, api)
    before = _uid(server, "node-1")
    server.oom_kill(NAMESPACE, "node-1")
    status = server.wait_for(
        lambda: (
            found
            if ready(server, "node-1")
            and (
                found := server.object("pods", NAMESPACE, "node-1")["status"]["containerStatuses"][
                    0
                ]
            )["restartCount"]
            else {}
        )
    )
    assert status["restartCount"] == 1
    assert status["lastState"]["terminated"]["reason"] == "OOMKilled"
    assert status["lastState"]["terminated"]["exitCode"] == 137
    assert _uid(server, "node-1") == before


def test_pods_take_their_time(server: ApiServer, api: Api) -> None:
    server.pods_become("ready", after_s=0.2)
    api.core.create_namespaced_pod(NAMESPACE, pod())
    server.wait_for(lambda: _waiting(server, "single") == "ContainerCreating")
    server.wait_for(lambda: ready(server, "single"))


def test_nothing_happens_while_the_controllers_are_down(server: ApiServer, api: Api) -> None:
    with server.controllers_paused():
        api.apps.create_namespaced_stateful_set(NAMESPACE, stateful_set())
        assert server.objects("pods") == []
    server.wait_for(lambda: ready(server, "node-2"))


# --- jobs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "condition"), [("succeeded", "Complete"), ("failed", "Failed")])
def test_a_job_ends(server: ApiServer, api: Api, state: Any, condition: str) -> None:
    server.pods_become(state)
    api.batch.create_namespaced_job(NAMESPACE, job(backoffLimit=1))
    status = server.wait_for(
        lambda: (
            found
            if (found := server.object("jobs", NAMESPACE, "train")["status"]).get("conditions")
            else {}
        )
    )
    assert condition in {each["type"] for each in status["conditions"]}
    assert len(server.objects("pods", NAMESPACE)) == (1 if state == "succeeded" else 2)


# --- logs --------------------------------------------------------------------------------------


def test_logs(server: ApiServer, api: Api) -> None:
    with pytest.raises(ApiException, match="not found"):
        api.core.read_namespaced_pod_log("single", NAMESPACE)
    server.pods_become("stuck-creating")
    api.core.create_namespaced_pod(NAMESPACE, pod())
    server.wait_for(lambda: _waiting(server, "single"))
    with pytest.raises(ApiException) as call:
        api.core.read_namespaced_pod_log("single", NAMESPACE)
    assert json.loads(call.value.body or "")["message"] == (
        'container "main" in pod "single" is waiting to start: ContainerCreating'
    )
    server.pods_become("ready")
    server.wait_for(lambda: ready(server, "single"))
    server.log(NAMESPACE, "single", ["one", "two", "drei ü"])
    read = api.core.read_namespaced_pod_log
    assert read("single", NAMESPACE) == "one\ntwo\ndrei ü\n"
    assert read("single", NAMESPACE, tail_lines=1) == "drei ü\n"
    assert read("single", NAMESPACE, timestamps=True, tail_lines=1).endswith("Z drei ü\n")
    with pytest.raises(ApiException, match="previous terminated container"):
        read("single", NAMESPACE, previous=True)
    server.oom_kill(NAMESPACE, "single")
    server.log(NAMESPACE, "single", ["again"])
    assert read("single", NAMESPACE, previous=True) == "one\ntwo\ndrei ü\n"
    server.wait_for(lambda: ready(server, "single"))
    assert read("single", NAMESPACE, container="main") == "again\n"
    with pytest.raises(ApiException, match="container other is not valid for pod single"):
        read("single", NAMESPACE, container="other")


def test_a_log_is_followed_to_the_end_of_the_pod(server: ApiServer, api: Api) -> None:
    api.core.create_namespaced_pod(NAMESPACE, pod())
    server.wait_for(lambda: ready(server, "single"))
    server.log(NAMESPACE, "single", ["first"])
    lines = []
    for line in watch.Watch().stream(api.core.read_namespaced_pod_log, "single", NAMESPACE):
        lines.append(line)
        if len(lines) == 1:
            server.log(NAMESPACE, "single", ["second"])
            server.delete("pods", NAMESPACE, "single")
        if len(lines) == 2:
            break
    assert lines == ["first", "second"]
