"""The HTTP front of a node: takes requests of anybody, and answers each within a bounded time.

The first part of a path names the function. Who forwards a request, or gives it an id, has to prove
who it is (``testbed.rpc.front``). What is malformed, too large, or for no function is refused here,
and is no request of the model.

Nothing that a client does makes a node hold more than it may: connections, requests that are open,
and bytes of bodies are bounded, and a client that neither reads nor writes is hung up on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import socket
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final, NamedTuple, Protocol

from aiohttp import HttpVersion10, web
from aiohttp.http_exceptions import LineTooLong

from edgenode.answers import Answered, Answers, Content, Down, Ended
from testbed.errors import PrerequisiteMissing
from testbed.model.serving.events import Status
from testbed.rpc import addresses, front
from testbed.rpc.addresses import TcpAddress
from testbed.rpc.identity import CONTROLLER, Identity, node_identity
from testbed.scenario.plan.serving import LARGEST_BODY

_logger: Final = logging.getLogger(__name__)

CONNECTIONS: Final = 768
"""Connections of a process that are open at most; a new one takes the place of the one that has
been idle for longest, and is closed if none is idle."""

LEAST_CONNECTIONS: Final = 64
"""Connections that a node has at least, however many share its process."""

OPEN: Final = 700
"""Requests of a node that are open at most; more are refused with 503."""

BODIES: Final = 4 << 20
"""Bytes of bodies that a node holds at most; more are refused with 503."""

RECEIVED: Final = 8_192
"""Bytes that the system receives ahead for a connection; it may double them."""

UNREAD: Final = 32_768
"""The same of what was sent and is not read."""

LINE: Final = 8_190
"""Bytes of a request line, of a header, and about the bytes of all headers at most."""

HEADERS: Final = 64
"""Headers of a request at most."""

BODY_S: Final = 10.0
"""Seconds for the body of a request to come."""

IDLE_S: Final = 60.0
"""Seconds after which a connection without a request, or with half of one, is closed."""

UNREAD_S: Final = 10.0
"""Seconds for a client to read what it is sent."""

BEGIN_S: Final = 30.0
"""Seconds that a request waits for the beginning of an episode."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_OUTCOMES: Final = {
    Status.OK: ("served", ""),
    Status.FORBIDDEN: ("forbidden", "the node that forwarded it is no neighbour"),
    Status.OVER_LIMIT: ("over_limit", "the neighbour serves no more of this node in this window"),
    Status.UNREACHABLE: ("unreachable", "the neighbour that it was forwarded to did not answer"),
    Status.NO_PEER: ("no_peer", "the node is at its limit and forwards to no neighbour"),
}


class Fronted(Protocol):
    """The node behind a front."""

    @property
    def index(self) -> int: ...

    @property
    def answers(self) -> Answers | None:
        """What answers requests now; None if nothing does."""
        ...


