"""A cluster in the process of the test, and a runtime on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.runtime.kubernetes import ClusterRuntime
from testbed.runtime.kubernetes.api import Cluster
from testbed.runtime.kubernetes.bringing_up import Patience
from testbed.testing.runtime import NAME
from tests.api_server import CONTEXT, ApiServer
from tests.runtime.kubernetes.standin import Controller, controllers_secret

NAMESPACE = f"testbed-{NAME}"


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as running:
        yield running


@pytest.fixture
def kubeconfig(server: ApiServer, tmp_path: Path) -> Path:
    return server.kubeconfig(tmp_path / "kubeconfig")


@pytest.fixture
def controller(server: ApiServer) -> Iterator[Controller]:
    """What answers when somebody is connected to the controller's pod."""
    with Controller(NAME, 2).serving(controllers_secret(server, NAME)) as controller:
        server.route(NAMESPACE, "controller-0", 7440, "127.0.0.1", controller.port)
        yield controller


@pytest.fixture
def runtime(kubeconfig: Path, controller: Controller, tmp_path: Path) -> Iterator[ClusterRuntime]:
    made = ClusterRuntime(
        tmp_path / "home",
        Cluster(kubeconfig, CONTEXT, patience_s=5.0),
        patience=Patience(hopeless_s=0.2),
    )
    yield made
    made.close()
