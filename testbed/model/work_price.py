"""The price of work at a node, by what waits there and in the whole network.

Where work is waiting, a task takes the place of others that come later. The price says how much of
a success that is. It is small where queues are short, so a task goes where it succeeds most
likely; where they are long, large tasks go to shorter queues, and some are worth nowhere what they
cost.
"""

from __future__ import annotations

from typing import Final

QUEUE_PRICE: Final = 0.2
CROWD_PRICE: Final = 1.5
"""Both were chosen on the networks for choices (docs/per-destination.md)."""


def work_price(queue: float, execution: float, fill: float) -> float:
    """Return the price, in successes, of as much work as a task has on average.

    ``queue`` is the time that the node needs for what waits there or is on its way, ``execution``
    that for the task itself, both over the deadline of the task; ``fill`` is the mean queue of all
    nodes, weighted by capacity, over the deadline too. All are at least 0.
    """
    return QUEUE_PRICE * queue * queue + CROWD_PRICE * fill * fill * (queue + 0.5 * execution)
