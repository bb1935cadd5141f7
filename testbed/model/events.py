"""Events a node is driven by, the effects it answers with, and the records it leaves.

``NodeState.handle(event, now)`` takes one event and returns effects for the driver to carry out.
Instants are microseconds since the start of the episode on the node's own clock. Everything here is
immutable. Tuples with names are used instead of frozen dataclasses because the simulator makes
dozens of them per task and they are several times cheaper to create.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from testbed.model.decision import Answer, Observation, PeerState
from testbed.model.faults.scene import Conditions
from testbed.model.hook import PLACE
from testbed.model.task import Outcome, Task
from testbed.model.units import Micros

# --- events -------------------------------------------------------------------------------------


class TaskArrived(NamedTuple):
    """A task was generated at this node."""

    task: Task


class SlotIdle(NamedTuple):
    """A slot began without a task for this node; recorded so that logs hold every slot."""

    episode: int
    slot: int


class PeersAnswered(NamedTuple):
    """Answers to the current ``AskPeers`` of a task, in order of arrival."""

    task_id: int
    round: int
    answers: tuple[Answer, ...]


class PeersSilent(NamedTuple):
    """These peers will not answer (unreachable), or the time to answer is over (all the rest)."""

    task_id: int
    round: int
    peers: tuple[int, ...] | None = None


class TransferAnnounced(NamedTuple):
    """A peer began to send a task to this node."""

    task: Task
    sender: int


class TransferWithdrawn(NamedTuple):
    """An announced task will not come: it failed or was dropped on its way."""

    task_id: int
    sender: int


class TransferArrived(NamedTuple):
    """The last byte of a task is here; from now on this node holds the task.

    ``elapsed`` is the time since the task was generated, measured by its origin up to hand-over.
    ``seq`` is the number of records its origin made of it.
    """

    task: Task
    sender: int
    elapsed: Micros
    seq: int


class TransmissionEnded(NamedTuple):
    """The transmission on the link to ``peer`` is over: complete, or failed at the drawn time.

    ``revision`` is that of the effect that set the instant; an instant that was moved since counts
    no more.
    """

    peer: int
    task_id: int
    failed: bool = False
    revision: int = 0


class TransmissionBroken(NamedTuple):
    """The peer or the connection died; an infrastructure failure, never a simulated one.

    ``handed_over`` is True when the peer may have taken the task over before it died.
    """

    peer: int
    task_id: int
    handed_over: bool = False


class ExecutionEnded(NamedTuple):
    """The running task is over: complete, or failed at the drawn time. As TransmissionEnded."""

    task_id: int
    failed: bool = False
    revision: int = 0


class ExecutionBroken(NamedTuple):
    """The application raised or died; an infrastructure failure, never a simulated one.

    ``reason`` names what failed and where, for the record of the task's end.
    """

    task_id: int
    reason: str = ""


class DecisionBroken(NamedTuple):
    """The scheduler failed at this task; a defect of the scheduler, never a simulated outcome.

    ``reason`` names what failed and where, for the record of the task's end.
    """

    task_id: int
    reason: str = ""


class DeadlinePassed(NamedTuple):
    """The deadline timer of a task rang."""

    task_id: int


class ConditionsChanged(NamedTuple):
    """A fault begins or ends: from now on the node and the links from it are like this."""

    conditions: Conditions


class DecisionDue(NamedTuple):
    """The node decides what it has put off: its turn in the slot has come, or it hangs no more."""

    task_id: int


class GossipDue(NamedTuple):
    """It is time to tell all peers the state of this node."""


class StateHeard(NamedTuple):
    """A peer has told its state, unasked."""

    peer: int
    state: PeerState


class TransmissionRefused(NamedTuple):
    """The peer is down and did not take the task over: it is sent again from its beginning."""

    peer: int
    task_id: int


Event: TypeAlias = (
    TaskArrived
    | SlotIdle
    | PeersAnswered
    | PeersSilent
    | TransferAnnounced
    | TransferWithdrawn
    | TransferArrived
    | TransmissionEnded
    | TransmissionBroken
    | ExecutionEnded
    | ExecutionBroken
    | DecisionBroken
    | DeadlinePassed
    | ConditionsChanged
    | DecisionDue
    | TransmissionRefused
    | GossipDue
    | StateHeard
)

# --- effects ------------------------------------------------------------------------------------


class AskPeers(NamedTuple):
    """Send a probe to each of ``peers``; answer with ``PeersAnswered``/``PeersSilent``.

    ``bits_only`` and ``states_of`` are those of the ``Ask``.

    The driver must end every question: after ``Rules.probe_timeout`` at the latest, with
    ``PeersSilent(peers=None)``. Answers for a round that is over are ignored by the node.
    """

    task_id: int
    round: int
    peers: tuple[int, ...]
    bits_only: bool
    states_of: tuple[int, ...] = ()

    def bit_only(self, peer: int) -> bool:
        """Return whether ``peer`` is asked for its overload bit alone."""
        return self.bits_only and peer not in self.states_of


class TellPeers(NamedTuple):
    """Deliver ``StateHeard`` to every peer: the state of this node, unasked."""

    state: PeerState


class SetDeadline(NamedTuple):
    """Deliver ``DeadlinePassed`` at ``at``. Never cancelled: a stale ring is ignored."""

    at: Micros
    task_id: int


class StartTransmission(NamedTuple):
    """Send the task's bytes to ``peer`` for ``duration``; answer with ``TransmissionEnded``.

    ``fails_after`` is the drawn instant of failure counted from now, None if it does not fail: then
    stop there and say so with ``failed=True``. The transmission began at ``started``. ``duration``
    is ``NEVER`` on a link on which nothing moves.
    """

    peer: int
    task: Task
    started: Micros
    duration: Micros
    fails_after: Micros | None


class ChangeTransmission(NamedTuple):
    """The end of the transmission to ``peer`` moves: ``duration`` is left from ``at`` on.

    As StartTransmission; the answer carries ``revision``. ``sent_bytes`` of the task are through;
    with ``restart`` the receiver has lost them and they are sent again.
    """

    peer: int
    task: Task
    at: Micros
    duration: Micros
    fails_after: Micros | None
    revision: int
    sent_bytes: int
    restart: bool


class AnnounceTransfer(NamedTuple):
    """Announce to ``peer`` that ``task`` is on its way (control message)."""

    peer: int
    task: Task


class WithdrawTransfer(NamedTuple):
    """Stop sending the task, if it is still being sent, and tell ``peer`` that it will not come.

    ``tell`` False: send nothing to the peer now; it hears later, or never knew of the task.
    """

    peer: int
    task_id: int
    tell: bool = True


class HandOver(NamedTuple):
    """Deliver ``TransferArrived`` to ``peer``; the bytes are there, the peer holds the task now."""

    peer: int
    task: Task
    elapsed: Micros
    seq: int


class StartExecution(NamedTuple):
    """Execute the task for ``duration``; answer with ``ExecutionEnded``. As StartTransmission."""

    task: Task
    started: Micros
    duration: Micros
    fails_after: Micros | None


class ChangeExecution(NamedTuple):
    """The end of the execution moves; as ChangeTransmission."""

    task: Task
    at: Micros
    duration: Micros
    fails_after: Micros | None
    revision: int


class StopExecution(NamedTuple):
    """Stop executing the task: its deadline passed, or its node was killed by a fault."""

    task_id: int


class AwaitTurn(NamedTuple):
    """Deliver ``DecisionDue`` at ``at``, the node's turn in the slot (``Rules.stagger``)."""

    at: Micros
    task_id: int


