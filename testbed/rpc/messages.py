"""Protobuf messages of values of the model, and back; and what all channels and servers share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from testbed.model.decision import PeerState
from testbed.model.task import Task
from testbed.rpc.generated import edge_pb2 as pb

_MEBIBYTE: Final = 1024 * 1024

MESSAGE_LIMIT: Final = 64 * _MEBIBYTE
"""Bytes of the largest message a server or channel takes: a chunk, or a batch of events."""

_COMMON_OPTIONS: Final[Sequence[tuple[str, int]]] = (
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    # A peer that was restarted has to be found again within a slot or two, not after minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A connection of its own for each channel: streams of different links must not queue up
    # behind each other's bytes.
    ("grpc.use_local_subchannel_pool", 1),
    # A proxy named in the environment is not for traffic between nodes.
    ("grpc.enable_http_proxy", 0),
)

CHANNEL_OPTIONS: Final[Sequence[tuple[str, int]]] = (
    *_COMMON_OPTIONS,
    # Despite its name this is how long one attempt to connect may take: one to a pod that is gone
    # is answered by nobody.
    ("grpc.min_reconnect_backoff_ms", 1000),
)
"""Options for clients."""

OPERATOR_OPTIONS: Final[Sequence[tuple[str, int]]] = (
    *_COMMON_OPTIONS,
    ("grpc.min_reconnect_backoff_ms", 10_000),
)
"""Options for clients of people, who may be far away: through an API server, a connection takes
several round trips."""

ALIVE_SERVICE: Final = "edge_testbed.alive"
"""Name under which a node's health service says that the process lives; the empty name says
whether it is in contact with its controller."""

SERVER_OPTIONS: Final[Sequence[tuple[str, int]]] = (
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    # Two servers on one port would share its connections between them instead of failing.
    ("grpc.so_reuseport", 0),
)
"""Options for servers."""


def task_to_message(task: Task) -> pb.Task:
    """A task as a message."""
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
    """The task of a message."""
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
    """A peer's state as a message."""
    return pb.PeerState(
        overloaded=state.overloaded,
        queue_length=state.queue_length,
        backlog=state.backlog,
        inbound=state.inbound,
        at=state.at,
    )


def state_from_message(message: pb.PeerState) -> PeerState:
    """The peer's state of a message."""
    return PeerState(
        overloaded=message.overloaded,
        queue_length=message.queue_length,
        backlog=message.backlog,
        inbound=message.inbound,
        at=message.at,
    )
