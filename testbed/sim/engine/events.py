"""The compiled engine: the model of one episode as machine code, equal to ``NodeState``.

Guarantees, to the microsecond, what ``testbed.sim.simulator`` gives: the same draws, and the same
order of events at equal instants (execution ends, transmissions end with the hand-over, deadlines,
decisions). Here are the events; ``calendar`` holds the pending ones, and ``slots`` has the instants
at which is decided.
"""

from __future__ import annotations

from typing import Final

from testbed.model.units import NEVER
from testbed.sim.engine.calendar import (
    DEADLINE,
    EXECUTION_ENDS,
    TRANSMISSION_ENDS,
    end_at,
    next_bucket,
    node_of,
    phase_of,
    pop,
    push,
    task_of,
)
from testbed.sim.engine.compiled import (
    ANSWERS,
    DECIDING,
    DROPPED,
    ENDED,
    EVENT,
    EXECUTION,
    EXECUTION_FAILED,
    HEARD,
    NUMBER,
    RECEIVING,
    REFUSED,
    REWARD,
    SENDING,
    STAGES,
    SUCCEEDED,
    TOLD,
    TRANSMISSION,
    TRANSMISSION_FAILED,
    WAITING,
    Record,
    compiled,
    element,
    inlined,
    link_at,
    node_at,
    task_at,
)
from testbed.sim.engine.draws import (
    draw_slot,
    duration,
    extend,
    failure_within,
    fold_keys,
    task_id,
)
from testbed.sim.engine.journal import (
    ADMITTED,
    DECIDED,
    EXECUTION_STARTED,
    RECEIVED,
    SENT,
    TASK_ENDED,
    TRANSMISSION_STARTED,
    keeps_journal,
    note,
    note_decision,
)
from testbed.sim.engine.looking import lane_at, lane_to
from testbed.sim.engine.messages import (
    admit_received,
    announce,
    deliver,
    leave_received,
    receive,
    withdraw,
)

_NEVER: Final = int(NEVER)


# --- episodes -------------------------------------------------------------------------------


@compiled
def begin_episode(episode: Record, number: int) -> None:
    """Forget everything that moved; the tasks of episode ``number`` are still to be drawn."""
    fold_keys(episode, number)
    episode.now = 0
    episode.slot = 0
    episode.looked = -1
    episode.bucket = 0
    episode.near = 0
    episode.tasks = 0
    episode.admissions = 0
    episode.ended = 0
    episode.succeeded = 0
    episode.credited = 0
    episode.credited_until = episode.slot_length if episode.slots > 1 else _NEVER
    episode.sent = 0
    episode.delivered = 0
    episode.steps = 0
    episode.decisions = 0
    episode.peers = 0
    episode.first_drawn = -1
    episode.second_drawn = -1
    for stage in range(STAGES):
        episode.cursor[stage] = 0
    for bucket in range(episode.buckets):
        element(NUMBER, episode.ring_at, bucket).value = -1
    for slot in range(episode.slots):
        element(REWARD, episode.rewards_at, slot).value = 0.0
    size = episode.nodes
    for i in range(size):
        node = node_at(episode, i)
        node.running = -1
        node.until = 0
        node.first = -1
        node.last = -1
        node.waiting = 0
        node.work = 0
        node.busy = 0
        node.inbound = 0
        node.inbound_work = 0
        node.arrived_first = -1
        node.arrived_last = -1
        node.trend = 0.0
        node.trend_slot = -1
    if episode.receiving_at != 0:
        for k in range(size * size):
            element(NUMBER, episode.receiving_at, k).value = 0
    if episode.heard_at != 0:
        for k in range(size * size):
            element(HEARD, episode.heard_at, k).at = -1
    episode.told_next = 0
    if episode.told_at != 0:
        for k in range(2 * size):
            element(TOLD, episode.told_at, k).at = -1


@compiled
def open_episode(episode: Record, number: int) -> None:
    """Forget everything that moved and draw all tasks of episode ``number``."""
    begin_episode(episode, number)
    for slot in range(episode.slots):
        draw_slot(episode, slot)


# --- the life of a task ---------------------------------------------------------------------


@compiled
def _end(episode: Record, m: int, holder: int, outcome: int, now: int) -> None:
    task = task_at(episode, m)
    note(episode, TASK_ENDED, m, holder, now, 16 * outcome + task.stage)
    task.stage = ENDED
    task.outcome = outcome
    task.ended_at = now
    episode.ended += 1
    while now >= episode.credited_until:
        episode.credited += 1
        last = episode.credited == episode.slots - 1
        episode.credited_until = _NEVER if last else episode.credited_until + episode.slot_length
    reward = element(REWARD, episode.rewards_at, episode.credited)
    if outcome == SUCCEEDED:
        episode.succeeded += 1
        reward.value += 1.0
    else:
        reward.value -= 1.0