class ResumeDecision(NamedTuple):
    """Answer with ``DecisionDue`` at the same instant."""

    task_id: int


# --- records (what is logged) -------------------------------------------------------------------


class RecordKind(StrEnum):
    """One event in the life of a task; a task's history is its records in order of ``seq``."""

    GENERATED = "generated"
    DECIDED = "decided"
    TRANSMISSION_STARTED = "transmission_started"
    SENT = "sent"
    RECEIVED = "received"
    ADMITTED = "admitted"
    EXECUTION_STARTED = "execution_started"
    ENDED = "ended"


class Record(NamedTuple):
    """One step in the life of a task, appended to the log and never changed.

    ``at`` is the node's model clock; ``clock`` is what its real clock said when the driver wrote
    the record (equal to ``at`` in the simulator; the driver sets it). ``seq`` numbers the
    records of a task across the nodes that held it. ``data`` by kind (durations in microseconds):

    * decided: ``destination``; ``late``, on a real network with an order within slots: how long
      after its turn the node began to decide
    * transmission_started: ``peer``, ``nominal``
    * sent: ``peer``
    * received: ``sender``, ``elapsed`` (since generated, at hand-over)
    * admitted: no data; the task entered the execution queue
    * execution_started: ``nominal``
    * ended: ``outcome``, ``elapsed`` (since generated), ``stage`` (where it was: deciding, sending,
      transmission, receiving, waiting, execution); ``reason`` where a user's own code failed;
      ``fault`` (``node-down``) if a fault of the scenario took the task with its node
    """

    kind: RecordKind
    task: Task
    seq: int
    node: int
    at: Micros
    clock: Micros
    data: Mapping[str, int | str]


class DecisionRecord(NamedTuple):
    """A decision where a task is executed, with everything it was made from.

    ``task_id`` is None for a slot without a task.

    ``destination`` is None if nothing was decided: no task, or it ended before the decision.
    """

    task_id: int | None
    node: int
    episode: int
    slot: int
    at: Micros
    scheduler: str
    observation: Observation
    destination: int | None
    probabilities: tuple[float, ...] | None
    mask: tuple[bool, ...] | None

    @property
    def hook(self) -> str:
        """Name of its hook."""
        return PLACE

    @property
    def number(self) -> int:
        """Number of the decision at its node: that of the slot."""
        return self.slot


Effect: TypeAlias = (
    AskPeers
    | TellPeers
    | SetDeadline
    | StartTransmission
    | AnnounceTransfer
    | WithdrawTransfer
    | HandOver
    | ChangeTransmission
    | StartExecution
    | ChangeExecution
    | StopExecution
    | AwaitTurn
    | ResumeDecision
    | Record
    | DecisionRecord
)

__all__ = [
    "AnnounceTransfer",
    "AskPeers",
    "AwaitTurn",
    "ChangeExecution",
    "ChangeTransmission",
    "ConditionsChanged",
    "DeadlinePassed",
    "DecisionBroken",
    "DecisionDue",
    "DecisionRecord",
    "Effect",
    "Event",
    "ExecutionBroken",
    "ExecutionEnded",
    "GossipDue",
    "HandOver",
    "Outcome",
    "PeersAnswered",
    "PeersSilent",
    "Record",
    "RecordKind",
    "ResumeDecision",
    "SetDeadline",
    "SlotIdle",
    "StartExecution",
    "StartTransmission",
    "StateHeard",
    "StopExecution",
    "TaskArrived",
    "TellPeers",
    "TransferAnnounced",
    "TransferArrived",
    "TransferWithdrawn",
    "TransmissionBroken",
    "TransmissionEnded",
    "TransmissionRefused",
    "WithdrawTransfer",
]
