"""What can be switched to go wrong on the fake API server, and how it is worded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from tests.api_server import TOKEN, ApiServer
from tests.testing.cluster import (
    NAMESPACE,
    Api,
    Object,
    config_map,
    events_of,
    pod,
    ready,
    refused,
    stateful_set,
)

SETTINGS = f"/api/v1/namespaces/{NAMESPACE}/configmaps/settings"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
SETS = f"/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets"


# --- rights ------------------------------------------------------------------------------------


def test_what_is_forbidden_is_named(server: ApiServer, api: Api) -> None:
    fault = server.forbid("create", "statefulsets", namespace=NAMESPACE)
    with pytest.raises(ApiException) as call:
        api.apps.create_namespaced_stateful_set(NAMESPACE, stateful_set())
    assert refused(call) == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'statefulsets.apps is forbidden: User "fake-user" cannot create resource '
        '"statefulsets" in API group "apps" in the namespace "edge"',
        "reason": "Forbidden",
        "details": {"group": "apps", "kind": "statefulsets"},
        "code": 403,
    }
    assert fault.hits == 1
    status, body = api.apply(f"{SETS}/node", stateful_set())
    assert status == 403, "an apply that makes an object needs the right to"
    assert 'statefulsets.apps "node" is forbidden' in body["message"]
    fault.end()
    assert api.apply(f"{SETS}/node", stateful_set())[0] == 201


def test_forbidden_at_the_cluster_scope_and_below_a_pod(server: ApiServer, api: Api) -> None:
    server.forbid("list", "namespaces")
    with pytest.raises(ApiException) as call:
        api.core.list_namespace()
    assert refused(call)["message"] == (
        'namespaces is forbidden: User "fake-user" cannot list resource "namespaces" in API group '
        '"" at the cluster scope'
    )
    api.core.create_namespaced_pod(NAMESPACE, pod())
    server.forbid("get", "pods/log")
    with pytest.raises(ApiException) as call:
        api.core.read_namespaced_pod_log("single", NAMESPACE)
    assert 'cannot get resource "pods/log"' in refused(call)["message"]
    assert api.core.read_namespaced_pod("single", NAMESPACE)


def test_reviews_say_what_is_forbidden(server: ApiServer, api: Api) -> None:
    def allowed(verb: str, **attributes: str) -> bool:
        wanted = {"verb": verb, "namespace": NAMESPACE} | attributes
        review = client.AuthorizationV1Api(api.raw).create_self_subject_access_review(
            client.V1SelfSubjectAccessReview(
                spec=client.V1SelfSubjectAccessReviewSpec(
                    resource_attributes=client.V1ResourceAttributes(**wanted)
                )
            )
        )
        assert review.status is not None
        return bool(review.status.allowed)

    assert allowed("patch", group="apps", resource="statefulsets")
    server.forbid("patch", "statefulsets")
    server.forbid("create", "pods/portforward")
    assert not allowed("patch", group="apps", resource="statefulsets")
    assert allowed("get", group="apps", resource="statefulsets")
    assert not allowed("create", resource="pods", subresource="portforward")
    assert allowed("create", resource="pods")
    status, body = api.call(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
        {"kind": "SelfSubjectRulesReview", "spec": {"namespace": NAMESPACE}},
    )
    assert status == 201
    (rule,) = (
        each for each in body["status"]["resourceRules"] if each["resources"] == ["statefulsets"]
    )
    assert "patch" not in rule["verbs"]
    assert "get" in rule["verbs"]


def test_rights_may_be_granted_one_by_one(server: ApiServer, api: Api) -> None:
    server.grant([{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "list"]}])
    server.grant(
        [{"apiGroups": ["apps"], "resources": ["statefulsets"], "verbs": ["*"]}],
        namespace=NAMESPACE,
    )
    assert api.core.list_namespace()
    assert api.apply(f"{SETS}/node", stateful_set())[0] == 201
    assert api.apply(SETTINGS, config_map())[0] == 403
    assert api.call("GET", "/apis/apps/v1/statefulsets")[0] == 403


# --- quotas, admission -------------------------------------------------------------------------


def test_a_quota_limits_direct_creates(server: ApiServer, api: Api) -> None:
    server.quota({"pods": "1", "requests.memory": "1Gi"}, namespace=NAMESPACE)
    api.core.create_namespaced_pod(NAMESPACE, pod("one"))
    with pytest.raises(ApiException) as call:
        api.core.create_namespaced_pod(NAMESPACE, pod("two"))
    body = refused(call)
    assert body["code"] == 403
    assert body["reason"] == "Forbidden"
    assert body["message"] == (
        'pods "two" is forbidden: exceeded quota: quota, requested: pods=1, used: pods=1, '
        "limited: pods=1"
    )
    used = {"pods": "1", "requests.memory": "64Mi"}
    server.wait_for(
        lambda: server.object("resourcequotas", NAMESPACE, "quota")["status"].get("used") == used
    )


def test_a_quota_stops_a_stateful_set(server: ApiServer, api: Api) -> None:
    server.quota({"pods": "2"})
    api.core.create_namespace({"metadata": {"name": "new"}})
    server.wait_for(lambda: server.object("serviceaccounts", "new", "default"))
    api.apps.create_namespaced_stateful_set("new", stateful_set(replicas=3))
    reason, message = server.wait_for(
        lambda: [
            (reason, message)
            for reason, message in events_of(server, "new", "node")
            if reason == "FailedCreate"
        ]
    )[0]
    assert reason == "FailedCreate"
    assert message == (
        'Create Pod node-2 in StatefulSet node failed error: pods "node-2" is forbidden: '
        "exceeded quota: quota, requested: pods=1, used: pods=2, limited: pods=2"
    )
    server.wait_for(
        lambda: server.object("statefulsets", "new", "node")["status"].get("readyReplicas") == 2
    )
    server.quota({"pods": "3"})
    server.wait_for(lambda: ready(server, "node-2", "new"))


def test_a_quota_of_cpu_limits_demands_them(server: ApiServer, api: Api) -> None:
    server.quota({"limits.cpu": "2"}, namespace=NAMESPACE)
    with pytest.raises(ApiException) as call:
        api.core.create_namespaced_pod(NAMESPACE, pod())
    assert refused(call)["message"] == (
        'pods "single" is forbidden: failed quota: quota: must specify limits.cpu for: main'
    )


def test_a_webhook_denies(server: ApiServer, api: Api) -> None:
    server.deny("create", "pods", "images must come from registry.internal")
    with pytest.raises(ApiException) as call:
        api.core.create_namespaced_pod(NAMESPACE, pod())
    message = (
        'admission webhook "policy.example.com" denied the request: images must come from '
        "registry.internal"
    )
    assert refused(call)["message"] == message
    api.apps.create_namespaced_stateful_set(NAMESPACE, stateful_set())
    server.wait_for(
        lambda: any(
            reason == "FailedCreate" and message in said
            for reason, said in events_of(server, NAMESPACE)
        )
    )


def test_pod_security(server: ApiServer, api: Api) -> None:
    labels = {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/warn": "restricted",
    }
    server.edit("namespaces", "", NAMESPACE, {"metadata": {"labels": labels}})
    with pytest.raises(ApiException) as call:
        api.core.create_namespaced_pod(NAMESPACE, pod())
    violations = (
        'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container '
        '"main" must set securityContext.allowPrivilegeEscalation=false), unrestricted '
        'capabilities (container "main" must set securityContext.capabilities.drop=["ALL"]), '
        'runAsNonRoot != true (pod or container "main" must set '
        'securityContext.runAsNonRoot=true), seccompProfile (pod or container "main" must set '
        'securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'
    )
    assert refused(call)["message"] == f'pods "single" is forbidden: {violations}'
    api.apps.create_namespaced_stateful_set(NAMESPACE, stateful_set())
    server.wait_for(
        lambda: any(violations in message for _, message in events_of(server, NAMESPACE, "node"))
    )
    good = pod()
    good["spec"]["securityContext"] = {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    good["spec"]["containers"][0]["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    api.core.create_namespaced_pod(NAMESPACE, good)


def test_a_pod_needs_its_service_account(server: ApiServer, api: Api) -> None:
    value = pod()
    value["spec"]["serviceAccountName"] = "edge-node"
    with pytest.raises(ApiException) as call:
        api.core.create_namespaced_pod(NAMESPACE, value)
    assert refused(call)["message"] == (
        'pods "single" is forbidden: error looking up service account edge/edge-node: '
        'serviceaccount "edge-node" not found'
    )


# --- failing, slow, away -----------------------------------------------------------------------


def test_failures(server: ApiServer, api: Api) -> None:
    for code in (500, 503, 504):
        server.fail(code, verb="get", resource="configmaps")
        status, body = api.call("GET", SETTINGS)
        assert (status, body["code"]) == (code, code)
        assert api.call("GET", SETTINGS)[0] == 404, "once"
    fault = server.fail(429, retry_after_s=7, times=None)
    for _ in range(2):
        # Not the official client, which waits as it is told and tries again by itself.
        answer = urllib3.request("GET", server.url + SETTINGS, headers=HEADERS, retries=False)
        assert answer.status == 429
        assert answer.headers["Retry-After"] == "7"
        assert answer.data == b"Too many requests, please try again later.\n"
    fault.end()
    assert api.core.list_namespace()


def test_a_lost_race(server: ApiServer, api: Api) -> None:
    api.apply(SETTINGS, config_map(key="1"))
    server.conflict("configmaps", "settings")
    status, body = api.apply(SETTINGS, config_map(key="2"))
    assert status == 409
    assert body["reason"] == "Conflict"
    assert "the object has been modified" in body["message"]
    assert api.apply(SETTINGS, config_map(key="2"))[0] == 200


def test_held_and_slow_answers(server: ApiServer, api: Api) -> None:
    answers: list[Object] = []
    with server.hold(verb="list", resource="namespaces") as fault:
        thread = _started(lambda: answers.append(api.core.list_namespace()))
        server.wait_for(lambda: fault.hits == 1)
        assert api.call("GET", "/version")[0] == 200
        assert answers == []
    thread.join(10.0)
    assert len(answers) == 1
    server.slow(0.2, verb="list", resource="namespaces", times=1)
    began = time.monotonic()
    api.core.list_namespace()
    assert time.monotonic() - began >= 0.2


def test_away_and_back(server: ApiServer, api: Api) -> None:
    api.apps.create_namespaced_stateful_set(NAMESPACE, stateful_set())
    watched = threading.Event()
    broken: list[BaseException] = []

    def watch() -> None:
        response = urllib3.PoolManager().request(
            "GET",
            f"{server.url}/api/v1/namespaces?watch=1",
            headers=HEADERS,
            preload_content=False,
        )
        try:
            for _ in response.stream():
                watched.set()
        except urllib3.exceptions.ProtocolError as error:
            broken.append(error)

    thread = _started(watch)
    assert watched.wait(10.0)
    with server.away():
        thread.join(10.0)
        assert len(broken) == 1, "an open watch is reset"
        with pytest.raises(urllib3.exceptions.MaxRetryError):
            api.core.list_namespace(_request_timeout=2)
        server.wait_for(lambda: ready(server, "node-2"))
    assert len(api.core.list_namespaced_pod(NAMESPACE).items) == 3


def _started(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread
