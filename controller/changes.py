"""Changes of scheduler while a run goes on: all nodes asked or none, acknowledged one by one.

A call may be lost although the node carried it out. Where a node did not answer, what decides there
is not known; it is told again what should before the next episode begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from controller.link import NodeLink
from testbed.errors import TestbedError, UsageError
from testbed.rpc.operator import Acknowledgement, SchedulerChange
from testbed.scenario.plan import SchedulerSpec

_log = structlog.get_logger("controller.changes")

_WENT_BACK: Final = "went back"
_STAYED: Final = "could not go back"


class SchedulerChanges:
    """The scheduler of each node of a run, and the changes that led to it.

    ``position`` gives the current episode and slot.
    """

    def __init__(self, size: int, position: Callable[[], tuple[int, int]]) -> None:
        self._position = position
        self._asked: dict[int, SchedulerSpec] = {}
        self._names = [""] * size
        self._lock = asyncio.Lock()
        self._unsure: set[int] = set()
        self.closed = False
        self.log: list[SchedulerChange] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the schedulers by node, empty where none was configured."""
        return tuple(self._names)

    @property
    def summary(self) -> str:
        """Names of the schedulers that decide now."""
        return ", ".join(sorted({name for name in self._names if name}))

    def began(self, node: int, scheduler: SchedulerSpec, name: str) -> None:
        """Note that a node was configured with this scheduler and calls it ``name``."""
        self._asked[node] = scheduler
        self._names[node] = name

    @property
    def nodes(self) -> tuple[int, ...]:
        """The nodes that were configured."""
        return tuple(self._asked)

    def asked(self, node: int) -> SchedulerSpec:
        """Return the scheduler last asked for at a node; one without a name before."""
        return self._asked.get(node, SchedulerSpec(""))

    def exclusive(self) -> asyncio.Lock:
        """Return the lock under which the schedulers of a run are changed."""
        return self._lock

    def replaced(self, node: int, scheduler: SchedulerSpec, name: str) -> None:
        """Note that a node's scheduler has other options and calls itself ``name`` now."""
        self._asked[node] = scheduler
        self._names[node] = name
        self._unsure.discard(node)

    def note(self, scheduler: str, nodes: Sequence[int], reason: str) -> None:
        """Enter a change into the log of this run; refused if there is a ``reason``."""
        episode, slot = self._position()
        self.log.append(SchedulerChange(episode, slot, scheduler, tuple(nodes), not reason, reason))

    def unsure(self, node: int, scheduler: SchedulerSpec | None = None) -> None:
        """Note that a node did not answer: it is asked again, for ``scheduler`` if one is given."""
        self._unsure.add(node)
        if scheduler is not None:
            self._asked[node] = scheduler

    async def close(self) -> None:
        """Take no more changes, and wait until the one under way is entered in the log."""
        self.closed = True
        async with self._lock:
            pass

    async def reassert(self, links: Sequence[NodeLink]) -> None:
        """Repeat a change at those of these nodes that did not answer to it."""
        async with self._lock:
            for link in links:
                if link.node not in self._unsure:
                    continue
                answer = await _set(link, self._asked[link.node])
                if answer.accepted:
                    self._unsure.discard(link.node)
                    self._names[link.node] = answer.scheduler
                self.note(self._asked[link.node].name, [link.node], answer.reason)
                _log.info("scheduler", node=link.node, told_again=answer)

    async def change(
        self,
        links: Sequence[NodeLink],
        scheduler: SchedulerSpec,
        absent: Sequence[int] = (),
    ) -> list[Acknowledgement]:
        """Change the scheduler at these nodes, all or none; one answer per node, in order.

        When one refuses or does not answer, all others go back to what they had. Entered in the log
        of changes however it ends. Nodes that are ``absent`` are told when they are back.

        Raises: UsageError: the run is ending.
        """
        async with self._lock:
            if self.closed:
                raise UsageError("the run is ending, so its scheduler cannot be changed any more")
            episode, slot = self._position()
            reason = "was given up in the middle, because the controller is ending"
            try:
                answers = await self._change(links, scheduler)
                refused = [answer for answer in answers if not answer.accepted]
                reason = _cause(refused) if refused else ""
                if not refused:
                    for node in absent:
                        self._asked[node] = scheduler
                        self._unsure.add(node)
            finally:
                change = SchedulerChange(
                    episode=episode,
                    slot=slot,
                    scheduler=scheduler.name,
                    nodes=tuple(link.node for link in links),
                    accepted=not reason,
                    reason=reason,
                )
                self.log.append(change)
                _log.info("scheduler", change=change)
            _log.info("scheduler", answers=answers)
            return answers

    async def _change(
        self, links: Sequence[NodeLink], scheduler: SchedulerSpec
    ) -> list[Acknowledgement]:
        answers = await asyncio.gather(*(_set(link, scheduler) for link in links))
        refused = next((answer for answer in answers if not answer.accepted), None)
        if refused is None:
            for answer in answers:
                self._asked[answer.node] = scheduler
                self._unsure.discard(answer.node)
        else:
            answers = await asyncio.gather(
                *(
                    self._back(link, answer, refused)
                    for link, answer in zip(links, answers, strict=True)
                )
            )
        for answer in answers:
            self._names[answer.node] = answer.scheduler or self._names[answer.node]
        return answers

    async def _back(
        self, link: NodeLink, answer: Acknowledgement, refused: Acknowledgement
    ) -> Acknowledgement:
        """Change a node back, unless it said itself that nothing has changed there."""
        if not answer.accepted and answer.scheduler:
            return answer
        again = await _set(link, self._asked[link.node])
        if not again.accepted:
            self._unsure.add(link.node)
        if not answer.accepted:
            return answer
        reason = f"{_WENT_BACK}, because node {refused.node} refused"
        if not again.accepted:
            reason = f"{_STAYED} although node {refused.node} refused: {again.reason}"
            _log.error("scheduler", node=link.node, reason=reason)
        name = again.scheduler if again.accepted else answer.scheduler
        return Acknowledgement(link.node, accepted=False, scheduler=name, reason=reason)


def _cause(refused: Sequence[Acknowledgement]) -> str:
    """Return why a change was refused: by the node that did, and what could not be undone."""
    first = next((each for each in refused if not each.reason.startswith(_WENT_BACK)), refused[0])
    left = [each for each in refused if each.reason.startswith(_STAYED)]
    told = [first, *(each for each in left if each is not first)]
    return "; ".join(f"node {each.node}: {each.reason}" for each in told)


async def _set(link: NodeLink, scheduler: SchedulerSpec) -> Acknowledgement:
    try:
        reply = await link.set_scheduler(scheduler)
    except TestbedError as error:
        return Acknowledgement(link.node, accepted=False, scheduler="", reason=str(error))
    return Acknowledgement(link.node, reply.accepted, reply.scheduler, reply.reason)
