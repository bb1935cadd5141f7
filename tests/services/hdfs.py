"""A real HDFS: one NameNode and one DataNode of Apache Hadoop, as two Java processes.

The jars come once, by Maven and ``hadoop/pom.xml``, into a folder that later runs find again.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

import requests
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from tests.services.ports import free_ports

POM: Final = Path(__file__).parent / "hadoop" / "pom.xml"
SHARED: Final = "/shared"
START_S: Final = 60.0
URL_VARIABLE: Final = "TESTBED_TEST_WEBHDFS_URL"
"""Names a server to test against beside the tests' own."""

STOP_S: Final = 10.0

# What Hadoop reaches into by reflection, and Java 17 no longer opens by itself.
_OPENS: Final = [
    f"--add-opens=java.base/{package}=ALL-UNNAMED"
    for package in ("java.lang", "java.io", "java.net", "java.nio", "java.util", "sun.nio.ch")
]
_JAVA: Final = [
    *_OPENS,
    "-Xmx192m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dhadoop.root.logger=WARN,console",
]
_LOG4J: Final = """\
log4j.rootLogger=WARN,console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.target=System.err
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d{ISO8601} %p %c: %m%n
"""


def lacking() -> str | None:
    """What to install so that ``Hdfs`` works here; None if nothing."""
    if not shutil.which("java"):
        return "install a Java runtime (default-jre-headless)"
    if not _jars_folder().is_dir() and not shutil.which("mvn"):
        return "install maven, which fetches the jars of Hadoop once"
    return None


def _jars_folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    return cache / "edge-testbed" / "hadoop" / version


def jars() -> Path:
    """The folder with the jars; fetched if they are not there yet.

    Raises: RuntimeError: they cannot be fetched.
    """
    folder = _jars_folder()
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Fetched aside: a run that is interrupted leaves no half folder of this name.
    with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
        fetched = Path(aside) / "jars"
        run = subprocess.run(
            [
                *("mvn", "--batch-mode", "--quiet", "--file", str(POM)),
                "dependency:copy-dependencies",
                "-DincludeScope=runtime",
                f"-DoutputDirectory={fetched}",
            ],
            capture_output=True,
            text=True,
            timeout=600,
        )
        if run.returncode:
            raise RuntimeError(f"the jars of Hadoop cannot be fetched:\n{run.stdout}{run.stderr}")
        try:
            fetched.rename(folder)
        except OSError:
            # Somebody else fetched them in the meantime.
            if not folder.is_dir():
                raise
    return folder


