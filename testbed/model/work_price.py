"""The price of work at a node, by what waits there and in the whole network.

Where work is waiting, a task takes the place of others that come later. The price says how much of
a success that is. It is 0 in an empty network, so a task goes where it succeeds most likely; where
queues are long, large tasks go to shorter queues, and some are worth nowhere what they cost.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class WorkPrice(NamedTuple):
    """The numbers of a price: weights of what ``work_price`` adds up."""

    queue: float
    crowd: float
    execution: float


LEARNED: Final = WorkPrice(queue=0.64, crowd=0.71, execution=-0.15)
"""Learned by ``trainer.pricing`` on random networks (docs/per-destination.md)."""


def work_price(queue: float, execution: float, fill: float, price: WorkPrice) -> float:
    """Return the price, in successes, of as much work as a task has on average.

    ``queue`` is the time that the node needs for what waits there or is on its way, ``execution``
    that for the task itself, both over the deadline of the task; ``fill`` is the mean queue of all
    nodes, weighted by capacity, over the deadline too. All are at least 0.
    """
    crowd = price.crowd * queue + price.execution * execution
    return fill * (price.queue * queue * queue + fill * crowd)
