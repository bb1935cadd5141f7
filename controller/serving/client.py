"""The HTTP client of the run's users: sends requests to fronts, and says how each ended.

Connections are kept and used again, a pool for each node. No call waits for another; a request that
is not answered in time ends, so what is open is bounded by rate and patience, and by ``MOST_OPEN``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from controller.serving.ledger import NO_ANSWER, Seen
from testbed.model.serving.record import RequestOutcome
from testbed.model.units import SECOND, Micros
from testbed.rpc import front

MOST_OPEN: Final = 2_000
"""Requests that are open at a time; what would be more is not sent, and has no answer."""

CONNECT_S: Final = 2.0
"""Real seconds for a connection to be made."""

KEPT_S: Final = 30.0
"""Seconds that a connection without a request is kept; less than fronts keep it."""

_OUTCOMES: Final = {outcome.value: outcome for outcome in RequestOutcome}
_REFUSED: Final = Seen(RequestOutcome.UNREACHABLE, taken=False)
_NOT_SENT: Final = Seen(RequestOutcome.LOST, taken=False)


@dataclass(frozen=True, slots=True)
class FrontAddress:
    """Address of a node's HTTP front, as host:port, and the token of the controller there."""

    address: str
    proof: str


class Client:
    """Sends requests to the front of one node, in emulated time of ``time_scale``.

    ``patience_s`` is how many real seconds an answer may take. Use it as a context manager.
    """

    def __init__(self, to: FrontAddress, time_scale: float, patience_s: float) -> None:
        self._base = URL(f"http://{to.address}/")
        self._paths: dict[str, URL] = {}
        self._headers = {front.TOKEN: to.proof}
        self._time_scale = time_scale
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=patience_s, sock_connect=CONNECT_S),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
            trust_env=False,
        )
        self._now = asyncio.get_running_loop().time

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def request(self, function: str, name: str) -> Seen:
        """Send the request called ``name`` for a function; return how it ended."""
        url = self._paths.get(function)
        if url is None:
            url = self._paths[function] = self._base / function
        began = self._now()
        try:
            async with self._session.get(
                url, headers={**self._headers, front.REQUEST: name}, allow_redirects=False
            ) as answer:
                await answer.read()
                return self._seen(answer.status, answer.headers.get(front.OUTCOME), began)
        except aiohttp.ClientConnectorError:
            return _REFUSED
        except (aiohttp.ClientError, TimeoutError, OSError):
            return NO_ANSWER

    def _seen(self, status: int, outcome: str | None, began: float) -> Seen:
        took: Micros = int((self._now() - began) / self._time_scale * SECOND)
        known = _OUTCOMES.get(outcome or "")
        if known is None:
            # Something that is no answer of the model, for instance that the episode is over.
            return Seen(RequestOutcome.LOST, took, status)
        return Seen(known, took, status, taken=known is not RequestOutcome.OVERLOAD)


class Fronts:
    """The clients of all nodes; None for those that take no part.

    ``ended`` is called once for each request, with its id and how it ended. ``most_open`` requests
    are open at a time at most.
    """

    def __init__(
        self,
        fronts: list[FrontAddress | None],
        time_scale: float,
        patience_s: float,
        ended: Callable[[int, Seen], None],
        *,
        most_open: int,
    ) -> None:
        self._clients = [
            None if each is None else Client(each, time_scale, patience_s) for each in fronts
        ]
        self._most_open = most_open
        self._ended = ended
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def open(self) -> int:
        """Requests without an answer."""
        return len(self._tasks)

    def send(self, node: int, number: int, function: str, name: str) -> bool:
        """Send a request; return False if it is not sent because as many are open as may be."""
        client = self._clients[node]
        if client is None or len(self._tasks) >= self._most_open:
            self._ended(number, _REFUSED if client is None else _NOT_SENT)
            return client is None
        task = asyncio.get_running_loop().create_task(self._request(client, number, function, name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _request(self, client: Client, number: int, function: str, name: str) -> None:
        seen = NO_ANSWER
        try:
            seen = await client.request(function, name)
        finally:
            self._ended(number, seen)

    async def close(self) -> None:
        """End what is open without an answer, and close all connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(each.close() for each in self._clients if each is not None))
