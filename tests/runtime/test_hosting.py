"""Nodes that share a process: which they are, and what stays as if each had its own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from testbed.errors import PermanentError, UsageError
from testbed.experiment.calibration.values import Calibration, Knee, MachineFacts, store
from testbed.model.events import RecordKind
from testbed.rpc.credentials import Secrets, issue, read
from testbed.rpc.identity import CONTROLLER, node_identity
from testbed.rpc.operator import OperatorClient
from testbed.rpc.trunks import end_node
from testbed.runtime import hosting, processes
from testbed.runtime.directory import RunDirectory
from testbed.runtime.hosting import Hosting, carried
from testbed.runtime.local import LocalRuntime
from testbed.scenario.load import load
from testbed.scenario.plan import ApplicationSpec, Plan, SchedulerSpec
from testbed.scenario.resolve import plan
from testbed.storage.tasklog import open_task_log
from tests.sim.serving_plans import federation

PATIENCE_S = 20.0


def planned(nodes: int, *settings: str) -> Plan:
    return plan(load("quickstart", [f"nodes.count={nodes}", *settings]))


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[LocalRuntime]:
    """Two processes for four nodes."""
    local = LocalRuntime(tmp_path / "home", orphan_timeout_s=0.5, hosting=Hosting(2))
    yield local
    for name in local.names():
        local.down(name)


def test_few_nodes_have_processes_of_their_own_and_many_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosting, "cores", lambda: 3)

    def sizes(nodes: int, per: int = hosting.AUTO) -> list[int]:
        return [len(group) for group in Hosting(per).groups(planned(nodes), tmp_path)]

    assert sizes(4) == [1] * 4
    assert sizes(hosting.CARRIED) == [1] * hosting.CARRIED
    assert sizes(31) == [10, 10, 11]
    assert sizes(31, 1) == [1] * 31
    assert sizes(11, 10) == [5, 6]
    assert sizes(3, 50) == [3]


def test_what_was_measured_on_this_machine_decides(tmp_path: Path) -> None:
    machine = MachineFacts.here()
    elsewhere = dataclasses.replace(machine, host="elsewhere")
    for where, level in ((machine, 40), (elsewhere, 90)):
        knees = {"nodes-metadata": Knee("nodes-metadata", level, level + 1, "", ())}
        store(tmp_path, Calibration(where, "2026-11-29T10:00:00Z", False, knees))
    assert carried(tmp_path, "metadata") == 40
    assert carried(tmp_path, "bytes") == hosting.CARRIED
    metadata = planned(31, "payload=metadata")
    assert len(Hosting().groups(metadata, tmp_path)) == 31
    for damaged in ("", "[]", "{}", '{"calibrations": [{"machine": 3}]}'):
        (tmp_path / "calibration.json").write_text(damaged)
        assert carried(tmp_path, "metadata") == hosting.CARRIED


def test_code_of_a_user_gets_a_process_for_each_node(tmp_path: Path) -> None:
    many = planned(31)
    for own in (
        dataclasses.replace(many, application=ApplicationSpec("busy")),
        dataclasses.replace(many, scheduler=SchedulerSpec("my.module:Class")),
    ):
        assert len(Hosting().groups(own, tmp_path)) == 31
        assert len(Hosting(31).groups(own, tmp_path)) == 1


def test_the_groups_have_each_node_once(tmp_path: Path) -> None:
    for nodes in (1, 2, 7, 31):
        for per in (1, 2, 5, 100):
            groups = Hosting(per).groups(planned(nodes), tmp_path)
            assert [node for group in groups for node in group] == list(range(nodes))
            assert max(map(len, groups)) <= per


def test_a_run_of_nodes_in_two_processes_has_an_end_for_each_task(runtime: LocalRuntime) -> None:
    given = planned(4, "slots.count=20")
    up = runtime.up(given, "shared")
    place = RunDirectory(runtime.home, "shared")
    found = processes.of_testbed(place.path, place.processes())
    assert sorted(name for name, _ in found.values()) == ["controller", "host-0", "host-1"]

    with OperatorClient(up.address, up.token) as operator, open_task_log(up.store) as log:
        pids = {node.pid for node in operator.status().nodes}
        assert len(pids) == 2
        run = operator.start_run(scheduler="random", episodes=1)
        *_, _last = operator.watch_run(run)
        ends = [r for r in log.records(run) if r.kind is RecordKind.ENDED]
        assert len(ends) == len(list(log.tasks(run))) > 10
        peers = {r.data["peer"] for r in log.records(run) if r.kind is RecordKind.SENT}
        assert peers == {0, 1, 2, 3}
        certificate = log.run(run).certificate
        assert certificate is not None
        assert certificate["machine"]["sharing"] == [2, 2, 2, 2]


def test_one_node_is_killed_and_the_others_of_its_process_live_on(runtime: LocalRuntime) -> None:
    up = runtime.up(planned(4, "slots.count=40"), "shared")
    with OperatorClient(up.address, up.token) as operator, open_task_log(up.store) as log:
        run = operator.start_run(scheduler="random", episodes=1)
        next(p for p in operator.watch_run(run) if p.generated > 5)
        stopped = runtime.kill("shared", 1)
        assert (stopped.name, stopped.pid, stopped.forced) == ("node-1", None, True)
        *_, last = operator.watch_run(run)
        conditions = [node.condition for node in operator.status().nodes]
        assert conditions == ["healthy", "dead", "healthy", "healthy"]
        ends = [r.task.id for r in log.records(run) if r.kind is RecordKind.ENDED]
        assert len(ends) == len(set(ends)) > 0
        assert last.degraded
    with pytest.raises(UsageError, match="node-1 is not running"):
        runtime.kill("shared", 1)
    assert any("ended at once" in line for line in runtime.logs("shared", "node-1"))
    assert {each.name for each in runtime.down("shared").stopped} == {
        "controller",
        "node-0",
        "node-2",
        "node-3",
    }


def test_the_death_of_a_process_is_that_of_all_its_nodes(runtime: LocalRuntime) -> None:
    up = runtime.up(planned(4), "shared")
    place = RunDirectory(runtime.home, "shared")
    os.kill(place.processes()["host-1"][0], signal.SIGKILL)
    with OperatorClient(up.address, up.token) as operator:
        until = time.monotonic() + PATIENCE_S
        while True:
            conditions = [node.condition for node in operator.status().nodes]
            if conditions == ["healthy", "healthy", "dead", "dead"]:
                break
            assert time.monotonic() < until, conditions
            time.sleep(0.05)
    with pytest.raises(UsageError, match="node-2 is not running"):
        runtime.kill("shared", 2)


def test_only_the_controllers_credentials_end_a_node(runtime: LocalRuntime) -> None:
    up = runtime.up(planned(4), "shared")
    place = RunDirectory(runtime.home, "shared")
    found = place.description()
    assert found is not None
    path = Path(found["sockets"]) / "host-0.sock"
    controller = read(place.credentials("controller"))
    peer = read(place.credentials("node-1"))
    assert isinstance(controller, Secrets)
    assert isinstance(peer, Secrets)
    strangers = (issue("x", CONTROLLER, [node_identity(0)]), Secrets(CONTROLLER), peer)
    for stranger in strangers:
        with pytest.raises(PermanentError, match="credentials are needed"):
            end_node(path, 0, stranger, 5.0)
    with pytest.raises(PermanentError, match="not running in this process"):
        end_node(path, 3, controller, 5.0)
    with OperatorClient(up.address, up.token) as operator:
        assert operator.status().healthy


def test_each_node_has_its_log_and_the_process_its_own(runtime: LocalRuntime) -> None:
    runtime.up(planned(4), "shared")
    for node in range(4):
        lines = list(runtime.logs("shared", f"node-{node}"))
        assert lines
        assert all(f"node {node} " in line for line in lines)
    assert list(runtime.logs("shared", "host-0")) == []


def free_ports(count: int) -> int:
    """The first of some ports that nobody uses now."""
    for first in range(21_000, 32_000, 7):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    listener = stack.enter_context(socket.socket())
                    listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        return first
    raise AssertionError("no free ports")


def test_nodes_of_one_process_each_take_http_at_a_port_of_their_own(tmp_path: Path) -> None:
    first = free_ports(3)
    local = LocalRuntime(tmp_path / "home", hosting=Hosting(3, http_port=first))
    up = local.up(federation(), "default")
    try:
        with OperatorClient(up.address, up.token, timeout=10.0) as client:
            nodes = client.status().nodes
        assert [node.http for node in nodes] == [f"127.0.0.1:{first + node}" for node in range(3)]
        assert len({node.pid for node in nodes}) == 1
        for node in nodes:
            answer = requests.get(f"http://{node.http}/f", timeout=10.0)
            assert answer.headers["Testbed-Node"] == str(node.node)
    finally:
        local.down("default")


def test_a_port_that_is_taken_is_named_before_anything_is_started(tmp_path: Path) -> None:
    first = free_ports(3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first + 1))
        taken.listen()
        local = LocalRuntime(tmp_path / "home", hosting=Hosting(http_port=first))
        with pytest.raises(UsageError, match=rf"port {first + 1} of node 1 is used by another"):
            local.up(federation(), "default")
    assert local.names() == ()


def test_there_have_to_be_as_many_ports_as_nodes() -> None:
    assert Hosting(http_port=65_533).http(federation()) == "127.0.0.1:65533+"
    with pytest.raises(UsageError, match="3 nodes would need ports up to 65536"):
        Hosting(http_port=65_534).http(federation())
    assert Hosting().http(federation()) == "127.0.0.1:0"
    assert Hosting(http_port=8_000).http(planned(3)) == ""
