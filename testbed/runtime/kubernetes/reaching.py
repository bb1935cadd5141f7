"""Connections from this machine to the pods of a testbed, and the testbed as they show it."""

from __future__ import annotations

import threading
from pathlib import Path
from urllib.parse import quote

from testbed.errors import TestbedError, UsageError
from testbed.rpc.operator import OperatorClient
from testbed.runtime.base import CONTROLLER, Testbed
from testbed.runtime.kubernetes.certificates import CREDENTIALS, OPERATOR_KEY, PASSWORD_KEY
from testbed.runtime.kubernetes.forward import PortForward
from testbed.runtime.kubernetes.objects import Objects, services_of
from testbed.runtime.kubernetes.rendering import (
    CONTROLLER_PORT,
    DATANODE_PORT,
    EDGE_NODE,
    MYSQL_PORT,
    NAMENODE_PORT,
    SCENARIO_ANNOTATION,
    Services,
)


class Connections:
    """Ports of this machine that lead to pods; each is opened at its first use.

    Args:
        objects: those of the cluster.
        home: folder in which logs of testbeds are kept.
    """

    def __init__(self, objects: Objects, home: Path) -> None:
        self.objects = objects
        self.cluster = objects.cluster
        self._home = home
        self._forwards: dict[tuple[str, str, int], PortForward] = {}
        self._forwarding = threading.Lock()

    def testbed(self, name: str, namespace: str) -> Testbed:
        """Return the testbed in a namespace.

        Raises: UsageError: it is incomplete.
        """
        controller = self.cluster.get("StatefulSet", CONTROLLER, namespace)
        nodes = self.cluster.get("StatefulSet", EDGE_NODE, namespace)
        described = self.cluster.get("ConfigMap", "scenario", namespace)
        credentials = self.objects.secret(namespace, CREDENTIALS)
        token = credentials.get(OPERATOR_KEY, "")
        if controller is None or nodes is None or described is None or not token:
            raise UsageError(
                f"testbed '{name}' is incomplete; run `testbed up` to finish it, or "
                f"`testbed teardown --name {name}` to remove it"
            )
        annotations = described["metadata"].get("annotations") or {}
        password = credentials.get(PASSWORD_KEY, "")
        services = services_of(annotations)
        return Testbed(
            name=name,
            directory=self._home / name,
            address=self.controller(namespace),
            token=token,
            store=self._store(namespace, services, password),
            scenario=annotations.get(SCENARIO_ANNOTATION, ""),
            nodes=int(nodes["spec"].get("replicas", 1)),
            artifacts=self._artifact_store(namespace, services),
        )

    def controller(self, namespace: str) -> str:
        """Return the address on this machine that leads to the controller."""
        return self._forward(namespace, f"{CONTROLLER}-0", CONTROLLER_PORT).address

    def operator_key(self, namespace: str) -> str:
        """Return what opens the controller; empty if there is none yet."""
        return self.objects.secret(namespace, CREDENTIALS).get(OPERATOR_KEY, "")

    def current_run(self, name: str, namespace: str) -> str | None:
        """Return the run in progress; None if there is none or the controller does not answer."""
        try:
            up = self.testbed(name, namespace)
            with OperatorClient(up.address, up.token, timeout=5.0) as operator:
                run = operator.status().run
        except TestbedError:
            # Half-made, or its controller does not run: there is nothing to cut short.
            return None
        return run.progress.run if run is not None and run.progress.state == "running" else None

    def close(self) -> None:
        """Close the ports of this machine that lead to pods."""
        with self._forwarding:
            forwards, self._forwards = self._forwards, {}
        for each in forwards.values():
            each.close()

    def _store(self, namespace: str, services: Services, password: str) -> str:
        """Return the task log's URL from here; it holds the password and must not be shown."""
        scheme, _, rest = services.store.partition("://")
        user, _, place = rest.rpartition("@")
        if services.own_mysql:
            _, _, database = place.partition("/")
            address = self._forward(namespace, "mysql-0", MYSQL_PORT).address
            place = f"{address}/{database}"
        login = f"{user}:{quote(password, safe='')}@" if user else ""
        return f"{scheme}://{login}{place}"

    def _artifact_store(self, namespace: str, services: Services) -> str:
        """Return the artifact store's URL from here; empty if it cannot be reached from here."""
        if not services.own_hdfs:
            return services.artifacts if "://" in services.artifacts else ""
        scheme, _, rest = services.artifacts.partition("://")
        user, _, place = rest.rpartition("@")
        _, _, path = place.partition("/")
        name_node = self._forward(namespace, "namenode-0", NAMENODE_PORT).address
        data_node = self._forward(namespace, "datanode-0", DATANODE_PORT).address
        via = f"datanode-0.datanode:{DATANODE_PORT}={data_node}"
        return f"{scheme}://{user}@{name_node}/{path}?via={via}"

    def _forward(self, namespace: str, pod: str, port: int) -> PortForward:
        key = namespace, pod, port
        with self._forwarding:
            if key not in self._forwards:
                self._forwards[key] = PortForward(self.cluster, namespace, pod, port)
            return self._forwards[key]
