"""Drives the model of one node through one episode in real time.

The driver turns what the network and the clock say into events of ``NodeState`` and carries out its
effects: bytes on links, probes, executions, timers, records. It decides nothing. Events of timers
are handed in at the instant they were set for, so lateness does not add up; each record's ``clock``
is what the real clock said. ``edgenode.servicers`` calls it, ``edgenode.links`` is the next stage.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from edgenode.applications.seam import Application
from edgenode.arrivals import Arrivals
from edgenode.background import Background
from edgenode.clock import Urgency
from edgenode.complaints import Complaints
from edgenode.executing import Executing
from edgenode.faulting import DOWN, Faulting
from edgenode.gossiping import Gossiping
from edgenode.links import PeerLink
from edgenode.payload import Inbox
from edgenode.probing import Probing
from edgenode.realtime import RealTimeEpisode
from edgenode.transmitting import Transmitting
from testbed.model.decision import PeerState, Scheduler
from testbed.model.events import (
    AnnounceTransfer,
    AskPeers,
    AwaitTurn,
    ChangeExecution,
    ChangeTransmission,
    ConditionsChanged,
    DeadlinePassed,
    DecisionBroken,
    DecisionDue,
    DecisionRecord,
    Effect,
    Event,
    HandOver,
    PeersAnswered,
    PeersSilent,
    Record,
    RecordKind,
    ResumeDecision,
    SetDeadline,
    StartExecution,
    StartTransmission,
    StateHeard,
    StopExecution,
    TaskArrived,
    TellPeers,
    TransferAnnounced,
    TransferArrived,
    TransferWithdrawn,
    WithdrawTransfer,
)
from testbed.model.faulted import FaultedNode
from testbed.model.faults import State
from testbed.model.faults.scene import Conditions
from testbed.model.hook import Decided
from testbed.model.own_code import SchedulerFailed
from testbed.model.task import Task
from testbed.model.units import Micros
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.messages import state_to_message
from testbed.scenario.plan import Plan

_logger: Final = logging.getLogger(__name__)


class EventLog(Protocol):
    """Takes what happened; keeps it until the controller has it."""

    def record(self, record: Record) -> None: ...

    def decision(self, decision: Decided) -> None: ...

    def fault(self, document: bytes) -> None: ...

    def hurry(self) -> None: ...


class EpisodeDriver(RealTimeEpisode[Event]):
    """One episode at one node, from its preparation until ``close``.

    Nothing happens before ``begin``: what peers send before waits (``when_begun``).
    """

    def __init__(
        self,
        node: int,
        plan: Plan,
        episode: int,
        scheduler: Scheduler,
        links: Mapping[int, PeerLink],
        application: Application,
        log: EventLog,
        background: Background,
        complaints: Complaints,
    ) -> None:
        super().__init__(plan.time_scale)
        self.node = node
        self.plan = plan
        self.episode = episode
        self._waiting: list[Callable[[], None]] = []
        self.state: FaultedNode = FaultedNode(
            node, plan.topology, plan.rules, plan.seeds.faults, episode, scheduler
        )
        self.inbox = Inbox(keep=application.needs_payload)
        self._log = log
        self._complaints = complaints
        self._arrived: dict[int, Micros] = {}
        self._late: dict[int, Micros] = {}
        self._events: deque[tuple[Event, Micros]] = deque()
        self._handling = False
        self._transmitting = Transmitting(self, links)
        self._probing = Probing(self, links)
        self._gossiping = Gossiping(self, links)
        self._executing = Executing(self, application, background, complaints)
        self._carry_out: dict[type, Callable[[Any], None]] = {
            Record: self._record,
            DecisionRecord: log.decision,
            SetDeadline: self._set_deadline,
            AskPeers: self._probing.ask,
            TellPeers: self._gossiping.tell,
            AnnounceTransfer: self._transmitting.announce,
            StartTransmission: self._transmitting.start,
            WithdrawTransfer: self._transmitting.withdraw,
            HandOver: self._hand_over_unasked,
            StartExecution: self._executing.start,
            StopExecution: self._executing.stop,
            ChangeExecution: self._executing.change,
            ChangeTransmission: self._transmitting.change,
            AwaitTurn: self._await_turn,
            ResumeDecision: lambda effect: self.handle(DecisionDue(effect.task_id), self.state.now),
        }
        self.faulting = Faulting(self, plan.timeline(episode), log.fault)
        self.arrivals = Arrivals(self)
        self._gossiping.follow(scheduler)

    @property
    def answers(self) -> None:
        """See ``NodeDriver``: tasks are no requests."""
        return None

    def take_arrivals(self, told: pb.Arrivals) -> pb.ArrivalsTaken:
        """See ``NodeDriver``."""
        return self.arrivals.take(told)

    @property
    def conditions(self) -> Conditions:
        """See ``Faulted``."""
        return self.state.conditions

    def change(self, conditions: Conditions, at: Micros) -> None:
        """See ``Faulted``."""
        if conditions.state is State.KILLED and self.conditions.state is not State.KILLED:
            self.inbox.forget()
        self.handle(ConditionsChanged(conditions), at)

    def begin(self, at: float | None = None) -> None:
        """Begin the episode: its clock is at 0 at the instant ``at`` on ``time.monotonic``, in
        seconds (None: now). What has waited for it is handled at once. No-op if it has begun.
        """
        if self.begun or self._closed:
            return
        self.clock.begin(at)
        self.timers.rearm()
        self._go_on()

    def when_begun(self, work: Callable[[], None]) -> None:
        """Call ``work`` when the episode has begun: now, if it has, or when it is closed.

        A peer may have begun before this node was told when; nothing it sends is lost by that.
        """
        if self.begun or self._closed:
            work()
        else:
            self._waiting.append(work)

    def _go_on(self) -> None:
        self.begun = True
        waiting, self._waiting = self._waiting, []
        for work in waiting:
            try:
                work()
            except Exception:
                _logger.exception("node %d: a message cannot be handled", self.node)

    # --- driving the model ------------------------------------------------------------------

    def handle(self, event: Event, at: Micros) -> None:
        """See ``RealTimeEpisode``."""
        if self._closed:
            return
        self._events.append((event, at))
        if self._handling:
            # An effect of the event being handled caused this one; it is next.
            return
        self._handling = True
        try:
            while self._events:
                event, at = self._events.popleft()
                for effect in self._effects_of(event, max(at, self.state.now)):
                    self._carry_out[type(effect)](effect)
        finally:
            self._handling = False

    def _effects_of(self, event: Event, at: Micros) -> list[Effect]:
        try:
            return self.state.handle(event, at)
        except SchedulerFailed as failed:
            # Somebody's own code. It costs this task, not the node.
            self._complaints.add(str(failed), failed.reason, failed)
            self._give_up_deciding(event, at, failed.reason)
        except Exception:
            _logger.exception("node %d: cannot handle %r", self.node, event)
            self._give_up_deciding(event, at, "")
        return []

    def _give_up_deciding(self, event: Event, at: Micros, reason: str) -> None:
        if isinstance(event, TaskArrived):
            self._events.appendleft((DecisionBroken(event.task.id, reason), at))
        elif isinstance(event, PeersAnswered | PeersSilent | DecisionDue):
            self._events.appendleft((DecisionBroken(event.task_id, reason), at))

    def _record(self, record: Record) -> None:
        if record.kind is RecordKind.ENDED:
            self.inbox.drop(record.task.id)
            self._executing.ended(record.task.id)
            self._late.pop(record.task.id, None)
        clock = None
        if record.kind is RecordKind.GENERATED:
            clock = self._arrived.pop(record.task.id, None)
        elif record.kind is RecordKind.DECIDED and record.task.id in self._late:
            late = self._late.pop(record.task.id)
            record = record._replace(data={**record.data, "late": late})
        self._log.record(record._replace(clock=self.clock.now() if clock is None else clock))
        if record.kind is RecordKind.ENDED and self.arrivals.finished and not self.state.held:
            # The controller may wait for nothing but this.
            self._log.hurry()

    def _set_deadline(self, effect: SetDeadline) -> None:
        event = DeadlinePassed(effect.task_id)
        self.timers.at(effect.at, Urgency.DEADLINE, lambda at: self.handle(event, at))

    def _await_turn(self, effect: AwaitTurn) -> None:
        def ring(at: Micros) -> None:
            # What a scheduler takes to decide, and its questions, are no lateness.
            self._late[effect.task_id] = max(0, self.clock.now() - at)
            self.handle(DecisionDue(effect.task_id), at)

        self.timers.at(effect.at, Urgency.ARRIVAL, ring)

    def _hand_over_unasked(self, effect: HandOver) -> None:
        _logger.error("node %d: task %d left without its receiver", self.node, effect.task.id)

    # --- what the controller and peers say --------------------------------------------------

    def arrived(self, task: Task, at: Micros) -> None:
        """Hand in a task that arrives at ``at``, the beginning of its slot."""
        # How late it is, is told apart from how long the scheduler takes to decide.
        self._arrived[task.id] = self.clock.now()
        self.handle(TaskArrived(task), at)

    def announced(self, sender: int, task: Task) -> None:
        """Note that a peer began to send a task to this node."""
        self._after_control_delay(sender, TransferAnnounced(task, sender))

    def told(self, sender: int, state: PeerState) -> None:
        """Note what a peer tells of itself, unasked."""
        self._after_control_delay(sender, StateHeard(sender, state))

    def reaches(self, peer: int) -> bool:
        """See ``Driver``."""
        return self.faulting.reaches(peer)

    def withdrawn(self, sender: int, task_id: int) -> None:
        """Note that an announced task will not come."""
        self.inbox.discard(sender, task_id)
        self._after_control_delay(sender, TransferWithdrawn(task_id, sender))

    def handed_over(
        self, sender: int, task: Task, elapsed: Micros, seq: int, payload_bytes: int
    ) -> str | None:
        """Take over a task that a peer has sent; return why not, None if this node holds it now.

        ``DOWN`` if a fault has taken this node down.
        """
        if self._closed:
            return "the episode is over"
        self.timers.ring_due()
        if self.faulting.down:
            self.inbox.discard(sender, task.id)
            return DOWN
        wrong = self.inbox.complete(sender, task, payload_bytes)
        if wrong is not None:
            return wrong
        if task.id in self.state.held:
            return f"task {task.id} is held already"
        self.happened(TransferArrived(task, sender, elapsed, seq))
        return None

    def answer(self, request: pb.ProbeRequest) -> pb.ProbeReply | None:
        """Return the present answer to a peer's probe; None if a fault keeps it away, or if the
        episode is over."""
        if self._closed:
            return None
        self.timers.ring_due()
        if not self.faulting.answers(request.sender):
            return None
        state = self.state.peer_state(self.now)
        return pb.ProbeReply(
            task_id=request.task_id,
            round=request.round,
            overloaded=state.overloaded,
            state=None if request.bits_only else state_to_message(state),
        )

    def decide_by(self, scheduler: Scheduler) -> None:
        """Have tasks that arrive from now on decided about by ``scheduler``."""
        self.state.scheduler = scheduler
        self._gossiping.follow(scheduler)

    def describe(self, into: pb.NodeDescription) -> None:
        """Enter the present state of the queues."""
        state = self.state
        into.queue_length = state.queue_length
        into.backlog = state.backlog(self.now)
        into.receiving.extend(state.receiving)
        into.sending.extend(state.sending)
        into.held = len(state.held)

    def close(self) -> int:
        """End the episode; return the number of tasks this node still held. Idempotent."""
        unfinished = 0 if self._closed else len(self.state.held)
        self.faulting.close()
        self.arrivals.close()
        self._closed = True
        self.timers.close()
        self._transmitting.close()
        self._executing.close()
        # Peers that began an episode which never began here wait for an answer.
        self._go_on()
        return unfinished

    def _after_control_delay(self, sender: int, event: Event) -> None:
        delay = self.plan.rules.delay(sender, self.node)
        if delay:
            at = self.clock.now() + delay
            self.timers.at(at, Urgency.MESSAGE, lambda at: self.handle(event, at))
        else:
            self.happened(event)
