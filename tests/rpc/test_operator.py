"""What an operator sees travels as JSON and comes back equal."""

from __future__ import annotations

import json
import select
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from testbed.errors import PermanentError, TemporaryError, TestbedError, UsageError
from testbed.model.run_state import RunState
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.operator import (
    NodeStatus,
    OperatorClient,
    Progress,
    RunStatus,
    SchedulerChange,
    Status,
)

PROGRESS = Progress(
    run="20260131-142501-9f3a",
    state=RunState.DEGRADED,
    scheduler="ratc",
    first_episode=3,
    episodes=2,
    episode=4,
    completed=2,
    slot=9,
    slots=10,
    generated=8,
    outcomes={"succeeded": 5, "dropped": 1, "lost": 2},
    completed_outcomes={"succeeded": 4, "dropped": 1, "lost": 0},
    queue_lengths=(0, None, 3),
    dead_nodes=(1,),
    degraded=True,
    valid=False,
    invalid_because=("arrivals came 12.0 ms late at p95; the limit is 10.0 ms",),
)

STATUS = Status(
    testbed="demo",
    version="0.1.0",
    address="127.0.0.1:1",
    pid=7,
    started="2026-01-31T14:25:01.000+00:00",
    store="tasklog.sqlite",
    scenario="quickstart",
    scenario_hash="5a" * 32,
    scheduler="ratc",
    nodes=(NodeStatus(0, "healthy", pid=8, queue_length=2), NodeStatus(1, "dead", "was killed")),
    run=RunStatus(
        PROGRESS,
        "a label",
        (SchedulerChange(3, 5, "rda", (0, 2), accepted=False, reason="no"),),
        ("faults[0]: node-down, once in 1 episode",),
    ),
    runs=("20260131-142501-9f3a",),
)


def test_progress_comes_back_equal() -> None:
    assert Progress.from_json(PROGRESS.to_json()) == PROGRESS
    document = json.loads(PROGRESS.to_json())
    assert (document["ended"], document["lost"], document["success_rate"]) == (8, 2, 5 / 8)


def test_before_the_first_task_there_is_no_success_rate() -> None:
    document = json.loads(PROGRESS.to_json()) | {"outcomes": {"succeeded": 0}}
    assert Progress.from_document(document).success_rate is None


def test_status_comes_back_equal_and_says_if_it_is_healthy() -> None:
    assert Status.from_json(STATUS.to_json()) == STATUS
    assert json.loads(STATUS.to_json())["healthy"] is False
    idle = Status.from_json(json.dumps(json.loads(STATUS.to_json()) | {"run": None}))
    assert idle.run is None


def test_what_a_newer_version_adds_is_left_out() -> None:
    document = json.loads(STATUS.to_json())
    document["new"] = document["nodes"][0]["new"] = document["run"]["progress"]["new"] = 1
    assert Status.from_json(json.dumps(document)) == STATUS


def test_nobody_home() -> None:
    with (
        OperatorClient("127.0.0.1:1", "token", timeout=5.0, plaintext=True) as operator,
        pytest.raises(TemporaryError, match="does not answer"),
    ):
        operator.status()


class Refusing(pb_grpc.OperatorServicer):
    """Answers ``StartRun`` with the status whose name is the scheduler asked for."""

    def StartRun(self, request: pb.StartRunRequest, context: Any) -> pb.StartRunReply:
        context.abort(grpc.StatusCode[request.scheduler], "what the controller found")
        raise AssertionError("abort raises")


@pytest.fixture(scope="module")
def refusing() -> Iterator[OperatorClient]:
    server = grpc.server(ThreadPoolExecutor(1))
    pb_grpc.add_OperatorServicer_to_server(Refusing(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with OperatorClient(f"127.0.0.1:{port}", "token", plaintext=True) as operator:
        yield operator
    server.stop(None).wait()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("INVALID_ARGUMENT", UsageError),
        ("FAILED_PRECONDITION", UsageError),
        ("ABORTED", TemporaryError),
        ("DATA_LOSS", PermanentError),
    ],
)
def test_what_the_controller_found_keeps_its_kind_and_its_words(
    refusing: OperatorClient, status: str, kind: type[TestbedError]
) -> None:
    with pytest.raises(TestbedError) as caught:
        refusing.start_run(scheduler=status)
    assert type(caught.value) is kind
    assert str(caught.value) == "what the controller found"


def test_a_connection_that_takes_a_while_is_waited_for() -> None:
    """As through an API server, where it takes several round trips and a busy machine."""
    server = grpc.server(ThreadPoolExecutor(2))
    far = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with socket.create_server(("127.0.0.1", 0)) as door:

        def carry() -> None:
            near, _ = door.accept()
            with near, socket.create_connection(("127.0.0.1", far)) as other:
                # Longer than a reconnection between nodes would be tried.
                threading.Event().wait(1.5)
                pair = {near: other, other: near}
                while True:
                    for source in select.select(list(pair), [], [])[0]:
                        piece = source.recv(65536)
                        if not piece:
                            return
                        pair[source].sendall(piece)

        carrier = threading.Thread(target=carry, daemon=True)
        carrier.start()
        with (
            OperatorClient(f"127.0.0.1:{door.getsockname()[1]}", "token", plaintext=True) as client,
            pytest.raises(PermanentError, match="UNIMPLEMENTED"),
        ):
            client.status()
    carrier.join(timeout=10)
    server.stop(0).wait()
