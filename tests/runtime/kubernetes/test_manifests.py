"""The CLI and ``kubectl apply -k`` put the same objects on a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from testbed.runtime.kubernetes.rendering import (
    CONFIGURATION_ANNOTATION,
    MANAGED_LABEL,
    ClusterOptions,
    render,
)
from testbed.scenario.load import load, shipped_text
from testbed.scenario.resolve import plan
from tests.manifests.golden import expected


@pytest.mark.parametrize(
    ("overlay", "options"),
    [
        ("kind", ClusterOptions()),
        ("cluster", ClusterOptions(image_registry="registry.example.com/edge-testbed")),
    ],
)
def test_both_ways_make_the_same_objects(overlay: str, options: ClusterOptions) -> None:
    scenario = shipped_text("quickstart")
    made = render(plan(load("quickstart")), "default", scenario=scenario, options=options)
    by_command = {_key(each): _comparable(each) for each in made}
    by_kustomize = {_key(each): _comparable(each) for each in expected(overlay)}

    assert by_command.keys() == by_kustomize.keys()
    for key, each in by_command.items():
        assert each == by_kustomize[key], key


def _key(document: Any) -> tuple[str, str]:
    return document["kind"], document["metadata"]["name"]


def _comparable(document: Any) -> Any:
    """Without what only the command adds: how it was brought up, and that it was the command."""
    metadata = document["metadata"]
    metadata.pop("annotations", None)
    metadata["labels"].pop(MANAGED_LABEL, None)
    metadata.pop("creationTimestamp", None)
    template = document.get("spec", {}).get("template", {})
    annotations = template.get("metadata", {}).get("annotations", {})
    annotations.pop(CONFIGURATION_ANNOTATION, None)
    if template and not annotations:
        template["metadata"].pop("annotations", None)
    return document
