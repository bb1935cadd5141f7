"""A fake API server, and the official client for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client, config

from tests.api_server import ApiServer
from tests.testing.cluster import NAMESPACE, Api


@pytest.fixture
def server() -> Iterator[ApiServer]:
    """With the namespace ``edge``."""
    with ApiServer() as server:
        server.create("namespaces", {"metadata": {"name": NAMESPACE}})
        server.wait_for(lambda: server.object("serviceaccounts", NAMESPACE, "default"))
        yield server


@pytest.fixture
def api(server: ApiServer, tmp_path: Path) -> Iterator[Api]:
    path = server.kubeconfig(tmp_path / "kubeconfig")
    made: client.ApiClient = config.new_client_from_config(str(path))
    yield Api(made)
    made.rest_client.pool_manager.clear()
