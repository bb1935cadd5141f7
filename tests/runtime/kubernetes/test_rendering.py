"""From a plan to objects: what is this testbed's own; the rest is what the manifests say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from testbed.errors import UsageError
from testbed.runtime.kubernetes.rendering import (
    HTTP_PORT,
    ClusterOptions,
    Services,
    controller_resources,
    node_resources,
    render,
)
from testbed.scenario.load import dumps, load
from testbed.scenario.plan import ApplicationSpec, Plan, PlanHead
from testbed.scenario.resolve import plan
from testbed.testing.runtime import small_plan
from tests.sim.serving_plans import federation

Objects = Mapping[tuple[str, str], dict[str, Any]]


def objects(of: PlanHead, **arguments: Any) -> Objects:
    rendered = render(of, "mine", **arguments)
    return {(each["kind"], each["metadata"]["name"]): each for each in rendered}


def container(of: Objects, name: str) -> dict[str, Any]:
    (found,) = of["StatefulSet", name]["spec"]["template"]["spec"]["containers"]
    return dict(found)


def variables(of: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in of["env"]}


def test_everything_is_in_the_namespace_of_the_testbed_and_says_whose_it_is() -> None:
    for (kind, name), each in objects(small_plan()).items():
        metadata = each["metadata"]
        assert metadata["labels"]["app.kubernetes.io/instance"] == "mine"
        assert metadata["labels"]["app.kubernetes.io/name"] == "edge-testbed"
        if kind == "Namespace":
            assert name == "testbed-mine"
            assert metadata["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
        else:
            assert metadata["namespace"] == "testbed-mine"


def test_rendering_twice_gives_the_same_and_leaves_the_manifests_alone() -> None:
    first = render(small_plan(3), "a", options=ClusterOptions(image_registry="r.local/x"))
    assert render(small_plan(3), "a", options=ClusterOptions(image_registry="r.local/x")) == first
    assert "r.local" not in str(render(small_plan(3), "a"))


def test_there_is_a_pod_for_every_node() -> None:
    found = objects(small_plan(7))
    assert found["StatefulSet", "edge-node"]["spec"]["replicas"] == 7
    assert objects(small_plan(7), replicas=3)["StatefulSet", "edge-node"]["spec"]["replicas"] == 3
    assert found["StatefulSet", "controller"]["spec"]["replicas"] == 1


def test_nodes_take_http_where_they_serve_requests() -> None:
    arguments = container(objects(federation()), "edge-node")["args"]
    assert arguments[arguments.index("--http") + 1] == f"0.0.0.0:{HTTP_PORT}"
    assert "--http" not in container(objects(small_plan()), "edge-node")["args"]


def test_the_scenario_travels_as_it_was_used() -> None:
    loaded = load("quickstart", ["nodes.count=4"])
    found = objects(plan(loaded), scenario=dumps(loaded))
    assert found["ConfigMap", "scenario"]["data"] == {"scenario.yaml": dumps(loaded)}
    assert "--scenario" in container(found, "controller")["args"]


def test_without_a_file_the_plan_itself_travels() -> None:
    found = objects(small_plan())
    assert Plan.from_json(found["ConfigMap", "scenario"]["data"]["plan.json"]) == small_plan()
    arguments = container(found, "controller")["args"]
    assert arguments[arguments.index("--plan") + 1] == "/etc/edge-testbed/plan.json"
    assert "--scenario" not in arguments


def test_another_scenario_is_another_controller_and_the_same_nodes() -> None:
    def template(of: Plan, name: str) -> Any:
        return objects(of)["StatefulSet", name]["spec"]["template"]

    one, other = small_plan(), replace(small_plan(), episodes=9)
    assert template(one, "controller") != template(other, "controller")
    assert template(one, "edge-node") == template(other, "edge-node")


def test_images_come_from_where_they_are_said_to_be() -> None:
    options = ClusterOptions(
        image_registry="registry.local:5000/edge/",
        image_tag="7",
        mysql_image="mine/mysql:1",
        pull_secret="login",
    )
    found = objects(small_plan(), options=options)
    assert container(found, "edge-node")["image"] == "registry.local:5000/edge/edgenode:7"
    assert container(found, "controller")["image"] == "registry.local:5000/edge/controller:7"
    assert container(found, "namenode")["image"] == "registry.local:5000/edge/hdfs:7"
    assert container(found, "mysql")["image"] == "mine/mysql:1"
    pod = found["StatefulSet", "edge-node"]["spec"]["template"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": "login"}]


def test_nodes_go_where_they_are_sent() -> None:
    options = ClusterOptions(node_selector={"zone": "edge"}, spread=True)
    found = objects(small_plan(), options=options)
    pod = found["StatefulSet", "edge-node"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"zone": "edge"}
    assert {each["whenUnsatisfiable"] for each in pod["topologySpreadConstraints"]} == {
        "DoNotSchedule"
    }
    # Else a control plane without edge nodes lets no machine have two.
    assert {each["nodeTaintsPolicy"] for each in pod["topologySpreadConstraints"]} == {"Honor"}
    others = found["StatefulSet", "controller"]["spec"]["template"]["spec"]
    assert "nodeSelector" not in others


def test_without_hdfs_nobody_looks_for_it() -> None:
    found = objects(small_plan(), options=ClusterOptions(without_hdfs=True))
    assert ("StatefulSet", "namenode") not in found
    assert "namenode" not in variables(container(found, "controller"))["TESTBED_PROCESS_ARTIFACTS"]


def test_services_elsewhere_are_used_and_let_through_without_their_password() -> None:
    services = Services.of(
        "mysql+pymysql://me:secret@db.example:3307/log", "webhdfs://me@nn:9871/x", ClusterOptions()
    )
    found = objects(
        small_plan(), services=services, credentials={"credentials": {"mysql-password": "secret"}}
    )
    assert ("StatefulSet", "mysql") not in found
    assert ("StatefulSet", "namenode") not in found
    store = variables(container(found, "controller"))["TESTBED_PROCESS_STORAGE"]
    assert store.startswith("mysql+pymysql://me@db.example:3307/log?password_file=/")
    ports = {
        port["port"]
        for rule in found["NetworkPolicy", "controller"]["spec"]["egress"]
        for port in rule["ports"]
    }
    assert {3307, 9871} <= ports
    shown = {key: value for key, value in found.items() if key[0] != "Secret"}
    assert "secret" not in str(shown).replace("secretName", "").replace("'secret':", "").replace(
        "/run/secrets/", ""
    )


@pytest.mark.parametrize(
    ("store", "artifacts", "said"),
    [
        ("/home/me/tasklog.sqlite", None, "pods cannot use a file"),
        ("sqlite:///x.db", None, "pods cannot use a file"),
        (None, "/home/me/artifacts", "pods cannot use a folder"),
    ],
)
def test_what_pods_cannot_reach_is_refused(
    store: str | None, artifacts: str | None, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        Services.of(store, artifacts, ClusterOptions())


def test_a_scenario_that_no_object_can_hold_is_refused() -> None:
    with pytest.raises(UsageError, match="too large for a cluster"):
        render(small_plan(), "mine", scenario="x" * 1_000_000)


def test_more_work_asks_for_more() -> None:
    def cpu(of: Plan) -> int:
        return int(node_resources(of)["requests"]["cpu"].removesuffix("m"))

    def memory(document: dict[str, Any], part: str) -> int:
        return int(document[part]["memory"].removesuffix("Mi"))

    testbed = plan(load("paper-testbed"))
    assert cpu(testbed) > cpu(plan(load("quickstart")))
    assert cpu(replace(testbed, payload="metadata")) < cpu(testbed)
    assert cpu(replace(testbed, time_scale=2.0)) < cpu(testbed)
    assert cpu(replace(testbed, application=ApplicationSpec("busy"))) == 1000
    large, small = small_plan(200), small_plan(2)
    for part in ("requests", "limits"):
        assert memory(node_resources(large), part) > memory(node_resources(small), part)
        assert memory(controller_resources(large), part) > memory(controller_resources(small), part)


def test_processor_limits_are_there_only_when_asked_for() -> None:
    for cpu_limits in (False, True):
        found = objects(small_plan(), options=ClusterOptions(cpu_limits=cpu_limits))
        for name in ("edge-node", "controller", "mysql", "namenode", "datanode"):
            resources = container(found, name)["resources"]
            assert ("cpu" in resources["limits"]) is cpu_limits
            assert resources["limits"]["memory"]
            assert resources["requests"]["cpu"]


def test_options_are_kept_with_the_testbed() -> None:
    options = ClusterOptions(image_tag="7", node_selector={"a": "b"}, spread=True)
    assert ClusterOptions.from_json(options.to_json()) == options
    annotations = objects(small_plan(), options=options)["ConfigMap", "scenario"]["metadata"][
        "annotations"
    ]
    assert ClusterOptions.from_json(annotations["edge-testbed/options"]) == options
