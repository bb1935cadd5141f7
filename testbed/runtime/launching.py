"""The processes of a testbed on this machine: started, and waited for until all are healthy.

``LocalRuntime.up`` decides what is started; this waits on pipes and on the controller's health
stream. It is a module of its own because it needs gRPC, which commands that start nothing should
not have to load.
"""

from __future__ import annotations

import json
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from testbed import environment
from testbed.errors import PermanentError, TemporaryError, TestbedError, from_document
from testbed.model.units import counted
from testbed.rpc import identity
from testbed.rpc.channels import connect_blocking
from testbed.rpc.credentials import of_operator
from testbed.rpc.operator import NODES_SERVICE, OperatorClient
from testbed.runtime import directory, processes
from testbed.runtime.base import CONTROLLER, Report, node_process
from testbed.runtime.directory import RunDirectory
from testbed.runtime.hosting import process_name
from testbed.runtime.processes import Started, Zygote

CONTROLLER_TIMEOUT_S: Final = 90.0
NODE_TIMEOUT_S: Final = 3.0
"""Time that ``up`` waits for the controller, and additional time for each node. One that ends is
noticed at once; this is for one that hangs, and must not hit one that waits for a processor."""

_TAIL: Final = 15


class Launch:
    """One ``up``, from the files to all nodes healthy."""

    def __init__(
        self,
        place: RunDirectory,
        description: dict[str, Any],
        password: str | None,
        groups: Sequence[range],
        arguments: NodeArguments,
        report: Report,
        *,
        metrics_port: int,
    ) -> None:
        self._place = place
        self._metrics_port = metrics_port
        self._password = password
        self._groups = groups
        self._arguments = arguments
        self._description = description
        self._report = report
        self._started: list[Started] = []
        self._selector = selectors.DefaultSelector()

    def run(self) -> str:
        """Start all, and return where the controller listens.

        Raises: PermanentError, TemporaryError: as ``Runtime.up``.
        """
        nodes: int = self._description["nodes"]
        try:
            # It loads what nodes need while the controller starts.
            with directory.writing(self._place.path):
                controller = self._arguments.socket(CONTROLLER)
                every = [
                    self._arguments.of(number, group, controller)
                    for number, group in enumerate(self._groups)
                ]
                zygote = Zygote(
                    max(every, key=lambda each: sum(map(len, each)) + len(each)),
                    log=self._place.log(Zygote.NAME),
                    directory=self._place.path,
                    testbed_name=self._place.name,
                )
            # It is closed once: its process id may be another's as soon as it has ended.
            with closing(zygote):
                address = self._controller_ready(self._start_controller())
                self._report(f"controller at {address}")
                if self._metrics_port:
                    self._report(f"metrics at http://127.0.0.1:{self._metrics_port}/metrics")
                for number, group in enumerate(self._groups):
                    self._begin(zygote, number, group, address)
            count = len(self._groups)
            shared = f" in {count} process{'es' * (count > 1)}" if count < nodes else ""
            self._report(f"{counted(nodes, 'node')} started{shared}")
            self._nodes_healthy(address)
            return address
        finally:
            self._selector.close()
            for started in self._started:
                os.close(started.alive)

    def _start_controller(self) -> Started:
        secrets = {environment.PROCESS_STORAGE: self._description["store"]}
        if self._password is not None:
            secrets[environment.MYSQL_PASSWORD] = self._password
        scenario = self._place.scenario
        with directory.writing(self._place.path):
            started = processes.start(
                CONTROLLER,
                "controller",
                [
                    "--plan",
                    str(self._place.plan),
                    "--run-dir",
                    str(self._place.path),
                    "--claims",
                    str(self._place.claims),
                    "--name",
                    self._place.name,
                    "--bind",
                    self._arguments.socket(CONTROLLER),
                    "--ready-fd",
                    str(processes.REPORT_DESCRIPTOR),
                    *(("--scenario", str(scenario)) if scenario.exists() else ()),
                    *(
                        ("--metrics", f"127.0.0.1:{self._metrics_port}")
                        if self._metrics_port
                        else ()
                    ),
                    "--credentials",
                    str(self._place.credentials(CONTROLLER)),
                ],
                log=self._place.log(CONTROLLER),
                directory=self._place.path,
                testbed_name=self._place.name,
                secrets=secrets,
            )
        if any(len(group) > 1 for group in self._groups):
            # What it does can wait, and processes of many nodes need the processors at once.
            processes.let_others_first(started.pid)
        return self._enter(started)

    def _begin(self, zygote: Zygote, number: int, group: range, controller: str) -> None:
        """Start the process of a group of nodes, and note all of them."""
        name = process_name(group, number)
        try:
            started = zygote.make(
                name,
                self._arguments.of(number, group, controller),
                log=self._place.log(name),
                timeout=CONTROLLER_TIMEOUT_S,
            )
        except OSError as error:
            raise PermanentError(
                f"{name} could not be started: {error}" + self._tail(Zygote.NAME)
            ) from error
        self._enter(started)
        if len(group) > 1:
            for node in group:
                self._place.enter(node_process(node), started.pid, started.created, name)

    def _enter(self, started: Started) -> Started:
        """Note a process, and notice its end."""
        self._started.append(started)
        self._place.enter(started.name, started.pid, started.created)
        self._selector.register(started.alive, selectors.EVENT_READ, started)
        return started

    def _controller_ready(self, controller: Started) -> str:
        if not self._selector.select(CONTROLLER_TIMEOUT_S):
            raise TemporaryError(
                f"the controller was not ready within {CONTROLLER_TIMEOUT_S:g} s"
                + self._tail(CONTROLLER)
            )
        said = os.read(controller.alive, 65536)
        if not said:
            raise self._ended(controller)
        message = json.loads(said.splitlines()[0])
        if "error" in message:
            raise from_document(message["error"])
        return str(message["address"])

    def _nodes_healthy(self, address: str) -> None:
        """Wait until the controller says that all nodes are, or one of the processes ends."""
        until = time.monotonic() + CONTROLLER_TIMEOUT_S + NODE_TIMEOUT_S * len(self._started)
        reading, writing = os.pipe()
        token = self._description["token"]
        channel = connect_blocking(address, of_operator(token), identity.CONTROLLER)
        watcher = threading.Thread(target=_watch_health, args=(channel, writing), daemon=True)
        watcher.start()
        try:
            self._selector.register(reading, selectors.EVENT_READ, None)
            while True:
                ready = self._selector.select(max(0.0, until - time.monotonic()))
                if not ready:
                    raise TemporaryError(self._unhealthy(address))
                ended = [key.data for key, _ in ready if key.data is not None]
                if ended:
                    raise self._ended(ended[0])
                if os.read(reading, 1):
                    return
                raise PermanentError("the controller ended" + self._tail(CONTROLLER))
        finally:
            channel.close()
            watcher.join()
            os.close(reading)

    def _unhealthy(self, address: str) -> str:
        message = "not all nodes became healthy in time"
        try:
            with OperatorClient(address, self._description["token"], timeout=2.0) as client:
                nodes = client.status().nodes
        except TestbedError as error:
            return f"{message}: {error}"
        listed = [
            f"\n  - node {node.node} is {node.condition}: {node.reason}"
            for node in nodes
            if node.condition != "healthy"
        ]
        return message + "".join(listed)

    def _ended(self, started: Started) -> PermanentError:
        return PermanentError(f"{started.name} ended while starting" + self._tail(started.name))

    def _tail(self, process: str) -> str:
        log = self._place.log(process)
        lines: list[str] = []
        if log.is_file():
            with log.open(encoding="utf-8", errors="replace") as file:
                lines = [line.rstrip("\n") for line in deque(file, maxlen=_TAIL)]
        if not lines:
            return "; it has written no log"
        return "; the end of its log:\n" + "\n".join(f"  | {line}" for line in lines)


