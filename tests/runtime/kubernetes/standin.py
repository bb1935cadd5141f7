"""Answers in place of a controller's pod: health and status, behind the testbed's own token."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.operator import NODES_SERVICE, Progress

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Controller(pb_grpc.OperatorServicer):
    """Says that ``nodes`` nodes are there, and that all but those in ``dead`` are healthy."""

    def __init__(self, testbed: str, nodes: int) -> None:
        self.testbed = testbed
        self.nodes = nodes
        self.dead: set[int] = set()
        self.tokens: list[str] = []
        self.run: dict[str, Any] | None = None
        self.port = 0
        self._health = health.HealthServicer()

    def Status(self, request: pb.Empty, context: grpc.ServicerContext) -> pb.StatusReply:
        self.tokens.append(str(dict(context.invocation_metadata())["authorization"]))
        nodes: list[dict[str, Any]] = [
            {"node": n, "condition": "dead" if n in self.dead else "healthy", "reason": "it ended"}
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

    def runs(self) -> None:
        """From now on a run is under way."""
        progress = Progress(
            run="20260131-142501-9f3a",
            state="running",
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
        )
        self.run = {"progress": json.loads(progress.to_json()), "label": "", "changes": []}

    def StartRun(self, request: pb.StartRunRequest, context: grpc.ServicerContext) -> Any:
        for node in sorted(self.dead):
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"node {node}: is dead")

    def set_healthy(self, healthy: bool) -> None:
        """Whether it says that all nodes are healthy."""
        self._health.set(NODES_SERVICE, _SERVING if healthy else _NOT_SERVING)

    @contextmanager
    def serving(self) -> Iterator[Controller]:
        """Serve on a port of this machine, ``port``."""
        server = grpc.server(ThreadPoolExecutor(8))
        pb_grpc.add_OperatorServicer_to_server(self, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        self.port = server.add_insecure_port("127.0.0.1:0")
        self.set_healthy(True)
        server.start()
        try:
            yield self
        finally:
            server.stop(0).wait()
