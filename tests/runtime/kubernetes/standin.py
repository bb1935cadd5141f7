"""Answers in place of a controller's pod: health and status, to who shows a certificate."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from testbed.model.run_state import RunState
from testbed.rpc.certificates import Authority
from testbed.rpc.credentials import PartyCertificate, of_operator
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import CONTROLLER
from testbed.rpc.operator import NODES_SERVICE, Progress
from tests.api_server import ApiServer

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Controller(pb_grpc.OperatorServicer):
    """Says that ``nodes`` nodes are there, and that all but those in ``dead`` are healthy."""

    def __init__(self, testbed: str, nodes: int) -> None:
        self.testbed = testbed
        self.nodes = nodes
        self.dead: set[int] = set()
        self.fronts: dict[int, str] = {}
        self.callers: list[str] = []
        self.run: dict[str, Any] | None = None
        self.port = 0
        self._health = health.HealthServicer()

    def Status(self, request: pb.Empty, context: grpc.ServicerContext) -> pb.StatusReply:
        seen: Any = context.auth_context()
        self.callers.append(next(iter(seen["x509_subject_alternative_name"])).decode())
        nodes: list[dict[str, Any]] = [
            {
                "node": n,
                "condition": "dead" if n in self.dead else "healthy",
                "reason": "it ended",
                "http": self.fronts.get(n),
            }
            for n in range(self.nodes)
        ]
        status = {
            "testbed": self.testbed,
            "version": "1",
            "address": "0.0.0.0:7440",
            "pid": 1,
            "started": "2026-01-01T00:00:00.000+00:00",
            "store": "mysql+pymysql://edge@mysql/testbed",
            "scenario": "small",
            "scenario_hash": "0" * 64,
            "scheduler": "local",
            "nodes": nodes,
            "run": self.run,
            "runs": [],
        }
        return pb.StatusReply(json=json.dumps(status))

    def runs(self, **more: Any) -> None:
        """From now on a run is under way; ``more`` are further fields of its progress."""
        progress = Progress(
            run="20260131-142501-9f3a",
            state=RunState.RUNNING,
            scheduler="local",
            first_episode=0,
            episodes=2,
            episode=0,
            completed=0,
            slot=3,
            slots=10,
            generated=3,
            outcomes={},
            completed_outcomes={},
            queue_lengths=(0, 0),
            **more,
        )
        self.run = {"progress": json.loads(progress.to_json()), "label": "", "changes": []}

    def StartRun(self, request: pb.StartRunRequest, context: grpc.ServicerContext) -> Any:
        for node in sorted(self.dead):
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"node {node}: is dead")

    def set_healthy(self, healthy: bool) -> None:
        """Whether it says that all nodes are healthy."""
        self._health.set(NODES_SERVICE, _SERVING if healthy else _NOT_SERVING)

    @contextmanager
    def serving(self, credentials: Callable[[], str]) -> Iterator[Controller]:
        """Serve on a port of this machine, ``port``.

        ``credentials`` is asked for the PEM of the controller whenever somebody connects.
        """

        def configuration() -> Any:
            me = of_operator(credentials())
            assert isinstance(me, PartyCertificate)
            return grpc.ssl_server_certificate_configuration(
                [(me.key.encode(), me.certificate.encode())], me.authority.encode()
            )

        nobody = Authority.new("nobody").issue(CONTROLLER)
        tls = grpc.dynamic_ssl_server_credentials(
            grpc.ssl_server_certificate_configuration(
                [(nobody.key.encode(), nobody.certificate.encode())], nobody.authority.encode()
            ),
            configuration,
            require_client_authentication=True,
        )
        server = grpc.server(ThreadPoolExecutor(8))
        pb_grpc.add_OperatorServicer_to_server(self, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        self.port = server.add_secure_port("127.0.0.1:0", tls)
        self.set_healthy(True)
        server.start()
        try:
            yield self
        finally:
            server.stop(0).wait()


def controllers_secret(server: ApiServer, testbed: str) -> Callable[[], str]:
    """What the controller's pod of a testbed finds in its Secret."""

    def read() -> str:
        for each in server.objects("secrets"):
            labels = each["metadata"].get("labels") or {}
            if each["metadata"]["name"] == "credentials" and testbed in labels.values():
                return base64.b64decode(each["data"]["controller.pem"]).decode()
        return Authority.new("nobody").issue(CONTROLLER).to_pem()

    return read
