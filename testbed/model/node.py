"""One edge node as a state machine: events in, effects out (model sections 1 to 3).

A node has one execution queue with one server, and per peer one sending queue with one
transmission at a time and one receiving queue; all are first in, first out. It *holds* a task from
the moment it is generated here or handed over to it until the task ends here or is handed over;
the holder alone decides how the task ends, so every task ends exactly once. The drivers are
``testbed.sim`` (virtual time) and ``edgenode`` (real time).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

from testbed.errors import PermanentError
from testbed.model.decision import (
    Answer,
    Ask,
    Observation,
    PeerState,
    Refuse,
    Scheduler,
    checked,
)
from testbed.model.draws import Purpose, extend, failure_after, key, to_unit
from testbed.model.events import (
    AnnounceTransfer,
    AskPeers,
    AwaitTurn,
    DeadlinePassed,
    DecisionBroken,
    DecisionDue,
    DecisionRecord,
    Effect,
    Event,
    ExecutionBroken,
    ExecutionEnded,
    GossipDue,
    HandOver,
    PeersAnswered,
    PeersSilent,
    Record,
    RecordKind,
    SetDeadline,
    SlotIdle,
    StartExecution,
    StartTransmission,
    StateHeard,
    StopExecution,
    TaskArrived,
    TellPeers,
    TransferAnnounced,
    TransferArrived,
    TransferWithdrawn,
    TransmissionBroken,
    TransmissionEnded,
    WithdrawTransfer,
)
from testbed.model.own_code import SchedulerFailed, defined_at, described, interrupted, name_of
from testbed.model.task import Outcome, Task
from testbed.model.topology import OverloadMeasure, Rules, Topology
from testbed.model.units import Micros, duration

MAX_ROUNDS: Final = 4
"""Most rounds of questions about one task; more is a defect of the scheduler."""

_new: Final = tuple.__new__
"""Makes a named tuple without the call in between; used where dozens are made per task."""
_NO_DATA: Final[dict[str, int | str]] = {}


class Stage(StrEnum):
    """Stage of a task at the node that holds it."""

    DECIDING = "deciding"
    SENDING = "sending"
    """Waits in a sending queue."""
    TRANSMISSION = "transmission"
    HANDING_OVER = "handing_over"
    """All bytes are sent and the peer was asked to take over; its answer is awaited."""
    RECEIVING = "receiving"
    """Arrived, waits for room in the execution queue."""
    WAITING = "waiting"
    """Waits in the execution queue."""
    EXECUTION = "execution"


class IllegalEvent(PermanentError):
    """An event that cannot happen in the node's state: a defect of the driver."""


class _Held:
    """A task this node holds. ``work`` is the nominal time of what it waits for or is in."""

    __slots__ = (
        "answers",
        "ask",
        "deadline_at",
        "elapsed",
        "heard",
        "peer",
        "round",
        "scheduler",
        "seq",
        "since",
        "stage",
        "task",
        "work",
    )

    def __init__(
        self, task: Task, since: Micros, elapsed: Micros, seq: int, scheduler: Scheduler
    ) -> None:
        self.task = task
        self.scheduler = scheduler
        self.since = since
        self.elapsed = elapsed
        self.deadline_at = since - elapsed + task.deadline
        self.seq = seq
        self.stage = Stage.DECIDING
        self.peer = -1
        self.work: Micros = 0
        self.round = 0
        self.ask: Ask | None = None
        self.heard = 0
        self.answers: list[Answer] = []


