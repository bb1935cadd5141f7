"""The protocol of applications."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from testbed.model.task import Task


@runtime_checkable
class Application(Protocol):
    """Executes the tasks of one node, one at a time.

    ``modelled`` True: an execution takes exactly the modelled time; its end is the model's instant,
    and ``execute`` is what happens meanwhile. False: it takes as long as ``execute`` runs.
    ``needs_payload`` False: tasks' bytes are checked on arrival and not kept.
    """

    modelled: bool
    needs_payload: bool

    async def execute(self, task: Task, payload: bytes | None, duration: float) -> None:
        """Execute one task, never blocking the event loop.

        ``payload`` is the task's bytes, None if the run moves none (``payload: metadata``) or
        ``needs_payload`` is False. ``duration`` is the modelled time in real seconds. Cancelled
        when the execution is over earlier: it failed as drawn, or its deadline passed. Raising
        ends the task as ``lost`` and is logged.
        """
        ...

    def close(self) -> None:
        """Release threads and other resources without waiting. Idempotent."""
        ...
