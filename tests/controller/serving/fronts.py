"""A front of a node for tests: HTTP, with the pure model behind it and no neighbours."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self

from aiohttp import web

from controller.serving.client import FrontAddress
from testbed.model.serving.events import Answer, Request, RequestCame, Serve, Served
from testbed.model.serving.node import ServingState, Timetable
from testbed.model.serving.record import RequestOutcome, RequestRecord
from testbed.model.serving.route import RouterContext
from testbed.model.units import SECOND
from testbed.rpc import front
from testbed.scenario.plan import ServingPlan
from testbed.schedulers import registry

KEY = "k" * 64


class FakeFront:
    """The front of node ``node``; ``before`` is awaited before each answer.

    Use it as a context manager.
    """

    def __init__(
        self,
        plan: ServingPlan,
        node: int = 0,
        before: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        router = registry.create("all-local", RouterContext(node, plan.network))
        self.records: list[RequestRecord] = []
        self.came: list[int] = []
        self.tokens: set[str | None] = set()
        self.address = ""
        self._node = node
        self._before = before
        self._state = ServingState(node, plan.network, Timetable(SECOND), 1, 0, router)
        self._runner: web.ServerRunner
        self._began = 0.0
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._began = asyncio.get_running_loop().time()
        self._runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._runner.cleanup()

    @property
    def at(self) -> FrontAddress:
        """Where it is."""
        return FrontAddress(self.address, "proof")

    async def has(self, requests: int) -> None:
        """Return when so many requests have come."""
        async with asyncio.timeout(20):
            while len(self.came) < requests:
                self._news.clear()
                await self._news.wait()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        episode, number = front.parse_request_name(request.headers[front.REQUEST])
        self.tokens.add(request.headers.get(front.TOKEN))
        self.came.append(number)
        self._news.set()
        if self._before is not None:
            await self._before(number)
        came = self._now()
        asked = Request(number, episode, self._node, 0)
        effects = self._state.handle(RequestCame(asked), came)
        for effect in effects:
            if isinstance(effect, Serve):
                await asyncio.sleep(effect.duration / SECOND)
                effects = self._state.handle(Served(number), max(came, self._now()))
        (answer,) = (each for each in effects if isinstance(each, Answer))
        self.records.append(
            RequestRecord(
                *(number, episode, self._node, 0, came, answer.status),
                *(None, answer.server, self._now() - came),
            )
        )
        outcome = RequestOutcome.of(answer.status)
        return web.Response(status=int(answer.status), headers={front.OUTCOME: outcome.value})

    def _now(self) -> int:
        return int((asyncio.get_running_loop().time() - self._began) * SECOND)
