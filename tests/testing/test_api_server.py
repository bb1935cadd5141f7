"""The fake API server's storage, apply and watches, as the official client sees them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException

from tests.api_server import ApiServer
from tests.testing.cluster import (
    NAMESPACE,
    Api,
    Object,
    config_map,
    job,
    pod,
    ready,
    refused,
    stateful_set,
)

CONFIG_MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
SETTINGS = f"{CONFIG_MAPS}/settings"
SETS = f"/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets"


# --- storage -----------------------------------------------------------------------------------


def test_version_and_discovery(server: ApiServer, api: Api) -> None:
    assert client.VersionApi(api.raw).get_code().git_version == "v1.36.2"
    groups = {group.name for group in client.ApisApi(api.raw).get_api_versions().groups}
    assert {"apps", "batch", "networking.k8s.io", "rbac.authorization.k8s.io"} <= groups
    found = {each.name: each for each in api.apps.get_api_resources().resources}
    assert found["statefulsets"].namespaced
    assert found["statefulsets"].kind == "StatefulSet"
    assert "statefulsets/status" in found


def test_what_is_created_comes_back(server: ApiServer, api: Api) -> None:
    made = api.core.create_namespaced_config_map(NAMESPACE, config_map(key="value"))
    assert made.metadata.uid
    assert made.metadata.creation_timestamp
    read = api.core.read_namespaced_config_map("settings", NAMESPACE)
    assert read == made
    listed = api.core.list_namespaced_config_map(NAMESPACE, label_selector="app=settings")
    assert [each.metadata.name for each in listed.items] == ["settings"]
    assert listed.metadata.resource_version == made.metadata.resource_version
    assert server.objects("configmaps", NAMESPACE)[-1]["data"] == {"key": "value"}
    assert server.requests[0].method == "POST"
    assert server.requests[0].status == 201
    assert server.requests[0].path == CONFIG_MAPS


def test_what_is_not_there(server: ApiServer, api: Api) -> None:
    with pytest.raises(ApiException) as call:
        api.apps.read_namespaced_stateful_set("node", NAMESPACE)
    body = refused(call)
    assert body["message"] == 'statefulsets.apps "node" not found'
    assert body["reason"] == "NotFound"
    assert body["details"] == {"name": "node", "group": "apps", "kind": "statefulsets"}
    with pytest.raises(ApiException) as call:
        api.core.create_namespaced_config_map("nowhere", config_map())
    body = refused(call)
    assert body["message"] == 'namespaces "nowhere" not found'
    assert body["details"] == {"name": "nowhere", "kind": "namespaces"}
    assert api.call("GET", f"/api/v1/namespaces/{NAMESPACE}/things")[0] == 404


def test_a_name_is_taken_once(server: ApiServer, api: Api) -> None:
    api.core.create_namespaced_config_map(NAMESPACE, config_map())
    with pytest.raises(ApiException) as call:
        api.core.create_namespaced_config_map(NAMESPACE, config_map())
    body = refused(call)
    assert body["code"] == 409
    assert body["reason"] == "AlreadyExists"
    assert body["message"] == 'configmaps "settings" already exists'


def test_names_must_be_names(server: ApiServer, api: Api) -> None:
    with pytest.raises(ApiException) as call:
        api.core.create_namespace(client.V1Namespace(metadata={"name": "x" * 64}))
    body = refused(call)
    assert body["code"] == 422
    assert body["reason"] == "Invalid"
    cause = body["details"]["causes"][0]
    assert cause["field"] == "metadata.name"
    assert "must be no more than 63" in cause["message"]
    with pytest.raises(ApiException) as call:
        api.core.create_namespaced_config_map(NAMESPACE, config_map("Upper"))
    assert "a lowercase RFC 1123 subdomain must consist of" in refused(call)["message"]


def test_a_replacement_must_know_the_version(server: ApiServer, api: Api) -> None:
    made = api.core.create_namespaced_config_map(NAMESPACE, config_map(key="one"))
    api.core.replace_namespaced_config_map("settings", NAMESPACE, config_map(key="two"))
    made.data = {"key": "three"}
    with pytest.raises(ApiException) as call:
        api.core.replace_namespaced_config_map("settings", NAMESPACE, made)
    body = refused(call)
    assert body["reason"] == "Conflict"
    assert body["message"] == (
        'Operation cannot be fulfilled on configmaps "settings": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )


def test_patches(server: ApiServer, api: Api) -> None:
    api.core.create_namespaced_config_map(NAMESPACE, config_map(one="1", two="2"))
    merge = {"data": {"one": None, "three": "3"}}
    _, body = api.call("PATCH", SETTINGS, merge, "application/merge-patch+json")
    assert body["data"] == {"two": "2", "three": "3"}
    status, body = api.call("PATCH", SETTINGS, {}, "application/json")
    assert status == 415
    assert body["reason"] == "UnsupportedMediaType"


def test_collections_are_read_in_pages_and_deleted(server: ApiServer, api: Api) -> None:
    for number in range(5):
        api.core.create_namespaced_config_map(NAMESPACE, config_map(f"c{number}"))
    names, token = [], None
    while True:
        page = api.core.list_namespaced_config_map(NAMESPACE, limit=2, _continue=token)
        names += [each.metadata.name for each in page.items]
        token = page.metadata._continue
        if not token:
            break
    assert names == ["c0", "c1", "c2", "c3", "c4", "kube-root-ca.crt"]
    page = api.core.list_namespaced_config_map(NAMESPACE, limit=2)
    server.compact()
    with pytest.raises(ApiException) as call:
        api.core.list_namespaced_config_map(NAMESPACE, limit=2, _continue=page.metadata._continue)
    assert refused(call)["reason"] == "Expired"
    api.core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="app in (c1, c2)")
    left = [each["metadata"]["name"] for each in server.objects("configmaps", NAMESPACE)]
    assert left == ["c0", "c3", "c4", "kube-root-ca.crt"]


def test_field_selectors(server: ApiServer, api: Api) -> None:
    api.core.create_namespaced_pod(NAMESPACE, pod("one"))
    api.core.create_namespaced_pod(NAMESPACE, pod("two"))
    server.wait_for(lambda: ready(server, "one") and ready(server, "two"))
    found = api.core.list_namespaced_pod(NAMESPACE, field_selector="metadata.name=two")
    assert [each.metadata.name for each in found.items] == ["two"]
    events = api.core.list_namespaced_event(NAMESPACE, field_selector="involvedObject.name=one")
    assert {each.involved_object.name for each in events.items} == {"one"}
    assert [each.reason for each in events.items] == ["Scheduled", "Pulled", "Created", "Started"]


def test_a_namespace_goes_with_all_that_is_in_it(server: ApiServer, api: Api) -> None:
    api.apps.create_namespaced_stateful_set(NAMESPACE, stateful_set(replicas=1))
    server.wait_for(lambda: ready(server, "node-0"))
    server.pods_become("stuck-terminating")
    _, answer = api.call("DELETE", f"/api/v1/namespaces/{NAMESPACE}")
    assert answer["kind"] == "Namespace"
    assert answer["status"]["phase"] == "Terminating"
    with pytest.raises(ApiException) as call:
        api.core.create_namespaced_config_map(NAMESPACE, config_map())
    body = refused(call)
    assert body["code"] == 403
    assert body["message"] == (
        'configmaps "settings" is forbidden: unable to create new content in namespace edge '
        "because it is being terminated"
    )
    assert body["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    conditions = server.wait_for(
        lambda: (
            found["status"]["conditions"]
            if "conditions" in (found := server.object("namespaces", "", NAMESPACE))["status"]
            else []
        )
    )
    assert "pods. has 1 resource instances" in json.dumps(conditions)
    server.pods_become("ready")
    server.wait_for(
        lambda: NAMESPACE not in {each["metadata"]["name"] for each in server.objects("namespaces")}
    )
    assert server.objects("pods", NAMESPACE) == []


def test_deleting_follows_the_policy(server: ApiServer, api: Api) -> None:
    api.apps.create_namespaced_stateful_set(NAMESPACE, stateful_set(replicas=2))
    server.wait_for(lambda: ready(server, "node-1"))
    api.apps.delete_namespaced_stateful_set("node", NAMESPACE, propagation_policy="Orphan")
    server.wait_for(lambda: not server.objects("statefulsets", NAMESPACE))
    assert [each["metadata"].get("ownerReferences") for each in server.objects("pods")] == [[], []]
    api.apps.create_namespaced_stateful_set(NAMESPACE, stateful_set("other", replicas=2))
    server.wait_for(lambda: ready(server, "other-1"))
    answer = api.apps.delete_namespaced_stateful_set(
        "other", NAMESPACE, propagation_policy="Foreground"
    )
    assert answer is not None
    server.wait_for(lambda: not server.objects("statefulsets", NAMESPACE))
    assert [each["metadata"]["name"] for each in server.objects("pods")] == ["node-0", "node-1"]


def test_a_deleted_job_leaves_its_pods_unless_told(server: ApiServer, api: Api) -> None:
    for name, policy, left in (("one", None, 1), ("two", "Background", 0)):
        api.batch.create_namespaced_job(NAMESPACE, job(name))
        server.wait_for(lambda: server.objects("pods", NAMESPACE))
        options = {"propagation_policy": policy} if policy else {}
        api.batch.delete_namespaced_job(name, NAMESPACE, **options)
        server.wait_for(
            lambda left=left: (  # type: ignore[misc]
                not server.objects("jobs") and len(server.objects("pods", NAMESPACE)) == left
            )
        )
        api.core.delete_collection_namespaced_pod(NAMESPACE)
        server.wait_for(lambda: not server.objects("pods", NAMESPACE))


# --- apply -------------------------------------------------------------------------------------


def test_an_apply_makes_and_then_changes_nothing(server: ApiServer, api: Api) -> None:
    path = f"{SETS}/node"
    status, made = api.apply(path, stateful_set())
    assert status == 201
    assert made["metadata"]["generation"] == 1
    server.wait_for(lambda: ready(server, "node-2"))
    server.wait_for(
        lambda: server.object("statefulsets", NAMESPACE, "node")["status"]["readyReplicas"] == 3
    )
    before = server.object("statefulsets", NAMESPACE, "node")
    status, again = api.apply(path, stateful_set())
    assert status == 200
    assert again == before
    assert server.object("statefulsets", NAMESPACE, "node") == before
    status, changed = api.apply(path, stateful_set(replicas=4))
    assert changed["metadata"]["generation"] == 2
    assert changed["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]


def test_somebody_elses_field_is_a_conflict(server: ApiServer, api: Api) -> None:
    path = f"{SETS}/node"
    api.apply(path, stateful_set(replicas=3))
    server.edit("statefulsets", NAMESPACE, "node", {"spec": {"replicas": 5}}, "kubectl-edit")
    status, body = api.apply(path, stateful_set(replicas=3))
    assert status == 409
    assert body == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'Apply failed with 1 conflict: conflict with "kubectl-edit" using apps/v1: '
        ".spec.replicas",
        "reason": "Conflict",
        "details": {
            "causes": [
                {
                    "reason": "FieldManagerConflict",
                    "message": 'conflict with "kubectl-edit" using apps/v1',
                    "field": ".spec.replicas",
                }
            ]
        },
        "code": 409,
    }
    assert server.object("statefulsets", NAMESPACE, "node")["spec"]["replicas"] == 5
    status, body = api.apply(path, stateful_set(replicas=5))
    assert status == 200, "the same value is no conflict"
    status, body = api.apply(path, stateful_set(replicas=3), force="true")
    assert status == 200
    assert body["spec"]["replicas"] == 3
    managers = {each["manager"] for each in body["metadata"]["managedFields"]}
    assert managers == {"edge-testbed"}


def test_two_appliers(server: ApiServer, api: Api) -> None:
    api.apply(SETTINGS, config_map(one="1", two="2"), "first")
    other = config_map(three="3") | {"metadata": {"name": "settings"}}
    status, body = api.apply(SETTINGS, other, "second")
    assert status == 200
    assert body["data"] == {"one": "1", "two": "2", "three": "3"}
    both = config_map(one="I", two="II") | {"metadata": {"name": "settings"}}
    status, body = api.apply(SETTINGS, both, "second")
    assert status == 409
    assert body["message"] == (
        'Apply failed with 2 conflicts: conflicts with "first":\n- .data.one\n- .data.two'
    )


def test_what_is_applied_no_more_is_removed(server: ApiServer, api: Api) -> None:
    api.apply(SETTINGS, config_map(one="1", two="2"), "first")
    server.edit("configmaps", NAMESPACE, "settings", {"data": {"three": "3"}})
    _, body = api.apply(SETTINGS, config_map(one="1"), "first")
    assert body["data"] == {"one": "1", "three": "3"}
    first = stateful_set()
    first["spec"]["template"]["spec"]["containers"].append({"name": "side", "image": "side:1"})
    first["spec"]["minReadySeconds"] = 5
    api.apply(f"{SETS}/node", first)
    _, body = api.apply(f"{SETS}/node", stateful_set())
    names = [each["name"] for each in body["spec"]["template"]["spec"]["containers"]]
    assert names == ["main"]
    assert "minReadySeconds" not in body["spec"]
    without = stateful_set()
    del without["spec"]["replicas"]
    _, body = api.apply(f"{SETS}/node", without)
    assert body["spec"]["replicas"] == 1, "the default"


def test_an_apply_needs_a_manager(server: ApiServer, api: Api) -> None:
    status, body = api.call("PATCH", SETTINGS, config_map(), "application/apply-patch+yaml")
    assert status == 422
    assert body["details"]["causes"][0]["field"] == "fieldManager"


def test_what_cannot_change(server: ApiServer, api: Api) -> None:
    api.apply(f"{SETS}/node", stateful_set())
    status, body = api.apply(f"{SETS}/node", stateful_set(serviceName="other"))
    assert status == 422
    assert body["message"] == (
        'StatefulSet.apps "node" is invalid: spec: Forbidden: updates to statefulset spec for '
        "fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
        "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are "
        "forbidden"
    )


def test_a_dry_run_stores_nothing(server: ApiServer, api: Api) -> None:
    status, body = api.apply(SETTINGS, config_map(one="1"), dryRun="All")
    assert status == 201
    assert body["metadata"]["uid"]
    assert api.call("GET", SETTINGS)[0] == 404


# --- watches -----------------------------------------------------------------------------------


def test_a_watch_sees_every_change_once(server: ApiServer, api: Api) -> None:
    version = api.core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    api.core.create_namespaced_config_map(NAMESPACE, config_map(key="one"))
    server.edit("configmaps", NAMESPACE, "settings", {"data": {"key": "two"}})
    server.edit("configmaps", NAMESPACE, "settings", {"data": {"key": "two"}})
    server.delete("configmaps", NAMESPACE, "settings")
    api.core.create_namespaced_config_map(NAMESPACE, config_map("other"))
    events = watch.Watch().stream(
        api.core.list_namespaced_config_map,
        NAMESPACE,
        resource_version=version,
        label_selector="app=settings",
        timeout_seconds=1,
    )
    seen = [(each["type"], each["object"].data.get("key")) for each in events]
    assert seen == [("ADDED", "one"), ("MODIFIED", "two"), ("DELETED", "two")]


def test_a_watch_without_a_version_begins_with_what_is_there(server: ApiServer, api: Api) -> None:
    api.core.create_namespaced_config_map(NAMESPACE, config_map())
    watching = watch.Watch()
    names = []
    for event in watching.stream(api.core.list_namespaced_config_map, NAMESPACE):
        names.append((event["type"], event["object"].metadata.name))
        if len(names) == 2:
            api.core.create_namespaced_config_map(NAMESPACE, config_map("new"))
        if len(names) == 3:
            watching.stop()
    assert names == [("ADDED", "kube-root-ca.crt"), ("ADDED", "settings"), ("ADDED", "new")]


def test_what_leaves_a_selection_is_deleted_from_it(server: ApiServer, api: Api) -> None:
    made = api.core.create_namespaced_config_map(NAMESPACE, config_map())
    server.edit("configmaps", NAMESPACE, "settings", {"metadata": {"labels": {"app": "no"}}})
    events = list(_events(server, made.metadata.resource_version, "labelSelector=app%3Dsettings"))
    assert [each["type"] for each in events] == ["DELETED"]


def test_a_version_that_is_too_old_is_gone(server: ApiServer, api: Api) -> None:
    version = api.core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    api.core.create_namespaced_config_map(NAMESPACE, config_map())
    server.compact()
    (event,) = _events(server, version)
    assert event["type"] == "ERROR"
    assert event["object"]["code"] == 410
    assert event["object"]["reason"] == "Expired"
    assert event["object"]["message"].startswith(f"too old resource version: {version} (")
    with pytest.raises(ApiException, match="too old resource version") as call:
        list(
            watch.Watch().stream(
                api.core.list_namespaced_config_map, NAMESPACE, resource_version=version
            )
        )
    assert call.value.status == 410


def test_watches_break_and_expire(server: ApiServer, api: Api) -> None:
    version = api.core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    began = len(server.requests)

    def when_watched(act: object) -> threading.Thread:
        def wait() -> None:
            server.wait_for(
                lambda: any(each.query.get("watch") for each in server.requests[began:])
            )
            assert callable(act)
            act()

        thread = threading.Thread(target=wait)
        thread.start()
        return thread

    thread = when_watched(server.break_watches)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        list(_events(server, version, timeout_s=30))
    thread.join()
    began = len(server.requests)
    thread = when_watched(server.expire_watches)
    (event,) = _events(server, version, timeout_s=30)
    thread.join()
    assert event["object"]["code"] == 410


def test_bookmarks(server: ApiServer, api: Api) -> None:
    version = api.core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    server.create("secrets", {"metadata": {"name": "s", "namespace": NAMESPACE}})
    # Several, where the machine is so busy that time for another passes.
    event, *more = _events(server, version, "allowWatchBookmarks=true")
    assert {each["type"] for each in (event, *more)} == {"BOOKMARK"}
    assert int(event["object"]["metadata"]["resourceVersion"]) > int(version)
    *added, mark = _events(server, "", "sendInitialEvents=true&allowWatchBookmarks=true")[:2]
    assert [each["type"] for each in added] == ["ADDED"]
    assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


# --- the server itself -------------------------------------------------------------------------


def test_a_token_is_needed(server: ApiServer, tmp_path: Path) -> None:
    path = server.kubeconfig(tmp_path / "other", token="wrong")
    with pytest.raises(ApiException) as call:
        client.CoreV1Api(config.new_client_from_config(str(path))).list_namespace()
    body = refused(call)
    assert body["code"] == 401
    assert body["message"] == "Unauthorized"


def test_nothing_is_left_when_it_ends(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with ApiServer() as server:
        version = server.object("namespaces", "", "default")["metadata"]["resourceVersion"]
        reader = threading.Thread(
            target=lambda: _events(server, version, "x=y", timeout_s=60, tolerant=True)
        )
        reader.start()
        server.wait_for(lambda: server.requests)
    reader.join(10.0)
    assert set(threading.enumerate()) == before


def _events(
    server: ApiServer,
    version: str,
    query: str = "",
    timeout_s: int = 1,
    *,
    tolerant: bool = False,
) -> list[Object]:
    """What a watch of config maps says until it ends."""

    def lines() -> Iterator[Object]:
        with urllib3.PoolManager() as pool:
            response = pool.request(
                "GET",
                f"{server.url}{CONFIG_MAPS}?watch=1&resourceVersion={version}"
                f"&timeoutSeconds={timeout_s}&{query}",
                headers={"Authorization": "Bearer fake-token"},
                preload_content=False,
                retries=False,
            )
            assert response.headers["Content-Type"] == "application/json"
            for line in b"".join(response.stream()).splitlines():
                yield json.loads(line)

    try:
        return list(lines())
    except urllib3.exceptions.HTTPError:
        if not tolerant:
            raise
        return []
