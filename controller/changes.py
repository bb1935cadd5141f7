"""Changes of scheduler while a run goes on: all nodes asked or none, acknowledged one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from controller.link import NodeLink
from testbed.errors import TestbedError
from testbed.rpc.operator import Acknowledgement, SchedulerChange

_log = structlog.get_logger("controller.changes")


class SchedulerChanges:
    """What decides at each node of a run, and how it came to.

    ``position`` gives the current episode and slot.
    """

    def __init__(self, size: int, position: Callable[[], tuple[int, int]]) -> None:
        self._position = position
        self._asked: dict[int, tuple[str, str]] = {}
        self._names = [""] * size
        self._lock = asyncio.Lock()
        self.log: list[SchedulerChange] = []

    @property
    def summary(self) -> str:
        """What decides now: one name, or all of them."""
        return ", ".join(sorted({name for name in self._names if name}))

    def began(self, node: int, scheduler: str, options_json: str, name: str) -> None:
        """A node was configured with this scheduler and calls it ``name``."""
        self._asked[node] = (scheduler, options_json)
        self._names[node] = name

    @property
    def nodes(self) -> tuple[int, ...]:
        """The nodes that were configured."""
        return tuple(self._asked)

    def asked(self, node: int) -> tuple[str, str]:
        """The scheduler last asked for at a node, with its options as JSON; empty before."""
        return self._asked.get(node, ("", ""))

    def exclusive(self) -> asyncio.Lock:
        """Held by who changes what decides: nobody else does meanwhile."""
        return self._lock

    def replaced(self, node: int, options_json: str, name: str) -> None:
        """A node's scheduler goes on with other options and calls itself ``name`` now."""
        self._asked[node] = (self._asked[node][0], options_json)
        self._names[node] = name

    def note(self, scheduler: str, nodes: Sequence[int], reason: str) -> None:
        """Enter a change into the log of this run; refused if there is a ``reason``."""
        episode, slot = self._position()
        self.log.append(SchedulerChange(episode, slot, scheduler, tuple(nodes), not reason, reason))

    async def change(
        self, links: Sequence[NodeLink], scheduler: str, options_json: str
    ) -> list[Acknowledgement]:
        """Change the scheduler at these nodes, all or none; one answer per node, in order.

        When one refuses or does not answer, those that had accepted go back to what they had.
        """
        async with self._lock:
            episode, slot = self._position()
            answers = await asyncio.gather(*(_set(link, scheduler, options_json) for link in links))
            refused = [answer for answer in answers if not answer.accepted]
            if refused:
                answers = [
                    await self._back(link, answer, refused[0]) if answer.accepted else answer
                    for link, answer in zip(links, answers, strict=True)
                ]
            else:
                for answer in answers:
                    self._asked[answer.node] = (scheduler, options_json)
            for answer in answers:
                self._names[answer.node] = answer.scheduler or self._names[answer.node]
            change = SchedulerChange(
                episode=episode,
                slot=slot,
                scheduler=scheduler,
                nodes=tuple(link.node for link in links),
                accepted=not refused,
                reason=f"node {refused[0].node}: {refused[0].reason}" if refused else "",
            )
            self.log.append(change)
            _log.info("scheduler", change=change, answers=answers)
            return answers

    async def _back(
        self, link: NodeLink, answer: Acknowledgement, refused: Acknowledgement
    ) -> Acknowledgement:
        again = await _set(link, *self._asked[link.node])
        reason = f"went back, because node {refused.node} refused"
        if not again.accepted:
            reason = f"could not go back although node {refused.node} refused: {again.reason}"
            _log.error("scheduler", node=link.node, reason=reason)
        name = again.scheduler if again.accepted else answer.scheduler
        return Acknowledgement(link.node, accepted=False, scheduler=name, reason=reason)


async def _set(link: NodeLink, scheduler: str, options_json: str) -> Acknowledgement:
    try:
        reply = await link.set_scheduler(scheduler, options_json)
    except TestbedError as error:
        return Acknowledgement(link.node, accepted=False, scheduler="", reason=str(error))
    return Acknowledgement(link.node, reply.accepted, reply.scheduler, reply.reason)
