"""Protobuf messages of values of the model, and back."""

from __future__ import annotations

from typing import Final

from testbed.model.decision import PeerState
from testbed.model.task import Task
from testbed.rpc.generated import edge_pb2 as pb

ALIVE_SERVICE: Final = "edge_testbed.alive"
"""Name under which a node's health service says that the process lives; the empty name says
whether it is in contact with its controller."""


def task_to_message(task: Task) -> pb.Task:
    """Return a task as a message."""
    return pb.Task(
        id=task.id,
        episode=task.episode,
        slot=task.slot,
        source=task.source,
        size_bytes=task.size_bytes,
        cycles=task.cycles,
        deadline=task.deadline,
    )


def task_from_message(message: pb.Task) -> Task:
    """Return the task of a message."""
    return Task(
        id=message.id,
        episode=message.episode,
        slot=message.slot,
        source=message.source,
        size_bytes=message.size_bytes,
        cycles=message.cycles,
        deadline=message.deadline,
    )


def state_to_message(state: PeerState) -> pb.PeerState:
    """Return a peer's state as a message."""
    return pb.PeerState(
        overloaded=state.overloaded,
        queue_length=state.queue_length,
        backlog=state.backlog,
        inbound=state.inbound,
        at=state.at,
        inbound_work=state.inbound_work,
    )


def state_from_message(message: pb.PeerState) -> PeerState:
    """Return the peer's state of a message."""
    return PeerState(
        overloaded=message.overloaded,
        queue_length=message.queue_length,
        backlog=message.backlog,
        inbound=message.inbound,
        at=message.at,
        inbound_work=message.inbound_work,
    )
