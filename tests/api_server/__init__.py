"""A Kubernetes API server for tests, at the level of the protocol, in the process of the test.

``ApiServer`` speaks HTTP as the real one does to any client: storage with versions and watches,
server-side apply with owners and conflicts, logs and port-forwarding. Behind it are controllers
and a kubelet that make pods of stateful sets and jobs, start, replace and end them;
no container runs. What goes wrong in clusters is switched on and off by methods.

    with ApiServer() as server:
        server.kubeconfig(tmp_path / "kubeconfig")
        server.pods_become("image-pull-backoff", {"app.kubernetes.io/component": "mysql"})

It follows Kubernetes in what a client can see of the objects that a testbed is made of. It knows
no schemas: a field that does not exist is stored like any other.
"""

from __future__ import annotations

from tests.api_server.faults import Fault
from tests.api_server.http import Request
from tests.api_server.kubelet import PodState
from tests.api_server.resources import Object
from tests.api_server.server import CONTEXT, TOKEN, USER, ApiServer
from tests.api_server.status import Refusal

__all__ = [
    "CONTEXT",
    "TOKEN",
    "USER",
    "ApiServer",
    "Fault",
    "Object",
    "PodState",
    "Refusal",
    "Request",
]
