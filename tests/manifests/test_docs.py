"""The overlay that the docs tell users to write works, and their table names all objects."""

from __future__ import annotations

import os
import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from testbed.cli.commands import COMMANDS
from testbed.runtime.kubernetes.rendering import render_trainer, requests_of
from tests.manifests.golden import expected
from tests.manifests.objects import (
    MANIFESTS,
    ROOT,
    Object,
    containers,
    named,
    shipped,
    template,
    workloads,
)
from tests.services import kustomize

PAGE = (ROOT / "docs" / "kubernetes-manifests.md").read_text()
OVERLAY, POLICY, LEARNING, WITHOUT_NAMESPACE = re.findall(
    r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL
)


def rendered(folder: Path, overlay: str) -> list[Object]:
    manifests = os.path.relpath(MANIFESTS, folder.resolve())
    (folder / "scenario.yaml").write_text("of: the user\n")
    (folder / "kustomization.yaml").write_text(overlay.replace("../manifests", manifests))
    return list(yaml.safe_load_all(kustomize.render(folder)))


@pytest.mark.kustomize
def test_the_overlay_of_the_docs_is_all_that_it_says(tmp_path: Path) -> None:
    found = rendered(tmp_path, OVERLAY)

    for each in found:
        kubernetes_validate.validate(each, "1.37", strict=True)
        assert each["metadata"].get("namespace", "testbed-lab") == "testbed-lab"
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == "lab"
    named(found, "Namespace", "testbed-lab")
    assert named(found, "ConfigMap", "scenario")["data"] == {"scenario.yaml": "of: the user\n"}
    nodes = named(found, "StatefulSet", "edge-node")
    assert nodes["spec"]["replicas"] == 10
    assert template(nodes)["spec"]["nodeSelector"] == {"edge-testbed/nodes": "true"}
    (container,) = containers(nodes)
    assert container["resources"]["requests"] == {"cpu": "20m", "memory": "128Mi"}
    assert container["args"]
    (claim,) = named(found, "StatefulSet", "mysql")["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["storageClassName"] == "fast"
    assert claim["spec"]["resources"]["requests"]["storage"] == "50Gi"
    for workload in workloads(found):
        for each in containers(workload):
            assert each["image"].startswith("registry.example.com/lab/")
    named(found, "Job", "trainer")


@pytest.mark.kustomize
def test_the_job_can_learn_where_it_runs(tmp_path: Path) -> None:
    base = OVERLAY.partition("patches:")[0]
    job = named(rendered(tmp_path, base + LEARNING), "Job", "trainer")
    (original,) = containers(named(rendered(tmp_path, base), "Job", "trainer"))

    kubernetes_validate.validate(job, "1.37", strict=True)
    (container,) = containers(job)
    assert {**container, "args": original["args"]} == original
    command, *options = container["args"]
    (entry,) = (each for each in COMMANDS if each.name == command)
    given = entry.load().make_context(f"testbed {command}", options).params
    # As `testbed trainer start --learn` does.
    (other,) = (
        each for each in render_trainer("lab", (), command="learn") if each["kind"] == "Job"
    )
    theirs = containers(other)[0]["args"]
    assert theirs[0] == command == "learn"
    assert [given["out"], given["as_json"]] == [Path(theirs[2]), "--json" in theirs]
    (state,) = (each for each in container["volumeMounts"] if each["name"] == "state")
    assert given["out"].is_relative_to(state["mountPath"])


@pytest.mark.kustomize
def test_the_namespace_can_be_left_to_an_administrator(tmp_path: Path) -> None:
    base = OVERLAY.partition("patches:")[0]
    kinds = {each["kind"] for each in rendered(tmp_path, base + WITHOUT_NAMESPACE)}
    assert "StatefulSet" in kinds
    assert "Namespace" not in kinds


def test_the_policy_of_the_docs_is_one() -> None:
    kubernetes_validate.validate(yaml.safe_load(POLICY), "1.37", strict=True)


def test_the_capacity_is_what_pods_request() -> None:
    kind = expected("kind")
    (nodes,) = (
        each
        for each in kind
        if each["metadata"]["name"] == "edge-node" and each["kind"] == "StatefulSet"
    )
    five = requests_of([nodes])
    rest = requests_of([each for each in kind if each is not nodes])
    assert (
        f"| capacity | {five.cpu_m // 5}m of processor and {five.memory_bytes // 5 >> 20} MiB for "
        f"every node of the network, {rest.cpu_m}m and {rest.memory_bytes >> 20} MiB for the rest |"
    ) in PAGE


def test_the_table_names_every_object() -> None:
    table = PAGE.partition("## The objects")[2].partition("## Rights")[0]
    kinds = {each["kind"] for each in shipped()} - {"Namespace", "NetworkPolicy"}
    for found in shipped():
        if found["kind"] in kinds:
            assert f"`{found['metadata']['name']}`" in table
            assert found["kind"] in table
