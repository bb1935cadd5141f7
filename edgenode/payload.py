"""The bytes of tasks: made by the sender, checked by the receiver, kept as long as they are needed.

A task's payload is one pseudo-random block, the same on every node, repeated from an offset drawn
from the task. So every byte that crosses a link is real and can be checked where it arrives, and
making it costs no more than a copy.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Final

from testbed.model.draws import Purpose, key
from testbed.model.task import Task

BLOCK_BYTES: Final = 1 << 20
"""Size of the repeated block, and the largest chunk."""


@cache
def _block() -> bytes:
    return random.Random(Purpose.PAYLOAD).randbytes(BLOCK_BYTES)


def payload_slice(task_id: int, position: int, length: int) -> bytes:
    """``length`` bytes (at most ``BLOCK_BYTES``) of the task's payload from ``position``."""
    block = _block()
    start = (key(Purpose.PAYLOAD, task_id) + position) % BLOCK_BYTES
    data = block[start : start + length]
    return data if len(data) == length else data + block[: length - len(data)]


def payload_views(task_id: int, position: int, length: int) -> tuple[memoryview, ...]:
    """Return the same bytes as ``payload_slice``, in one or two parts that are not copied."""
    view = _view()
    start = (key(Purpose.PAYLOAD, task_id) + position) % BLOCK_BYTES
    end = start + length
    if end <= BLOCK_BYTES:
        return (view[start:end],)
    return view[start:], view[: end - BLOCK_BYTES]


@cache
def _view() -> memoryview:
    return memoryview(_block())


def payload_of(task: Task) -> bytes:
    """Return the whole payload of a task, ``size_bytes`` long."""
    return b"".join(
        payload_slice(task.id, position, min(BLOCK_BYTES, task.size_bytes - position))
        for position in range(0, task.size_bytes, BLOCK_BYTES)
    )


def _is_slice(offset: int, data: bytes) -> bool:
    """Return whether the repeated block has ``data`` at ``offset``."""
    if len(data) > BLOCK_BYTES:
        return False
    block, start = _block(), offset % BLOCK_BYTES
    # Compares in place: no copy of the block is made.
    first = BLOCK_BYTES - start
    if len(data) <= first:
        return block.startswith(data, start)
    return data.startswith(block[start:]) and block.startswith(data[first:])


class _Arriving:
    __slots__ = ("chunks", "intact", "received", "start")

    def __init__(self, task_id: int) -> None:
        self.start = key(Purpose.PAYLOAD, task_id)
        self.received = 0
        self.intact = True
        self.chunks: list[bytes] = []


class Inbox:
    """Payloads: the received parts of tasks in transmission, and those of tasks held here.

    With ``keep`` False (an application that does not read payloads) bytes are checked on arrival
    and let go, so a node's memory does not grow with its queues.
    """

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep
        self._arriving: dict[tuple[int, int], _Arriving] = {}
        self._held: dict[int, list[bytes]] = {}

    def add(self, sender: int, task_id: int, data: bytes) -> None:
        """Take the next bytes of a task from ``sender``."""
        arriving = self._arriving.get((sender, task_id))
        if arriving is None:
            arriving = self._arriving[sender, task_id] = _Arriving(task_id)
        if arriving.intact:
            arriving.intact = _is_slice(arriving.start + arriving.received, data)
        arriving.received += len(data)
        if self._keep and arriving.intact:
            arriving.chunks.append(data)
        elif not arriving.intact:
            # Nobody will read it, so it takes no memory.
            arriving.chunks.clear()

    def discard(self, sender: int, task_id: int) -> None:
        """Throw away what arrived of a task that will not come."""
        self._arriving.pop((sender, task_id), None)

    def forget(self) -> None:
        """Throw away everything: the node was killed by a fault."""
        self._arriving.clear()
        self._held.clear()

    def complete(self, sender: int, task: Task, payload_bytes: int) -> str | None:
        """Close a task's transmission; what is wrong with its bytes, None if nothing is.

        ``payload_bytes`` is what the sender says it sent: the task's size, or 0 for metadata.
        """
        arriving = self._arriving.pop((sender, task.id), None) or _Arriving(task.id)
        if arriving.received != payload_bytes or payload_bytes not in (0, task.size_bytes):
            return (
                f"{arriving.received} bytes arrived, {payload_bytes} were sent, "
                f"{task.size_bytes} is the task's size"
            )
        if not arriving.intact:
            return f"the bytes of task {task.id} are not those that were sent"
        if self._keep:
            self._held[task.id] = arriving.chunks
        return None

    def take(self, task_id: int) -> bytes | None:
        """Return the payload of a received task; None if it was not received or not kept."""
        chunks = self._held.pop(task_id, None)
        return None if chunks is None else b"".join(chunks)

    def drop(self, task_id: int) -> None:
        """Discard the payload of a task that ended."""
        self._held.pop(task_id, None)
