"""What goes wrong behind the front: neighbours, words, routers, and nodes that are down."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import grpc.aio
import pytest

from edgenode.serving import driver as drivers
from edgenode.serving import routing
from testbed.model.faults import Fault
from testbed.model.serving.bus import Bus
from testbed.model.serving.route import Route, RouteObservation, RouterContext, Routing
from testbed.model.units import MILLISECOND, SECOND
from testbed.rpc import front
from testbed.rpc.generated import edge_pb2 as pb
from tests.edgenode.serving.federation import PATIENCE, Federation, federation, plan

ALL = 3600 * SECOND
TENTH = 100 * MILLISECOND

FORWARD: dict[str, Any] = {"options": {"shares": [0, 1]}, "window": ALL, "length": ALL}
"""For two nodes, the first of which forwards everything."""


class Raises:
    """A router for tests."""

    name = "raises"
    phases = (0.0,)

    def __init__(self, context: RouterContext) -> None:
        pass

    def route(self, observation: RouteObservation) -> Routing:
        raise RuntimeError("no idea")


class Negative(Raises):
    """Answers what is no table."""

    name = "negative"

    def route(self, observation: RouteObservation) -> Routing:
        return Routing((Route(1, (0, -5), (None, None)),))


class Slow(Raises):
    """Computes until it is told to answer."""

    name = "slow"
    answer: ClassVar[threading.Event] = threading.Event()

    def route(self, observation: RouteObservation) -> Routing:
        while not self.answer.is_set():
            sum(range(1000))
        return Routing((Route(0, (0, 1), (None, None)),))


class Never(Raises):
    """Does not come back."""

    name = "never"

    def route(self, observation: RouteObservation) -> Routing:
        while True:
            time.sleep(0.01)


class Speaks(Raises):
    """Says how often it was called, and whom it has heard."""

    name = "speaks"

    def route(self, observation: RouteObservation) -> Routing:
        return Routing(say={"period": observation.period})


def path_of(router: type) -> str:
    return f"{router.__module__}:{router.__name__}"


@asynccontextmanager
async def a_server(serve: Callable[[Any, Any], Any]) -> AsyncIterator[str]:
    """Something at a port of this machine that is no node; its address."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def forwarding_to(network: Federation, address: str) -> None:
    """Configure two nodes; the first one takes the second to be at ``address``."""
    second = network.members[1]
    kept, second.node.http = second.node.http, address
    await network.configure(plan(0, 100, **FORWARD))
    second.node.http = kept
    await network.start()


async def accepts_and_never_answers(reader: Any, writer: Any) -> None:
    await reader.read()
    writer.close()


async def answers_nonsense(reader: Any, writer: Any) -> None:
    await reader.read(10)
    writer.write(b"220 mail.example ESMTP\r\n")
    writer.close()


async def is_another_server(reader: Any, writer: Any) -> None:
    await reader.read(10)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    writer.close()


@pytest.mark.parametrize("serve", [accepts_and_never_answers, answers_nonsense, is_another_server])
async def test_a_peer_that_does_not_answer_costs_its_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[[Any, Any], Any]
) -> None:
    monkeypatch.setattr(drivers, "LEAST_PATIENCE_S", 0.0)
    async with federation(tmp_path, 2) as network, a_server(serve) as address:
        await forwarding_to(network, address)

        answers = await asyncio.gather(*(network.get(number=number) for number in range(3)))

        assert {(answer.status, answer.outcome) for answer in answers} == {(502, "unreachable")}
        await network.end()
        first = network.members[0]
        await network.until(lambda: bool(first.windows) and len(first.requests) == 3)
        assert first.counts == {"to:1": 3, "failed:1": 3}
        assert {(record.status, record.peer) for record in first.requests} == {(502, 1)}


async def test_a_peer_that_has_ended_is_known_at_once(tmp_path: Path) -> None:
    async with federation(tmp_path, 2) as network:
        await network.configure(plan(0, 100, **FORWARD))
        await network.start()
        assert (await network.get()).server == "1"
        await network.members[1].node.close()
        answer = await network.get()
        assert (answer.status, answer.outcome) == (502, "unreachable")


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("loss", [0.0, 1.0])
async def test_words_come_after_their_delay_or_not_at_all(
    tmp_path: Path, together: bool, loss: float
) -> None:
    settings = plan(
        100,
        100,
        scheduler=path_of(Speaks),
        period=TENTH,
        window=TENTH,
        bus=Bus(delay=20 * MILLISECOND, loss=loss, seed=1),
    )
    async with federation(tmp_path, 2, together=together) as network:
        await network.configure(settings)
        await network.start()
        members = network.members
        await network.until(lambda: all(len(each.routings) >= 4 for each in members))
        await network.end()
        # The nodes of a process have one log.
        ticks = [tick for each in members for tick in each.ticks]
        assert min(ticks) >= 0
        assert len(ticks) == sum(len(each.routings) for each in members)
        for each in members:
            assert sum(window.said for window in each.windows) >= 3
            heard = sum(window.heard for window in each.windows)
            last = each.routings[-1].observation.heard
            if loss:
                assert (heard, last) == (0, ())
            else:
                assert heard >= 2
                assert last[0].peer == 1 - each.node.index
                assert last[0].content["period"] >= 0


