"""What ``kubectl apply -k`` applies: known to the last field, and valid where it is applied."""

from __future__ import annotations

import kubernetes_validate
import pytest
import yaml

from tests.manifests.golden import FOLDER, RENDERINGS, expected
from tests.manifests.objects import (
    MANIFESTS,
    Object,
    documents,
    identity,
    label,
    rendered,
    shipped,
    template,
    workloads,
)

OLDEST, NEWEST = "1.29", "1.37"
"""Versions of Kubernetes that are supported."""

RBAC = documents(MANIFESTS / "rbac" / "operator.yaml")


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("found", [*shipped(), *RBAC], ids=label)
def test_objects_are_valid(found: Object, version: str) -> None:
    kubernetes_validate.validate(found, version, strict=True)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("rendering", RENDERINGS)
def test_renderings_are_valid(rendering: str, version: str) -> None:
    for found in expected(rendering):
        kubernetes_validate.validate(found, version, strict=True)


def test_strict_means_that_unknown_fields_are_errors() -> None:
    (found,) = (each for each in shipped() if identity(each) == ("Service", "controller"))
    found["spec"]["selektor"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(found, NEWEST, strict=True)


@pytest.mark.kustomize
@pytest.mark.parametrize("rendering", RENDERINGS)
def test_each_overlay_renders_what_is_known(rendering: str) -> None:
    found = rendered(rendering)
    known = expected(rendering)
    assert [identity(each) for each in found] == [identity(each) for each in known]
    for one, other in zip(found, known, strict=True):
        assert one == other, f"{label(one)}: `make golden` if that is meant"


def test_nothing_else_is_known() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(RENDERINGS)


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_a_rendering_is_all_of_one_testbed(rendering: str) -> None:
    for found in expected(rendering):
        labels = found["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "default"
        if found["kind"] == "Namespace":
            assert found["metadata"]["name"] == "testbed-default"
        else:
            assert found["metadata"]["namespace"] == "testbed-default"
    for workload in workloads(expected(rendering)):
        # From there the controller knows its testbed's name.
        assert template(workload)["metadata"]["labels"]["app.kubernetes.io/instance"] == "default"


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_the_secret_is_no_part_of_it(rendering: str) -> None:
    assert "Secret" not in {found["kind"] for found in expected(rendering)}


def test_the_cluster_pulls_what_is_ours_from_one_registry() -> None:
    images = {
        container["image"].rpartition(":")[0]
        for workload in workloads(expected("cluster"))
        for container in template(workload)["spec"]["containers"]
    }
    ours = {f"registry.example.com/edge-testbed/{name}" for name in ("controller", "edgenode")}
    assert images == ours | {"registry.example.com/edge-testbed/hdfs", "mariadb"}


def test_the_trainer_would_come_from_there_too() -> None:
    text = (MANIFESTS / "overlays" / "cluster" / "kustomization.yaml").read_text()
    renamed = {each["name"] for each in yaml.safe_load(text)["images"]}
    assert renamed == {
        f"edge-testbed/{name}" for name in ("controller", "edgenode", "hdfs", "trainer")
    }
