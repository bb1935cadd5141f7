"""A node with faults: ``NodeState`` under conditions that change while it works.

``ConditionsChanged`` says what faults make of the node and of the links from it; docs/faults.md
says what that means for every task. A node that hangs keeps what it has and decides nothing; one
that is killed loses it; over a link that is cut nothing moves, and the peer is told nothing. A node
knows how much of its work is left and reckons with the configured rates: faults are not announced.
"""

from __future__ import annotations

from typing import Final

from testbed.model.decision import PeerState, Scheduler
from testbed.model.draws import extend, to_unit
from testbed.model.events import (
    AnnounceTransfer,
    ChangeExecution,
    ChangeTransmission,
    ConditionsChanged,
    DecisionDue,
    ExecutionEnded,
    GossipDue,
    ResumeDecision,
    StartExecution,
    StartTransmission,
    StateHeard,
    StopExecution,
    TransferAnnounced,
    TransferArrived,
    TransmissionEnded,
    TransmissionRefused,
    WithdrawTransfer,
)
from testbed.model.faults.scene import FULL, NORMAL, NORMAL_LINK, Conditions, LinkConditions, State
from testbed.model.node import NodeState, Stage, _Held
from testbed.model.progress import WorkProgress
from testbed.model.task import Outcome, Task
from testbed.model.topology import Rules, Topology
from testbed.model.units import Micros

CAUSE: Final = "node-down"
"""``fault`` in the record of a task that was lost because its node was killed by a fault."""