class Refusal(Exception):
    """A request that is answered without asking the model."""

    def __init__(self, status: HTTPStatus, outcome: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.outcome = outcome


class _Sender(NamedTuple):
    """Who a request is from, and its id; None for each that is not known."""

    node: int | None = None
    number: int | None = None
    episode: int | None = None


class Front:
    """The front of one node. ``sharing`` is how many nodes its process has."""

    def __init__(self, node: Fronted, sharing: int = 1) -> None:
        self.key = front.new_key()
        self._node = node
        self._expected: dict[Identity, str] = {}
        self._open = 0
        self._bodies = 0
        self._server = _Server(
            self._answered,
            max(LEAST_CONNECTIONS, CONNECTIONS // sharing),
            keepalive_timeout=IDLE_S,
            max_line_size=LINE,
            max_field_size=LINE,
            max_headers=HEADERS,
            read_bufsize=RECEIVED,
            lingering_time=1.0,
            auto_decompress=False,
            access_log=None,
        )
        self._listening: asyncio.Server | None = None

    async def listen(self, bind: str) -> TcpAddress:
        """Take requests at ``bind``, ``host:port``; return where, with the port that was chosen.

        Raises: UsageError: this is no address. PrerequisiteMissing: it cannot be used.
        """
        address = addresses.parse(bind)
        if not isinstance(address, TcpAddress):
            raise PrerequisiteMissing(
                f"node {self._node.index} cannot take HTTP at {bind}", "name host:port"
            )
        _more_files()
        host = address.host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Connections have what their listener has.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD)
            listener.bind((host, address.port))
            self._listening = await asyncio.get_running_loop().create_server(
                self._server, sock=listener, backlog=512
            )
        except OSError as error:
            listener.close()
            raise PrerequisiteMissing(
                f"node {self._node.index} cannot take HTTP requests at {address}: "
                f"{error.strerror or error}",
                "name an address of this host with a free port, or port 0 for any",
            ) from error
        return TcpAddress(address.host, listener.getsockname()[1])

    def stop(self) -> None:
        """Take no more connections."""
        if self._listening is not None:
            self._listening.close()

    def abort(self) -> None:
        """Take no more connections, and hang up on all clients without an answer."""
        self.stop()
        self._server.abort()

    async def close(self) -> None:
        """Take no more requests, and hang up on all clients."""
        self.stop()
        self._server.hang_up()
        await self._server.shutdown(0.1)

    # --- one request ------------------------------------------------------------------------

    async def _answered(self, request: web.BaseRequest) -> web.StreamResponse:
        if isinstance(request.protocol, _Connection):
            request.protocol.is_idle(False)
        function = request.path.lstrip("/").partition("/")[0]
        try:
            if request.version < HttpVersion10 or request.method == "CONNECT":
                raise Refusal(
                    HTTPStatus.BAD_REQUEST,
                    "malformed",
                    "HTTP/1.0 and 1.1 are spoken here, no proxy",
                )
            if self._open >= OPEN:
                raise self._overload(function, "requests")
            self._open += 1
            try:
                return await self._of_model(request, function)
            finally:
                self._open -= 1
        except Refusal as refusal:
            return self._refused(refusal)

    async def _of_model(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        driver = self._driver()
        index, name = self._function(driver, name)
        sender = self._sender(request, driver, index)
        method = request.method
        # As many bytes as may come, before they do.
        reserved = self._reserved(request, name)
        self._bodies += reserved
        try:
            body = await self._body(request) if reserved else b""
            # Another episode may have begun while the body came.
            driver = self._driver()
            if sender.episode is not None and sender.episode != driver.episode:
                raise Refusal(
                    HTTPStatus.CONFLICT,
                    "other_episode",
                    f"this request is of episode {sender.episode}, which is not running here",
                )
            async with asyncio.timeout(None if driver.begun else BEGIN_S):
                answered = await driver.request(
                    index, Content(method, body), number=sender.number, sender=sender.node
                )
        except KeyError:
            raise Refusal(
                HTTPStatus.CONFLICT, "open", f"request {sender.number} is open here already"
            ) from None
        except Down:
            if isinstance(request.protocol, _Connection):
                request.protocol.hang_up()
            raise ConnectionResetError("the node is down") from None
        except (Ended, TimeoutError):
            raise self._ended() from None
        finally:
            self._bodies -= reserved
        return self._of(answered, driver, name)

    def _driver(self) -> Answers:
        driver = self._node.answers
        if driver is None:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "not_configured",
                f"node {self._node.index} has not been told what it serves; try again soon",
            )
        return driver

    def _function(self, driver: Answers, name: str) -> tuple[int, str]:
        """Return index and name of the function that a path names."""
        functions = driver.plan.network.functions
        if not name and len(functions) == 1:
            return 0, functions[0].name
        index = driver.function(name)
        if index is None:
            known = ", ".join(f"/{each.name}" for each in functions[:10])
            raise Refusal(
                HTTPStatus.NOT_FOUND,
                "no_function",
                f"there is no function {name[:60]!r}; there are {known}",
            )
        return index, name

    def _sender(self, request: web.BaseRequest, driver: Answers, function: int) -> _Sender:
        """Return who has sent a request. Raises: Refusal: it is not who it says."""
        headers = request.headers
        by, token = headers.get(front.FORWARDED_BY), headers.get(front.TOKEN, "")
        if by is None and not token:
            return _Sender()
        node = None
        if by is not None:
            node = int(by) if by.isdecimal() and by.isascii() and len(by) < 8 else -1
        size = driver.plan.size
        who = CONTROLLER if node is None else node_identity(node) if 0 <= node < size else None
        if who is None or not self._proves(who, token):
            driver.refused(function, "forbidden")
            raise Refusal(
                HTTPStatus.FORBIDDEN,
                "forbidden",
                f"{front.TOKEN} does not prove that this request comes from "
                f"{'the controller' if node is None else f'node {by[:20] if by else by}'}",
            )
        name = headers.get(front.REQUEST)
        if name is None and node is None:
            return _Sender()
        try:
            episode, number = front.parse_request_name(name or "")
        except ValueError as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, "malformed", str(error)) from None
        return _Sender(node, number, episode)

    def _proves(self, who: Identity, token: str) -> bool:
        expected = self._expected.get(who)
        if expected is None:
            expected = self._expected[who] = front.token_for(self.key, who)
        return front.equal(token, expected)

    def _reserved(self, request: web.BaseRequest, function: str) -> int:
        """Return how long the body of a request may be. Raises: Refusal: too long."""
        if not request.can_read_body:
            return 0
        length = request.content_length
        if length is not None and length > LARGEST_BODY:
            raise _too_large()
        length = LARGEST_BODY if length is None else length
        if self._bodies + length > BODIES:
            raise self._overload(function, "bytes of bodies")
        return length

    async def _body(self, request: web.BaseRequest) -> bytes:
        """Return the body of a request. Raises: Refusal: it is too long, or does not come."""
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(_CONTINUE)
            request.writer.output_size = 0
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_S):
                async for part in request.content.iter_any():
                    size += len(part)
                    if size > LARGEST_BODY:
                        raise _too_large()
                    parts.append(part)
        except TimeoutError:
            raise Refusal(
                HTTPStatus.REQUEST_TIMEOUT,
                "malformed",
                f"the body has not come within {BODY_S:g} s",
            ) from None
        except RuntimeError:
            # So aiohttp calls a connection that was lost earlier.
            raise ConnectionResetError("the client is gone") from None
        except web.RequestPayloadError:
            raise Refusal(HTTPStatus.BAD_REQUEST, "malformed", "the body is malformed") from None
        return b"".join(parts)

    # --- answers ----------------------------------------------------------------------------

    def _of(self, answered: Answered, driver: Answers, function: str) -> web.Response:
        request, status, server, elapsed = answered
        outcome, message = _OUTCOMES[status]
        node = self._node.index
        headers = {
            front.NODE: str(node),
            front.OUTCOME: outcome,
            front.REQUEST: front.request_name(driver.episode, request.id),
        }
        document: dict[str, Any]
        if status is Status.OK:
            headers[front.SERVER] = str(server)
            document = {
                "function": function,
                "node": node,
                "server": server,
                "elapsed_ms": elapsed / 1000,
            }
        else:
            document = {"status": int(status), "outcome": outcome, "message": message}
        return _response(int(status), document, headers)

    def _refused(self, refusal: Refusal) -> web.Response:
        status = refusal.status
        headers = {front.NODE: str(self._node.index), front.OUTCOME: refusal.outcome}
        if status is HTTPStatus.SERVICE_UNAVAILABLE:
            headers["Retry-After"] = "1"
        document = {"status": int(status), "outcome": refusal.outcome, "message": str(refusal)}
        response = _response(int(status), document, headers)
        if status in (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.REQUEST_TIMEOUT):
            response.force_close()
        return response

    def _overload(self, function: str, what: str) -> Refusal:
        driver = self._node.answers
        if driver is not None:
            with suppress(Refusal):
                driver.refused(self._function(driver, function)[0], "overload")
        return Refusal(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "overload",
            f"node {self._node.index} has as many {what} open as it may",
        )

    def _ended(self) -> Refusal:
        return Refusal(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "ended",
            "the episode ended before the request was answered",
        )


