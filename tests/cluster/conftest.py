"""A real cluster: the one ``TESTBED_TEST_KUBECONFIG`` names, else one that kind makes.

The named one's machines have the images, or ``TESTBED_TEST_IMAGE_REGISTRY`` has them;
``TESTBED_TEST_MYSQL_IMAGE`` replaces the public MariaDB. kind makes one of
``TESTBED_TEST_WORKERS`` (0) workers from the node image ``TESTBED_TEST_NODE_IMAGE``.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from testbed.runtime.kind import NODE_IMAGE, KindCluster, KindSettings
from testbed.runtime.kubernetes import ClusterOptions
from testbed.runtime.kubernetes.rendering import Requests

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = "TESTBED_TEST_KUBECONFIG"
NAME = "suite"
NAMESPACE = f"testbed-{NAME}"


class Way:
    """A TCP proxy to the API server that can be closed for a while, as when it is away."""

    def __init__(self, host: str, port: int) -> None:
        self._far = host, port
        self._open = True
        self._connections: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        """All connections are cut and new ones end at once."""
        self._open = False
        for each in list(self._connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        try:
            yield
        finally:
            self._open = True

    def end(self) -> None:
        self._open = False
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self._open:
                near.close()
                continue
            threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        with near, socket.create_connection(self._far) as far, contextlib.suppress(OSError):
            pair = {near: far, far: near}
            self._connections |= pair.keys()
            while True:
                for source in select.select(list(pair), [], [])[0]:
                    piece = source.recv(65536)
                    if not piece:
                        return
                    pair[source].sendall(piece)


@dataclass(frozen=True)
class Said:
    """What a command ended with and wrote."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """stdout as JSON."""
        assert self.code == 0, self.out + self.err
        return json.loads(self.out)


@dataclass
class Shell:
    """A shell of somebody who uses the cluster: a home, a kubeconfig, and the commands."""

    home: Path
    kubeconfig: Path
    way: Way

    @property
    def environment(self) -> Mapping[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("TESTBED_")}
        return {**kept, "PYTHONPATH": str(ROOT), "TESTBED_HOME": str(self.home)}

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start ``testbed ARGUMENTS``."""
        return subprocess.Popen(
            [
                sys.executable,
                "-c",
                # A suite that a shell started in its background ignores Ctrl-C, and so would this.
                "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
                "from testbed.cli.main import main; main()",
                *map(str, arguments),
            ],
            env=self.environment,
            cwd=self.home.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: object, timeout: float = 400) -> Said:
        """Run ``testbed ARGUMENTS``."""
        running = self.start(*arguments)
        try:
            out, err = running.communicate(timeout=timeout)
        except BaseException:
            running.kill()
            running.communicate()
            raise
        return Said(running.returncode, out, err)

    def up(self, *more: object, name: str = NAME, scenario: str = "quickstart") -> Said:
        """``testbed up`` on the cluster."""
        images: list[object] = []
        if registry := os.environ.get("TESTBED_TEST_IMAGE_REGISTRY"):
            images += ["--image-registry", registry]
        if mysql := os.environ.get("TESTBED_TEST_MYSQL_IMAGE"):
            images += ["--set", f"deployment.images.mysql={mysql}"]
        where = ("--runtime", "cluster", "--kubeconfig", self.kubeconfig)
        return self("up", scenario, "--name", name, *where, *images, *more)


def wait_until(true: Callable[[], bool], otherwise: str, seconds: float = 180) -> None:
    """Return when ``true``; fail with ``otherwise`` if it is not in time."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, otherwise
        time.sleep(0.5)


def wait_until_healthy(shell: Shell, name: str = NAME) -> None:
    def healthy() -> bool:
        said = shell("status", "--name", name, "--json")
        return said.code == 0 and bool(said.document["healthy"])

    wait_until(healthy, f"not all nodes of {name} are healthy")


def wait_for_run(shell: Shell, name: str = NAME) -> None:
    """Return when a run is under way and tasks end."""

    def under_way() -> bool:
        run = shell("status", "--name", name, "--json").document["run"]
        progress = None if run is None else run["progress"]
        return bool(progress and progress["state"] == "running" and progress["ended"] > 0)

    wait_until(under_way, "no run has begun")


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if path := os.environ.get(VARIABLE):
        yield Path(path)
        return
    kind = KindCluster(tmp_path_factory.mktemp("kind"), "edge-testbed-suite")
    settings = KindSettings(
        workers=int(os.environ.get("TESTBED_TEST_WORKERS", "0")),
        node_image=os.environ.get("TESTBED_TEST_NODE_IMAGE", NODE_IMAGE),
    )
    if lacks := kind.check(settings, wanted=Requests(10, 14), pull=False):
        missing = "; ".join(f"{lack.what} ({lack.fix})" for lack in lacks)
        pytest.skip(f"no cluster: let {VARIABLE} name a kubeconfig; nor kind: {missing}")
    try:
        kubeconfig = kind.ensure(settings, pull=False)
        mysql = os.environ.get("TESTBED_TEST_MYSQL_IMAGE", "mariadb:10.11.13")
        ours = [ClusterOptions().image(name) for name in ("controller", "edgenode", "hdfs")]
        kind.load_images([*ours, mysql])
        yield kubeconfig
    finally:
        kind.delete()


@pytest.fixture(scope="session")
def shell(given: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell whose way to the API server leads through a door of ours."""
    from testbed.runtime.kubernetes.api import Cluster

    address = urlsplit(Cluster(given).server)
    assert address.hostname is not None
    way = Way(address.hostname, address.port or 443)
    document = yaml.safe_load(given.read_text())
    for each in document["clusters"]:
        each["cluster"]["server"] = f"https://127.0.0.1:{way.port}"
        each["cluster"].setdefault("tls-server-name", address.hostname)
    folder = tmp_path_factory.mktemp("cluster")
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(document))
    made = Shell(folder / "home", kubeconfig, way)
    yield made
    way.end()


@pytest.fixture(scope="session")
def up(shell: Shell) -> Iterator[Shell]:
    """A testbed of five nodes with a MySQL and an HDFS of its own."""
    said = shell.up()
    assert said.code == 0, said.out + said.err
    yield shell
    gone = shell("teardown", "--name", NAME, "--verify")
    assert gone.code == 0, gone.out + gone.err