class FaultedNode(NodeState):
    """As ``NodeState``; takes ``ConditionsChanged`` and moves the ends of what is under way.

    Without a change it behaves as ``NodeState`` does, to the microsecond.
    """

    def __init__(
        self,
        node: int,
        topology: Topology,
        rules: Rules,
        faults_seed: int,
        episode: int,
        scheduler: Scheduler,
    ) -> None:
        super().__init__(node, topology, rules, faults_seed, episode, scheduler)
        self._conditions = NORMAL
        self._execution_progress: WorkProgress | None = None
        self._link_progress: list[WorkProgress | None] = [None] * self._size
        # Whether the peer knows of the task in transmission, and what it has yet to be told.
        self._told = [False] * self._size
        self._to_withdraw: dict[int, list[int]] = {}
        # What waits for a node that hangs.
        self._undecided: dict[int, _Held] = {}
        self._ended_meanwhile: ExecutionEnded | None = None
        self._handlers[ConditionsChanged] = self._on_conditions_changed
        self._handlers[TransmissionRefused] = self._on_transmission_refused

    @property
    def conditions(self) -> Conditions:
        """Return what faults make of this node at present."""
        return self._conditions

    # --- conditions -------------------------------------------------------------------------

    def _on_conditions_changed(self, event: ConditionsChanged, now: Micros) -> None:
        before, self._conditions = self._conditions, event.conditions
        state = event.conditions.state
        if state is State.KILLED and before.state is not State.KILLED:
            self._lose_all(now)
        self._change_execution(now)
        for peer in sorted(self._busy_links | set(self._to_withdraw)):
            self._change_link(peer, before.links.get(peer, NORMAL_LINK), now)
        if state is State.UP and before.state is State.HUNG:
            self._wake()

    def _change_execution(self, now: Micros) -> None:
        held, progress = self._running, self._execution_progress
        if held is None or progress is None:
            return
        self._running_until = now + progress.left(now)
        if progress.change(now, *self._execution_rates()):
            effect = ChangeExecution(held.task, now, *progress.plan(), progress.revision)
            self._effects.append(effect)

    def _change_link(self, peer: int, before: LinkConditions, now: Micros) -> None:
        link = self._conditions.links.get(peer, NORMAL_LINK)
        held, progress = self._transmitting[peer], self._link_progress[peer]
        if link.restart and not before.restart:
            # It has lost what it was told, and what it had received.
            self._told[peer] = False
            self._to_withdraw.pop(peer, None)
        if link.rate:
            for task_id in self._to_withdraw.pop(peer, ()):
                self._effects.append(WithdrawTransfer(peer, task_id))
            if held is not None and not self._told[peer]:
                self._told[peer] = True
                self._effects.append(AnnounceTransfer(peer, held.task))
        if held is not None and progress is not None and held.stage is Stage.TRANSMISSION:
            self._transmitting_until[peer] = now + progress.left(now)
            restart = link.restart and not before.restart
            if restart:
                progress.restart(now)
            if progress.change(now, *self._link_rates(peer)) or restart:
                self._effects.append(
                    ChangeTransmission(
                        peer,
                        held.task,
                        now,
                        *progress.plan(),
                        progress.revision,
                        progress.done(held.task.size_bytes),
                        restart,
                    )
                )

    def _wake(self) -> None:
        self._effects.extend(ResumeDecision(task_id) for task_id in self._undecided)
        ended, self._ended_meanwhile = self._ended_meanwhile, None
        if ended is not None:
            self._on_execution_ended(ended, self.now)
        self._start_next(self.now)
        self._admit(self.now)

    def _execution_rates(self) -> tuple[int, float]:
        conditions = self._conditions
        rate = conditions.execution_rate if conditions.state is State.UP else 0
        return rate, self._failure_rate + conditions.execution_failures

    def _link_rates(self, peer: int) -> tuple[int, float]:
        link = self._conditions.links.get(peer, NORMAL_LINK)
        return link.rate, self._link_failure_rate[peer] + link.failures

    def _lose_all(self, now: Micros) -> None:
        """The node is killed: all it holds is lost, and all it was told of is forgotten.

        What a peer is just taking over is the exception: the peer tells what becomes of it.
        """
        for held in list(self._held.values()):
            if held.stage is Stage.EXECUTION:
                self._effects.append(StopExecution(held.task.id))
            elif held.stage is Stage.TRANSMISSION:
                # The connection breaks, so the peer knows.
                self._effects.append(WithdrawTransfer(held.peer, held.task.id))
            if held.stage is not Stage.HANDING_OVER:
                self._record_end(held, Outcome.LOST, now, {"fault": CAUSE})
        for peer, withdrawn in self._to_withdraw.items():
            self._effects.extend(WithdrawTransfer(peer, task_id) for task_id in withdrawn)
        self._to_withdraw.clear()
        self._undecided.clear()
        self._ended_meanwhile = None
        self._execution.clear()
        self._unadmitted.clear()
        self._running, self._execution_progress = None, None
        self._running_until = self._waiting_work = 0
        for peer in list(self._busy_links):
            self._sending[peer].clear()
            self._sending_work[peer] = 0
            transmitting = self._transmitting[peer]
            handing_over = transmitting is not None and transmitting.stage is Stage.HANDING_OVER
            self._sending_length[peer] = int(handing_over)
            if not handing_over:
                self._transmitting[peer] = None
                self._transmitting_until[peer] = 0
                self._busy_links.remove(peer)
        self._announced.clear()
        self._arrived_unannounced.clear()
        self._receiving = [0] * self._size
        self._inbound = 0
        self._inbound_work = 0
        self._known = (None,) * self._size

    # --- gossip -----------------------------------------------------------------------------

    def _on_gossip_due(self, event: GossipDue, now: Micros) -> None:
        if self._conditions.state is State.UP:
            super()._on_gossip_due(event, now)

    def _on_state_heard(self, event: StateHeard, now: Micros) -> None:
        if self._conditions.state is State.UP:
            super()._on_state_heard(event, now)

    # --- decisions --------------------------------------------------------------------------

    def _decide(self, held: _Held, now: Micros) -> None:
        state = self._conditions.state
        if state is State.UP:
            super()._decide(held, now)
        elif state is State.HUNG:
            self._undecided[held.task.id] = held
        else:
            self._record_end(held, Outcome.LOST, now, {"fault": CAUSE})

    def _on_decision_due(self, event: DecisionDue, now: Micros) -> None:
        if event.task_id not in self._undecided:
            super()._on_decision_due(event, now)
            return
        if self._conditions.state is not State.UP:
            return
        held = self._undecided.pop(event.task_id)
        if self._held.get(event.task_id) is held:
            self._decide(held, now)

    # --- links ------------------------------------------------------------------------------

    def _begin_transmission(self, held: _Held, now: Micros) -> None:
        task, peer = held.task, held.peer
        fate = extend(self._transmission_fates, task.id, self.node * self._size + peer)
        rates = self._link_rates(peer)
        progress = WorkProgress(held.work, to_unit(fate), now, *rates)
        self._link_progress[peer] = progress
        self._transmitting_until[peer] = now + held.work
        self._told[peer] = rates[0] > 0
        if self._told[peer]:
            self._effects.append(AnnounceTransfer(peer, task))
        self._effects.append(StartTransmission(peer, task, now, *progress.plan()))

    def _on_transmission_ended(self, event: TransmissionEnded, now: Micros) -> None:
        held, progress = self._transmitting[event.peer], self._link_progress[event.peer]
        # An end that the peer has confirmed is one whatever the plan was.
        confirmed = held is not None and held.stage is Stage.HANDING_OVER
        if not confirmed and (progress is None or progress.revision != event.revision):
            return
        super()._on_transmission_ended(event, now)

    def _on_transmission_refused(self, event: TransmissionRefused, now: Micros) -> None:
        peer = event.peer
        held, progress = self._transmitting[peer], self._link_progress[peer]
        if held is None or progress is None or held.task.id != event.task_id:
            return
        if self._conditions.state is State.KILLED:
            # It could not be lost with the rest while the peer might have it.
            self._end_killed(held, now)
            return
        held.stage = Stage.TRANSMISSION
        if now >= held.deadline_at:
            self._end(held, Outcome.DROPPED, now)
            return
        # Nothing was changed while the peer might have had it.
        progress.change(now, *self._link_rates(peer))
        progress.restart(now)
        self._told[peer] = self._link_rates(peer)[0] > 0
        if self._told[peer]:
            self._effects.append(AnnounceTransfer(peer, held.task))
        self._effects.append(
            ChangeTransmission(
                peer, held.task, now, *progress.plan(), progress.revision, 0, restart=True
            )
        )

    def _end_killed(self, held: _Held, now: Micros) -> None:
        self._record_end(held, Outcome.LOST, now, {"fault": CAUSE})
        self._free(held, now)

    def _withdraw(self, peer: int, task_id: int) -> None:
        tell = self._link_rates(peer)[0] > 0
        if not tell and self._told[peer]:
            self._to_withdraw.setdefault(peer, []).append(task_id)
        self._effects.append(WithdrawTransfer(peer, task_id, tell))

    def _on_transfer_announced(self, event: TransferAnnounced, now: Micros) -> None:
        if self._conditions.state is State.KILLED or event.task.id in self._announced:
            return
        super()._on_transfer_announced(event, now)

    def _on_transfer_arrived(self, event: TransferArrived, now: Micros) -> None:
        super()._on_transfer_arrived(event, now)
        if self._conditions.state is State.KILLED:
            self._lose_all(now)

    # --- execution --------------------------------------------------------------------------

    def _admit(self, now: Micros) -> None:
        if self._conditions.state is not State.HUNG:
            super()._admit(now)

    def _start_next(self, now: Micros) -> None:
        if self._conditions.state is not State.HUNG:
            super()._start_next(now)

    def _begin_execution(self, held: _Held, now: Micros) -> None:
        fate = to_unit(extend(self._execution_fates, held.task.id, self.node))
        progress = WorkProgress(held.work, fate, now, *self._execution_rates())
        self._execution_progress = progress
        self._running_until = now + held.work
        self._effects.append(StartExecution(held.task, now, *progress.plan()))

    def _on_execution_ended(self, event: ExecutionEnded, now: Micros) -> None:
        held, progress = self._running, self._execution_progress
        if held is None or progress is None or held.task.id != event.task_id:
            return
        if progress.revision != event.revision:
            return
        if self._conditions.state is State.HUNG:
            # An application that took no notice; the node will.
            self._ended_meanwhile = event
            return
        super()._on_execution_ended(event, now)

    # --- looking ----------------------------------------------------------------------------

    def backlog(self, now: Micros) -> Micros:
        """As ``NodeState``; what is left is reckoned at the configured rate."""
        self._reckon(now)
        return super().backlog(now)

    def peer_state(self, now: Micros) -> PeerState:
        """Return what this node answers to a probe."""
        self._reckon(now)
        return super().peer_state(now)

    def send_backlog(self, now: Micros) -> tuple[Micros, ...]:
        """As ``NodeState``; what is left is reckoned at the configured rates."""
        self._reckon_links(now)
        return super().send_backlog(now)

    def outbound(self, now: Micros) -> list[tuple[int, Task, Micros]]:
        """As ``NodeState``; what is left is reckoned at the configured rates."""
        self._reckon_links(now)
        return super().outbound(now)

    def _reckon(self, now: Micros) -> None:
        progress = self._execution_progress
        if (
            self._running is not None
            and progress is not None
            and self._execution_rates()[0] != FULL
        ):
            self._running_until = now + progress.left(now)

    def _reckon_links(self, now: Micros) -> None:
        for peer in self._conditions.links:
            progress = self._link_progress[peer]
            if self._transmitting[peer] is not None and progress is not None:
                self._transmitting_until[peer] = now + progress.left(now)