class Hdfs:
    """One NameNode and one DataNode with their data below ``folder``; ``start`` it.

    The operating system's user who starts it is its superuser.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._config = folder / "conf"
        rpc, http, data, data_http, data_ipc = free_ports(5)
        self.http = f"127.0.0.1:{http}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        core = {
            "fs.defaultFS": f"hdfs://127.0.0.1:{rpc}",
            "hadoop.tmp.dir": str(folder / "tmp"),
        }
        hdfs = {
            "dfs.namenode.rpc-address": f"127.0.0.1:{rpc}",
            "dfs.namenode.http-address": self.http,
            "dfs.namenode.name.dir": f"file://{folder}/name",
            "dfs.namenode.safemode.extension": "0",
            "dfs.namenode.datanode.registration.ip-hostname-check": "false",
            "dfs.namenode.handler.count": "4",
            "dfs.datanode.hostname": "127.0.0.1",
            "dfs.datanode.address": f"127.0.0.1:{data}",
            "dfs.datanode.http.address": f"127.0.0.1:{data_http}",
            "dfs.datanode.ipc.address": f"127.0.0.1:{data_ipc}",
            "dfs.datanode.data.dir": f"file://{folder}/data",
            "dfs.heartbeat.interval": "1",
            # What is damaged stays so: no seconds are spent on trying again.
            "dfs.client.retry.window.base": "10",
            "dfs.client.max.block.acquire.failures": "1",
            "dfs.replication": "1",
            "dfs.blocksize": "1048576",
        }
        self._config.mkdir(parents=True)
        for name, settings in (("core-site.xml", core), ("hdfs-site.xml", hdfs)):
            (self._config / name).write_text(_configuration(settings))
        (self._config / "log4j.properties").write_text(_LOG4J)
        for pages in ("hdfs", "datanode"):
            # The jars lack the web pages, without which their HTTP servers do not start.
            (self._config / "webapps" / pages).mkdir(parents=True)

    @property
    def url(self) -> str:
        """A folder in it that everybody may write."""
        return f"webhdfs://{self.http}{SHARED}"

    def start(self) -> None:
        """Format if new, start both processes, return when files can be written."""
        if not (self.folder / "name").exists():
            self._run("NameNode", "-format", "-nonInteractive")
        self.start_namenode(wait=False)
        self.start_datanode()
        self.request("PUT", SHARED, op="MKDIRS", permission="1777")

    def start_namenode(self, *, wait: bool = True) -> None:
        """Start the NameNode."""
        self._start("namenode.NameNode")
        if wait:
            self._wait()

    def start_datanode(self, *, full: bool = False) -> None:
        """Start the DataNode; ``full``: with no space on its disk that it may use."""
        self._start("datanode.DataNode", *(("-Ddfs.datanode.du.reserved=1p",) if full else ()))
        self._wait(full=full)

    @property
    def namenode_pid(self) -> int:
        """The id of the NameNode's process."""
        return self._processes["namenode.NameNode"].pid

    def kill_namenode(self) -> None:
        """As a power cut would."""
        self._kill("namenode.NameNode")

    def kill_datanode(self) -> None:
        """As a power cut would."""
        self._kill("datanode.DataNode")

    def stop(self) -> None:
        """End both; no-op for one that has ended."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def jmx(self, bean: str) -> dict[str, Any]:
        """What the NameNode says of itself."""
        query = {"qry": f"Hadoop:service=NameNode,name={bean}"}
        beans = requests.get(f"http://{self.http}/jmx", params=query, timeout=5).json()["beans"]
        return dict(beans[0]) if beans else {}

    def request(
        self, method: str, path: str, *, data: bytes | None = None, **parameters: str
    ) -> requests.Response:
        """A request of WebHDFS as the superuser."""
        url = f"http://{self.http}/webhdfs/v1{path}"
        user = {"user.name": getpass.getuser()}
        return requests.request(method, url, params=user | parameters, data=data, timeout=20)

    def _wait(self, *, full: bool = False) -> None:
        """Return when a file can be written, or with ``full`` when it is known that none can."""

        @retry(
            retry=retry_if_exception_type((requests.RequestException, _NotYet)),
            wait=wait_fixed(0.1),
            stop=stop_after_delay(START_S),
            reraise=True,
        )
        def ready() -> None:
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended:\n{self._log(name).read_text()[-4000:]}")
            # It answers before it has read its own state.
            state, info = self.jmx("FSNamesystemState"), self.jmx("NameNodeInfo")
            if state.get("NumLiveDataNodes") != 1 or info.get("Safemode") != "":
                raise _NotYet(f"{state} {info.get('Safemode')}")
            if full:
                if state.get("CapacityRemaining") != 0:
                    raise _NotYet(f"{state}")
                return
            # The DataNode known may be the one of before the restart.
            written = self.request("PUT", "/ready", data=b"yes", op="CREATE", overwrite="true")
            if written.status_code != 201:
                raise _NotYet(written.text)

        ready()

    def _start(self, name: str, *arguments: str) -> None:
        with self._log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [*self._command(name), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
            )

    def _run(self, name: str, *arguments: str) -> None:
        command = [*self._command(f"namenode.{name}"), *arguments]
        run = subprocess.run(command, capture_output=True, text=True, env=self._env, timeout=60)
        if run.returncode:
            raise RuntimeError(f"{name} {arguments}:\n{run.stdout}{run.stderr}")

    def _kill(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _command(self, name: str) -> Sequence[str]:
        path = f"{self._config}{os.pathsep}{jars()}/*"
        return ["java", *_JAVA, "-cp", path, f"org.apache.hadoop.hdfs.server.{name}"]

    @property
    def _env(self) -> dict[str, str]:
        # Variables of an installed Hadoop would point it to that one's configuration.
        return {key: value for key, value in os.environ.items() if "HADOOP" not in key}


class _NotYet(Exception):
    pass


def _configuration(settings: dict[str, str]) -> str:
    properties = "".join(
        f"<property><name>{escape(name)}</name><value>{escape(value)}</value></property>"
        for name, value in settings.items()
    )
    return f'<?xml version="1.0"?>\n<configuration>{properties}</configuration>\n'
