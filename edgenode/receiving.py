"""The receiving side of a link between nodes, whatever carries it.

What a peer says is checked here: it speaks for itself alone, and of tasks of its own. Then it goes
to the driver of the current episode; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from edgenode.driver import EpisodeDriver
from edgenode.faulting import DOWN
from edgenode.payload import BLOCK_BYTES
from edgenode.seam import NodeDriver
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.messages import state_from_message, task_from_message


class HasDriver(Protocol):
    """Where the episode that is running is found."""

    @property
    def driver(self) -> NodeDriver | None: ...


class Refused(Exception):
    """A frame that cannot be what it says; it ends the stream. ``denied``: of somebody else."""

    def __init__(self, reason: str, *, denied: bool = False) -> None:
        super().__init__(reason)
        self.denied = denied


class Inflow:
    """The transfer frames that ``node`` gets from the node ``sender`` over one stream.

    ``sender`` is who the carrier knows at the other end. ``taken`` is called with the answer to
    each hand-over: at once, or when an episode that the sender has begun earlier begins here.
    """

    def __init__(
        self, node: HasDriver, sender: int, taken: Callable[[pb.HandOverTaken], None]
    ) -> None:
        self._node = node
        self._sender = sender
        self._taken = taken
        self._announced: dict[int, EpisodeDriver] = {}
        self._ends = 0

    def frame(self, frame: pb.TransferFrame) -> None:
        """Take a frame.

        Raises: Refused: it is not the peer's, or about a task that cannot be.
        """
        kind = frame.WhichOneof("frame")
        sender = self._sender
        if frame.sender != sender:
            raise Refused(f"node {sender} may not act for {frame.sender}", denied=True)
        if kind == "chunk":
            # Read once: every reading copies it.
            self.chunk(frame.episode, frame.chunk.task_id, frame.chunk.data)
            return
        driver = self._driver(frame.episode)
        if driver is None:
            if kind == "hand_over":
                reason = f"episode {frame.episode} is not running here"
                self._taken(pb.HandOverTaken(task_id=frame.hand_over.task.id, reason=reason))
            return
        _check_task(frame, kind, sender)
        if (
            kind == "state"
            and min(
                frame.state.queue_length,
                frame.state.backlog,
                frame.state.inbound,
                frame.state.inbound_work,
            )
            < 0
        ):
            raise Refused(f"a state of node {sender} that cannot be")
        if driver.begun:
            self._handle(driver, kind, frame)
        else:
            self._when_begun(driver, partial(self._handle, driver, kind, frame))

    def _handle(self, driver: EpisodeDriver, kind: str | None, frame: pb.TransferFrame) -> None:
        sender = self._sender
        if kind == "announce":
            task = task_from_message(frame.announce.task)
            # A task that is sent again comes whole.
            driver.inbox.discard(sender, task.id)
            # Not of an earlier run, whose tasks had the same numbers.
            if self._announced.get(task.id) is not driver:
                self._announced[task.id] = driver
                driver.announced(sender, task)
        elif kind == "withdraw":
            if self._announced.pop(frame.withdraw.task_id, None) is driver:
                driver.withdrawn(sender, frame.withdraw.task_id)
        elif kind == "state":
            driver.told(sender, state_from_message(frame.state))
        elif kind == "hand_over":
            offer = frame.hand_over
            refused = driver.handed_over(
                sender,
                task_from_message(offer.task),
                offer.elapsed,
                offer.seq,
                offer.payload_bytes,
            )
            if refused is None:
                self._announced.pop(offer.task.id, None)
            self._taken(
                pb.HandOverTaken(
                    task_id=offer.task.id,
                    accepted=refused is None,
                    reason=refused or "",
                    down=refused == DOWN,
                )
            )

    def chunk(self, episode: int, task_id: int, data: bytes) -> None:
        """Take the next bytes of a task; none of another episode.

        Raises: Refused: they are too many.
        """
        driver = self._driver(episode)
        if driver is None:
            return
        if len(data) > BLOCK_BYTES:
            raise Refused(f"a chunk of {len(data)} bytes; at most {BLOCK_BYTES} are taken")
        if driver.begun:
            driver.inbox.add(self._sender, task_id, data)
        else:
            self._when_begun(driver, partial(driver.inbox.add, self._sender, task_id, data))

    def end(self) -> None:
        """The stream has ended: the tasks that were announced on it will not come."""
        self._ends += 1
        announced, self._announced = self._announced, {}
        for task_id, driver in announced.items():
            driver.withdrawn(self._sender, task_id)

    def _when_begun(self, driver: EpisodeDriver, work: Callable[[], None]) -> None:
        """Do ``work`` when the episode begins, unless the stream has ended by then."""
        ends = self._ends

        def work_if_current() -> None:
            if self._ends == ends:
                work()

        driver.when_begun(work_if_current)

    def _driver(self, episode: int) -> EpisodeDriver | None:
        driver, sender = self._node.driver, self._sender
        if not isinstance(driver, EpisodeDriver) or driver.episode != episode:
            return None
        size = driver.plan.topology.size
        if sender >= size or sender == driver.node:
            raise Refused(
                f"node {sender} is not a peer of node {driver.node} in a network of {size}"
            )
        return driver


def answer(
    node: HasDriver,
    sender: int,
    request: pb.ProbeRequest,
    reply: Callable[[pb.ProbeReply], None],
) -> None:
    """Call ``reply`` with what is true when a question arrives; not for one of another episode.

    That is at once, or when an episode that the sender has begun earlier begins here.

    Raises: Refused: it is not of ``sender``.
    """
    if request.sender != sender:
        raise Refused(f"node {sender} may not act for {request.sender}", denied=True)
    driver = node.driver
    if not isinstance(driver, EpisodeDriver) or driver.episode != request.episode:
        return
    if driver.begun:
        _answer(driver, request, reply)
    else:
        driver.when_begun(partial(_answer, driver, request, reply))


def _answer(
    driver: EpisodeDriver, request: pb.ProbeRequest, reply: Callable[[pb.ProbeReply], None]
) -> None:
    answered = driver.answer(request)
    if answered is not None:
        reply(answered)


def _check_task(frame: pb.TransferFrame, kind: str | None, sender: int) -> None:
    """Raise if this frame is about a task that the sender cannot have."""
    if kind not in ("announce", "hand_over"):
        return
    task = frame.announce.task if kind == "announce" else frame.hand_over.task
    least = min(task.slot, task.size_bytes, task.cycles, task.deadline)
    if task.source != sender or task.episode != frame.episode or least < 0:
        raise Refused(f"task {task.id} cannot come from node {sender}")
    if kind == "hand_over" and frame.hand_over.elapsed < 0:
        raise Refused(f"task {task.id} was handed over before it arrived")
