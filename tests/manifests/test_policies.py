"""What every object of the manifests keeps to, whatever else changes in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.rpc.messages import ALIVE_SERVICE
from testbed.runtime.kubernetes.rendering import HTTP_PORT
from testbed.scenario.load import load
from testbed.version import __version__
from tests.manifests.objects import (
    MANIFESTS,
    OVERLAYS,
    PARTS,
    ROOT,
    Object,
    containers,
    documents,
    identity,
    kustomization,
    label,
    named,
    of_part,
    selects,
    shipped,
    template,
    workloads,
)

NAME, PART_OF, COMPONENT, INSTANCE = (
    f"app.kubernetes.io/{key}" for key in ("name", "part-of", "component", "instance")
)
ALL = shipped()
WORKLOADS = list(workloads(ALL))
SERVICES = [each for each in ALL if each["kind"] == "Service"]
POLICIES = [each for each in ALL if each["kind"] == "NetworkPolicy"]
OURS = {"edgenode", "controller", "hdfs", "trainer"}
each_workload = pytest.mark.parametrize("workload", WORKLOADS, ids=label)


# --- pods ---------------------------------------------------------------------------------------


@each_workload
def test_pods_are_restricted(workload: Object) -> None:
    spec = template(workload)["spec"]
    security = spec["securityContext"]
    user = 999 if identity(workload)[1] == "mysql" else 10001
    assert security["runAsNonRoot"] is True
    assert [security[key] for key in ("runAsUser", "runAsGroup", "fsGroup")] == [user] * 3
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    for container in containers(workload):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not any("hostPort" in port for port in container.get("ports", []))
    allowed = {"configMap", "secret", "emptyDir", "persistentVolumeClaim"}
    assert all(set(volume) - {"name"} <= allowed for volume in spec["volumes"])


@each_workload
def test_pods_get_no_token_and_an_account_without_rights(workload: Object) -> None:
    spec = template(workload)["spec"]
    assert spec["automountServiceAccountToken"] is False
    account = named(ALL, "ServiceAccount", spec["serviceAccountName"])
    assert account["automountServiceAccountToken"] is False
    assert not {"Role", "RoleBinding", "ClusterRole"} & {each["kind"] for each in ALL}


@each_workload
def test_pods_are_not_told_of_services_by_variables(workload: Object) -> None:
    # A service named mysql would set MYSQL_PORT, and one named testbed TESTBED_PORT.
    assert template(workload)["spec"]["enableServiceLinks"] is False


@each_workload
def test_resources_are_asked_for_and_memory_is_bounded(workload: Object) -> None:
    for container in containers(workload):
        resources = container["resources"]
        assert set(resources["requests"]) == {"cpu", "memory"}
        # Being throttled would falsify what is measured.
        assert set(resources["limits"]) == {"memory"}


@each_workload
def test_images_are_pinned(workload: Object) -> None:
    for container in containers(workload):
        name, _, tag = container["image"].partition(":")
        if name.startswith("edge-testbed/"):
            assert name.removeprefix("edge-testbed/") in OURS
            assert tag == __version__
        else:
            assert re.fullmatch(r"\d+\.\d+\.\d+", tag)
        assert container["imagePullPolicy"] == "IfNotPresent"


def test_overlays_pin_the_same_version() -> None:
    for overlay in OVERLAYS:
        for image in kustomization(f"overlays/{overlay}").get("images", []):
            assert image["newTag"] == __version__


@each_workload
def test_what_an_image_writes_to_is_mounted_and_what_is_to_last_has_a_claim(
    workload: Object,
) -> None:
    spec = template(workload)["spec"]
    claims = {each["metadata"]["name"] for each in workload["spec"].get("volumeClaimTemplates", [])}
    claims |= {each["name"] for each in spec["volumes"] if "persistentVolumeClaim" in each}
    for container in containers(workload):
        mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
        assert mounts["/tmp"] not in claims
        for path in written_by(container["image"]):
            # A spool holds what is on its way; all that a node knows is with the controller.
            lasts = identity(workload)[1] != "edge-node"
            assert (mounts[path] in claims) is lasts


def written_by(image: str) -> list[str]:
    """The volumes that an image declares."""
    if image.startswith("mariadb:"):
        return ["/var/lib/mysql"]
    folder = image.removeprefix("edge-testbed/").partition(":")[0]
    dockerfile = (MANIFESTS / "images" / folder / "Dockerfile").read_text()
    return re.findall(r"^VOLUME (\S+)$", dockerfile, re.MULTILINE)


@each_workload
def test_a_process_sees_the_credentials_it_needs_and_no_others(workload: Object) -> None:
    needed = {
        "controller": {"controller.pem", "mysql-password"},
        "trainer": {"operator.pem", "mysql-password"},
        "mysql": {"mysql-password"},
    }
    secrets = [each["secret"] for each in template(workload)["spec"]["volumes"] if "secret" in each]
    if identity(workload)[1] == "edge-node":
        # A key for each node, of which the container of a pod sees its own.
        (secret,) = secrets
        assert secret == {"secretName": "node-credentials", "defaultMode": 0o440}
        ((mount,),) = (
            [each for each in container["volumeMounts"] if each["name"] == "credentials"]
            for container in containers(workload)
        )
        assert mount["subPathExpr"] == "$(POD_NAME)"
        assert mount["readOnly"]
        return
    seen = {item["key"] for secret in secrets for item in secret["items"]}
    assert seen == needed.get(identity(workload)[1], set())
    for secret in secrets:
        assert secret["secretName"] == "credentials"
        assert all(item["key"] == item["path"] for item in secret["items"])
        assert secret["defaultMode"] == 0o440
    assert not any("secretKeyRef" in str(container) for container in containers(workload))


@each_workload
def test_files_that_are_named_are_mounted(workload: Object) -> None:
    for container in containers(workload):
        mounts = tuple(f"{mount['mountPath']}/" for mount in container["volumeMounts"])
        texts = [*container.get("args", []), *(each.get("value", "") for each in container["env"])]
        for path in re.findall(r"(?<![\w:/])/(?:run|etc|var)/[\w/.-]+", " ".join(texts)):
            assert f"{path}/".startswith(mounts), path


@pytest.mark.parametrize("name", ["edge-node", "controller", "mysql", "namenode", "datanode"])
def test_what_serves_says_whether_it_does(name: str) -> None:
    (container,) = containers(named(ALL, "StatefulSet", name))
    assert {"startupProbe", "readinessProbe"} <= set(container)
    for probe in (container["startupProbe"], container["readinessProbe"]):
        assert probe["timeoutSeconds" if "tcpSocket" not in probe else "periodSeconds"] >= 2


def test_a_node_is_not_restarted_because_its_controller_is_away() -> None:
    (container,) = containers(named(ALL, "StatefulSet", "edge-node"))
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["grpc"] == {"port": 7442, "service": ALIVE_SERVICE}
    assert container["readinessProbe"]["grpc"] == {"port": 7442}
    assert option(container, "--orphan-timeout") == "0"


def test_a_node_has_the_time_to_hand_over_its_log() -> None:
    workload = named(ALL, "StatefulSet", "edge-node")
    (container,) = containers(workload)
    grace = template(workload)["spec"]["terminationGracePeriodSeconds"]
    assert float(option(container, "--farewell")) < grace - 10


def option(container: Object, name: str) -> str:
    """What a container gives with an option."""
    found: str = container["args"][container["args"].index(name) + 1]
    return found


# --- one testbed --------------------------------------------------------------------------------


def test_the_scenario_is_the_one_that_ships() -> None:
    copy, original = (
        path.read_text()
        for path in (
            MANIFESTS / "base" / "scenario.yaml",
            ROOT / "testbed" / "scenario" / "shipped" / "quickstart.yaml",
        )
    )
    assert copy == original
    nodes = named(ALL, "StatefulSet", "edge-node")
    assert nodes["spec"]["replicas"] == load("quickstart").nodes.count
    assert nodes["spec"]["podManagementPolicy"] == "Parallel"


def test_the_controller_is_alone() -> None:
    assert named(ALL, "StatefulSet", "controller")["spec"]["replicas"] == 1


def test_the_namespace_takes_restricted_pods_only() -> None:
    labels = named(ALL, "Namespace", "testbed-default")["metadata"]["labels"]
    assert labels["app.kubernetes.io/managed-by"] == "edge-testbed"
    for mode in ("enforce", "audit", "warn"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"


@pytest.mark.parametrize("found", ALL, ids=label)
def test_objects_are_labelled(found: Object) -> None:
    spec = found.get("spec", {})
    labelled = [found, *spec.get("volumeClaimTemplates", [])]
    labelled += [spec["template"]] if "template" in spec else []
    components = set()
    for each in labelled:
        labels = each["metadata"]["labels"]
        assert labels[NAME] == labels[PART_OF] == "edge-testbed"
        # Which testbed it is, its overlay says, or the command line.
        assert INSTANCE not in labels
        components.add(labels[COMPONENT])
    assert len(components) == 1
    known = {"edge-node", "controller", "mysql", "hdfs", "trainer", "testbed"}
    assert components <= known


def test_the_scenarios_object_is_labelled() -> None:
    (generator,) = kustomization("base")["configMapGenerator"]
    assert generator["name"] == "scenario"
    assert generator["options"]["disableNameSuffixHash"] is True
    assert generator["options"]["labels"][COMPONENT] == "testbed"


def test_kustomize_is_asked_for_nothing_that_others_would_have_to_imitate() -> None:
    plain = {"apiVersion", "kind", "resources"}
    for part in PARTS:
        extra = {"configMapGenerator"} if part == "base" else set()
        assert set(kustomization(part)) == plain | extra
    for overlay in OVERLAYS:
        allowed = plain | {"namespace", "labels", "components", "images"}
        assert set(kustomization(f"overlays/{overlay}")) <= allowed


def test_every_file_is_used() -> None:
    for part in PARTS:
        files = {path.name for path in (MANIFESTS / part).iterdir()}
        used = {*kustomization(part)["resources"], "kustomization.yaml"}
        assert files == used | ({"scenario.yaml"} if part == "base" else set())


def test_names_are_given_once() -> None:
    names = [identity(each) for each in ALL]
    assert len(names) == len(set(names))
    for part in PARTS:
        assert not any("namespace" in each["metadata"] for each in of_part(part))


# --- who is meant, and who talks to whom --------------------------------------------------------


@each_workload
def test_selectors_mean_the_workloads_own_pods(workload: Object) -> None:
    if workload["kind"] == "Job":
        return
    selector = workload["spec"]["selector"]["matchLabels"]
    assert set(selector) <= {NAME, COMPONENT, "app.kubernetes.io/role"}
    meant = [each for each in WORKLOADS if selects(selector, pod_labels(each))]
    assert meant == [workload]
    service = named(ALL, "Service", workload["spec"]["serviceName"])
    assert service["spec"]["selector"] == selector


def pod_labels(workload: Object) -> dict[str, str]:
    labels: dict[str, str] = template(workload)["metadata"]["labels"]
    return labels


@pytest.mark.parametrize("service", SERVICES, ids=label)
def test_services_lead_to_ports_that_are_open(service: Object) -> None:
    (workload,) = (
        each for each in WORKLOADS if selects(service["spec"]["selector"], pod_labels(each))
    )
    (container,) = containers(workload)
    served = {(port["name"], port["containerPort"]) for port in container["ports"]}
    policies = [each for each in POLICIES if applies(each, workload)]
    for port in service["spec"]["ports"]:
        assert (port["name"], port["targetPort"]) in served
        assert any(
            rule
            for policy in policies
            for rule in policy["spec"].get("ingress", [])
            if port["targetPort"] in ports(rule) and rule["from"]
        )


def test_names_that_have_to_be_known_early_are() -> None:
    headless = {each["metadata"]["name"]: each["spec"] for each in SERVICES}
    controller = headless.pop("controller")
    assert "clusterIP" not in controller
    for spec in headless.values():
        assert spec["clusterIP"] == "None"
        assert spec["publishNotReadyAddresses"] is True


def applies(policy: Object, workload: Object) -> bool:
    """Whether a policy is about the pods of a workload."""
    selector = policy["spec"]["podSelector"].get("matchLabels", {})
    return selects(selector, pod_labels(workload))


def ports(rule: Object) -> set[int]:
    """The TCP ports of a rule."""
    return {each["port"] for each in rule["ports"] if each["protocol"] == "TCP"}


def test_nothing_is_allowed_by_default_but_name_servers() -> None:
    spec = named(ALL, "NetworkPolicy", "default-deny")["spec"]
    assert spec["podSelector"] == {}
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in spec
    (rule,) = spec["egress"]
    assert {each["port"] for each in rule["ports"]} == {53, 5353}


@each_workload
def test_every_pod_has_a_policy_of_its_own(workload: Object) -> None:
    own = [each for each in POLICIES if applies(each, workload)]
    assert len(own) == 2
    for policy in own:
        assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}


def connections(direction: str, peers: str) -> set[tuple[str, str, int]]:
    """Who may talk to whom at which port, as one of both sides says it."""
    found = set()
    for policy in POLICIES:
        if identity(policy)[1] == "default-deny":
            continue
        for rule in policy["spec"].get(direction, []):
            for own in meant_by(policy["spec"]["podSelector"]):
                for peer in rule[peers]:
                    for other in meant_by(peer["podSelector"]):
                        pair = (own, other) if direction == "egress" else (other, own)
                        found |= {(*pair, port) for port in ports(rule)}
    return found


def meant_by(selector: Object) -> Iterator[str]:
    for workload in WORKLOADS:
        if selects(selector["matchLabels"], pod_labels(workload)):
            yield identity(workload)[1]


def test_both_sides_allow_exactly_what_is_needed() -> None:
    clients = ("controller", "edge-node", "trainer")
    needed = {
        ("edge-node", "edge-node", 7441),
        ("controller", "edge-node", 7441),
        ("edge-node", "edge-node", HTTP_PORT),
        ("controller", "edge-node", HTTP_PORT),
        ("edge-node", "controller", 7440),
        ("trainer", "controller", 7440),
        ("controller", "mysql", 3306),
        ("trainer", "mysql", 3306),
        ("datanode", "namenode", 8020),
        *((client, "namenode", 9870) for client in clients),
        *((client, "datanode", 9864) for client in clients),
    }
    listening = connections("ingress", "from")
    assert listening == needed
    calling = connections("egress", "to")
    # Clients name HDFS as a whole: its NameNode and its DataNode take what is theirs.
    assert needed <= calling
    assert {(one, other) for one, other, _ in calling} == {(one, other) for one, other, _ in needed}


def test_addresses_name_services_and_their_ports() -> None:
    known = {
        (each["metadata"]["name"], port["port"])
        for each in SERVICES
        for port in each["spec"]["ports"]
    }
    named_addresses = {
        (host, int(port))
        for workload in WORKLOADS
        for container in containers(workload)
        for text in [*container.get("args", []), *(e.get("value", "") for e in container["env"])]
        for host, port in re.findall(r"(?:^|@)([a-z][a-z-]*):(\d+)", text)
    }
    assert named_addresses == {("controller", 7440), ("namenode", 9870)}
    assert named_addresses <= known
    for role in ("namenode", "datanode"):
        (container,) = containers(named(ALL, "StatefulSet", role))
        given = {each["name"]: each["value"] for each in container["env"]}
        assert given == {
            "HDFS_NAMENODE": "namenode-0.namenode",
            "HDFS_DATANODE": "datanode-0.datanode",
        }


# --- whoever operates testbeds ------------------------------------------------------------------

RESOURCES = {
    "ConfigMap": ("", "configmaps"),
    "Job": ("batch", "jobs"),
    "NetworkPolicy": ("networking.k8s.io", "networkpolicies"),
    "PersistentVolumeClaim": ("", "persistentvolumeclaims"),
    "Secret": ("", "secrets"),
    "Service": ("", "services"),
    "ServiceAccount": ("", "serviceaccounts"),
    "StatefulSet": ("apps", "statefulsets"),
}


def rights(role: str) -> dict[tuple[str, str], set[str]]:
    """What a role allows, by group and resource."""
    found: dict[tuple[str, str], set[str]] = {}
    for rule in named(documents(MANIFESTS / "rbac" / "operator.yaml"), "ClusterRole", role)[
        "rules"
    ]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found.setdefault((group, resource), set()).update(rule["verbs"])
    return found


def test_an_operator_may_make_and_remove_all_objects() -> None:
    allowed = rights("edge-testbed-operator")
    kinds = {each["kind"] for each in ALL} - {"Namespace"} | {"ConfigMap", "Secret"}
    assert kinds <= set(RESOURCES)
    for kind in kinds:
        assert {"get", "create", "patch", "delete"} <= allowed[RESOURCES[kind]], kind
    assert {"get", "create", "patch", "delete"} <= rights("edge-testbed-namespaces")[
        ("", "namespaces")
    ]


def test_an_operator_may_do_nothing_else() -> None:
    text = (MANIFESTS / "rbac" / "operator.yaml").read_text()
    assert "*" not in text
    allowed = rights("edge-testbed-operator")
    # No process inside pods is started from outside, and no right is handed on.
    assert ("", "pods/exec") not in allowed
    assert "create" not in allowed[("", "pods")]
    assert not any(group == "rbac.authorization.k8s.io" for group, _ in allowed)
    reading: list[Any] = [
        rule
        for rule in documents(MANIFESTS / "rbac" / "operator.yaml")[0]["rules"]
        if "secrets" in rule["resources"] and set(rule["verbs"]) & {"get", "list", "watch"}
    ]
    assert [rule["resourceNames"] for rule in reading] == [["credentials", "node-credentials"]]


def test_files_are_yaml_as_any_parser_reads_it() -> None:
    for path in MANIFESTS.rglob("*.yaml"):
        text = path.read_text()
        # Octal numbers and yes or no are read in two ways, anchors confuse those who edit.
        assert not re.search(r": (0\d+|yes|no|on|off)\s*$", text, re.MULTILINE), path
        assert not re.search(r"[:-] [&*]\w", text), path
        yaml.safe_load_all(text)


def test_folders_are_there() -> None:
    assert {path.name for path in Path(MANIFESTS / "overlays").iterdir()} == set(OVERLAYS)


def test_nodes_take_requests_at_a_port_of_their_own() -> None:
    base = of_part("base")
    (container,) = containers(named(base, "StatefulSet", "edge-node"))
    assert {"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"} in container["ports"]
    service = named(base, "Service", "edge-nodes")
    assert {each["name"]: each["port"] for each in service["spec"]["ports"]}["http"] == HTTP_PORT