@inlined
def _start(episode: Record, i: int, m: int, now: int) -> None:
    """Node ``i`` begins to execute task ``m``."""
    node, task = node_at(episode, i), task_at(episode, m)
    work = task.work
    task.stage = EXECUTION
    task.started_at = now
    note(episode, EXECUTION_STARTED, m, i, now, work)
    node.running = m
    node.until = now + work
    state = extend(extend(episode.execution_fates, task_id(episode, m)), i)
    lasts = failure_within(node.failure, work, state)
    task.failing = 1 if lasts < work else 0
    end_at(episode, m, now + lasts, EXECUTION_ENDS, i)


@inlined
def _admit(episode: Record, i: int, m: int, now: int) -> None:
    """Task ``m`` enters the execution queue of node ``i``."""
    node, task = node_at(episode, i), task_at(episode, m)
    task.stage = WAITING
    note(episode, ADMITTED, m, i, now, 0)
    task.work = duration(task.cycles, node.capacity)
    task.next = -1
    if node.last >= 0:
        task_at(episode, node.last).next = m
    else:
        node.first = m
    node.last = m
    node.waiting += 1
    node.work += task.work


@compiled
def _first_arrived(episode: Record, node: Record) -> int:
    """Return the first task that waits for room in the execution queue, -1 if none does."""
    while node.arrived_first >= 0:
        task = task_at(episode, node.arrived_first)
        if task.stage == RECEIVING:
            break
        node.arrived_first = task.next
    if node.arrived_first < 0:
        node.arrived_last = -1
    return int(node.arrived_first)


@compiled
def _serve(episode: Record, i: int, now: int) -> None:
    """Start what can still finish if node ``i`` is free, and admit what there is room for."""
    node = node_at(episode, i)
    limit = episode.queue_limit
    # A hopeless task that is dropped makes room before the next one is looked at.
    room_first = False
    while True:
        if node.running < 0 and node.first >= 0 and not room_first:
            m = node.first
            task = task_at(episode, m)
            node.first = task.next
            if node.first < 0:
                node.last = -1
            if task.stage != WAITING:
                continue  # dropped while it waited; it was left in the queue
            node.waiting -= 1
            node.work -= task.work
            if episode.drop_hopeless != 0 and now + task.work > task.deadline_at:
                _end(episode, m, i, DROPPED, now)
                room_first = limit >= 0 and _first_arrived(episode, node) >= 0
            else:
                _start(episode, i, m, now)
        elif limit >= 0 and (node.running < 0 or node.waiting < limit):
            m = _first_arrived(episode, node)
            if m < 0:
                return
            task = task_at(episode, m)
            node.arrived_first = task.next
            if task.next < 0:
                node.arrived_last = -1
            admit_received(episode, i, m)
            _admit(episode, i, m, now)
            room_first = False
        else:
            return


@compiled
def _arrive(episode: Record, i: int, m: int, now: int) -> None:
    """Task ``m`` is at node ``i``, which will execute it."""
    node, task = node_at(episode, i), task_at(episode, m)
    task.ready_at = now
    task.admission = episode.admissions
    episode.admissions += 1
    if episode.queue_limit >= 0:
        task.stage = RECEIVING
        task.next = -1
        if node.arrived_last >= 0:
            task_at(episode, node.arrived_last).next = m
        else:
            node.arrived_first = m
        node.arrived_last = m
        _serve(episode, i, now)
        return
    admit_received(episode, i, m)
    _admit(episode, i, m, now)
    if node.running < 0:
        _serve(episode, i, now)


@inlined
def _start_transmission(episode: Record, i: int, lane: Record, m: int) -> None:
    task, now = task_at(episode, m), episode.now
    j, work = lane.peer, task.work
    task.stage = TRANSMISSION
    note(episode, TRANSMISSION_STARTED, m, i, now, work)
    lane.current = m
    lane.until = now + work
    state = extend(episode.transmission_fates, task_id(episode, m))
    state = extend(state, i * episode.nodes + j)
    lasts = failure_within(link_at(episode, i, j).failure, work, state)
    task.failing = 1 if lasts < work else 0
    announce(episode, m)
    end_at(episode, m, now + lasts, TRANSMISSION_ENDS, i)


@compiled
def _free_link(episode: Record, i: int, j: int) -> None:
    """The transmission from ``i`` to ``j`` is over; the next one begins."""
    k = lane_to(episode, i, j)
    lane = lane_at(episode, i, k)
    lane.length -= 1
    while lane.first >= 0:
        m = lane.first
        task = task_at(episode, m)
        lane.first = task.next
        if lane.first < 0:
            lane.last = -1
        if task.stage == SENDING:
            lane.work -= task.work
            _start_transmission(episode, i, lane, m)
            return
    node = node_at(episode, i)
    node.busy -= 1
    last = lane_at(episode, i, node.busy)
    lane.peer, lane.current, lane.first, lane.last = last.peer, last.current, last.first, last.last
    lane.length, lane.until, lane.work = last.length, last.until, last.work


