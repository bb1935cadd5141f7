"""A controller that is replaced, as on a cluster: nodes outlive it where they are to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

from testbed.scenario.load import dumps, load
from tests.controller.processes import process, until_said
from tests.services.ports import free_ports

PATIENCE_S = 60.0


@contextmanager
def controller(folder: Path, address: str, *more: str) -> Iterator[Popen[str]]:
    scenario = folder / "scenario.yaml"
    scenario.write_text(dumps(load("quickstart", ["nodes.count=1"])))
    where = ("--run-dir", str(folder / "state"), "--bind", address)
    with process("controller", "--scenario", str(scenario), *where, *more) as started:
        until_said(started, "serving")
        yield started


@contextmanager
def node(folder: Path, address: str) -> Iterator[Popen[str]]:
    where = ("--spool", str(folder / "spool"), "--orphan-timeout", "0")
    with process("edgenode", "--node", "0", "--controller", address, *where) as started:
        yield started


def test_nodes_that_are_kept_register_with_the_next_controller(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with node(tmp_path, address) as kept:
        for _ in range(2):
            with controller(tmp_path, address, "--keep-nodes") as serving:
                until_said(serving, "condition='healthy'")
                serving.terminate()
                assert serving.wait(PATIENCE_S) == 0
            assert kept.poll() is None
        kept.terminate()
        assert kept.wait(PATIENCE_S) == 0


def test_nodes_are_ended_otherwise(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with node(tmp_path, address) as ended, controller(tmp_path, address) as serving:
        until_said(serving, "condition='healthy'")
        serving.terminate()
        assert serving.wait(PATIENCE_S) == 0
        assert ended.wait(PATIENCE_S) == 0
