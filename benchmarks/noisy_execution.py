"""An application whose executions take longer or shorter than the model says.

A network with it is one that the simulator does not describe. ``testbed up paper-testbed --set
application.name=benchmarks.noisy_execution:NoisyExecution`` starts one; docs/learn.md has what was
learned there.
"""

from __future__ import annotations

import asyncio
import random

from testbed.model.task import Task


class NoisyExecution:
    """Waits the modelled time, times a factor drawn for the task: normal, mean 1, at least 0.2.

    ``spread`` is the standard deviation of the factor. Equal tasks get equal factors, under every
    scheduler and at every node, so that runs can be compared pair by pair.
    """

    modelled = False
    needs_payload = False

    def __init__(self, spread: float = 0.2) -> None:
        self._spread = spread

    async def execute(self, task: Task, payload: bytes | None, duration: float) -> None:
        """Wait."""
        drawn = random.Random(task.id * 1_000_003 + task.size_bytes).gauss(1.0, self._spread)
        await asyncio.sleep(duration * max(0.2, drawn))

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
