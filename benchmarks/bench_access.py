"""Cost of access control: the same runs over Unix sockets, over mutual TLS, and without either.

`quickstart` with RATC, the ways in turn, so that all meet the same machine. ``up`` gives Unix
sockets; for TCP controller and nodes are started as Compose does, on loopback. Errors are those of
the fidelity certificates of the runs.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

TESTBED: Final = str(Path(sys.executable).with_name("testbed"))
SCENARIO: Final = "quickstart"
NODES: Final = 5
REPETITIONS: Final = 5
TOKEN: Final = "a token of this benchmark alone"

Row = dict[str, Any]
Environment = dict[str, str]


def rows(repetitions: int = REPETITIONS) -> list[Row]:
    """Run all benchmarks; one row per figure, with what is asked and whether it is met."""
    found: dict[str, list[Mapping[str, Any]]] = {way: [] for way in _WAYS}
    for _ in range(repetitions):
        for way, brought_up in _WAYS.items():
            with tempfile.TemporaryDirectory() as home, brought_up(Path(home)) as environment:
                _testbed(environment, "run", "--scheduler", "ratc", "--episodes", "2")
                found[way].append(_testbed(environment, "runs", "show", "latest", "--json"))
    medians = {way: _error_ms(runs) for way, runs in found.items()}
    table: list[Row] = []
    for way, runs in found.items():
        # Within what repetitions differ by on a shared machine.
        asked = None if way == _PLAIN else medians[_PLAIN] + 1.0
        table.append(
            {
                "benchmark": f"{way}: error of transmission times, p95, median of {repetitions}",
                "value": medians[way],
                "unit": "ms",
                "at_most": asked,
                "met": asked is None or medians[way] <= asked,
            }
        )
        table.append(
            {
                "benchmark": f"{way}: runs outside their limits of fidelity",
                "value": sum(not run["certificate"]["valid"] for run in runs),
                "unit": f"of {repetitions}",
            }
        )
    return table


def _error_ms(runs: list[Mapping[str, Any]]) -> float:
    errors = [run["certificate"]["transmission"]["error"]["p95"] for run in runs]
    return float(statistics.median(errors)) / 1000


def _testbed(environment: Mapping[str, str], *arguments: str) -> Any:
    """Run a command; its JSON, None if it prints none."""
    plain = ["--insecure-plaintext"] if "TESTBED_TOKEN" in environment else []
    done = subprocess.run(
        [TESTBED, *plain, *arguments], check=True, stdout=subprocess.PIPE, env=dict(environment)
    )
    return json.loads(done.stdout) if "--json" in arguments else None


@contextmanager
def _by_sockets(home: Path) -> Iterator[Environment]:
    environment = {**os.environ, "TESTBED_HOME": str(home)}
    try:
        _testbed(environment, "up", SCENARIO)
        yield environment
    finally:
        _testbed(environment, "teardown")


@contextmanager
def _by_tls(home: Path) -> Iterator[Environment]:
    folder = home / "credentials"
    _testbed(os.environ, "credentials", "bench", "--nodes", str(NODES), "--out", str(folder))
    own = {
        name: {"TESTBED_PROCESS_CREDENTIALS": str(folder / f"{name}.pem")}
        for name in ("controller", *(f"node-{node}" for node in range(NODES)))
    }
    with _processes(home, own, ()) as address:
        yield _operator(home, address) | {"TESTBED_CREDENTIALS": str(folder / "operator.pem")}


@contextmanager
def _in_plain(home: Path) -> Iterator[Environment]:
    names = ("controller", *(f"node-{node}" for node in range(NODES)))
    own = {name: {"TESTBED_PROCESS_TOKEN": TOKEN} for name in names}
    with _processes(home, own, ("--insecure-plaintext",)) as address:
        yield _operator(home, address) | {"TESTBED_TOKEN": TOKEN}


def _operator(home: Path, address: str) -> Environment:
    return {
        **os.environ,
        "TESTBED_HOME": str(home),
        "TESTBED_CONTROLLER": address,
        "TESTBED_STORAGE": f"sqlite:///{home}/tasks.db",
    }


@contextmanager
def _processes(
    home: Path, own: Mapping[str, Mapping[str, str]], options: tuple[str, ...]
) -> Iterator[str]:
    """Start controller and nodes as Compose does; the controller's address."""
    with ExitStack() as started:

        def start(name: str, *arguments: str, pass_fds: tuple[int, ...] = ()) -> None:
            log = started.enter_context((home / f"{name}.log").open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments, *options],
                env={**os.environ, **own[name]},
                stdout=log,
                stderr=log,
                pass_fds=pass_fds,
            )
            started.callback(process.wait)
            started.callback(process.terminate)

        reading, writing = os.pipe()
        start(
            "controller",
            *("controller", "--scenario", SCENARIO, "--run-dir", str(home / "controller")),
            *("--bind", "127.0.0.1:0", "--store", f"sqlite:///{home}/tasks.db"),
            *("--name", "bench", "--ready-fd", str(writing)),
            pass_fds=(writing,),
        )
        os.close(writing)
        with os.fdopen(reading) as ready:
            address = json.loads(ready.readline())["address"]
        for node in range(NODES):
            start(
                f"node-{node}",
                *("edgenode", "--node", str(node), "--controller", address),
                *("--bind", "127.0.0.1:0", "--spool", str(home / f"spool-{node}")),
            )
        _wait_for_nodes(home, address, own)
        yield address


def _wait_for_nodes(home: Path, address: str, own: Mapping[str, Mapping[str, str]]) -> None:
    environment = _operator(home, address)
    if "TESTBED_PROCESS_TOKEN" in own["controller"]:
        environment["TESTBED_TOKEN"] = TOKEN
    else:
        environment["TESTBED_CREDENTIALS"] = str(home / "credentials" / "operator.pem")
    until = time.monotonic() + 30.0
    while not _testbed(environment, "status", "--json")["healthy"]:
        if time.monotonic() > until:
            raise TimeoutError("the nodes did not become healthy")
        time.sleep(0.2)


_PLAIN: Final = "TCP without encryption"
_WAYS: Final = {"Unix sockets": _by_sockets, "mutual TLS on TCP": _by_tls, _PLAIN: _in_plain}
