"""The commands about a kind cluster on which no testbed is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.runtime.kind import KindCluster
from tests.api_server import ApiServer
from tests.cli.conftest import Command
from tests.runtime.kind.engine import FakeEngine

CONTAINER = "edge-testbed-control-plane"


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    return FakeEngine.installed(tmp_path, monkeypatch)


@pytest.fixture
def server(engine: FakeEngine) -> Iterator[ApiServer]:
    with ApiServer() as running:
        running.kubeconfig(engine.folder / "kubeconfig", context="kind-edge-testbed")
        yield running


def test_a_cluster_without_a_testbed_is_found_and_removed(
    testbed: Command, engine: FakeEngine, server: ApiServer, home: Path
) -> None:
    # As it is after `teardown --keep-cluster`.
    KindCluster(home).ensure()

    listed = testbed("ps", "--json")
    assert (listed.code, listed.document) == (0, [])
    assert f"(containers: {CONTAINER}) is there, and no testbed is on it" in listed.err
    plain = testbed("teardown")
    assert plain.code == 0
    assert "to remove it: testbed teardown --all" in plain.err
    verified = testbed("teardown", "--verify")
    assert verified.code == 5
    assert CONTAINER in verified.err
    kept = testbed("teardown", "--all", "--keep-cluster")
    assert kept.code == 0
    assert engine.names() == [CONTAINER]

    removed = testbed("teardown", "--all")

    assert removed.code == 0
    assert f"removed: kind cluster 'edge-testbed' (containers: {CONTAINER})" in removed.out
    assert engine.names() == []
    assert testbed("teardown", "--verify").code == 0
    assert testbed("ps").err.startswith("no testbed is up")


def test_what_an_interrupted_up_has_left_is_found_too(
    testbed: Command, engine: FakeEngine, home: Path
) -> None:
    for image in ("edge-testbed/controller", "edge-testbed/edgenode", "edge-testbed/hdfs"):
        engine.has(f"{image}:0.1.0")
    engine.has("mariadb:10.11.13")
    engine.behaves(create="kubeadm")
    said = testbed("up", "quickstart", "--runtime", "kind", "--keep-on-failure")
    assert said.code == 5
    assert "warning: the cluster is kept for a look at it: kind export logs" in said.err

    assert CONTAINER in testbed("ps").err
    assert testbed("teardown", "--all").code == 0
    assert engine.names() == []
