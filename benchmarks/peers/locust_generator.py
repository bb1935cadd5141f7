"""Locust as the generator of tasks, against ours: how late tasks arrive, and what one costs.

Both hand a task to each of ten nodes at the beginning of every slot of 100 ms. Locust's users send
a message to a sink that does nothing else; ours is the whole testbed with metadata under ``local``,
whose lateness is the one in the certificate. So the comparison favours Locust.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from benchmarks.peers import Row, row

NODES: Final = 10
SLOT_S: Final = 0.1
START_S: Final = 60.0
"""Longest time that Locust is given to start and to end."""


def locust() -> str | None:
    """Return the program: beside this interpreter, else on the path, as it brings much with it."""
    beside = Path(sys.executable).with_name("locust")
    return str(beside) if beside.exists() else shutil.which("locust")


def lacks() -> list[str]:
    """Return the packages that are missing."""
    return [] if locust() else ["locust"]


def rows(quick: bool = False) -> list[Row]:
    """Measure lateness (p95) and processor time per task of both."""
    slots = 20 if quick else 100
    late, cpu = _theirs(slots)
    certificate = _ours(slots)
    ours = certificate["generator"]["p95"] / 1000
    theirs = 1000 * sorted(late)[int(0.95 * len(late))]
    return [
        row(f"Locust, {NODES} users: lateness of tasks, p95", theirs, "ms"),
        row(f"our generator, {NODES} nodes: lateness of tasks, p95", ours, "ms"),
        row("lateness of tasks: Locust's over ours", theirs / max(ours, 0.001), "x"),
        row("Locust: processor time of the generator", 1000 * cpu / len(late), "ms/task"),
    ]


def _theirs(slots: int) -> tuple[list[float], float]:
    program = locust()
    if program is None:
        raise FileNotFoundError("locust is not installed")
    with tempfile.TemporaryDirectory() as folder, _sink() as port:
        out = Path(folder) / "out.json"
        environment = {
            **os.environ,
            "PEER_SLOT_S": str(SLOT_S),
            "PEER_SLOTS": str(slots),
            "PEER_PORT": str(port),
            "PEER_OUT": str(out),
        }
        subprocess.run(
            [
                program, "-f", str(Path(__file__).with_name("locustfile.py")), "--headless",
                "--users", str(NODES), "--spawn-rate", str(NODES), "--only-summary",
                "--run-time", f"{START_S + slots * SLOT_S:.0f}s", "--exit-code-on-error", "0",
            ],
            env=environment,
            cwd=folder,
            check=True,
            capture_output=True,
            timeout=120,
        )  # fmt: skip
        found = json.loads(out.read_text())
    return found["late"], found["cpu_s"]


@contextmanager
def _sink() -> Iterator[int]:
    """Serve a port that confirms every 64 bytes with one."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def confirm(connection: socket.socket) -> None:
            # Locust ends its users without closing their connections.
            with connection, suppress(OSError):
                while connection.recv(64, socket.MSG_WAITALL):
                    connection.sendall(b"k")

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=confirm, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)


def _ours(slots: int) -> Any:
    """Return the certificate of a run of one episode."""
    program = str(Path(sys.executable).with_name("testbed"))
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "TESTBED_HOME": home}

        def testbed(*arguments: str) -> str:
            done = subprocess.run(
                [program, *arguments], check=True, stdout=subprocess.PIPE, env=environment
            )
            return done.stdout.decode()

        try:
            testbed(
                "up", "paper-testbed", "--set", f"nodes.count={NODES}",
                "--set", "nodes.arrivalProbability=1", "--set", "payload=metadata",
                "--set", f"slots.count={slots}", "--set", f"slots.length={SLOT_S * 1000:g}ms",
            )  # fmt: skip
            run = json.loads(testbed("run", "--scheduler", "local", "--episodes", "1", "--json"))
            shown = json.loads(testbed("runs", "show", run["run"], "--json"))
        finally:
            testbed("teardown")
    return shown["certificate"]