@compiled
def place(episode: Record, m: int, destination: int) -> None:
    """Carry out the decision of the source of task ``m``."""
    i = m % episode.nodes
    task, now = task_at(episode, m), episode.now
    task.destination = destination
    note(episode, DECIDED, m, i, now, destination)
    if destination == i:
        _arrive(episode, i, m, now)
        return
    task.stage = SENDING
    task.work = duration(task.size, link_at(episode, i, destination).rate)
    task.next = -1
    k = lane_to(episode, i, destination)
    if k < 0:
        node = node_at(episode, i)
        lane = lane_at(episode, i, node.busy)
        node.busy += 1
        lane.peer = destination
        lane.first = -1
        lane.last = -1
        lane.length = 1
        lane.work = 0
        _start_transmission(episode, i, lane, m)
        return
    lane = lane_at(episode, i, k)
    lane.length += 1
    lane.work += task.work
    if lane.last >= 0:
        task_at(episode, lane.last).next = m
    else:
        lane.first = m
    lane.last = m


@compiled
def refuse(episode: Record, m: int) -> None:
    """The source of task ``m`` refuses it: it ends where it is."""
    _end(episode, m, m % episode.nodes, REFUSED, episode.now)


@compiled
def advance(episode: Record, until: int) -> None:
    """Process all events up to and at ``until``, as far as they come before decisions."""
    last = until >> episode.shift
    while True:
        while episode.near > 0:
            first = element(EVENT, episode.near_at, 0)
            now, order = first.at, first.order
            if now > until:
                break
            pop(episode)
            phase, i, m = phase_of(order), node_of(order), task_of(order)
            task = task_at(episode, m)
            stage, j = task.stage, task.destination
            if stage == ENDED:
                continue
            episode.now = now
            if phase == EXECUTION_ENDS:
                _end(episode, m, i, EXECUTION_FAILED if task.failing else SUCCEEDED, now)
                node_at(episode, i).running = -1
                _serve(episode, i, now)
            elif phase == TRANSMISSION_ENDS:
                deliver(episode, now)
                if task.failing:
                    _end(episode, m, i, TRANSMISSION_FAILED, now)
                    withdraw(episode, m)
                else:
                    note(episode, SENT, m, i, now, 0)
                    note(episode, RECEIVED, m, j, now, 0)
                    receive(episode, j, m)
                    if task.deadline_at >> episode.shift <= episode.bucket:
                        # Deadlines of an instant are in order of the holders.
                        push(episode, task.deadline_at, DEADLINE, j, m)
                    _arrive(episode, j, m, now)
                _free_link(episode, i, j)
            elif i == (j if stage >= RECEIVING else m % episode.nodes):
                _drop(episode, m, i, now)
        if episode.ended == episode.tasks:
            # What is left in the buckets is stale.
            episode.bucket = max(episode.bucket, last)
            break
        if episode.bucket >= last:
            break
        next_bucket(episode)
    if until < _NEVER:
        episode.now = until


@inlined
def settle(episode: Record) -> None:
    """Process what happens at this very instant.

    A failure less than a microsecond after the start comes before the next decision.
    """
    if episode.near > 0 and element(EVENT, episode.near_at, 0).at <= episode.now:
        advance(episode, episode.now)


@compiled
def _drop(episode: Record, m: int, holder: int, now: int) -> None:
    """The deadline of task ``m`` passed: it ends where it is and frees what it held."""
    task = task_at(episode, m)
    stage, j = task.stage, task.destination
    node = node_at(episode, holder)
    if stage == DECIDING and keeps_journal(episode):
        turn = holder * episode.stagger
        answered_at = task.deadline_at - task.deadline + turn + episode.offset[ANSWERS]
        asked = 0 if now <= answered_at else 1
        note_decision(episode, m // episode.nodes, holder, True, -1, asked)
    _end(episode, m, holder, DROPPED, now)
    if stage == EXECUTION:
        node.running = -1
        _serve(episode, holder, now)
    elif stage == WAITING:
        node.waiting -= 1
        node.work -= task.work
        if episode.queue_limit >= 0:
            _serve(episode, holder, now)
    elif stage == RECEIVING:
        leave_received(episode, holder, m)
    elif stage == SENDING:
        lane = lane_at(episode, holder, lane_to(episode, holder, j))
        lane.work -= task.work
        lane.length -= 1
    elif stage == TRANSMISSION:
        withdraw(episode, m)
        _free_link(episode, holder, j)


@inlined
def finish(episode: Record) -> None:
    """Process all events until the last task has ended."""
    advance(episode, _NEVER)
