"""A network of containers as the compose file makes it: two nodes, controller, MariaDB, HDFS."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pymysql
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from testbed.rpc.certificates import Authority
from testbed.rpc.identity import CONTROLLER as CONTROLLER_IDENTITY
from testbed.rpc.identity import OPERATOR, Identity, node_identity
from testbed.rpc.operator import OperatorClient
from testbed.scenario.load import dumps, load
from tests.images.engine import CONTAINED, TAG, PrivateNetwork

NODES: Final = 2
EDGENODE: Final = f"edge-testbed/edgenode:{TAG}"
CONTROLLER: Final = f"edge-testbed/controller:{TAG}"
HDFS: Final = f"edge-testbed/hdfs:{TAG}"
ARTIFACTS: Final = "webhdfs://edge@namenode:9870/edge-testbed"
HDFS_PORTS: Final = {"namenode": 9870, "datanode": 9864}
SERVERS_S: Final = 300.0
READY_S: Final = 180.0


class _NotYet(Exception):
    pass


class Deployment:
    """Start it, use it, ``remove`` it. ``folder`` is for its secrets and its scenario."""

    def __init__(self, folder: Path, mariadb_image: str) -> None:
        self.network = PrivateNetwork()
        self.authority = Authority.new("containers")
        self.token = self.authority.issue(OPERATOR).to_pem()
        self.password = secrets.token_urlsafe(16)
        self._folder = folder
        self._mariadb_image = mariadb_image
        # Read by users of containers, whose numbers nobody here has.
        self.operator_file = self._file("operator.pem", self.token)
        self._password_file = self._file("password", self.password)
        self._scenario = self._file(
            "scenario.yaml",
            dumps(load("quickstart", [f"nodes.count={NODES}", "slots.count=20", "episodes=1"])),
        )

    @property
    def controller(self) -> str:
        """Address of the controller on this host."""
        return self.network.published("controller", 7440)

    @property
    def store(self) -> str:
        """URL of the task log from this host, without the password."""
        return f"mysql+pymysql://edge@{self.network.published('mariadb', 3306)}/testbed"

    @property
    def artifacts(self) -> str:
        """URL of the artifact store from this host."""
        ways = (
            f"{role}:{port}={self.network.published(role, port)}"
            for role, port in HDFS_PORTS.items()
        )
        return f"{ARTIFACTS}?via={','.join(ways)}"

    def client(self) -> OperatorClient:
        """A client of the controller."""
        return OperatorClient(self.controller, self.token, timeout=20.0)

    def start(self) -> None:
        """Start everything; returns when all nodes are healthy."""
        self.network.start(
            "mariadb",
            self._mariadb_image,
            options=(
                *("--publish", "127.0.0.1::3306"),
                *("--env", "MARIADB_DATABASE=testbed", "--env", "MARIADB_USER=edge"),
                *("--env", "MARIADB_PASSWORD_FILE=/run/secrets/password"),
                *("--env", "MARIADB_RANDOM_ROOT_PASSWORD=1"),
                *_mounted(self._password_file, "/run/secrets/password"),
            ),
        )
        for role, port in HDFS_PORTS.items():
            published = ("--publish", f"127.0.0.1::{port}")
            self.network.start(role, HDFS, role, options=(*CONTAINED, *published))
        self._wait("mariadb takes connections", SERVERS_S, self._mariadb_answers)
        self._wait("HDFS can be written", SERVERS_S, self._hdfs_serves)
        self.start_controller()
        for node in range(NODES):
            self.start_node(node)
        self._wait("all nodes are healthy", READY_S, self._nodes_healthy)

    def start_controller(self) -> None:
        """Start the controller."""
        url = "mysql+pymysql://edge@mariadb/testbed?password_file=/run/secrets/password"
        self.network.start(
            "controller",
            CONTROLLER,
            *("--scenario", "/etc/edge-testbed/scenario.yaml", "--name", "containers"),
            options=(
                *CONTAINED,
                *("--publish", "127.0.0.1::7440"),
                *("--env", f"TESTBED_PROCESS_STORAGE={url}"),
                *("--env", f"TESTBED_PROCESS_ARTIFACTS={ARTIFACTS}"),
                *("--env", "TESTBED_PROCESS_CREDENTIALS=/run/secrets/own.pem"),
                *_mounted(self._certificate(CONTROLLER_IDENTITY), "/run/secrets/own.pem"),
                *_mounted(self._password_file, "/run/secrets/password"),
                *_mounted(self._scenario, "/etc/edge-testbed/scenario.yaml"),
            ),
        )

    def start_node(self, node: int) -> None:
        """Start a node."""
        name = f"node-{node}"
        self.network.start(
            name,
            EDGENODE,
            *("--node", str(node), "--controller", "controller:7440", "--advertise", name),
            options=(
                *CONTAINED,
                *("--tmpfs", "/var/spool/edge-testbed:uid=10001,gid=10001,mode=0750"),
                *("--env", "TESTBED_PROCESS_CREDENTIALS=/run/secrets/own.pem"),
                *_mounted(self._certificate(node_identity(node)), "/run/secrets/own.pem"),
            ),
        )

    def wait_until_healthy(self) -> None:
        """Return when the controller says that all nodes are healthy."""
        self._wait("all nodes are healthy", READY_S, self._nodes_healthy)

    def remove(self) -> None:
        """Remove all of it; no-op for what is not there."""
        self.network.remove()

    def _certificate(self, who: Identity) -> Path:
        return self._file(f"{who}.pem", self.authority.issue(who).to_pem())

    def _file(self, name: str, text: str) -> Path:
        path = self._folder / name
        path.write_text(text)
        path.chmod(0o444)
        return path

    def _wait(self, what: str, seconds: float, ready: Callable[[], None]) -> None:
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type(Exception),
                wait=wait_fixed(0.3),
                stop=stop_after_delay(seconds),
                reraise=True,
            ):
                with attempt:
                    ready()
        except Exception as error:
            raise RuntimeError(f"not so in time: {what}\n{self.network.logs()}") from error

    def _mariadb_answers(self) -> None:
        host, _, port = self.network.published("mariadb", 3306).rpartition(":")
        pymysql.connect(
            host=host, port=int(port), user="edge", password=self.password, database="testbed"
        ).close()

    def _hdfs_serves(self) -> None:
        check = self.network.execute("namenode", "bash", "/opt/hadoop/hdfs", "check")
        if check.returncode:
            raise _NotYet(check.stderr)

    def _nodes_healthy(self) -> None:
        with self.client() as client:
            status = client.status()
        if not status.healthy:
            raise _NotYet(str(status.nodes))


def _mounted(file: Path, target: str) -> tuple[str, str]:
    return "--mount", f"type=bind,source={file},target={target},readonly"