class NodeState:
    """The state of node ``node`` during one episode; start a new one for each episode.

    ``faults_seed`` keys the failure draws, so a task's fate at a unit depends on the task and the
    unit alone. ``scheduler`` may be replaced at any time, and decides about tasks that arrive from
    then on; those that are being decided stay with the one that began.
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
        size = topology.size
        self.node = node
        self.episode = episode
        self.now: Micros = 0
        self._scheduler = scheduler
        self._size = size
        self._rules = rules
        self._turn = rules.turn(node)
        self._capacities = topology.capacity_hz
        self._capacity = topology.capacity_hz[node]
        self._failure_rate = topology.execution_failure_rate[node]
        self._link_rate = topology.link_rate[node]
        self._link_failure_rate = topology.link_failure_rate[node]
        self._overload_limit = rules.overload.limit_for(topology.cores[node])
        self._overload_by_backlog = rules.overload.measure is OverloadMeasure.BACKLOG
        self._execution_fates = key(faults_seed, Purpose.EXECUTION_FATE, episode)
        self._transmission_fates = key(faults_seed, Purpose.TRANSMISSION_FATE, episode)

        self._held: dict[int, _Held] = {}
        # Execution: the queue, what runs, when it would nominally end, and the waiting work.
        self._execution: deque[_Held] = deque()
        self._running: _Held | None = None
        self._running_until: Micros = 0
        self._waiting_work: Micros = 0
        # Tasks that arrived and wait for room in the execution queue, oldest first.
        self._unadmitted: deque[_Held] = deque()
        # Links, by peer.
        self._sending: list[deque[_Held]] = [deque() for _ in range(size)]
        self._transmitting: list[_Held | None] = [None] * size
        self._transmitting_until: list[Micros] = [0] * size
        self._sending_work: list[Micros] = [0] * size
        self._sending_length = [0] * size
        # Peers with anything in their sending queue: few of many, so the rest is not looked at.
        self._busy_links: set[int] = set()
        self._zeros: tuple[int, ...] = (0,) * size
        # What peers have announced, by task: who, and the time to execute it; how much of it (and
        # of what waits) per peer.
        self._announced: dict[int, tuple[int, Micros]] = {}
        self._arrived_unannounced: set[int] = set()
        self._receiving = [0] * size
        self._inbound = 0  # the sum of these
        self._inbound_work: Micros = 0  # to execute them takes this long
        self._known: tuple[tuple[PeerState, Micros] | None, ...] = (None,) * size

        self._effects: list[Effect] = []
        self._handlers: dict[type, Callable[[Any, Micros], None]] = {
            TaskArrived: self._on_task_arrived,
            SlotIdle: self._on_slot_idle,
            PeersAnswered: self._on_peers_answered,
            PeersSilent: self._on_peers_silent,
            GossipDue: self._on_gossip_due,
            StateHeard: self._on_state_heard,
            TransferAnnounced: self._on_transfer_announced,
            TransferWithdrawn: self._on_transfer_withdrawn,
            TransferArrived: self._on_transfer_arrived,
            TransmissionEnded: self._on_transmission_ended,
            TransmissionBroken: self._on_transmission_broken,
            ExecutionEnded: self._on_execution_ended,
            ExecutionBroken: self._on_execution_broken,
            DecisionBroken: self._on_decision_broken,
            DecisionDue: self._on_decision_due,
            DeadlinePassed: self._on_deadline_passed,
        }

    # --- driving ----------------------------------------------------------------------------

    def handle(self, event: Event, now: Micros) -> list[Effect]:
        """Process one event at ``now`` and return its effects.

        ``now`` must not run backwards; a driver whose timer rang late hands in the instant it was
        set for, unless a later event has been handled since. Events about tasks this node no
        longer holds are ignored: timers are never cancelled, and answers may come late.

        Raises: IllegalEvent: the driver broke its side of the contract. Whatever the scheduler
        raises comes through unchanged; answer it with ``DecisionBroken``.
        """
        if now < self.now:
            raise IllegalEvent(f"node {self.node}: time runs backwards, {now} after {self.now}")
        self.now = now
        # If the handler raises, the effects so far stay and come with those of the next event.
        self._handlers[type(event)](event, now)
        effects, self._effects = self._effects, []
        return effects

    def hand_over(self, peer: int, task_id: int, now: Micros) -> HandOver | None:
        """Begin to hand over a transmitted task: what to tell ``peer``, None if it is gone.

        For drivers on a real network, where the peer's answer takes time: from here on the deadline
        no longer ends the task at this node. Follow with ``TransmissionEnded`` when the peer has
        taken it, or with ``TransmissionBroken``.
        """
        held = self._held.get(task_id)
        if held is None or held is not self._transmitting[peer]:
            return None
        held.stage = Stage.HANDING_OVER
        # The record `sent` is still to be made by this node, hence one more.
        return HandOver(peer, held.task, self._elapsed(held, now), held.seq + 1)

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler of this node."""
        return self._scheduler

    @scheduler.setter
    def scheduler(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    # --- looking ----------------------------------------------------------------------------

    @property
    def queue_length(self) -> int:
        """Tasks in the execution queue, waiting and running."""
        return len(self._execution) + (self._running is not None)

    def backlog(self, now: Micros) -> Micros:
        """Time until the execution queue would be empty, the rest of the running task included."""
        if self._running is not None and self._running_until > now:
            return self._waiting_work + self._running_until - now
        return self._waiting_work

    def overloaded(self, now: Micros) -> bool:
        """Return whether this node refuses tasks of others (model section 6)."""
        measured = self.backlog(now) if self._overload_by_backlog else self.queue_length
        return measured >= self._overload_limit

    def peer_state(self, now: Micros) -> PeerState:
        """Return what this node answers to a probe."""
        # queue_length, backlog and overloaded, written out: every probe comes through here.
        length = len(self._execution)
        backlog = self._waiting_work
        if self._running is not None:
            length += 1
            if self._running_until > now:
                backlog += self._running_until - now
        measured = backlog if self._overload_by_backlog else length
        overloaded = measured >= self._overload_limit
        return _new(
            PeerState, (overloaded, length, backlog, self._inbound, now, self._inbound_work)
        )

    @property
    def held(self) -> frozenset[int]:
        """Ids of the tasks this node holds."""
        return frozenset(self._held)

    @property
    def receiving(self) -> tuple[int, ...]:
        """Length of the receiving queue per peer."""
        return tuple(self._receiving) if self._inbound else self._zeros

    @property
    def sending(self) -> tuple[int, ...]:
        """Length of the sending queue per peer, the task in transmission included."""
        return tuple(self._sending_length) if self._busy_links else self._zeros

    def send_backlog(self, now: Micros) -> tuple[Micros, ...]:
        """Return the time until the sending queue to each peer would be empty."""
        if not self._busy_links:
            return self._zeros
        backlogs = [0] * self._size
        for peer in self._busy_links:
            until = self._transmitting_until[peer]
            backlogs[peer] = self._sending_work[peer] + (until - now if until > now else 0)
        return tuple(backlogs)

    @property
    def inbound_work(self) -> Micros:
        """Time this node needs to execute what its receiving queues hold."""
        return self._inbound_work

    @property
    def sending_work(self) -> tuple[Micros, ...]:
        """Time each peer will need to execute what the sending queue to it holds."""
        if not self._busy_links:
            return self._zeros
        work = [0] * self._size
        for peer in self._busy_links:
            capacity = self._capacities[peer]
            for held in (self._transmitting[peer], *self._sending[peer]):
                if held is not None:
                    work[peer] += duration(held.task.cycles, capacity)
        return tuple(work)

    @property
    def running(self) -> tuple[Task, Micros] | None:
        """The task in execution and when it began."""
        held = self._running
        return None if held is None else (held.task, self._running_until - held.work)

    @property
    def waiting(self) -> tuple[Task, ...]:
        """The tasks that wait in the execution queue, in order."""
        return tuple(held.task for held in self._execution)

    def outbound(self, now: Micros) -> list[tuple[int, Task, Micros]]:
        """Tasks waiting for or in transmission: peer, task, arrival time if nothing fails."""
        outbound = []
        for peer in sorted(self._busy_links):
            arrives_at = max(now, self._transmitting_until[peer])
            transmitting = self._transmitting[peer]
            if transmitting is not None:
                outbound.append((peer, transmitting.task, arrives_at))
            for held in self._sending[peer]:
                arrives_at += held.work
                outbound.append((peer, held.task, arrives_at))
        return outbound

    def observe(
        self,
        now: Micros,
        slot: int,
        task: Task | None = None,
        answers: tuple[Answer, ...] = (),
        round_: int = 0,
    ) -> Observation:
        """Return the present observation of a scheduler of this node."""
        return _new(
            Observation,
            (
                self.node,
                now,
                self.episode,
                slot,
                task,
                self.queue_length,
                self.backlog(now),
                tuple(self._receiving) if self._inbound else self._zeros,
                tuple(self._sending_length) if self._busy_links else self._zeros,
                self.send_backlog(now),
                answers,
                self._known,
                round_,
                self._inbound_work,
                self.sending_work,
            ),
        )

    # --- arrival and decision ---------------------------------------------------------------

    def _on_task_arrived(self, event: TaskArrived, now: Micros) -> None:
        task = event.task
        if task.id in self._held:
            raise IllegalEvent(f"node {self.node}: task {task.id} was generated twice")
        held = _Held(task, now, 0, 0, self._scheduler)
        self._held[task.id] = held
        self._record(RecordKind.GENERATED, held, now, _NO_DATA)
        self._effects.append(SetDeadline(held.deadline_at, task.id))
        if self._turn:
            self._effects.append(AwaitTurn(now + self._turn, task.id))
        else:
            self._decide(held, now)

    def _on_decision_due(self, event: DecisionDue, now: Micros) -> None:
        held = self._held.get(event.task_id)
        if held is not None and held.stage is Stage.DECIDING and not held.ask and not held.round:
            self._decide(held, now)

    def _on_slot_idle(self, event: SlotIdle, now: Micros) -> None:
        observation = self.observe(now, event.slot)
        self._effects.append(
            DecisionRecord(
                None,
                self.node,
                event.episode,
                event.slot,
                now,
                name_of(self._scheduler),
                observation,
                None,
                None,
                None,
            )
        )

    def _on_peers_answered(self, event: PeersAnswered, now: Micros) -> None:
        held = self._held.get(event.task_id)
        if held is None or held.ask is None or held.round != event.round:
            return
        enough = held.ask.enough
        known = list(self._known)
        for answer in event.answers:
            if enough is not None and held.heard >= enough:
                break
            held.heard += 1
            held.answers.append(answer)
            if answer.state is not None:
                known[answer.peer] = (answer.state, answer.answered)
        self._known = tuple(known)
        self._continue_deciding(held, held.ask, now)

    def _on_peers_silent(self, event: PeersSilent, now: Micros) -> None:
        held = self._held.get(event.task_id)
        if held is None or held.ask is None or held.round != event.round:
            return
        if event.peers is None:
            self._decide(held, now)
            return
        reachable = tuple(peer for peer in held.ask.peers if peer not in event.peers)
        held.ask = held.ask._replace(peers=reachable)
        self._continue_deciding(held, held.ask, now)

    def _on_gossip_due(self, event: GossipDue, now: Micros) -> None:
        self._effects.append(TellPeers(self.peer_state(now)))

    def _on_state_heard(self, event: StateHeard, now: Micros) -> None:
        known = list(self._known)
        known[event.peer] = (event.state, now)
        self._known = tuple(known)

    def _continue_deciding(self, held: _Held, ask: Ask, now: Micros) -> None:
        needed = len(ask.peers) if ask.enough is None else min(ask.enough, len(ask.peers))
        if held.heard >= needed:
            self._decide(held, now)

    def _on_decision_broken(self, event: DecisionBroken, now: Micros) -> None:
        held = self._held.get(event.task_id)
        if held is not None and held.stage is Stage.DECIDING:
            self._end(held, Outcome.LOST, now, event.reason)

    def _decide(self, held: _Held, now: Micros) -> None:
        task = held.task
        if held.ask is not None:
            held.ask = None
            held.round += 1
        observation = self.observe(now, task.slot, task, tuple(held.answers), held.round)
        try:
            answer = held.scheduler.decide(observation)
        except BaseException as error:
            # Code of other people may raise anything, SystemExit included.
            if interrupted(error):
                raise
            raise self._failed(held, f"raised {described(error)}") from error
        try:
            answer = checked(answer, self.node, self._size)
        except BaseException as error:
            # Looking at what it answered may call code of other people too.
            if interrupted(error):
                raise
            told = str(error) if type(error) is ValueError else f"what raised {described(error)}"
            where = defined_at(held.scheduler.decide)
            raise self._failed(held, f"answered {told}{where}") from None
        if isinstance(answer, Ask):
            self._ask(held, answer)
            return
        if isinstance(answer, Refuse):
            self._refuse(held, now)
            return
        destination = answer.destination
        self._effects.append(
            DecisionRecord(
                task.id,
                self.node,
                task.episode,
                task.slot,
                now,
                name_of(held.scheduler),
                observation,
                destination,
                answer.probabilities,
                answer.mask,
            )
        )
        self._record(RecordKind.DECIDED, held, now, {"destination": destination})
        if destination == self.node:
            self._unadmitted.append(held)
            held.stage = Stage.RECEIVING
            self._admit(now)
        else:
            self._enqueue_sending(held, destination, now)

    def _ask(self, held: _Held, ask: Ask) -> None:
        if held.round >= MAX_ROUNDS:
            where = defined_at(held.scheduler.decide)
            raise self._failed(
                held,
                f"asked {held.round + 1} times about one task; at most {MAX_ROUNDS} are allowed, "
                f"then it has to answer with a Decision{where}",
            )
        held.ask = ask
        held.heard = 0
        self._effects.append(
            AskPeers(held.task.id, held.round, ask.peers, ask.bits_only, ask.states_of)
        )

    def _refuse(self, held: _Held, now: Micros) -> None:
        if not self._rules.reject:
            where = defined_at(held.scheduler.decide)
            raise self._failed(
                held, f"refused a task; the scenario has to allow that with rules.reject{where}"
            )
        self._end(held, Outcome.REFUSED, now)

    def _failed(self, held: _Held, what: str) -> SchedulerFailed:
        return SchedulerFailed(name_of(held.scheduler), what, held.task.id, self.node)

    # --- sending ----------------------------------------------------------------------------

    def _enqueue_sending(self, held: _Held, peer: int, now: Micros) -> None:
        held.stage = Stage.SENDING
        held.peer = peer
        held.work = duration(held.task.size_bytes, self._link_rate[peer])
        self._sending_length[peer] += 1
        self._busy_links.add(peer)
        if self._transmitting[peer] is None:
            self._start_transmission(held, now)
        else:
            self._sending_work[peer] += held.work
            self._sending[peer].append(held)

    def _start_transmission(self, held: _Held, now: Micros) -> None:
        held.stage = Stage.TRANSMISSION
        self._transmitting[held.peer] = held
        nominal: dict[str, int | str] = {"peer": held.peer, "nominal": held.work}
        self._record(RecordKind.TRANSMISSION_STARTED, held, now, nominal)
        self._begin_transmission(held, now)

    def _begin_transmission(self, held: _Held, now: Micros) -> None:
        """Put a task on its link; ``testbed.model.faulted`` has another one."""
        task, peer, work = held.task, held.peer, held.work
        self._transmitting_until[peer] = now + work
        fate = failure_after(
            self._link_failure_rate[peer],
            to_unit(extend(self._transmission_fates, task.id, self.node * self._size + peer)),
        )
        self._effects.append(AnnounceTransfer(peer, task))
        self._effects.append(
            StartTransmission(peer, task, now, work, fate if fate < work else None)
        )

    def _free_link(self, peer: int, now: Micros) -> None:
        self._transmitting[peer] = None
        self._transmitting_until[peer] = 0
        self._sending_length[peer] -= 1
        queue = self._sending[peer]
        if queue:
            held = queue.popleft()
            self._sending_work[peer] -= held.work
            self._start_transmission(held, now)
        else:
            self._busy_links.remove(peer)

    def _on_transmission_ended(self, event: TransmissionEnded, now: Micros) -> None:
        peer = event.peer
        held = self._transmitting[peer]
        if held is None or held.task.id != event.task_id:
            return
        if event.failed:
            # Ends the task, tells the peer and frees the link.
            self._end(held, Outcome.TRANSMISSION_FAILED, now)
            return
        self._record(RecordKind.SENT, held, now, {"peer": peer})
        if held.stage is Stage.TRANSMISSION:
            elapsed = self._elapsed(held, now)
            self._effects.append(HandOver(peer, held.task, elapsed, held.seq))
        del self._held[held.task.id]
        self._free_link(peer, now)

    def _on_transmission_broken(self, event: TransmissionBroken, now: Micros) -> None:
        held = self._held.get(event.task_id)
        if held is None or held is not self._transmitting[event.peer]:
            return
        if event.handed_over:
            # The peer may hold it, so this node does not report its end. The controller declares
            # it lost if no node reports one.
            del self._held[held.task.id]
            self._free_link(event.peer, now)
        else:
            self._end(held, Outcome.LOST, now)

    # --- receiving --------------------------------------------------------------------------

    def _on_transfer_announced(self, event: TransferAnnounced, now: Micros) -> None:
        task_id = event.task.id
        if task_id in self._arrived_unannounced:
            self._arrived_unannounced.remove(task_id)
            return
        work = duration(event.task.cycles, self._capacity)
        self._announced[task_id] = (event.sender, work)
        self._count_received(event.sender, 1, work)

    def _on_transfer_withdrawn(self, event: TransferWithdrawn, now: Micros) -> None:
        announced = self._announced.pop(event.task_id, None)
        if announced is not None:
            sender, work = announced
            self._count_received(sender, -1, -work)

    def _count_received(self, sender: int, change: int, work: Micros) -> None:
        self._receiving[sender] += change
        self._inbound += change
        self._inbound_work += work

    def _on_transfer_arrived(self, event: TransferArrived, now: Micros) -> None:
        task, sender = event.task, event.sender
        if task.id in self._held:
            raise IllegalEvent(f"node {self.node}: task {task.id} was handed over twice")
        if self._announced.pop(task.id, None) is None:
            # Faster than its announcement (possible with a control delay).
            self._arrived_unannounced.add(task.id)
            self._count_received(sender, 1, duration(task.cycles, self._capacity))
        held = _Held(task, now, event.elapsed, event.seq, self._scheduler)
        held.stage = Stage.RECEIVING
        held.peer = sender
        self._held[task.id] = held
        self._record(RecordKind.RECEIVED, held, now, {"sender": sender, "elapsed": event.elapsed})
        self._effects.append(SetDeadline(max(now, held.deadline_at), task.id))
        self._unadmitted.append(held)
        self._admit(now)

    # --- execution --------------------------------------------------------------------------

    def _admit(self, now: Micros) -> None:
        """Move arrived tasks into the execution queue while there is room, oldest first."""
        limit = self._rules.execution_queue_limit
        while self._unadmitted:
            if limit is not None and self._running is not None and len(self._execution) >= limit:
                return
            held = self._unadmitted.popleft()
            held.work = duration(held.task.cycles, self._capacity)
            if held.peer >= 0:
                self._count_received(held.peer, -1, -held.work)
            held.stage = Stage.WAITING
            self._record(RecordKind.ADMITTED, held, now, _NO_DATA)
            self._execution.append(held)
            self._waiting_work += held.work
            if self._running is None:
                self._start_next(now)

    def _start_next(self, now: Micros) -> None:
        """Start the first task in the queue that can still finish, if the server is free."""
        while self._execution and self._running is None:
            held = self._execution[0]
            work = held.work
            if self._rules.drop_hopeless and now + work > held.deadline_at:
                self._end(held, Outcome.DROPPED, now)
                continue
            self._execution.popleft()
            self._waiting_work -= work
            held.stage = Stage.EXECUTION
            self._running = held
            self._record(RecordKind.EXECUTION_STARTED, held, now, {"nominal": work})
            self._begin_execution(held, now)

    def _begin_execution(self, held: _Held, now: Micros) -> None:
        """Put a task on the server; ``testbed.model.faulted`` has another one."""
        work = held.work
        self._running_until = now + work
        fate = failure_after(
            self._failure_rate,
            to_unit(extend(self._execution_fates, held.task.id, self.node)),
        )
        self._effects.append(StartExecution(held.task, now, work, fate if fate < work else None))

    def _free_server(self, now: Micros) -> None:
        self._running = None
        self._running_until = 0
        self._start_next(now)
        if self._unadmitted:
            self._admit(now)

    def _on_execution_ended(self, event: ExecutionEnded, now: Micros) -> None:
        held = self._running
        if held is None or held.task.id != event.task_id:
            return
        outcome = Outcome.EXECUTION_FAILED if event.failed else Outcome.SUCCEEDED
        if not event.failed and now > held.deadline_at:
            # The driver saw the end before the deadline's ring although it came after it.
            outcome = Outcome.DROPPED
        self._end(held, outcome, now)

    def _on_execution_broken(self, event: ExecutionBroken, now: Micros) -> None:
        held = self._running
        if held is not None and held.task.id == event.task_id:
            self._end(held, Outcome.LOST, now, event.reason)

    # --- ending -----------------------------------------------------------------------------

    def _on_deadline_passed(self, event: DeadlinePassed, now: Micros) -> None:
        held = self._held.get(event.task_id)
        if held is None or held.stage is Stage.HANDING_OVER:
            return
        if held.stage is Stage.EXECUTION:
            self._effects.append(StopExecution(held.task.id))
        self._end(held, Outcome.DROPPED, now)

    def _end(self, held: _Held, outcome: Outcome, now: Micros, reason: str = "") -> None:
        """End a task where it stands and free what it held; ``reason``: what own code did."""
        self._record_end(held, outcome, now, {"reason": reason} if reason else _NO_DATA)
        self._free(held, now)

    def _record_end(
        self, held: _Held, outcome: Outcome, now: Micros, more: dict[str, int | str]
    ) -> None:
        task, stage = held.task, held.stage
        del self._held[task.id]
        if stage is Stage.DECIDING:
            self._effects.append(
                DecisionRecord(
                    task.id,
                    self.node,
                    task.episode,
                    task.slot,
                    now,
                    name_of(held.scheduler),
                    self.observe(now, task.slot, task, tuple(held.answers), held.round),
                    None,
                    None,
                    None,
                )
            )
        self._record(
            RecordKind.ENDED,
            held,
            now,
            {
                "outcome": outcome.value,
                "elapsed": self._elapsed(held, now),
                "stage": stage.value,
                **more,
            },
        )

    def _free(self, held: _Held, now: Micros) -> None:
        task, stage, peer = held.task, held.stage, held.peer
        if stage is Stage.EXECUTION:
            self._free_server(now)
        elif stage is Stage.WAITING:
            self._execution.remove(held)
            self._waiting_work -= held.work
            if self._unadmitted:
                self._admit(now)
        elif stage is Stage.RECEIVING:
            self._unadmitted.remove(held)
            if peer >= 0:
                self._count_received(peer, -1, -duration(task.cycles, self._capacity))
        elif stage is Stage.SENDING:
            self._sending[peer].remove(held)
            self._sending_work[peer] -= held.work
            self._sending_length[peer] -= 1
        elif stage is Stage.TRANSMISSION or stage is Stage.HANDING_OVER:
            self._withdraw(peer, task.id)
            self._free_link(peer, now)

    def _withdraw(self, peer: int, task_id: int) -> None:
        self._effects.append(WithdrawTransfer(peer, task_id))

    @staticmethod
    def _elapsed(held: _Held, now: Micros) -> Micros:
        return held.elapsed + now - held.since

    def _record(
        self, kind: RecordKind, held: _Held, now: Micros, data: dict[str, int | str]
    ) -> None:
        self._effects.append(_new(Record, (kind, held.task, held.seq, self.node, now, now, data)))
        held.seq += 1
