"""The other nodes of a serving network: requests are forwarded to them, and words said.

Requests go to the HTTP front of a node, over connections that are kept. Words go over gRPC, or
straight to a node of the same process; the receiver applies delay and loss.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final, Protocol
from urllib.parse import quote

import aiohttp
import grpc.aio
from yarl import URL

from edgenode.answers import Content
from edgenode.background import Background
from edgenode.links import PeerAt
from testbed.model.serving.events import Status
from testbed.rpc import front
from testbed.rpc.channels import connect
from testbed.rpc.credentials import Credentials
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.generated import edge_pb2_grpc as pb_grpc
from testbed.rpc.identity import node_identity

_logger: Final = logging.getLogger(__name__)

CONNECTIONS: Final = 256
"""Connections to one neighbour at most; requests beyond wait for one, within their time."""

IDLE_S: Final = 20.0
"""Seconds after which a connection without a request is closed: before the neighbour does it."""

ANSWER_BYTES: Final = 4_096
"""Bytes of an answer's body that are read; a connection on which more comes is closed."""

SAY_S: Final = 5.0
"""Seconds that a message to a neighbour may take."""

WAITING_WORDS: Final = 64
"""Messages on their way to one neighbour; more are dropped, as if they were lost."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_ANSWERS: Final = {
    200: Status.OK,
    403: Status.FORBIDDEN,
    429: Status.OVER_LIMIT,
    503: Status.NO_PEER,
}


class Hears(Protocol):
    """A node of this process that hears what others say."""

    @property
    def context(self) -> Context: ...

    def heard(self, sender: int, said: pb.Said) -> None: ...


class Unanswered(Exception):
    """A neighbour gave no answer that says what became of a request; the text says why not."""


class Neighbour:
    """Node ``peer``, with the addresses ``at``, as node ``node`` with credentials ``me`` sees it.

    ``token`` proves the node at the front of the peer. ``here`` finds the node of this process at
    an address.
    """

    def __init__(
        self,
        peer: int,
        me: Credentials,
        node: int,
        *,
        at: PeerAt,
        token: str,
        background: Background,
        here: Callable[[str], Hears | None],
    ) -> None:
        self.peer = peer
        self._me = me
        self._node = node
        self._http = at.http
        self._headers = {front.FORWARDED_BY: str(node), front.TOKEN: token}
        self._address = at.address
        self._background = background
        self._here = here
        self._session: aiohttp.ClientSession | None = None
        self._urls: dict[str, URL] = {}
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None
        self._words = 0

    async def forward(self, function: str, name: str, content: Content, patience: float) -> Status:
        """Send a request on and return how it was answered.

        ``name`` is its episode and id. Raises: Unanswered: it was not, within ``patience`` seconds.
        """
        if not self._http:
            raise Unanswered(f"node {self.peer} has no HTTP front")
        url = self._urls.get(function)
        if url is None:
            text = f"http://{self._http}/{quote(function, safe='')}"
            url = self._urls[function] = URL(text, encoded=True)
        method = content.method if content.method in _METHODS else "POST"
        try:
            async with self._opened().request(
                method,
                url,
                data=content.body or None,
                headers={**self._headers, front.REQUEST: name},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=patience),
            ) as response:
                await response.content.read(ANSWER_BYTES)
                if not response.content.at_eof():
                    response.close()
                status = _ANSWERS.get(response.status)
                answered_by = response.headers.get(front.NODE)
        except TimeoutError:
            raise Unanswered(f"node {self.peer} gave no answer within {patience:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            told = str(error) or type(error).__name__
            raise Unanswered(f"node {self.peer} cannot be reached: {told}") from None
        if status is None or answered_by != str(self.peer):
            raise Unanswered(f"node {self.peer} answered with status {response.status}")
        return status

    def say(self, message: pb.Said) -> None:
        """Send a message, which may get lost."""
        peer = self._here(self._address)
        if peer is not None:
            loop = asyncio.get_running_loop()
            loop.call_soon(peer.heard, self._node, message, context=peer.context.copy())
        elif self._words < WAITING_WORDS:
            self._words += 1
            self._background.start(self._send(message), f"words to node {self.peer}")

    async def _send(self, message: pb.Said) -> None:
        try:
            if self._stub is None:
                self._channel = connect(self._address, self._me, node_identity(self.peer))
                self._stub = pb_grpc.PeersStub(self._channel)
            await self._stub.Say(message, timeout=SAY_S)
        except grpc.aio.AioRpcError as error:
            _logger.info(
                "what was said to node %d is lost: %s: %s",
                self.peer,
                error.code().name,
                error.details(),
            )
        finally:
            self._words -= 1

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        channel, self._channel, self._stub = self._channel, None, None
        if channel is not None:
            await channel.close(None)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=CONNECTIONS, keepalive_timeout=IDLE_S, loop=asyncio.get_running_loop()
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        return self._session