def _too_large() -> Refusal:
    return Refusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "malformed",
        f"the body is too long; at most {LARGEST_BODY} bytes are taken",
    )


def _response(status: int, document: dict[str, Any], headers: dict[str, str]) -> web.Response:
    return web.Response(
        status=status,
        body=json.dumps(document, separators=(",", ":")).encode() + b"\n",
        headers={"Server": "edge-testbed", **headers},
        content_type="application/json",
    )


class _Server(web.Server):
    """Makes the protocol of each connection, and bounds how many there are."""

    def __init__(self, handler: Any, most: int, **options: Any) -> None:
        super().__init__(handler, **options)
        self._most = most
        self._options = options
        # In order of when each was last at work; those at work are not in it.
        self._idle: dict[_Connection, None] = {}
        self._count = 0

    def __call__(self) -> web.RequestHandler:
        """Return the protocol of a new connection."""
        return _Connection(self, self._loop, self._options)

    def admit(self) -> bool:
        """Return whether there is room for another connection; makes some if need be."""
        if self._count >= self._most:
            oldest = next(iter(self._idle), None)
            if oldest is None:
                return False
            oldest.hang_up()
        self._count += 1
        return True

    def left(self, connection: _Connection) -> None:
        """Forget a connection that was admitted."""
        self._count -= 1
        self._idle.pop(connection, None)

    def is_idle(self, connection: _Connection, idle: bool) -> None:
        """Note that a connection has no request to answer, or has one now."""
        self._idle.pop(connection, None)
        if idle:
            self._idle[connection] = None

    def abort(self) -> None:
        """Close all connections."""
        for connection in self.connections:
            if isinstance(connection, _Connection):
                connection.hang_up()

    def hang_up(self) -> None:
        """Close the connections that have no request to answer."""
        for connection in list(self._idle):
            connection.hang_up()


