"""The default: executing a task takes the modelled time and does nothing."""

from __future__ import annotations

from testbed.model.task import Task


class Emulated:
    """Waits the modelled time ``c / F``."""

    modelled = True
    needs_payload = False
    idle = True
    """``execute`` does nothing, so it need not be called."""

    async def execute(self, task: Task, payload: bytes | None, duration: float) -> None:
        """Do nothing: the node's timer ends the execution."""

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
