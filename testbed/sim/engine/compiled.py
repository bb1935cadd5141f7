"""The records that hold the state of the engine.

An episode is one record; it holds the addresses of its nodes, links and tasks and of its room to
work in, so that compiled functions take one argument and no array has to be passed on. All arrays
of a batch can be read from Python while it runs.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from testbed.sim.engine.compiling import compiled as compiled
from testbed.sim.engine.compiling import inlined as inlined

Records: TypeAlias = NDArray[np.void]
Record: TypeAlias = Any
"""One element of a record array, by reference; numpy has no static type for its fields."""

# Where a task is. ABSENT: no task arrived in this slot at this node. From RECEIVING on it is held
# by its destination.
ABSENT: Final = 0
DECIDING: Final = 1
SENDING: Final = 2
TRANSMISSION: Final = 3
RECEIVING: Final = 4
WAITING: Final = 5
EXECUTION: Final = 6
ENDED: Final = 7

# How a task ended; index into OUTCOMES.
OPEN: Final = 0
SUCCEEDED: Final = 1
DROPPED: Final = 2
TRANSMISSION_FAILED: Final = 3
EXECUTION_FAILED: Final = 4
REFUSED: Final = 5
OUTCOMES: Final = (
    *("", "succeeded", "dropped", "transmission_failed", "execution_failed"),
    "refused",
)

# Overload measures (testbed.model.topology.OverloadMeasure); limits are resolved per node.
BY_QUEUE_LENGTH: Final = 0
BY_BACKLOG: Final = 1

# Stages of the decisions of a slot; see ``slots``.
ARRIVAL: Final = 0
PROBES: Final = 1
ANSWERS: Final = 2
PROBES_AGAIN: Final = 3
ANSWERS_AGAIN: Final = 4
STAGES: Final = 5

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
        ("reject", "i8"),  # tasks may be refused
        ("queue_limit", "i8"),  # of waiting tasks per node, -1 without one
        ("control_delay", "i8"),
        ("silent", "i8"),  # the time for answers is over before any can come
        ("network", "i8"),  # its matrix in ``Batch.links``
        ("workload_seed", "u8"),
        ("faults_seed", "u8"),
        ("schedulers_seed", "u8"),
        ("execution_fates", "u8"),  # keys with the episode folded in
        ("transmission_fates", "u8"),
        ("scheduler_draws", "u8"),
        # Pending events: buckets of 2**shift microseconds in a ring; those of the present bucket
        # are in a heap.
        ("shift", "i8"),
        ("buckets", "i8"),  # a power of two
        ("bucket", "i8"),  # number of the present one
        ("near", "i8"),  # events in the heap
        ("tasks", "i8"),
        ("admissions", "i8"),
        ("ended", "i8"),
        ("succeeded", "i8"),
        ("credited", "i8"),  # the slot whose reward what ends now counts for, and its end
        ("credited_until", "i8"),
        ("turns", "i8"),  # of a slot: 1 where all nodes decide at once, else one for each node
        ("stagger", "i8"),  # between two of them
        ("offset", "i8", (STAGES,)),  # of each stage, from the beginning of the turn
        ("cursor", "i8", (STAGES,)),  # the next turn of each stage
        ("overlap", "i8"),  # turns whose decisions may be under way side by side
        ("looked", "i8"),  # the slot whose tasks have arrived for ``vector``
        ("probed", "i8"),  # random peers that are asked for their state; 0 for all that are asked
        ("gossip", "i8"),  # time from one telling of states to the next; 0: nobody tells
        ("told_next", "i8"),  # instant of the next telling
        ("sent", "i8"),  # control messages so far, and how many of them have arrived
        ("delivered", "i8"),
        ("lanes", "i8"),  # links of a node that may be busy at once
        # Addresses; 0 for what is not kept.
        ("nodes_at", "i8"),
        ("links_at", "i8"),
        ("tasks_at", "i8"),
        ("rewards_at", "i8"),
        ("choices_at", "i8"),
        ("ring_at", "i8"),
        ("near_at", "i8"),
        ("lanes_at", "i8"),
        ("probes_at", "i8"),
        ("asking_at", "i8"),
        ("messages_at", "i8"),
        ("receiving_at", "i8"),
        ("heard_at", "i8"),
        ("told_at", "i8"),
        ("steps_at", "i8"),
        ("decisions_at", "i8"),
        ("peers_at", "i8"),
        ("idle_slots", "i8"),  # decisions of slots without a task are kept too
        ("steps", "i8"),  # kept and not yet read, as are decisions and the peers they saw
        ("decisions", "i8"),
        ("peers", "i8"),
        ("first_drawn", "i8"),  # the nodes that a baseline drew for its decision, or -1
        ("second_drawn", "i8"),
        ("widest", "i8"),  # K, of the choices
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
        ("central_price", "f8"),  # per cycle, see ``testbed.model.refusal``
        ("own_price", "f8"),
        ("price", "f8", (3,)),  # see ``testbed.model.work_price``
    ]
)
NODE: Final = np.dtype(
    [
        ("capacity", "i8"),
        ("failure", "f8"),
        ("limit", "i8"),
        ("until", "i8"),  # nominal end of the running task
        ("work", "i8"),  # of the waiting tasks, microseconds
        ("running", "i4"),  # task or -1
        ("first", "i4"),  # of the execution queue
        ("last", "i4"),
        ("waiting", "i4"),
        ("busy", "i4"),  # links with a transmission
        ("inbound", "i4"),  # tasks announced and not admitted
        ("inbound_work", "i8"),  # to execute them, microseconds
        ("arrived_first", "i4"),  # of the tasks that wait for room in the execution queue
        ("arrived_last", "i4"),
        ("arrival", "f8"),
        ("cores", "i8"),
        ("draws", "u8", (4,)),  # keys of its tasks' arrival, size, complexity and deadline
        # Moving average of the overloaded share that this node has seen (per-destination-v1).
        ("trend", "f8"),
        ("trend_slot", "i8"),
    ]
)
LINK: Final = np.dtype([("rate", "i8"), ("failure", "f8")])
LANE: Final = np.dtype(
    [
        ("peer", "i4"),
        ("current", "i4"),  # task in transmission
        ("first", "i4"),  # of the sending queue
        ("last", "i4"),
        ("length", "i4"),  # waiting and in transmission
        ("padding", "i4"),
        ("until", "i8"),  # nominal end of the transmission
        ("work", "i8"),  # of the waiting tasks, microseconds
    ]
)
"""A link that transmits; a node has as many as transmit at once, in no order."""
TASK: Final = np.dtype(
    [
        ("size", "i8"),
        ("cycles", "i8"),
        ("deadline", "i8"),  # relative
        ("deadline_at", "i8"),
        ("work", "i8"),  # nominal time of what it waits for or is in
        ("event_at", "i8"),  # when what it is in ends
        ("ended_at", "i8"),
        ("ready_at", "i8"),  # came to the node that executes it, -1 if it did not
        ("started_at", "i8"),  # began to execute, -1 if it did not
        ("admission", "i4"),  # how many had come to theirs before, in this episode
        ("destination", "i4"),
        ("next", "i4"),  # behind it in the queue it is in, or -1
        (
            "event_next",
            "i4",
        ),  # behind it in its bucket: 2 m + 1 for the deadline of task m, else 2 m
        ("deadline_next", "i4"),
        ("stage", "i1"),
        ("outcome", "i1"),
        ("failing", "i1"),  # the unit that works on it will fail before the end
        ("announced", "i1"),  # see ``events``
    ]
)
EVENT: Final = np.dtype([("at", "i8"), ("order", "i8")])
PROBE: Final = np.dtype(
    [
        ("backlog", "i8"),
        ("queue_length", "i4"),
        ("inbound", "i4"),
        ("overloaded", "i4"),
        ("below", "i4"),  # nodes with a smaller index that are not overloaded
        ("free", "i4"),  # in entry k: the k-th node that is not overloaded
        ("padding", "i4"),
        ("inbound_work", "i8"),
    ]
)
"""What a node answered in a round of questions."""
MESSAGE: Final = np.dtype([("at", "i8"), ("task", "i4"), ("change", "i4")])
"""An announcement (``change`` 1) or withdrawal (-1) of a transfer, to arrive at ``at``."""
HEARD: Final = np.dtype([("backlog", "i8"), ("inbound_work", "i8"), ("at", "i8")])
"""The state of a node as another last heard it, and when that was, -1 if never."""
TOLD: Final = np.dtype(
    [("backlog", "i8"), ("inbound_work", "i8"), ("at", "i8"), ("overloaded", "i8")]
)
"""The state that a node told all others, and when that was, -1 if never."""
STEP: Final = np.dtype(
    [
        ("at", "i8"),
        ("value", "i8"),  # by kind, see ``journal``
        ("task", "i4"),
        ("node", "i4"),
        ("kind", "i4"),
        ("padding", "i4"),
    ]
)
"""One step in the life of a task."""
DECISION: Final = np.dtype(
    [
        ("at", "i8"),
        ("backlog", "i8"),
        ("slot", "i4"),
        ("node", "i4"),
        ("arrived", "i4"),  # there was a task
        ("destination", "i4"),  # -1 if nothing was decided
        ("queue_length", "i4"),
        ("asked", "i4"),  # questions that were answered before
        ("first", "i4"),  # the nodes that were drawn, or -1
        ("second", "i4"),
        ("inbound_work", "i8"),
        ("peers", "i8"),  # how many peers this and the decisions before it saw
    ]
)
PEER: Final = np.dtype(
    [
        ("node", "i4"),
        ("receiving", "i4"),
        ("sending", "i4"),
        ("padding", "i4"),
        ("send_backlog", "i8"),
        ("sending_work", "i8"),
    ]
)
"""Part of what a decision was made from: queues of its node that are not empty."""
NUMBER: Final = np.dtype([("value", "i4")])
REWARD: Final = np.dtype([("value", "f4")])
CHOICE: Final = np.dtype([("value", "f8")])


class Batch(NamedTuple):
    """E episodes side by side; all have N nodes and T slots.

    Task ``slot * N + source`` of an episode is row entry of that index. Episodes of the same plan
    share their links.
    """

    episodes: Records  # [E] EPISODE
    nodes: Records  # [E, N] NODE
    links: Records  # [P, N, N] LINK, from first to second
    tasks: Records  # [E, T * N] TASK
    choices: NDArray[np.float64]  # [P, 3, K] values of choice distributions
    rewards: NDArray[np.float32]  # [E, T] team reward by slot
    room: NDArray[np.uint8]  # [E, bytes] pending events, busy links, answers


def _element(typing: Any, record: Any, address: Any, index: Any) -> Any:
    """Return the element ``index`` of the array of records of type ``record`` at ``address``."""
    given = record.dtype

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        size = context.get_constant(types.int64, given.size)
        place = builder.add(arguments[1], builder.mul(arguments[2], size))
        return builder.inttoptr(place, context.get_value_type(given))

    return given(record, types.int64, types.int64), generate


element: Final[Any] = intrinsic(_element)


@inlined
def node_at(episode: Record, i: int) -> Record:
    """Return node ``i``."""
    return element(NODE, episode.nodes_at, i)


@inlined
def task_at(episode: Record, m: int) -> Record:
    """Return task ``m``."""
    return element(TASK, episode.tasks_at, m)


@inlined
def link_at(episode: Record, i: int, j: int) -> Record:
    """Return the link from ``i`` to ``j``."""
    return element(LINK, episode.links_at, i * episode.nodes + j)


@inlined
def receiving_at(episode: Record, j: int, i: int) -> Record:
    """Return the length of the receiving queue of ``j`` for ``i``; only where it is kept."""
    return element(NUMBER, episode.receiving_at, j * episode.nodes + i)


@inlined
def heard_at(episode: Record, i: int, j: int) -> Record:
    """Return what ``i`` last heard of ``j``; only where it is kept."""
    return element(HEARD, episode.heard_at, i * episode.nodes + j)


@inlined
def told_at(episode: Record, newest: int, j: int) -> Record:
    """Return the newest state that ``j`` told (1), or the one before it (0); where kept."""
    return element(TOLD, episode.told_at, newest * episode.nodes + j)


@inlined
def probe_at(episode: Record, turn: int, question: int, j: int) -> Record:
    """Return what node ``j`` answered to a question about the tasks of ``turn``.

    Entry N holds in ``below`` how many nodes are not overloaded.
    """
    row = (turn % episode.overlap) * 2 + question
    return element(PROBE, episode.probes_at, row * (episode.nodes + 1) + j)


@inlined
def asking_at(episode: Record, turn: int, k: int) -> Record:
    """Return the k-th node with a task of ``turn`` to be decided; entry N is their number."""
    return element(NUMBER, episode.asking_at, (turn % episode.overlap) * (episode.nodes + 1) + k)
