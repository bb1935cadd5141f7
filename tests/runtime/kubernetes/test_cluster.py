"""The runtime on a cluster: what it makes, changes, says, leaves alone and removes."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from testbed.errors import (
    PermanentError,
    PrerequisiteMissing,
    TemporaryError,
    TestbedError,
    UsageError,
)
from testbed.rpc import certificates as made
from testbed.rpc.certificates import Authority
from testbed.rpc.credentials import PartyCertificate, of_operator
from testbed.rpc.identity import OPERATOR
from testbed.rpc.operator import OperatorClient
from testbed.runtime.base import Testbed
from testbed.runtime.kubernetes import ClusterOptions, ClusterRuntime, bringing_up, taking_down
from testbed.runtime.kubernetes.api import Cluster
from testbed.runtime.kubernetes.bringing_up import Patience
from testbed.scenario.load import dumps, load
from testbed.scenario.resolve import plan
from testbed.testing.runtime import NAME, RuntimeContract, small_plan
from tests.api_server import CONTEXT, ApiServer
from tests.runtime.kubernetes.conftest import NAMESPACE
from tests.runtime.kubernetes.standin import Controller

KINDS = ("statefulsets", "services", "configmaps", "secrets", "networkpolicies", "serviceaccounts")


@pytest.fixture
def another(kubeconfig: Path, tmp_path: Path) -> Callable[..., ClusterRuntime]:
    """Runtimes of another shell, or of another machine if it has a home of its own."""

    def make(home: str = "home", **settings: Any) -> ClusterRuntime:
        settings.setdefault("patience", Patience(hopeless_s=0.2))
        return ClusterRuntime(
            tmp_path / home, Cluster(kubeconfig, CONTEXT, patience_s=5.0), **settings
        )

    return make


class ClusterRuntimeTests(RuntimeContract):
    comes_back = True
    changes_what_is_up = True

    @pytest.fixture
    def up(self, runtime: ClusterRuntime, server: ApiServer) -> Iterator[Testbed]:
        testbed = runtime.up(small_plan(), NAME)
        for pod in ("controller-0", "edge-node-0", "edge-node-1"):
            server.log(NAMESPACE, pod, ["one", "two"])
        yield testbed
        runtime.down(NAME)


# --- up -----------------------------------------------------------------------------------------


def versions(server: ApiServer) -> dict[str, str]:
    return {
        f"{kind}/{each['metadata']['name']}": each["metadata"]["resourceVersion"]
        for kind in KINDS
        for each in server.objects(kind, NAMESPACE)
        if kind != "statefulsets"
    } | {
        f"statefulsets/{each['metadata']['name']}": str(each["metadata"]["generation"])
        for each in server.objects("statefulsets", NAMESPACE)
    }


def test_up_again_changes_nothing_where_nothing_differs(
    server: ApiServer, runtime: ClusterRuntime
) -> None:
    first = runtime.up(small_plan(), NAME)
    before = versions(server)
    said: list[str] = []

    again = runtime.up(small_plan(), NAME, report=said.append)

    assert versions(server) == before
    assert again == first
    assert f"namespace {NAMESPACE}: no differences" in said


def test_up_again_changes_what_differs_and_no_more(
    server: ApiServer, runtime: ClusterRuntime
) -> None:
    runtime.up(small_plan(), NAME)
    before = versions(server)

    runtime.up(replace(small_plan(), episodes=9), NAME)

    changed = {key for key, value in versions(server).items() if before[key] != value}
    assert changed == {"configmaps/scenario", "statefulsets/controller"}


def test_another_scenario_does_not_cut_a_run_short(
    server: ApiServer, runtime: ClusterRuntime, controller: Controller
) -> None:
    runtime.up(small_plan(), NAME)
    before = versions(server)
    controller.runs()

    with pytest.raises(UsageError, match="run 20260131-142501-9f3a is in progress"):
        runtime.up(replace(small_plan(), episodes=9), NAME)
    assert versions(server) == before
    # What differs in nothing, or not for the controller, is no matter to a run.
    assert runtime.up(small_plan(), NAME).nodes == 2


def test_a_larger_network_keeps_the_pods_it_has(
    server: ApiServer, runtime: ClusterRuntime, controller: Controller
) -> None:
    runtime.up(small_plan(2), NAME)
    before = {
        p["metadata"]["name"]: p["metadata"]["uid"] for p in server.objects("pods", NAMESPACE)
    }
    controller.nodes = 4

    assert runtime.up(small_plan(4), NAME).nodes == 4

    after = {p["metadata"]["name"]: p["metadata"]["uid"] for p in server.objects("pods", NAMESPACE)}
    assert {name for name in after if name not in before} == {"edge-node-2", "edge-node-3"}
    assert after["edge-node-0"] == before["edge-node-0"]


def test_many_nodes_are_started_in_waves(
    server: ApiServer, runtime: ClusterRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bringing_up, "WAVE", 3)
    runtime.up(small_plan(8), NAME)

    asked = [
        each.path for each in server.requests if each.method == "PATCH" and "edge-node" in each.path
    ]
    assert len([path for path in asked if path.endswith("statefulsets/edge-node")]) == 3
    assert len(server.objects("pods", NAMESPACE)) == 8 + 4


@pytest.mark.timeout(300)
def test_two_hundred_nodes_come_up_although_the_api_server_is_busy(
    server: ApiServer, runtime: ClusterRuntime, controller: Controller
) -> None:
    controller.nodes = 200
    server.fail(429, verb="patch", retry_after_s=1, times=2)

    assert runtime.up(small_plan(200), NAME).nodes == 200

    waves = [
        each.status
        for each in server.requests
        if each.method == "PATCH" and each.path.endswith("statefulsets/edge-node")
    ]
    assert waves.count(200) + waves.count(201) == 4
    assert len(server.objects("pods", NAMESPACE)) == 204


def test_options_and_services_stay_as_they_were_brought_up(
    server: ApiServer,
    another: Callable[..., ClusterRuntime],
    controller: Controller,
) -> None:
    options = ClusterOptions(image_registry="registry.local/edge", without_hdfs=True)
    store = "mysql+pymysql://me:secret@db.example/log"
    another(options=options).up(small_plan(), NAME, store=store)
    before = versions(server)

    found = another("elsewhere").up(small_plan(), NAME)

    assert versions(server) == before
    assert found.store == store
    assert another("elsewhere").own_log(NAME) is None
    assert len(server.objects("pods", NAMESPACE)) == 3


def test_what_is_not_wanted_any_more_is_removed(
    server: ApiServer, another: Callable[..., ClusterRuntime], controller: Controller
) -> None:
    another().up(small_plan(), NAME)
    assert {"namenode", "datanode"} <= {
        each["metadata"]["name"] for each in server.objects("statefulsets", NAMESPACE)
    }

    said: list[str] = []
    server.delete("services", NAMESPACE, "mysql")
    fewer = ClusterOptions(without_hdfs=True)
    another(options=fewer).up(small_plan(), NAME, report=said.append)
    (line,) = (each for each in said if each.startswith(f"namespace {NAMESPACE}: "))
    changed, made = line.split("; ")
    assert "changed configmap/scenario" in changed
    assert made == "made service/mysql"

    assert {each["metadata"]["name"] for each in server.objects("statefulsets", NAMESPACE)} == {
        *("controller", "edge-node", "mysql")
    }


def test_credentials_are_made_once_and_are_found_from_another_machine(
    server: ApiServer, another: Callable[..., ClusterRuntime], controller: Controller
) -> None:
    up = another().up(small_plan(), NAME)
    found = another("elsewhere").find(NAME)

    assert found.token == up.token
    secret = server.object("secrets", NAMESPACE, "credentials")["data"]
    assert base64.b64decode(secret["operator.pem"]).decode() == up.token
    password = base64.b64decode(secret["mysql-password"]).decode()
    assert password != up.token
    assert f":{password}@" in up.store


def certificates(server: ApiServer) -> dict[str, str]:
    """All that the Secrets of the testbed hold."""
    return {
        key: base64.b64decode(value).decode()
        for name in ("credentials", "node-credentials")
        for key, value in server.object("secrets", NAMESPACE, name)["data"].items()
    }


def test_everybody_has_a_certificate_of_the_testbeds_own_authority(
    server: ApiServer, runtime: ClusterRuntime, controller: Controller
) -> None:
    up = runtime.up(small_plan(), NAME)
    found = certificates(server)
    assert sorted(found) == [
        *("authority.pem", "controller.pem", "edge-node-0", "edge-node-1", "mysql-password"),
        "operator.pem",
    ]
    named = {str(each.identity) for each in map(of_operator, (up.token, found["edge-node-1"]))}
    assert named == {"operator", "node-1"}
    authority = found["authority.pem"]
    for key in ("controller.pem", "operator.pem", "edge-node-0", "edge-node-1"):
        certificate = of_operator(found[key])
        assert isinstance(certificate, PartyCertificate)
        assert certificate.testbed == NAME
        assert certificate.authority.strip() in authority
    with OperatorClient(up.address, up.token) as operator:
        operator.status()
    assert controller.callers[-1] == f"edge-testbed://{NAME}/operator"


def test_who_has_another_certificate_is_not_let_in(
    server: ApiServer, runtime: ClusterRuntime, controller: Controller
) -> None:
    up = runtime.up(small_plan(), NAME)
    stranger = Authority.new(NAME).issue(OPERATOR).to_pem()
    with (
        OperatorClient(up.address, stranger, timeout=3.0) as operator,
        pytest.raises(TemporaryError),
    ):
        operator.status()
    with pytest.raises(UsageError, match="nothing would be encrypted"):
        OperatorClient(up.address, "a token")


def test_certificates_stay_while_they_are_good_and_are_replaced_with_all_pods_after(
    server: ApiServer,
    runtime: ClusterRuntime,
    controller: Controller,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def annotation(name: str) -> str:
        template = server.object("statefulsets", NAMESPACE, name)["spec"]["template"]
        return str(template["metadata"]["annotations"]["edge-testbed/authority"])

    runtime.up(small_plan(), NAME)
    first, told = certificates(server), annotation("edge-node")
    runtime.up(small_plan(3), NAME)
    more = certificates(server)
    # A node that was added has one too, and nobody else is started anew for it.
    assert more.pop("edge-node-2")
    assert more == first
    assert annotation("edge-node") == annotation("controller") == told

    monkeypatch.setattr(made, "RENEW_BEFORE", made.LIFETIME + timedelta(days=1))
    controller.runs()
    runtime.up(small_plan(3), NAME)
    assert annotation("edge-node") == told, "a run was under way"
    controller.run = None
    runtime.up(small_plan(3), NAME)
    after = certificates(server)
    assert annotation("edge-node") == annotation("controller") != told
    assert after["mysql-password"] == first["mysql-password"]
    assert all(after[key] != value for key, value in first.items() if key != "mysql-password")


def test_a_secret_that_was_made_by_hand_may_end_in_a_newline(
    server: ApiServer, runtime: ClusterRuntime, controller: Controller
) -> None:
    runtime.up(small_plan(), NAME)
    secret = server.object("secrets", NAMESPACE, "credentials")
    for key in ("operator.pem", "mysql-password"):
        value = base64.b64decode(secret["data"][key]) + b"\n"
        secret["data"][key] = base64.b64encode(value).decode()
    runtime.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": "credentials",
                "namespace": NAMESPACE,
                "labels": secret["metadata"]["labels"],
            },
            "data": secret["data"],
        },
        force=True,
    )
    found = runtime.find(NAME)
    assert "\n" not in found.store
    with OperatorClient(found.address, found.token) as operator:
        operator.status()


def test_a_namespace_of_somebody_else_is_not_touched(
    server: ApiServer, runtime: ClusterRuntime
) -> None:
    server.create("namespaces", {"metadata": {"name": NAMESPACE}})
    before = server.object("namespaces", "", NAMESPACE)

    with pytest.raises(
        UsageError, match=r"was not created for testbed.*kubectl --\S+ .* label namespace"
    ):
        runtime.up(small_plan(), NAME)
    assert runtime.down(NAME).stopped == ()

    assert server.object("namespaces", "", NAMESPACE) == before
    assert server.objects("statefulsets") == []


def test_a_namespace_that_was_given_is_used_and_stays(
    server: ApiServer, another: Callable[..., ClusterRuntime], controller: Controller
) -> None:
    labels = {"app.kubernetes.io/name": "edge-testbed", "app.kubernetes.io/instance": NAME}
    server.create("namespaces", {"metadata": {"name": "given", "labels": labels}})
    server.route("given", "controller-0", 7440, "127.0.0.1", controller.port)
    runtime = another(namespace="given")

    runtime.up(small_plan(), NAME)
    assert runtime.names() == (NAME,)
    assert len(runtime.down(NAME).stopped) == 6

    assert server.object("namespaces", "", "given")["status"]["phase"] == "Active"
    for kind in ("statefulsets", "services", "secrets", "persistentvolumeclaims", "pods"):
        assert server.objects(kind, "given") == []
    assert runtime.leftovers(NAME) == ()


def test_what_somebody_else_changed_is_not_changed_back_unasked(
    server: ApiServer, another: Callable[..., ClusterRuntime], controller: Controller
) -> None:
    another().up(small_plan(), NAME)
    server.edit("statefulsets", NAMESPACE, "edge-node", {"spec": {"replicas": 1}})

    with pytest.raises(UsageError, match=r"(?s)spec\.replicas.*--force-conflicts"):
        another().up(small_plan(), NAME)
    another(force=True).up(small_plan(), NAME)

    assert server.object("statefulsets", NAMESPACE, "edge-node")["spec"]["replicas"] == 2


# --- up that fails ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (
            "image-pull-backoff",
            r"(?s)edge-node-0 and 1 more: its image edge-testbed/edgenode.*make",
        ),
        (
            "crash-loop",
            r"(?s)it keeps ending \(exit code.*`kubectl --kubeconfig \S+ --context \S+ --namespace "
            r"\S+ logs edge-node-0 --previous",
        ),
        ("unschedulable", r"(?s)no machine takes it.*deployment.nodeSelector"),
    ],
)
def test_pods_that_do_not_become_ready_say_why_and_are_removed_again(
    server: ApiServer, runtime: ClusterRuntime, state: Any, said: str
) -> None:
    server.pods_become(state, {"app.kubernetes.io/component": "edge-node"})

    with pytest.raises(PermanentError, match=said) as raised:
        runtime.up(small_plan(), NAME)

    assert runtime.names() == ()
    assert server.objects("pods") == []
    assert raised.value.__notes__ == [
        f"the logs of its pods are kept in {runtime.home / NAME / 'logs'}",
        "to keep what was started for a look at it: --keep-on-failure",
    ]
    assert list(runtime.logs(NAME, "mysql")) == []


def test_a_failed_up_can_be_kept_and_goes_on(
    server: ApiServer, another: Callable[..., ClusterRuntime], controller: Controller
) -> None:
    server.pods_become("image-pull-backoff", {"app.kubernetes.io/component": "edge-node"})
    with pytest.raises(PermanentError):
        another(retain=True).up(small_plan(), NAME)
    assert another().names() == (NAME,)

    server.pods_become("ready")
    assert another().up(small_plan(), NAME).nodes == 2


def test_a_quota_that_is_too_small_is_named(server: ApiServer, runtime: ClusterRuntime) -> None:
    server.quota({"pods": "3"})

    with pytest.raises(PermanentError, match=r"(?s)exceeded quota.*have the quota"):
        runtime.up(small_plan(), NAME)

    assert runtime.names() == ()


def test_it_ends_when_nothing_gets_better(
    server: ApiServer,
    another: Callable[..., ClusterRuntime],
    controller: Controller,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    another().up(small_plan(), NAME)
    server.log(NAMESPACE, "mysql-0", ["Can't create a file: no space left on device"])
    server.pods_become("running", {"app.kubernetes.io/component": "mysql"})
    monkeypatch.setattr(bringing_up, "READY_PER_NODE_S", 0.0)

    runtime = another(patience=Patience(ready_s=0.5, hopeless_s=0.2))
    with pytest.raises(TemporaryError, match="mysql-0: is running and not ready yet") as raised:
        runtime.up(small_plan(), NAME)

    assert re.match(r"of 6 pods 1 not ready after \d+ s\n", str(raised.value))
    assert "| Unhealthy: Readiness probe failed" in str(raised.value)
    assert "the end of the log of mysql-0:\n  | Can't create a file" in str(raised.value)


def test_what_is_waited_for_is_said_again(
    server: ApiServer,
    another: Callable[..., ClusterRuntime],
    controller: Controller,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.pods_become("running", {"app.kubernetes.io/component": "mysql"})
    monkeypatch.setattr(bringing_up, "_REMIND_EVERY_S", 0.1)

    def told(line: str) -> None:
        if "so far" in line:
            server.pods_become("ready")
            said.append(line)

    said: list[str] = []
    another().up(small_plan(), NAME, report=told)
    assert re.search(r"mysql-0: is running.* for \d s so far.*last event: Unhealthy", said[0])


def test_a_pod_that_only_the_change_can_mend_is_replaced(
    server: ApiServer, another: Callable[..., ClusterRuntime], controller: Controller
) -> None:
    mysql = {"app.kubernetes.io/component": "mysql"}
    server.pods_become("image-pull-backoff", mysql)
    wrong = ClusterOptions(mysql_image="mariadb:wrong")
    with pytest.raises(PermanentError, match="its image mariadb:wrong cannot be had"):
        another(retain=True, options=wrong).up(small_plan(), NAME)

    def told(line: str) -> None:
        if line.startswith("replacing mysql-0: its image"):
            server.pods_become("ready", mysql)

    patience = Patience(hopeless_s=5.0)
    right = another(options=ClusterOptions(mysql_image="mariadb:right"), patience=patience)
    assert right.up(small_plan(), NAME, report=told).nodes == 2
    pod = server.object("pods", NAMESPACE, "mysql-0")
    assert pod["spec"]["containers"][0]["image"] == "mariadb:right"


def test_nodes_that_the_controller_does_not_find_healthy_are_named(
    runtime: ClusterRuntime, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bringing_up, "HEALTHY_S", 0.5)
    controller.dead = {1}
    controller.set_healthy(False)

    with pytest.raises(TemporaryError, match="node 1 is dead: it ended"):
        runtime.up(small_plan(), NAME)


def test_interrupted_it_leaves_nothing(server: ApiServer, runtime: ClusterRuntime) -> None:
    server.pods_become("stuck-creating")

    def interrupt(line: str) -> None:
        if "pods ready" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runtime.up(small_plan(), NAME, report=interrupt)

    assert runtime.names() == ()
    assert server.objects("pods") == []


def test_interrupted_twice_it_is_taken_up_again(server: ApiServer, runtime: ClusterRuntime) -> None:
    server.pods_become("stuck-creating")

    def interrupt(line: str) -> None:
        if "pods ready" in line or "removing" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runtime.up(small_plan(), NAME, report=interrupt)
    assert runtime.names() == (NAME,)

    server.pods_become("ready")
    assert runtime.up(small_plan(), NAME).nodes == 2


def test_what_is_missing_says_which_verb_on_which_object(
    server: ApiServer, runtime: ClusterRuntime
) -> None:
    server.forbid("patch", "statefulsets")
    server.forbid("list", "events")

    (lack,) = runtime.check()

    assert "list events" in lack.what
    assert "patch statefulsets.apps" in lack.what
    assert "manifests/rbac" in lack.fix
    with pytest.raises(PermanentError, match=r"no right to patch statefulsets\.apps/"):
        runtime.up(small_plan(), NAME)
    assert runtime.names() == ()


def test_the_rights_that_ship_are_enough(
    server: ApiServer, runtime: ClusterRuntime, controller: Controller
) -> None:
    import yaml

    rights = Path(bringing_up.__file__).parents[3] / "manifests" / "rbac" / "operator.yaml"
    rules = [rule for each in yaml.safe_load_all(rights.read_text()) for rule in each["rules"]]
    server.grant(rules)

    assert runtime.check() == ()
    runtime.up(small_plan(), NAME)
    assert runtime.find(NAME).nodes == 2
    runtime.kill(NAME, 0)
    assert runtime.down(NAME).stopped
    assert runtime.leftovers(NAME) == ()


def test_an_api_server_that_is_away_for_a_while_is_waited_for(
    server: ApiServer, runtime: ClusterRuntime
) -> None:
    runtime.up(small_plan(), NAME)
    found: list[tuple[str, ...]] = []
    asking = threading.Thread(target=lambda: found.append(runtime.names()))
    with server.away():
        asking.start()
        # Long enough for a first attempt that fails.
        asking.join(timeout=0.3)
        assert found == []
    asking.join(timeout=10)
    assert found == [(NAME,)]


def test_an_api_server_that_stays_away_is_said_to_be(
    server: ApiServer, runtime: ClusterRuntime
) -> None:
    runtime.cluster.patience_s = 0.3
    said = r"the API server at http.* does not answer"
    # One that has never answered may be the wrong one; of one that has, it is for a while.
    with server.away(), pytest.raises(PrerequisiteMissing, match=said):
        runtime.names()
    assert runtime.names() == ()
    with server.away(), pytest.raises(TemporaryError, match=said):
        runtime.names()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_api_server_is_asked_again(
    server: ApiServer, runtime: ClusterRuntime, status: int
) -> None:
    server.fail(status, times=2)
    assert runtime.names() == ()


def test_watches_that_break_or_expire_go_on(server: ApiServer, runtime: ClusterRuntime) -> None:
    server.pods_become("stuck-creating")
    disturbed: list[str] = []

    def disturb(line: str) -> None:
        if "pods ready" in line and not disturbed:
            disturbed.append(line)
            server.compact()
            server.expire_watches()
            server.break_watches()
            server.pods_become("ready")

    assert runtime.up(small_plan(), NAME, report=disturb).nodes == 2
    assert disturbed


def test_pods_evicted_or_killed_for_memory_while_it_comes_up_come_back(
    server: ApiServer, runtime: ClusterRuntime
) -> None:
    server.pods_become("running", {"app.kubernetes.io/component": "mysql"})
    disturbed: list[str] = []

    def disturb(line: str) -> None:
        if "5 of 6 pods ready" in line and not disturbed:
            disturbed.append(line)
            server.evict(NAMESPACE, "edge-node-0")
            server.oom_kill(NAMESPACE, "edge-node-1")
            server.pods_become("ready")

    assert runtime.up(small_plan(), NAME, report=disturb).nodes == 2
    assert disturbed
    assert runtime.kill(NAME, 0).name == "node-0"


# --- finding, logs, kill ------------------------------------------------------------------------


def test_one_that_is_going_is_not_found(server: ApiServer, runtime: ClusterRuntime) -> None:
    runtime.up(small_plan(), NAME)
    server.pods_become("stuck-terminating")
    server.delete("namespaces", "", NAMESPACE)

    with pytest.raises(UsageError, match="is being taken down"):
        runtime.find(NAME)


def test_one_left_half_made_says_what_to_do(server: ApiServer, runtime: ClusterRuntime) -> None:
    runtime.up(small_plan(), NAME)
    server.delete("statefulsets", NAMESPACE, "controller")

    with pytest.raises(UsageError, match="is incomplete; run `testbed up` to finish it"):
        runtime.find(NAME)


def test_a_pod_that_was_replaced_meanwhile_is_not_deleted(
    server: ApiServer, runtime: ClusterRuntime
) -> None:
    runtime.up(small_plan(), NAME)
    before = server.object("pods", NAMESPACE, "edge-node-1")
    assert not runtime.cluster.delete("Pod", "edge-node-1", NAMESPACE, uid="of-an-earlier-one")
    assert server.object("pods", NAMESPACE, "edge-node-1")["metadata"] == before["metadata"]


def test_a_killed_node_comes_back_as_another_pod(
    server: ApiServer, runtime: ClusterRuntime
) -> None:
    runtime.up(small_plan(), NAME)
    before = server.object("pods", NAMESPACE, "edge-node-1")["metadata"]["uid"]

    stopped = runtime.kill(NAME, 1)

    assert (stopped.name, stopped.pid, stopped.forced) == ("node-1", None, True)
    server.wait_for(
        lambda: any(
            each["metadata"]["name"] == "edge-node-1" and each["metadata"]["uid"] != before
            for each in server.objects("pods", NAMESPACE)
        )
    )


def test_logs_are_kept_when_it_is_taken_down(server: ApiServer, runtime: ClusterRuntime) -> None:
    runtime.up(small_plan(), NAME)
    server.log(NAMESPACE, "edge-node-1", ["first", "second"])

    kept = runtime.down(NAME).kept

    assert kept is not None
    assert list(runtime.logs(NAME, "node-1"))[-2:] == ["first", "second"]
    assert list(runtime.logs(NAME, "node-1", lines=1)) == ["second"]
    with pytest.raises(UsageError, match="controller, datanode, mysql"):
        list(runtime.logs(NAME, "node-9"))


def test_the_scenario_it_was_made_from_is_found_again(
    runtime: ClusterRuntime, server: ApiServer, controller: Controller
) -> None:
    loaded = load("quickstart", ["nodes.count=2"])
    runtime.up(plan(loaded), NAME, scenario=dumps(loaded))

    assert runtime.scenario(NAME) == dumps(loaded)
    kept = server.object("configmaps", NAMESPACE, "scenario")["metadata"]["annotations"]
    assert ClusterOptions.from_json(kept["edge-testbed/options"]) == ClusterOptions()


def test_the_way_to_the_controller_is_found_again_when_its_pod_was_replaced(
    server: ApiServer, runtime: ClusterRuntime
) -> None:

    up = runtime.up(small_plan(), NAME)
    with OperatorClient(up.address, up.token) as operator:
        assert operator.status().testbed == NAME
    server.break_forwards(NAMESPACE, "controller-0")
    with OperatorClient(up.address, up.token) as operator:
        assert operator.status().healthy


# --- down ---------------------------------------------------------------------------------------


def test_a_namespace_that_does_not_go_says_what_keeps_it(
    server: ApiServer, runtime: ClusterRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.up(small_plan(), NAME)
    monkeypatch.setattr(taking_down, "GONE_S", 0.3)
    server.pods_become("stuck-terminating")

    with pytest.raises(PermanentError, match=f"namespace {NAMESPACE} is not gone"):
        runtime.down(NAME)
    assert f"namespace {NAMESPACE}" in runtime.leftovers(NAME)


def test_up_waits_for_what_is_still_being_taken_down(
    server: ApiServer, runtime: ClusterRuntime
) -> None:
    runtime.up(small_plan(), NAME)
    server.pods_become("stuck-terminating")
    server.delete("namespaces", "", NAMESPACE)

    def told(line: str) -> None:
        if "is being removed" in line:
            server.pods_become("ready")

    assert runtime.up(small_plan(), NAME, report=told).nodes == 2


def test_no_such_context_names_those_there_are(tmp_path: Path, kubeconfig: Path) -> None:
    runtime = ClusterRuntime(tmp_path / "home", Cluster(kubeconfig, "nowhere"))
    (lack,) = runtime.check()
    assert "no context 'nowhere'" in lack.what
    assert CONTEXT in lack.fix
    with pytest.raises(TestbedError, match=CONTEXT):
        runtime.names()
