"""The HTTP front under bad input and bad clients: each gets an answer or is hung up on."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgenode.node import EdgeNode
from edgenode.serving import front as fronts
from testbed.errors import PrerequisiteMissing
from testbed.model.units import SECOND
from testbed.rpc import front
from testbed.rpc.credentials import shared
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.identity import CONTROLLER, node_identity
from testbed.scenario.plan.serving import LARGEST_BODY
from tests.edgenode.serving.federation import Federation, federation, plan

ALL = 3600 * SECOND
"""Longer than any test: all its requests come in one window."""

PATIENCE = 20.0


@asynccontextmanager
async def serving(folder: Path, *max_rates: int, **changes: Any) -> AsyncIterator[Federation]:
    """Nodes in an episode."""
    options = {"window": ALL, "length": ALL, **changes}
    async with federation(folder, len(max_rates)) as network:
        await network.configure(plan(*max_rates, **options))
        await network.start()
        yield network


async def said_to(network: Federation, sent: bytes, node: int = 0) -> bytes:
    """All that a node answers to these bytes until it closes the connection."""
    host, _, port = network.members[node].node.http.rpartition(":")
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        answer = b""
        try:
            while part := await reader.read(65_536):
                answer += part
        except ConnectionError:
            pass
        writer.close()
        return answer


def forwarded_by_node_1(token: str) -> dict[str, str]:
    return {front.FORWARDED_BY: "1", front.TOKEN: token, front.REQUEST: "0-5"}


def status_of(answer: bytes) -> int:
    assert answer.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ", b"HTTP/0.9 ")), answer[:100]
    return int(answer[9:12])


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /f\r\n\r\n", 400),
        (b"GET /f HTTP/9.9\r\n\r\n", 400),
        (b"GET /f HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /f HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /f HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"POST /f HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /%00%ff%2e%2e HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 400),
        (b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET /f HTTP/1.1\r\nA: " + b"x" * 9_000 + b"\r\n\r\n", 431),
        (b"GET /f HTTP/1.1\r\n" + b"A: b\r\n" * 100 + b"\r\n", 431),
        (
            b"POST /f HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (LARGEST_BODY + 1),
            413,
        ),
        (
            b"POST /f HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"8000\r\n%b\r\n" % (b"x" * 0x8000) * 3,
            413,
        ),
        (b"GET /f HTTP/1.0\r\n\r\n", 200),
        (b"BREW /f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 400),
    ],
)
async def test_what_is_malformed_or_too_large_is_no_request(
    tmp_path: Path, sent: bytes, status: int
) -> None:
    async with serving(tmp_path, 100) as network:
        answer = await said_to(network, sent)

        assert status_of(answer) == status
        assert b'"status":%d' % status in answer or status == 200
        # It takes requests as before.
        assert (await network.get(number=7)).status == 200
        await network.end()
        first = network.members[0]
        await network.until(lambda: bool(first.windows))
        assert first.counts == {"local": 1 + (status == 200)}


async def test_random_bytes_leave_it_as_it_was(tmp_path: Path) -> None:
    draw = random.Random(5)
    request = b"POST /f HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX: y\r\n\r\nhello"

    def bytes_like_requests() -> bytes:
        parts = [
            draw.choice([request, request[: draw.randrange(len(request))], draw.randbytes(40)])
            for _ in range(draw.randrange(1, 6))
        ]
        mangled = bytearray(b"".join(parts))
        for _ in range(draw.randrange(4)):
            if mangled:
                mangled[draw.randrange(len(mangled))] = draw.randrange(256)
        return bytes(mangled)

    async with serving(tmp_path, 1_000_000) as network:
        host, _, port = network.members[0].node.http.rpartition(":")

        async def attack() -> None:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(bytes_like_requests())
            try:
                await writer.drain()
                writer.write_eof()
                async with asyncio.timeout(draw.choice([0.001, 0.05])):
                    await reader.read(1_000)
            except (OSError, TimeoutError):
                pass
            writer.transport.abort()

        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            await asyncio.gather(*(attack() for _ in range(20)))
            assert (await network.get()).status == 200
        assert network.members[0].node.driver is not None
        assert await network.end()


@pytest.mark.parametrize(
    "headers",
    [
        {front.FORWARDED_BY: "1"},
        {front.FORWARDED_BY: "1", front.TOKEN: "x"},
        {front.FORWARDED_BY: "1", front.TOKEN: "of-node-0"},
        {front.FORWARDED_BY: "1", front.TOKEN: "of-the-controller"},
        {front.FORWARDED_BY: "7", front.TOKEN: "x"},
        {front.FORWARDED_BY: "-1", front.TOKEN: "x"},
        {front.FORWARDED_BY: "١", front.TOKEN: "x"},
        {front.FORWARDED_BY: "", front.TOKEN: ""},
        {front.TOKEN: "x", front.REQUEST: "0-1"},
    ],
)
async def test_who_forges_the_sender_is_refused_and_counted(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    async with serving(tmp_path, 100, 100) as network:
        key = network.members[0].node.http_key
        tokens = {
            "of-node-0": front.token_for(key, node_identity(0)),
            "of-the-controller": front.token_for(key, CONTROLLER),
        }
        sent = {name: tokens.get(value, value) for name, value in headers.items()}

        answer = await network.get(headers=sent)

        assert (answer.status, answer.outcome) == (403, "forbidden")
        await network.end()
        first = network.members[0]
        await network.until(lambda: bool(first.windows))
        assert first.counts == {"forbidden": 1}
        assert first.requests == []


async def test_a_node_that_is_no_neighbour_is_refused_by_the_model(tmp_path: Path) -> None:
    async with serving(tmp_path, 100, 100, neighbours=[[], []]) as network:
        token = front.token_for(network.members[0].node.http_key, node_identity(1))
        answer = await network.get(headers=forwarded_by_node_1(token))
        assert (answer.status, answer.outcome) == (403, "forbidden")


async def test_a_forwarded_request_is_never_forwarded_again(tmp_path: Path) -> None:
    async with serving(tmp_path, 0, 0, options={"shares": [1, 1]}) as network:
        token = front.token_for(network.members[0].node.http_key, node_identity(1))
        answer = await network.get(headers=forwarded_by_node_1(token))
        assert (answer.status, answer.server) == (200, "0")


async def test_ids_are_of_the_episode_and_open_once(tmp_path: Path) -> None:
    async with serving(tmp_path, 100, time=300_000) as network:
        [first, second] = await asyncio.gather(network.get(number=3), network.get(number=3))
        assert sorted((first.status, second.status)) == [200, 409]
        other = await network.get(number=3, episode=1)
        assert (other.status, other.outcome) == (409, "other_episode")
        token = network.members[0].token
        wrong = await network.get(headers={front.REQUEST: "0-x", front.TOKEN: token})
        assert (wrong.status, wrong.outcome) == (400, "malformed")
        # An id of somebody unknown counts for nothing.
        own = await network.get(headers={front.REQUEST: "0-3"})
        assert own.status == 200
        assert front.parse_request_name(own.headers[front.REQUEST])[1] >= 2**40


async def test_unknown_functions_are_named_with_those_there_are(tmp_path: Path) -> None:
    async with serving(tmp_path, 100, functions=["f", "g/h"]) as network:
        answer = await network.get(path="/x")
        assert (answer.status, answer.outcome) == (404, "no_function")
        assert "/f, /g/h" in answer.document["message"]
        assert (await network.get(path="/")).status == 404
        assert (await network.get(path="/f/and?more=1")).status == 200


@pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS", "PUT"])
async def test_methods_and_bodies_go_on_to_the_neighbour(tmp_path: Path, method: str) -> None:
    async with serving(tmp_path, 0, 100, options={"shares": [0, 1]}) as network:
        body = b"x" * LARGEST_BODY if method in ("POST", "PUT") else None
        answer = await network.get(method=method, data=body, headers={"Expect": "100-continue"})
        assert (answer.status, answer.server) == (200, "1")


async def test_requests_wait_for_the_beginning_and_end_with_the_episode(tmp_path: Path) -> None:
    async with federation(tmp_path, 1) as network:
        await network.configure(plan(100, time=3600 * SECOND))
        member = network.members[0]
        driver = member.node.prepare_episode(0)
        asked = asyncio.create_task(network.get(number=1))
        await asyncio.sleep(0.1)
        assert not asked.done()
        driver.begin()
        await asyncio.sleep(0.1)
        assert not asked.done()
        assert driver.close() == 1
        answer = await asked
        assert (answer.status, answer.outcome) == (503, "ended")
        assert answer.headers["Retry-After"] == "1"


async def test_more_open_requests_than_it_may_have_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fronts, "OPEN", 5)
    async with serving(tmp_path, 1000, time=1_000_000) as network:
        answers = await asyncio.gather(*(network.get(number=number) for number in range(12)))
        assert Counter(answer.status for answer in answers) == {200: 5, 503: 7}
        refused = [answer for answer in answers if answer.status == 503]
        assert {answer.outcome for answer in refused} == {"overload"}
        assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
        await network.end()
        first = network.members[0]
        await network.until(lambda: bool(first.windows))
        assert first.counts == {"local": 5, "overload": 7}


async def test_bodies_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fronts, "BODIES", 3 * LARGEST_BODY)
    async with serving(tmp_path, 1000, time=1_000_000) as network:
        body = b"x" * LARGEST_BODY
        answers = await asyncio.gather(
            *(network.get(method="POST", data=body) for _ in range(8)), return_exceptions=True
        )
        statuses = [answer.status for answer in answers if not isinstance(answer, BaseException)]
        assert statuses.count(200) == 3
        assert set(statuses) <= {200, 503}


async def test_a_client_that_never_reads_is_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fronts, "UNREAD_S", 0.3)
    async with serving(tmp_path, 1_000_000_000, time=0) as network:
        host, _, port = network.members[0].node.http.rpartition(":")
        reading = socket.socket()
        reading.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        reading.connect((host, int(port)))
        _, writer = await asyncio.open_connection(sock=reading, limit=1)
        sent = b"GET /f HTTP/1.1\r\nHost: a\r\n\r\n" * 100

        async def send() -> None:
            while True:
                writer.write(sent)
                await writer.drain()

        with pytest.raises(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                await send()
        writer.close()
        assert (await network.get()).status == 200


@pytest.mark.parametrize(
    ("sent", "limit"),
    [
        (b"", "IDLE_S"),
        (b"GET /f HT", "IDLE_S"),
        (b"POST /f HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf", "BODY_S"),
    ],
)
async def test_a_client_that_never_sends_is_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes, limit: str
) -> None:
    monkeypatch.setattr(fronts, limit, 0.2)
    async with serving(tmp_path, 100) as network:
        answer = await said_to(network, sent)
        assert answer == b"" or status_of(answer) == 408


async def test_idle_connections_make_room_for_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fronts, "CONNECTIONS", 8)
    monkeypatch.setattr(fronts, "LEAST_CONNECTIONS", 8)
    async with serving(tmp_path, 1000, time=1_000_000) as network:
        host, _, port = network.members[0].node.http.rpartition(":")
        idle = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
        await asyncio.sleep(0.05)
        # Those at work keep theirs; then there is no room.
        answers = await asyncio.gather(
            *(network.get(number=number) for number in range(8)), return_exceptions=True
        )
        assert [getattr(answer, "status", answer) for answer in answers] == [200] * 8
        closed = [await reader.read(1) for reader, _ in idle]
        assert closed == [b""] * 20
        for _, writer in idle:
            writer.close()
        at_work = [asyncio.create_task(network.get(number=100 + number)) for number in range(8)]
        await asyncio.sleep(0.2)
        with pytest.raises((aiohttp.ClientError, OSError)):
            async with aiohttp.ClientSession() as other:
                await other.get(network.members[0].url())
        assert {(await each).status for each in at_work} == {200}


async def test_a_port_that_is_taken_is_named_with_what_to_do(tmp_path: Path) -> None:
    node = EdgeNode(0, tmp_path / "spool", shared("secret", node_identity(0)))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        told = f"node 0 cannot take HTTP requests at {address}: .* in use"
        with pytest.raises(PrerequisiteMissing, match=told) as no:
            await node.start(f"unix:{tmp_path}/node.sock", http=address)
        assert "free port" in str(no.value.fix)
        with pytest.raises(PrerequisiteMissing, match="cannot take HTTP at unix:"):
            await node.start(f"unix:{tmp_path}/node.sock", http=f"unix:{tmp_path}/http.sock")
    await node.start(f"unix:{tmp_path}/node.sock", "::1", http="127.0.0.1:0")
    assert node.http.startswith("[::1]:")
    await node.close()
    node.host.close()


async def test_a_node_that_is_ended_at_once_answers_nothing_more(tmp_path: Path) -> None:
    async with serving(tmp_path, 100, 100, time=3600 * SECOND) as network:
        asked = asyncio.create_task(network.get(1))
        while not await open_at(network, 1):
            pass
        ending = asyncio.create_task(network.members[0].node.host.end_node(1))
        # As if the process had been killed.
        with pytest.raises(aiohttp.ClientError):
            await asked
        with pytest.raises(aiohttp.ClientConnectionError):
            async with aiohttp.ClientSession() as other:
                await other.get(network.members[1].url())
        await network.members[1].node.close()
        await ending


async def open_at(network: Federation, node: int) -> int:
    """How many requests a node has open, as it tells the controller."""
    described: pb.NodeDescription = await network.members[node].control.Describe(pb.Empty())
    return described.open_requests
