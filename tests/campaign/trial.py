"""Trials drawn from a seed: what is brought up, what is done to it, and when.

A trial depends on the seed, its number and the faults that are available, never on another trial,
so each one can be repeated alone.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

SLOT_MS: Final = 50
DEADLINE_MS: Final = 400
SCHEDULERS: Final = ("ratc", "rda", "random", "two-choice", "least-completion", "drl")


@dataclass(frozen=True, slots=True)
class Trial:
    """Trial ``number`` of a campaign: the network, its run, and the fault that strikes it.

    ``moment`` is the share of the run's planned length at which the fault strikes; ``store`` is
    ``sqlite`` or ``mysql``.
    """

    seed: int
    number: int
    fault: str
    nodes: int
    slots: int
    episodes: int
    scheduler: str
    payload: str
    store: str
    moment: float

    @property
    def planned_s(self) -> float:
        """Seconds that the run takes when nothing disturbs it, about."""
        return self.episodes * (self.slots * SLOT_MS + DEADLINE_MS / 2) / 1000

    def at_store(self, needs: frozenset[str]) -> Trial:
        """The same with the task log on a server where the fault strikes the server."""
        return dataclasses.replace(self, store="mysql") if "mysql" in needs else self

    def random(self) -> random.Random:
        """The draws of the fault itself."""
        return random.Random(f"{self.seed}/{self.number}/fault")

    def scenario(self) -> dict[str, Any]:
        """The scenario file, as a document."""
        return {
            "apiVersion": "edge-testbed/v1",
            "kind": "Scenario",
            "metadata": {"name": f"campaign-{self.number}"},
            "nodes": {
                "count": self.nodes,
                "cores": {"choice": [2, 4]},
                "clock": "1GHz",
                "arrivalProbability": {"uniform": [0.5, 1]},
                "failureRate": {"uniform": [0, 0.5]},
            },
            "links": {
                "rate": {"uniform": ["4MB/s", "8MB/s"]},
                "failureRate": {"uniform": [0, 0.05]},
                "controlDelay": "1ms",
            },
            "tasks": {
                "size": {"uniform": ["20KB", "60KB"]},
                "complexity": {"uniform": [200, 600]},
                "deadline": f"{DEADLINE_MS}ms",
            },
            "slots": {"count": self.slots, "length": f"{SLOT_MS}ms"},
            "episodes": self.episodes,
            "seeds": dict.fromkeys(("topology", "workload", "faults"), self.number + 1),
            "scheduler": self.scheduler,
            "payload": self.payload,
        }


def draw(seed: int, number: int, faults: Sequence[str], stores: Sequence[str]) -> Trial:
    """Trial ``number`` of the campaign with this seed, these faults and these task logs.

    Faults are dealt in shuffled decks, so that each of them comes once in every ``len(faults)``.
    """
    deck, place = divmod(number, len(faults))
    dealt = random.Random(f"{seed}/deck/{deck}").sample(list(faults), len(faults))
    fault = dealt[place]
    draws = random.Random(f"{seed}/{number}")
    return Trial(
        seed=seed,
        number=number,
        fault=fault,
        nodes=draws.choice((3, 3, 3, 4)),
        slots=draws.choice((16, 20, 30)),
        episodes=draws.choice((1, 2, 2, 3)),
        scheduler=draws.choice(SCHEDULERS),
        payload=draws.choice(("bytes", "bytes", "metadata")),
        store=draws.choice(list(stores)),
        moment=draws.uniform(0.02, 0.9),
    )
