"""Transmissions: a task's bytes at the link's rate, its hand-over, and how each of them ends.

Chunk k of a transmission is due at ``start + k * chunk / rate`` and the hand-over at ``start +
duration``, on an absolute schedule. The task has left this node when the peer says it has taken it,
so the measured time of a transmission contains what the real network adds.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from edgenode.clock import Urgency
from edgenode.driving import Driver
from edgenode.links import PeerLink, Piece
from edgenode.payload import BLOCK_BYTES
from testbed.model.events import (
    AnnounceTransfer,
    ChangeTransmission,
    StartTransmission,
    TransmissionBroken,
    TransmissionEnded,
    TransmissionRefused,
    WithdrawTransfer,
)
from testbed.model.task import Task
from testbed.model.units import MILLISECOND, NEVER, SECOND, Micros
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.messages import task_to_message

_logger: Final = logging.getLogger(__name__)

CHUNK_TIME: Final[Micros] = 10 * MILLISECOND
"""Real time that one chunk stands for: shorter costs CPU, longer makes bursts."""

FAST_CHUNK_BYTES: Final = 250_000
"""Largest chunk of a fast link: larger ones are slower, over gRPC by a third."""

ANSWER_TIMEOUT: Final[Micros] = 2 * SECOND
"""Real time after which a peer that did not answer a hand-over is taken for dead."""


PAUSE: Final[Micros] = 250 * MILLISECOND
"""Real lateness of a timer from which on this process was paused meanwhile."""


class _Transmission:
    """A task on a link. By its present plan, byte ``done`` is due at ``since`` and the last one
    ``left`` later; ``revision`` counts the plans."""

    __slots__ = (
        "bytes_sent",
        "chunk_bytes",
        "done",
        "left",
        "offered",
        "offers",
        "revision",
        "since",
        "task",
    )

    def __init__(self, task: Task, chunk_bytes: int, since: Micros, left: Micros) -> None:
        self.task = task
        self.chunk_bytes = chunk_bytes
        self.bytes_sent = 0
        # Whether the hand-over was written: the peer may then hold the task.
        self.offered = False
        self.offers = 0
        self.revision = 0
        self.done = 0
        self.since = since
        self.left = left

    @property
    def next_due(self) -> Micros:
        """Return when the next byte is due."""
        rest = self.task.size_bytes - self.done
        return self.since + (self.bytes_sent - self.done) * self.left // max(1, rest)


class Transmitting:
    """The outgoing links of one node during one episode; one transmission at a time on each."""

    def __init__(self, driver: Driver, links: Mapping[int, PeerLink]) -> None:
        self._driver = driver
        self._links = links
        self._current: dict[int, _Transmission] = {}
        for link in links.values():
            link.on_taken = self._on_taken
            link.on_transfer_broken = self._on_broken

    def announce(self, effect: AnnounceTransfer) -> None:
        """Announce a task to the peer."""
        if effect.peer in self._links:
            self._announce(effect.peer, effect.task)

    def start(self, effect: StartTransmission) -> None:
        """Begin a transmission and see that it ends."""
        driver, task, peer = self._driver, effect.task, effect.peer
        if peer not in self._links:
            _logger.error("node %d: the address of node %d is not known", driver.node, peer)
            driver.handle(TransmissionBroken(peer, task.id), effect.started)
            return
        rate = driver.plan.topology.link_rate[driver.node][peer]
        share = int(rate * CHUNK_TIME / SECOND / driver.clock.scale)
        chunk = max(driver.plan.chunk_bytes, min(share, FAST_CHUNK_BYTES))
        transmission = _Transmission(task, min(chunk, BLOCK_BYTES), effect.started, effect.duration)
        self._current[peer] = transmission
        self._plan(peer, transmission, effect.fails_after)

    def change(self, effect: ChangeTransmission) -> None:
        """Go on with a transmission at another rate, or from its beginning."""
        transmission = self._current.get(effect.peer)
        if transmission is None or transmission.task.id != effect.task.id:
            return
        transmission.revision = effect.revision
        transmission.since, transmission.left = effect.at, effect.duration
        transmission.done = effect.sent_bytes
        if effect.restart:
            transmission.bytes_sent = 0
            if self._driver.plan.payload == "bytes":
                # Bytes of the first attempt may still be on their way; these are no part of it.
                self._announce(effect.peer, effect.task)
        # What is ahead of the plan by part of a chunk stays so.
        self._plan(effect.peer, transmission, effect.fails_after)

    def _plan(self, peer: int, transmission: _Transmission, fails_after: Micros | None) -> None:
        """Set the timers of a transmission's present plan."""
        if transmission.left >= NEVER:
            return
        timers, revision = self._driver.timers, transmission.revision
        if fails_after is not None:
            failed = TransmissionEnded(peer, transmission.task.id, True, revision)
            timers.at(
                transmission.since + fails_after,
                Urgency.TRANSMISSION,
                lambda at: self._driver.handle(failed, at),
            )
        else:
            timers.at(
                transmission.since + transmission.left,
                Urgency.TRANSMISSION,
                lambda at: self._hand_over(peer, transmission, revision, at),
            )
        if self._driver.plan.payload == "bytes":
            if transmission.bytes_sent:
                self._chunk_when_due(peer, transmission, revision)
            else:
                self._next_chunk(peer, transmission, revision)

    def withdraw(self, effect: WithdrawTransfer) -> None:
        """Stop sending a task and tell the peer that it will not come."""
        current = self._current.get(effect.peer)
        if current is not None and current.task.id == effect.task_id:
            del self._current[effect.peer]
        if not effect.tell:
            return
        # Over a broken stream there is nothing to say: the peer drops what it was announced there.
        if effect.peer in self._links and self._links[effect.peer].transfer.is_open:
            withdraw = pb.Withdraw(task_id=effect.task_id)
            self._send(effect.peer, pb.TransferFrame(withdraw=withdraw))

    def close(self) -> None:
        """Stop everything that is being sent."""
        self._current.clear()
        for link in self._links.values():
            link.detach()

    def _announce(self, peer: int, task: Task) -> None:
        self._send(peer, pb.TransferFrame(announce=pb.Announce(task=task_to_message(task))))

    def _send(self, peer: int, frame: pb.TransferFrame) -> None:
        frame.sender = self._driver.node
        frame.episode = self._driver.episode
        self._links[peer].transfer.send(lambda: frame)

    def _next_chunk(self, peer: int, transmission: _Transmission, revision: int) -> None:
        if self._current.get(peer) is not transmission or transmission.revision != revision:
            return
        task, position = transmission.task, transmission.bytes_sent
        length = min(transmission.chunk_bytes, task.size_bytes - position)
        transmission.bytes_sent += length

        piece = Piece(self._driver.node, self._driver.episode, task.id, position, length)

        def make() -> Piece | None:
            return piece if self._current.get(peer) is transmission else None

        self._links[peer].transfer.send(make)
        self._chunk_when_due(peer, transmission, revision)

    def _chunk_when_due(self, peer: int, transmission: _Transmission, revision: int) -> None:
        if transmission.bytes_sent < transmission.task.size_bytes:
            self._driver.timers.at(
                transmission.next_due,
                Urgency.MESSAGE,
                lambda _: self._next_chunk(peer, transmission, revision),
            )

    def _hand_over(self, peer: int, transmission: _Transmission, revision: int, at: Micros) -> None:
        if self._current.get(peer) is not transmission or transmission.revision != revision:
            return
        driver, stream = self._driver, self._links[peer].transfer
        on_time = stream.idle

        def make() -> pb.TransferFrame | None:
            if self._current.get(peer) is not transmission or transmission.revision != revision:
                return None
            # Bytes that the network could not take in time make the hand-over late.
            now = max(at if on_time else driver.clock.now(), driver.state.now)
            effect = driver.state.hand_over(peer, transmission.task.id, now)
            if effect is None:
                return None
            transmission.offered = True
            return pb.TransferFrame(
                sender=driver.node,
                episode=driver.episode,
                hand_over=pb.HandOver(
                    task=task_to_message(effect.task),
                    elapsed=effect.elapsed,
                    seq=effect.seq,
                    payload_bytes=transmission.bytes_sent,
                ),
            )

        if on_time:
            # From here on the task's deadline is the receiver's business.
            frame = make()
            if frame is not None:
                stream.send(lambda: frame)
        else:
            stream.send(make)
        transmission.offers += 1
        offer = transmission.offers
        driver.timers.at(
            driver.clock.now() + driver.clock.emulated(ANSWER_TIMEOUT),
            Urgency.DEADLINE,
            lambda at: self._no_answer(peer, transmission, offer, at),
        )

    def _on_taken(self, peer: int, reply: pb.HandOverTaken) -> None:
        transmission = self._current.get(peer)
        if transmission is None or transmission.task.id != reply.task_id:
            return
        if reply.accepted:
            del self._current[peer]
            self._driver.happened(TransmissionEnded(peer, reply.task_id))
        elif reply.down:
            # Its fault begins a moment before ours; so does its end.
            transmission.offered = False
            transmission.offers += 1
            self._driver.happened(TransmissionRefused(peer, reply.task_id))
        else:
            _logger.error(
                "node %d: node %d refused task %d: %s",
                self._driver.node,
                peer,
                reply.task_id,
                reply.reason,
            )
            self._driver.happened(TransmissionBroken(peer, reply.task_id))

    def _no_answer(self, peer: int, transmission: _Transmission, offer: int, at: Micros) -> None:
        if self._current.get(peer) is not transmission or transmission.offers != offer:
            return
        driver = self._driver
        late = driver.clock.now() - at
        if late > driver.clock.emulated(PAUSE):
            # This node was paused, not its peer: the answer may lie in a socket here.
            driver.timers.at(
                driver.clock.now() + driver.clock.emulated(ANSWER_TIMEOUT),
                Urgency.DEADLINE,
                lambda at: self._no_answer(peer, transmission, offer, at),
            )
            return
        self._links[peer].transfer.close()
        _logger.error("node %d: no answer from node %d", self._driver.node, peer)
        self._broken(peer, transmission)

    def _on_broken(self, peer: int, reason: str) -> None:
        transmission = self._current.get(peer)
        if transmission is not None:
            _logger.error(
                "node %d: transmission of task %d to node %d broke: %s",
                self._driver.node,
                transmission.task.id,
                peer,
                reason,
            )
            self._broken(peer, transmission)

    def _broken(self, peer: int, transmission: _Transmission) -> None:
        del self._current[peer]
        self._driver.happened(
            TransmissionBroken(peer, transmission.task.id, handed_over=transmission.offered)
        )
