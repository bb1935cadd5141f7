"""The bus: how long what a node says to its neighbours takes, and what of it is lost.

The receiver applies both, so that they are the same in the simulator and on a network. What is
said counts as one message to each neighbour, and as the bytes of its JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from testbed.model.draws import Purpose, uniform
from testbed.model.units import MILLISECOND, Micros


@dataclass(frozen=True, slots=True)
class Bus:
    """Delay of a message, and the probability that it is lost, drawn for each receiver.

    ``seed`` keys the draws: one depends on the episode, the sender, the receiver and the number of
    the message among those of its sender alone.
    """

    delay: Micros = MILLISECOND
    loss: float = 0.0
    seed: int = 0

    def loses(self, episode: int, sender: int, receiver: int, number: int) -> bool:
        """Return whether message ``number`` (from 0) of ``sender`` does not reach ``receiver``."""
        return self.loss > 0.0 and (
            uniform(self.seed, Purpose.MESSAGE_LOSS, episode, sender, receiver, number) < self.loss
        )


def bytes_of(content: Mapping[str, Any]) -> int:
    """Return how many bytes a message with this content has: those of its JSON."""
    return len(json.dumps(content, separators=(",", ":")).encode())