async def test_words_of_others_and_of_another_episode_are_not_heard(tmp_path: Path) -> None:
    async with federation(tmp_path, 2, together=False) as network:
        await network.configure(plan(100, 100, window=TENTH))
        await network.start()
        [first, second] = network.members
        stub = second.node._links[0]._send  # type: ignore[attr-defined]

        def said(**changes: Any) -> pb.Said:
            fields: dict[str, Any] = {"sender": 1, "run": "run", "content": b'{"f": 1}'} | changes
            return pb.Said(**fields)

        for message in (
            said(episode=1),
            said(run="another"),
            said(content=b"[1]"),
            said(content=b"{" * 5_000),
            said(content=b'{"f":"' + b"x" * 20_000 + b'"}'),
            said(number=-1),
            said(sender=0),
        ):
            await stub(message)
        await stub(said())
        await network.until(lambda: any(window.heard for window in first.windows))
        assert sum(window.heard for window in first.windows) == 1


@pytest.mark.parametrize(
    ("router", "reason"),
    [(Raises, "raised RuntimeError: no idea, at "), (Negative, "answered a weight -5")],
)
async def test_a_router_that_fails_is_named_and_requests_go_on(
    tmp_path: Path, router: type, reason: str
) -> None:
    settings = plan(100, 100, scheduler=path_of(router), period=TENTH)
    async with federation(tmp_path, 2) as network:
        await network.configure(settings)
        await network.start()
        first = network.members[0]
        await network.until(lambda: len(first.failures) >= 2)
        assert (await network.get()).status == 200
        assert first.failures[0].startswith(f"router '{router.name}' {reason}")  # type: ignore[attr-defined]
        assert first.routings == []


async def test_a_router_that_computes_holds_up_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "FIRST", 1_000)
    settings = plan(100, 100, scheduler=path_of(Slow), period=TENTH, window=ALL, length=ALL)
    Slow.answer.clear()
    async with federation(tmp_path, 2) as network:
        try:
            await network.configure(settings)
            await network.start()
            answers = [await network.get(number=number) for number in range(10)]
            assert {answer.server for answer in answers} == {"0"}
            assert network.members[0].routings == []
        finally:
            Slow.answer.set()
        async with asyncio.timeout(PATIENCE):
            while (await network.get()).server != "1":
                pass


async def test_a_router_that_never_comes_back_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "FIRST", 0.2)
    monkeypatch.setattr(routing, "LATER", 0.2)
    settings = plan(100, 100, scheduler=path_of(Never), period=TENTH)
    async with federation(tmp_path, 2) as network:
        await network.configure(settings)
        await network.start()
        first = network.members[0]
        await network.until(lambda: any("not called any more" in line for line in first.failures))
        # It was called before the episode too, of which nothing is logged.
        assert all(line.startswith("router 'never' raised NotInTime: ") for line in first.failures)
        assert (await network.get()).status == 200


async def test_the_router_is_changed_while_requests_come(tmp_path: Path) -> None:
    settings = plan(0, 100, options={"shares": [0, 1]}, period=TENTH, window=ALL, length=ALL)
    async with federation(tmp_path, 2) as network:
        await network.configure(settings)
        await network.start()
        first = network.members[0]
        assert (await network.get()).server == "1"
        reply = await first.control.SetScheduler(pb.SetSchedulerRequest(scheduler="all-local"))
        assert reply.accepted
        async with asyncio.timeout(PATIENCE):
            while (await network.get()).server != "0":
                pass


@pytest.mark.parametrize("mode", ["killed", "hung"])
async def test_a_node_that_is_down_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(drivers, "LEAST_PATIENCE_S", 0.0)
    settings = plan(0, 100, options={"shares": [0, 1]}, window=TENTH, length=ALL, time_scale=0.2)
    fault = Fault("node-down", 0, ALL, nodes=(1,), mode=mode)
    async with federation(tmp_path, 2) as network:
        await network.configure(settings)
        await network.start()
        [first, second] = network.members

        async def set_faults(*faults: Fault) -> None:
            documents = [json.dumps(fault.to_document()).encode() for fault in faults]
            for member in network.members:
                await member.control.SetFaults(pb.SetFaultsRequest(run="run", faults=documents))

        await set_faults(fault)
        # Its own users, and those whose requests are forwarded to it, get no answer of its service.
        answers = await asyncio.gather(network.get(0, number=0), network.get(1, number=1))
        assert [answer.status for answer in answers] == [502, 502]
        await set_faults()
        async with asyncio.timeout(PATIENCE):
            while (await network.get(1)).status != 200:
                pass
        assert (await network.get(0)).server == "1"
        await network.until(lambda: {each.id for each in second.requests} >= {1})
        assert first.requests[0].status == 502


async def test_a_node_stands_by_again_when_its_episode_is_over(tmp_path: Path) -> None:
    async with federation(tmp_path, 2) as network:
        await network.configure(plan(0, 100, **FORWARD))
        # Between the configuration and the first episode as well.
        answer = await network.get()
        assert (answer.server, answer.headers[front.REQUEST][:8]) == ("1", "standby-")
        await network.start()
        assert (await network.get()).headers[front.REQUEST].startswith("0-")
        await network.end()
        answer = await network.get()
        assert (answer.status, answer.headers[front.REQUEST][:8]) == (200, "standby-")
        first = network.members[0]
        await network.until(lambda: len(first.requests) == 1)
        with pytest.raises(grpc.aio.AioRpcError, match="which come over HTTP"):
            await first.control.PrepareEpisode(
                pb.PrepareEpisodeRequest(run="run", episode=1, arrivals=pb.Arrivals())
            )


async def test_requests_of_others_are_counted_and_not_logged_when_the_log_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "MOST_BACKLOG", -1)
    async with federation(tmp_path, 1) as network:
        await network.configure(plan(100, window=ALL, length=ALL))
        await network.start()
        await network.get()
        await network.get(number=4)
        await network.end()
        first = network.members[0]
        await network.until(lambda: bool(first.windows))
        assert first.counts == {"local": 2}
        assert [record.id for record in first.requests] == [4]
