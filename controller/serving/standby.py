"""Between runs, nodes serve as well, so that anybody can try them: nothing of that is logged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from controller.configuring import configuration
from controller.registry import Node, Registry
from testbed.errors import TemporaryError, TestbedError
from testbed.scenario.plan import ServingPlan

_log = structlog.get_logger("controller.standby")

STANDBY: Final = "standby"
"""In place of the name of a run."""

RETRY_S: Final = 1.0
"""Seconds until a node that did not answer is asked again."""


class Standby:
    """Has the nodes of ``plan`` serve while there is no run; ``look`` after every change of one.

    All are told again when one has registered, because its address and its key are new.
    ``changed`` is called when nodes have been told.
    """

    def __init__(self, plan: ServingPlan, registry: Registry, changed: Callable[[], None]) -> None:
        self._plan_json = plan.to_json()
        self._scheduler = plan.scheduler
        self._registry = registry
        self._changed = changed
        self._news = asyncio.Event()
        self._told: tuple[tuple[int, int], ...] = ()
        self._busy = asyncio.Lock()
        self._paused = False
        self._task = asyncio.get_running_loop().create_task(self._keep())
        self._task.add_done_callback(_ended)

    @property
    def ready(self) -> bool:
        """Whether all healthy nodes serve, or are with a run."""
        return self._paused or self._told == self._present(self._healthy())

    def look(self) -> None:
        """See which nodes have come and gone."""
        self._news.set()

    async def pause(self) -> None:
        """Hand the nodes over to a run; return when nothing is under way here."""
        await self._busy.acquire()
        self._paused = True

    def resume(self) -> None:
        """Have the nodes serve again: the run is over, or did not begin."""
        self._paused = False
        self._busy.release()
        self._news.set()

    async def close(self) -> None:
        """Tell nodes no more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            async with self._busy:
                nodes = self._registry.nodes
                # Those that are being checked are told of when it is known what they are.
                if any(node.unsettled for node in nodes):
                    continue
                healthy = self._healthy()
                present = self._present(healthy)
                if not healthy or present == self._told:
                    continue
                failed = await self._tell(healthy)
                self._told = () if failed else present
            self._changed()
            if failed:
                asyncio.get_running_loop().call_later(RETRY_S, self._news.set)

    def _healthy(self) -> list[Node]:
        nodes = self._registry.nodes
        return [node for node in nodes if node.condition == "healthy" and node.http]

    @staticmethod
    def _present(nodes: list[Node]) -> tuple[tuple[int, int], ...]:
        return tuple((node.node, node.session) for node in nodes)

    async def _tell(self, healthy: list[Node]) -> bool:
        """Tell the nodes; return whether one of them did not answer and may still."""
        failed = False

        async def tell(node: Node) -> None:
            nonlocal failed
            link, nodes = node.link, self._registry.nodes
            if link is None:
                return
            request = configuration(
                node.node, nodes, self._plan_json, self._scheduler, run=STANDBY, standby=True
            )
            try:
                await link.configure(request)
            except TestbedError as error:
                # Who refuses, refuses again.
                failed = failed or isinstance(error, TemporaryError)
                _log.warning("standby", node=node.node, answer=str(error))

        await asyncio.gather(*map(tell, healthy))
        return failed


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("defect in having nodes serve", exc_info=error)
