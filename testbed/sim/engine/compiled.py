"""The records that hold the state of the engine.

One numpy record per episode, node, link, task and pending event; an episode is one row of each
array, so a batch of episodes is five arrays and everything in it can be read from Python while it
runs. ``compiled`` makes machine code of the functions that work on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, cast

import numpy as np
from numba import njit
from numba.extending import intrinsic
from numba.np.arrayobj import make_array
from numpy.typing import NDArray

from testbed.sim.engine.compiling import compiled as compiled

_Function = TypeVar("_Function", bound=Callable[..., Any])

Records: TypeAlias = NDArray[np.void]
Record: TypeAlias = Any
"""One element of a record array, by reference; numpy has no static type for its fields."""

# Where a task is. ABSENT: no task arrived in this slot at this node.
ABSENT: Final = 0
DECIDING: Final = 1
SENDING: Final = 2
TRANSMISSION: Final = 3
WAITING: Final = 4
EXECUTION: Final = 5
ENDED: Final = 6

# How a task ended; index into OUTCOMES.
OPEN: Final = 0
SUCCEEDED: Final = 1
DROPPED: Final = 2
TRANSMISSION_FAILED: Final = 3
EXECUTION_FAILED: Final = 4
OUTCOMES: Final = ("", "succeeded", "dropped", "transmission_failed", "execution_failed")

# Overload measures (testbed.model.topology.OverloadMeasure); limits are resolved per node.
BY_QUEUE_LENGTH: Final = 0
BY_BACKLOG: Final = 1

EPISODE: Final = np.dtype(
    [
        ("episode", "i8"),
        ("now", "i8"),
        ("slot", "i8"),  # the next slot to be decided
        ("nodes", "i8"),
        ("slots", "i8"),
        ("slot_length", "i8"),
        ("measure", "i8"),
        ("drop_hopeless", "i8"),
        ("workload_seed", "u8"),
        ("faults_seed", "u8"),
        ("schedulers_seed", "u8"),
        ("execution_fates", "u8"),  # keys with the episode folded in
        ("transmission_fates", "u8"),
        ("scheduler_draws", "u8"),
        ("pending", "i8"),  # events in the heap
        ("tasks", "i8"),
        ("admissions", "i8"),
        ("ended", "i8"),
        ("succeeded", "i8"),
        ("distribution", "i8", (3,)),  # of size, complexity, deadline: number of choices; 0 uniform
        ("low", "f8", (3,)),
        ("span", "f8", (3,)),
        ("max_size", "f8"),
        ("max_cycles", "f8"),
        ("max_deadline", "f8"),
        ("max_capacity", "f8"),
        ("max_rate", "f8"),
        ("max_arrival", "f8"),
        ("max_failure", "f8"),
        ("total_capacity", "f8"),
        ("mean_cycles", "f8"),
        ("queue_scale", "f8"),
    ]
)
NODE: Final = np.dtype(
    [
        ("cores", "i8"),
        ("capacity", "i8"),
        ("limit", "i8"),
        ("arrival", "f8"),
        ("failure", "f8"),
        ("running", "i8"),  # task or -1
        ("until", "i8"),  # nominal end of the running task
        ("first", "i8"),
        ("last", "i8"),
        ("waiting", "i8"),
        ("work", "i8"),  # of the waiting tasks, microseconds
        # What this node answered in the current round of questions.
        ("overloaded", "i8"),
        ("queue_length", "i8"),
        ("backlog", "i8"),
        ("inbound", "i8"),
        # Moving average of the overloaded share that this node has seen (per-destination-v1).
        ("trend", "f8"),
        ("trend_slot", "i8"),
    ]
)
LINK: Final = np.dtype(
    [
        ("rate", "i8"),
        ("failure", "f8"),
        ("current", "i8"),  # task in transmission or -1
        ("until", "i8"),
        ("first", "i8"),
        ("last", "i8"),
        ("length", "i8"),  # waiting and in transmission
        ("work", "i8"),  # of the waiting tasks, microseconds
        ("receiving", "i8"),  # length of the receiving queue at the far end
        ("bit", "i8"),  # overload bit of the far end, as last asked by the near end
        ("heard_backlog", "i8"),  # backlog of the far end, as the near end last heard it
        ("heard_at", "i8"),  # when that was, -1 if never
    ]
)
TASK: Final = np.dtype(
    [
        ("size", "i8"),
        ("cycles", "i8"),
        ("deadline", "i8"),  # relative
        ("deadline_at", "i8"),
        ("stage", "i8"),
        ("failing", "i8"),  # the unit that works on it will fail before the end
        ("work", "i8"),  # nominal time of what it waits for or is in
        ("next", "i8"),  # behind it in the queue it is in, or -1
        ("destination", "i8"),
        ("outcome", "i8"),
        ("admission", "i8"),  # number of its entry into an execution queue, in this episode
        ("ready_at", "i8"),  # entered the execution queue, -1 if it did not
        ("started_at", "i8"),  # began to execute, -1 if it did not
        ("ended_at", "i8"),
    ]
)
EVENT: Final = np.dtype([("at", "i8"), ("order", "i8")])


class Batch(NamedTuple):
    """E episodes side by side; all have N nodes and T slots.

    Task ``slot * N + source`` of an episode is row entry of that index.
    """

    episodes: Records  # [E] EPISODE
    nodes: Records  # [E, N] NODE
    links: Records  # [E, N, N] LINK, from first to second
    tasks: Records  # [E, T * N] TASK
    events: Records  # [E, 4 * T * N] EVENT, a heap
    choices: NDArray[np.float64]  # [E, 3, K] values of choice distributions
    rewards: NDArray[np.float32]  # [E, T] team reward by slot


class Row(NamedTuple):
    """One episode of a ``Batch``: views of its arrays, which compiled functions change in place."""

    episode: Record
    nodes: Records  # [N]
    links: Records  # [N, N]
    tasks: Records  # [T * N]
    events: Records  # [4 * T * N + 1]
    choices: NDArray[np.float64]  # [3, K]
    rewards: NDArray[np.float32]  # [T]


def _uncounted(typing: Any, array: Any) -> Any:
    """Return an array without its reference count, which every access would change.

    For arrays to which the caller holds a reference.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view: Any = make_array  # numba has no annotations
        made = view(signature.args[0])(context, builder, arguments[0])
        made.meminfo = made.meminfo.type(None)
        made.parent = made.parent.type(None)
        return made._getvalue()

    return array(array), generate


_borrowed: Final[Any] = intrinsic(_uncounted)


# Inlined, because numba cannot return a record in a tuple.
@cast("Callable[[_Function], _Function]", njit(inline="always"))
def row_of(batch: Batch, e: int) -> Row:
    """Episode ``e`` of ``batch``."""
    return Row(
        batch.episodes[e],
        _borrowed(batch.nodes[e]),
        _borrowed(batch.links[e]),
        _borrowed(batch.tasks[e]),
        _borrowed(batch.events[e]),
        _borrowed(batch.choices[e]),
        _borrowed(batch.rewards[e]),
    )
