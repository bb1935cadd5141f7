"""Every service of a controller and a node that run: no input ends them, fills logs or memory."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from testbed.model.units import SECOND
from testbed.rpc.authorization import CommandStamps
from testbed.rpc.channels import connect
from testbed.rpc.credentials import Credentials, of_operator, read, shared
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import CONTROLLER, OPERATOR, node_identity
from testbed.rpc.operator import OperatorClient
from testbed.runtime.local import LocalRuntime
from testbed.testing.runtime import small_plan
from tests.edgenode.standing import SECRET, a_node
from tests.fuzz.messages import Messages
from tests.fuzz.services import Found, Fuzzer, methods, nobody

INPUTS: Final = 10_000
GROWTH_BYTES: Final = 150 << 20
"""Most that the resident memory of a process may grow by over all inputs of a service."""

LOG_BYTES: Final = 20 << 20

pytestmark = pytest.mark.timeout(600)


def tracebacks(log: str) -> Counter[str]:
    """How often each traceback stands in a log, by its last place and its error."""
    found: Counter[str] = Counter()
    for part in log.split("Traceback (most recent call last):")[1:]:
        places = re.findall(r'File "([^"]+)", line ([0-9]+)', part)
        error = next((line for line in part.splitlines() if re.match(r"[\w.]+(:|$)", line)), "")
        found[f"{places[-1] if places else ''} {error.split(':')[0]}"] += 1
    return found


@contextmanager
def unharmed(process: psutil.Process, log: Path) -> Iterator[None]:
    """Whatever happens meanwhile, the process lives, and its memory and log stay bounded."""
    before = process.memory_info().rss
    yield
    text = log.read_text(errors="replace")
    assert process.is_running(), text[-3000:]
    assert process.status() != psutil.STATUS_ZOMBIE, text[-3000:]
    assert process.memory_info().rss - before < GROWTH_BYTES
    assert log.stat().st_size < LOG_BYTES
    # More than was asked for: nothing that comes in is a defect, not even once.
    at = text.find("Traceback")
    assert at < 0, text[max(0, at - 1000) : at + 5000]


def checked(found: Found) -> None:
    assert found.inputs >= INPUTS
    assert not found.let_in, found.let_in[:5]
    # Some have come to the service itself, or nothing was tried.
    assert any(status.endswith((" OK", "ARGUMENT")) for status in found.statuses), found.statuses


# --- the controller ---------------------------------------------------------------------------


def asked() -> Messages:
    valid: dict[str, list[Any]] = {
        "StartRunRequest": [
            pb.StartRunRequest(episodes=1),
            pb.StartRunRequest(scheduler="ratc", episodes=2, label="x", options_json="{}"),
        ],
        "ChangeSchedulerRequest": [
            pb.ChangeSchedulerRequest(scheduler="random"),
            pb.ChangeSchedulerRequest(scheduler="drl", nodes=[0, 1]),
        ],
        "DeployPolicyRequest": [pb.DeployPolicyRequest(policy="shipped/per-destination")],
        "StopRunRequest": [pb.StopRunRequest()],
        "RegisterRequest": [pb.RegisterRequest(node=0, address="127.0.0.1:9", pid=1, version="1")],
        "Heartbeat": [pb.Heartbeat(node=0, resident_bytes=10**6, lag=100, cpu=SECOND)],
    }
    return Messages(1, valid, [])


def test_a_controller_bears_anything(tmp_path: Path) -> None:
    runtime = LocalRuntime(tmp_path / "home")
    up = runtime.up(small_plan(2, slots=4), "fuzzed")
    operator = of_operator(up.token)
    node = read(up.directory / "credentials" / "node-0.json")
    try:
        with OperatorClient(up.address, up.token) as client:
            process = psutil.Process(client.status().pid)
            with unharmed(process, up.directory / "logs" / "controller.log"):
                checked(asyncio.run(_fuzzed(up.address, operator, node, "Operator")))
                client.stop_run()
                run = client.start_run(scheduler="local", episodes=1)
                *_, last = client.watch_run(run)
                assert last.state in {"completed", "invalid"}
                assert last.generated == last.ended == 8
            with unharmed(process, up.directory / "logs" / "controller.log"):
                checked(asyncio.run(_fuzzed(up.address, node, operator, "Registry")))
                assert client.status().testbed == "fuzzed"
    finally:
        assert runtime.down("fuzzed").stopped


async def _fuzzed(address: str, me: Credentials, other: Credentials, service: str) -> Found:
    fuzzer = Fuzzer(address, CONTROLLER, me, [other, *nobody(CONTROLLER)], asked())
    try:
        # Ending the controller is what an operator may do.
        return await fuzzer.send(methods(service, without=("Shutdown",)), INPUTS)
    finally:
        await fuzzer.close()


# --- a node -----------------------------------------------------------------------------------


def commanded(plan: str) -> Messages:
    task = pb.Task(id=1, episode=0, slot=0, source=0, size_bytes=1000, cycles=10**6, deadline=10**6)
    peer = pb.PeerAddress(node=1, address="127.0.0.1:9")
    valid: dict[str, list[Any]] = {
        "ConfigureRequest": [
            pb.ConfigureRequest(run="r", plan_json=plan, peers=[peer], scheduler="random"),
            pb.ConfigureRequest(run="r", plan_json=plan, scheduler="local"),
        ],
        "PrepareEpisodeRequest": [
            pb.PrepareEpisodeRequest(run="r", episode=0),
            pb.PrepareEpisodeRequest(
                run="r",
                episode=1,
                arrivals=pb.Arrivals(run="r", episode=1, number=1, first=0, until=4),
            ),
        ],
        "StartEpisodeRequest": [
            pb.StartEpisodeRequest(run="r", episode=0),
            pb.StartEpisodeRequest(run="r", episode=1, start_in=1000),
        ],
        "EndEpisodeRequest": [pb.EndEpisodeRequest(run="r", episode=0)],
        "SetSchedulerRequest": [pb.SetSchedulerRequest(scheduler="ratc", options_json="{}")],
        "Arrivals": [
            pb.Arrivals(run="after", episode=0, number=1, first=0, until=2, tasks=[task]),
            pb.Arrivals(run="after", episode=0, number=2, first=2, until=2),
        ],
        "PeerFrames": [
            pb.PeerFrames(
                frames=[
                    pb.TransferFrame(sender=1, announce=pb.Announce(task=task)),
                    pb.TransferFrame(sender=1, chunk=pb.Chunk(task_id=1, data=b"x" * 1000)),
                    pb.TransferFrame(
                        sender=1,
                        hand_over=pb.HandOver(task=task, elapsed=5, seq=3, payload_bytes=1000),
                    ),
                ]
            ),
            pb.PeerFrames(probes=[pb.ProbeRequest(task_id=1, round=0, sender=1)], reset=True),
        ],
        "BatchAck": [pb.BatchAck(run="r", number=1)],
    }
    return Messages(2, valid, [plan])


@pytest.mark.parametrize("service", ["Tasks", "Peers", "Control"])
async def test_a_node_bears_anything(service: str, tmp_path: Path) -> None:
    plan = small_plan(2, slots=4).to_json()
    async with a_node(tmp_path) as (request, process, log):
        controller, peer = shared(SECRET, CONTROLLER), shared(SECRET, node_identity(1))
        stamps = CommandStamps(request.session)
        server = node_identity(0)
        right = peer if service == "Peers" else controller
        wrong: Sequence[Credentials] = [
            shared(SECRET, OPERATOR),
            controller if service == "Peers" else peer,
            *nobody(server),
        ]
        fuzzer = Fuzzer(request.address, server, right, wrong, commanded(plan), stamps)
        channel = connect(request.address, controller, server, stamps=stamps)
        control: Any = pb_grpc.ControlStub(channel)
        try:
            with unharmed(process, log):
                await _begin(control, plan)
                checked(await fuzzer.send(methods(service, without=("Shutdown",)), INPUTS))
                await _begin(control, plan)
                said = await control.Describe(pb.Empty(), timeout=30)
                assert (said.node, said.run, said.episode) == (0, "after", 0)
        finally:
            await fuzzer.close()
            await channel.close(None)


async def _begin(control: Any, plan: str) -> None:
    request = pb.ConfigureRequest(run="after", plan_json=plan, scheduler="local")
    await control.Configure(request, timeout=30)
    await control.EndEpisode(pb.EndEpisodeRequest(run="after", episode=0), timeout=30)
    await control.PrepareEpisode(pb.PrepareEpisodeRequest(run="after", episode=0), timeout=30)
    await control.StartEpisode(pb.StartEpisodeRequest(run="after", episode=0), timeout=30)
