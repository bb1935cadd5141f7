"""Where pods serve metrics is what services, annotations, policies and monitors say."""

from __future__ import annotations

import json

import pytest

from testbed.rpc.metrics import PORT
from tests.manifests.objects import (
    MANIFESTS,
    Object,
    containers,
    kustomization,
    named,
    of_part,
    template,
)

PODS = [("controller", "controller"), ("edge-node", "edge-nodes")]


@pytest.mark.parametrize(("workload", "service"), PODS)
def test_pods_serve_metrics_where_they_are_looked_for(workload: str, service: str) -> None:
    objects = of_part("base")
    pods = named(objects, "StatefulSet", workload)
    (container,) = containers(pods)
    arguments = container["args"]
    policy = named(objects, "NetworkPolicy", workload)

    assert arguments[arguments.index("--metrics") + 1] == f"0.0.0.0:{PORT}"
    assert {"name": "metrics", "containerPort": PORT, "protocol": "TCP"} in container["ports"]
    annotations = template(pods)["metadata"]["annotations"]
    assert annotations["prometheus.io/scrape"] == "true"
    assert annotations["prometheus.io/port"] == str(PORT)
    assert _ports(named(objects, "Service", service))["metrics"] == PORT
    (rule,) = [
        rule
        for rule in policy["spec"]["ingress"]
        if {"port": PORT, "protocol": "TCP"} in rule["ports"]
    ]
    (peer,) = rule["from"]
    assert peer["namespaceSelector"] == {}
    assert peer["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "prometheus"}


def test_the_monitor_finds_both_services() -> None:
    (monitor,) = of_part("components/monitoring")
    wanted = monitor["spec"]["selector"]["matchLabels"]
    (endpoint,) = monitor["spec"]["endpoints"]
    found = [
        each
        for each in of_part("base")
        if each["kind"] == "Service"
        and wanted.items() <= each["metadata"]["labels"].items()
        and endpoint["port"] in _ports(each)
    ]

    assert sorted(each["metadata"]["name"] for each in found) == ["controller", "edge-nodes"]


def test_the_dashboard_is_loaded_from_a_labelled_map() -> None:
    (map_,) = kustomization("components/monitoring")["configMapGenerator"]
    (file,) = map_["files"]

    assert map_["options"]["labels"]["grafana_dashboard"] == "1"
    dashboard = json.loads((MANIFESTS / "components" / "monitoring" / file).read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids) > 15
    places = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
    assert all(x + width <= 24 for x, _, width, _ in places)


def _ports(service: Object) -> dict[str, int]:
    return {port["name"]: port["port"] for port in service["spec"]["ports"]}