class NodeArguments:
    """The arguments of the processes of nodes."""

    def __init__(
        self,
        place: RunDirectory,
        description: Mapping[str, Any],
        orphan_timeout_s: float,
        transport: str,
        http: str,
    ) -> None:
        self._place = place
        self._sockets: str = description["sockets"]
        self._orphan_timeout_s = orphan_timeout_s
        self._transport = transport
        self._http = http

    def socket(self, process: str) -> str:
        """Return where a process listens."""
        return f"unix:{self._sockets}/{process}.sock"

    def of(self, number: int, group: range, controller: str) -> list[str]:
        """Return those of the process of ``group``, the one with this number."""
        shared = len(group) > 1
        # It stands for the index of each node: see ``edgenode.process``.
        name = "node-{node}" if shared else node_process(group[0])
        trunk = process_name(group, number) if shared else f"trunk-{group[0]}"
        return [
            *(("--nodes", f"{group[0]}-{group[-1]}") if shared else ("--node", str(group[0]))),
            "--controller",
            controller,
            "--bind",
            self.socket(name),
            "--spool",
            str(self._place.spool / name),
            "--orphan-timeout",
            str(self._orphan_timeout_s),
            "--credentials",
            str(self._place.credentials(name)),
            # That of a shared process also takes the order to end one of its nodes.
            *(("--trunk", self.socket(trunk)) if shared or self._transport != "grpc" else ()),
            "--transport",
            self._transport,
            *(("--http", self._http) if self._http else ()),
            *(("--log", str(self._place.log(name))) if shared else ()),
        ]


def _watch_health(channel: grpc.Channel, writing: int) -> None:
    """Write a byte to ``writing`` when all nodes are healthy, and close it in any case."""
    stub = health_pb2_grpc.HealthStub(channel)
    try:
        request = health_pb2.HealthCheckRequest(service=NODES_SERVICE)
        for reply in stub.Watch(request, wait_for_ready=True):
            if reply.status == health_pb2.HealthCheckResponse.SERVING:
                os.write(writing, b"1")
                return
    except (grpc.RpcError, ValueError):
        # The channel was closed, or the controller is gone: the end of the pipe says so.
        return
    finally:
        os.close(writing)