class _Connection(web.RequestHandler):
    """A connection that is closed if its client does not read."""

    __slots__ = ("_admitted", "_server", "_unread")

    def __init__(
        self, server: _Server, loop: asyncio.AbstractEventLoop, options: dict[str, Any]
    ) -> None:
        super().__init__(server, loop=loop, **options)
        self._server = server
        self._admitted = False
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        self._admitted = self._server.admit()
        super().connection_made(transport)
        self.is_idle(True)
        if not self._admitted:
            self.hang_up()

    def connection_lost(self, exc: BaseException | None) -> None:
        """See ``asyncio.Protocol``."""
        self._stop_waiting()
        self._leave()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """See ``asyncio.Protocol``: the client has not read what it was sent."""
        super().pause_writing()
        self._unread = self._loop.call_later(UNREAD_S, self.hang_up)

    def resume_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        self._stop_waiting()
        super().resume_writing()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """See ``web.RequestHandler``: from then on the connection has nothing to do."""
        finished = await super().finish_response(request, resp, start_time)
        self.is_idle(True)
        return finished

    def is_idle(self, idle: bool) -> None:
        """Note whether the connection has a request to answer."""
        if self._admitted:
            self._server.is_idle(self, idle)

    def _leave(self) -> None:
        """Be one connection less, once."""
        if self._admitted:
            self._admitted = False
            self._server.left(self)

    def hang_up(self) -> None:
        """Close the connection at once; what was not read is gone."""
        self._leave()
        transport = self.transport
        self.force_close()
        if isinstance(transport, asyncio.Transport):
            transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is malformed, without a traceback in the log; close the connection."""
        if isinstance(exc, LineTooLong) or (message or "").startswith("Too many"):
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        if status == HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(exc, ConnectionError):
            _logger.error("a request failed", exc_info=exc)
        told = " ".join((message or HTTPStatus(status).phrase).split())[:200]
        document = {"status": int(status), "outcome": "malformed", "message": told}
        response = _response(int(status), document, {front.OUTCOME: "malformed"})
        response.force_close()
        return response

    def _stop_waiting(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


def _more_files() -> None:
    """Let this process open as many files as it may: a connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        if soft != resource.RLIM_INFINITY and soft < hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
