"""Rows of the task log, written by compiled code while the engine runs an episode.

The texts are those of ``testbed.storage.tasklog.packing``; a test compares the two. Numbers are
columns of arrays, and all texts of an episode stand one behind the other in one array of bytes, so
that no object is made for a record, a decision, or what was known at one.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from testbed.sim.engine.compiled import (
    DECIDING,
    DECISION,
    EXECUTION,
    OUTCOMES,
    PEER,
    RECEIVING,
    SENDING,
    STEP,
    TRANSMISSION,
    WAITING,
    Record,
    compiled,
    element,
    inlined,
    probe_at,
    task_at,
)
from testbed.sim.engine.events import begin_episode
from testbed.sim.engine.heuristics import (
    ASKS_STATES,
    LOCAL_OR_RELIABLE,
    RATC_MASKED,
    RDA_MASKED,
    play_stage,
)
from testbed.sim.engine.journal import (
    DECIDED,
    EXECUTION_STARTED,
    KINDS,
    RECEIVED,
    SENT,
    TASK_ENDED,
    TRANSMISSION_STARTED,
)
from testbed.sim.engine.placement import Prospects, play_slot

STAGES: Final = {
    DECIDING: "deciding",
    SENDING: "sending",
    TRANSMISSION: "transmission",
    RECEIVING: "receiving",
    WAITING: "waiting",
    EXECUTION: "execution",
}
"""Names of the stages in which a task can end."""
ASKS_NOBODY: Final = -1
"""The method of a scheduler that sees all and sends no probes."""

# Columns of a decision.
SLOT: Final = 0
NODE: Final = 1
TASK: Final = 2
"""Number of the task in its episode, -1 without one."""
AT: Final = 3
DESTINATION: Final = 4
"""-1 if nothing was decided."""
MASK: Final = 5
"""Where its texts begin in all texts: the mask, the observation, the probes; and where they end."""
OBSERVATION: Final = 6
PROBES: Final = 7
DECISION_END: Final = 8
DECISION_COLUMNS: Final = 9

# Columns of a task; -1 is what it has not.
NUMBER: Final = 0
RECORDS: Final = 1
STEPS: Final = 2
"""Where its text begins in all texts, and where it ends."""
STEPS_END: Final = 3
SCHEDULED: Final = 4
"""There is a decision about it."""
GOES_TO: Final = 5
OUTCOME: Final = 6
STAGE: Final = 7
ELAPSED: Final = 8
TRANSMISSION_WAITING: Final = 9
TRANSMITTED: Final = 10
EXECUTION_WAITING: Final = 11
EXECUTED: Final = 12
NOMINAL_TRANSMISSION: Final = 13
NOMINAL_EXECUTION: Final = 14
TASK_COLUMNS: Final = 15

_texts: list[bytes] = []


def _text(text: str) -> int:
    """Return the number of a fixed piece of text."""
    _texts.append(text.encode())
    return len(_texts) - 1


_KIND: Final = len(_texts)
for _kind in KINDS:
    _text(f'["{_kind}",')
_OUTCOME: Final = len(_texts)
for _name in OUTCOMES:
    _text(_name)
_STAGE: Final = len(_texts)
for _code in range(max(STAGES) + 1):
    _text(STAGES.get(_code, ""))
_ON_TIME: Final = _text(",0")
_TO: Final = _text(',{"destination":')
_PEER: Final = _text(',{"peer":')
_AND_NOMINAL: Final = _text(',"nominal":')
_NOMINAL: Final = _text(',{"nominal":')
_SENDER: Final = _text(',{"sender":')
_AND_ELAPSED: Final = _text(',"elapsed":')
_ENDED_SO: Final = _text(',{"outcome":"')
_ELAPSED_SO: Final = _text('","elapsed":')
_AND_STAGE: Final = _text(',"stage":"')
_STAGE_CLOSE: Final = _text('"}]')
_DATA_CLOSE: Final = _text("}]")
_CLOSE: Final = _text("]")
_OPEN: Final = _text("[")
_NEXT: Final = _text(",")
_OBJECT_CLOSE: Final = _text("}")
_NODES: Final = _text('{"nodes":')
_ABOUT: Final = _text(',"task":[')
_LENGTH: Final = _text(',"queue_length":')
_BACKLOG: Final = _text(',"backlog":')
_INBOUND_WORK: Final = _text(',"inbound_work":')
_LIST: Final = len(_texts)
for _name in ("receiving", "sending", "send_backlog", "sending_work"):
    _text(f',"{_name}":{{')
_QUOTE: Final = _text('"')
_IS: Final = _text('":')
_ROUND: Final = _text(',"round":')
_SINCE: Final = _text(',"since":')
_NO_STATE: Final = _text(",null,")
_STATE: Final = _text(",[")
_STATE_CLOSE: Final = _text("],")
_TRUTH: Final = _text("false")
_text("true")

_BYTES: Final = np.frombuffer(b"".join(_texts), np.uint8).copy()
_BEGINS: Final = np.cumsum([0, *map(len, _texts)])

_OF_TASK: Final = 2_048
"""Bytes that all records of a task fit in: eight of at most 130."""
_OF_DECISION: Final = 512
_OF_PEER: Final = 320
"""Bytes that what a decision says of one peer fits in: four queues and two answers."""


class Page(NamedTuple):
    """What is written in an episode of N nodes and T slots."""

    decisions: NDArray[np.int64]  # [T N, DECISION_COLUMNS], in the order they were made
    tasks: NDArray[np.int64]  # [T N, TASK_COLUMNS], those that arrived, by number
    scheduled: NDArray[np.int64]  # [T N] whether there is a decision about each task
    ended: NDArray[np.int64]  # [T N] numbers of tasks in the order they ended
    first: NDArray[np.int64]  # [T N] the first step of each task
    following: NDArray[np.int64]  # [8 T N] the next step of the same task
    queues: NDArray[np.int64]  # [4, N]
    decided: NDArray[np.int64]  # [N] last slot in which each decided, -1 before
    knows: NDArray[np.int64]  # [N] whether each had heard of others before that was over


def page_of(nodes: int, slots: int) -> Page:
    """Return room for an episode of ``nodes`` and ``slots``."""
    count = nodes * slots
    return Page(
        decisions=np.zeros((count, DECISION_COLUMNS), np.int64),
        tasks=np.zeros((count, TASK_COLUMNS), np.int64),
        scheduled=np.zeros(count, np.int64),
        ended=np.zeros(count, np.int64),
        first=np.zeros(count, np.int64),
        following=np.zeros(len(KINDS) * count, np.int64),
        queues=np.zeros((4, nodes), np.int64),
        decided=np.zeros(nodes, np.int64),
        knows=np.zeros(nodes, np.int64),
    )


@compiled
def write_episode(
    episode: Record, method: int, number: int, complete: bool, text: Any, page: Page
) -> tuple[NDArray[np.uint8], int, int, int]:
    """Run episode ``number`` under a baseline and write it to ``page``.

    ``complete``: with decisions and records, else only the rows of tasks. Returns all texts in an
    array, that of ``text`` or a larger one, their length, and the numbers of decisions and tasks.
    """
    _begin(episode, number, page)
    used, count, stage = 0, 0, 0
    while stage >= 0:
        stage = play_stage(episode, method)
        text, used, count = _write_decisions(episode, method, complete, text, used, count, page)
    text, used, tasks = _write_tasks(episode, complete, text, used, page)
    return text, used, count, tasks


@compiled
def write_placed(
    episode: Record,
    placement: int,
    number: int,
    complete: bool,
    text: Any,
    page: Page,
    prospects: Prospects,
) -> tuple[NDArray[np.uint8], int, int, int]:
    """As ``write_episode``, under a scheduler that sees all."""
    _begin(episode, number, page)
    used, count, stage = 0, 0, 0
    while stage >= 0:
        stage = play_slot(episode, placement, prospects)
        text, used, count = _write_decisions(
            episode, ASKS_NOBODY, complete, text, used, count, page
        )
    text, used, tasks = _write_tasks(episode, complete, text, used, page)
    return text, used, count, tasks


@compiled
def _begin(episode: Record, number: int, page: Page) -> None:
    begin_episode(episode, number)
    page.first[:] = -1
    page.decided[:] = -1
    page.knows[:] = 0
    page.scheduled[:] = 0


# --- text -----------------------------------------------------------------------------------


@compiled
def _larger(text: NDArray[np.uint8], used: int, more: int) -> NDArray[np.uint8]:
    """``text`` with room for ``more`` bytes behind those that are used."""
    if used + more <= text.size:
        return text
    larger = np.empty(2 * (used + more), np.uint8)
    larger[:used] = text[:used]
    return larger


@compiled
def _put(text: NDArray[np.uint8], at: int, piece: int) -> int:
    """Write a fixed piece at ``at``; returns where it ends."""
    for k in range(_BEGINS[piece], _BEGINS[piece + 1]):
        text[at] = _BYTES[k]
        at += 1
    return at


@compiled
def _number(text: NDArray[np.uint8], at: int, value: int) -> int:
    """Write a number that is not negative at ``at``; returns where it ends."""
    digits, left = 1, value // 10
    while left > 0:
        digits += 1
        left //= 10
    left = value
    for k in range(at + digits - 1, at - 1, -1):
        text[k] = 48 + left % 10
        left //= 10
    return at + digits


@inlined
def _with(text: NDArray[np.uint8], at: int, piece: int, value: int) -> int:
    """Write a fixed piece and a number behind it."""
    return int(_number(text, _put(text, at, piece), value))


# --- decisions ------------------------------------------------------------------------------


@compiled
def _write_decisions(
    episode: Record,
    method: int,
    complete: bool,
    text: NDArray[np.uint8],
    used: int,
    count: int,
    page: Page,
) -> tuple[NDArray[np.uint8], int, int]:
    """Write the decisions that were kept since the last call, and keep them no longer."""
    size = episode.nodes
    seen = 0
    for k in range(episode.decisions):
        decision = element(DECISION, episode.decisions_at, k)
        m = decision.slot * size + decision.node
        if decision.arrived != 0:
            page.scheduled[m] = 1
        if complete:
            text = _larger(text, used, _OF_DECISION + _OF_PEER * size)
            used = _write_decision(episode, method, decision, seen, text, used, page, count)
            count += 1
        seen = decision.peers
    episode.decisions = 0
    episode.peers = 0
    return text, used, count


@compiled
def _write_decision(
    episode: Record,
    method: int,
    decision: Record,
    seen: int,
    text: NDArray[np.uint8],
    at: int,
    page: Page,
    count: int,
) -> int:
    """Write one decision, which saw the peers from ``seen`` on; returns where its texts end."""
    size, node, slot = episode.nodes, decision.node, decision.slot
    m = slot * size + node
    row = page.decisions[count]
    row[SLOT], row[NODE], row[AT] = slot, node, decision.at
    row[TASK] = m if decision.arrived != 0 else -1
    row[DESTINATION] = decision.destination
    row[MASK] = at
    if decision.destination >= 0:
        at = _mask(episode, method, node, decision.asked, text, at)
    row[OBSERVATION] = at
    at = _with(text, at, _NODES, size)
    if decision.arrived != 0:
        task = task_at(episode, m)
        at = _with(text, at, _ABOUT, task.size)
        at = _with(text, at, _NEXT, task.cycles)
        at = _with(text, at, _NEXT, task.deadline)
        at = _put(text, at, _CLOSE)
    if decision.queue_length != 0:
        at = _with(text, at, _LENGTH, decision.queue_length)
    if decision.backlog != 0:
        at = _with(text, at, _BACKLOG, decision.backlog)
    if decision.inbound_work != 0:
        at = _with(text, at, _INBOUND_WORK, decision.inbound_work)
    if decision.peers > seen:
        at = _queues(episode, seen, decision.peers, text, at, page.queues)
    if decision.asked != 0:
        at = _with(text, at, _ROUND, decision.asked)
    if page.knows[node] != 0:
        at = _with(text, at, _SINCE, page.decided[node])
    at = _put(text, at, _OBJECT_CLOSE)
    row[PROBES] = at
    page.decided[node] = slot
    at = _answers(episode, method, decision, text, at, page)
    row[DECISION_END] = at
    return at


@inlined
def _asks_all(method: int) -> bool:
    """Return whether ``method`` asks all peers for their overload bit first."""
    return method in (LOCAL_OR_RELIABLE, RATC_MASKED, RDA_MASKED)


@inlined
def _mask(
    episode: Record, method: int, node: int, asked: int, text: NDArray[np.uint8], at: int
) -> int:
    """Write which destinations were allowed, nothing where no mask was used."""
    size = episode.nodes
    if size == 1:
        if method == RATC_MASKED:
            text[at] = 49
            at += 1
    elif _asks_all(method) and asked != 0:
        for j in range(size):
            allowed = j == node
            if not allowed and episode.silent == 0:
                allowed = probe_at(episode, 0, 0, j).overloaded == 0
            text[at + j] = 49 if allowed else 48
        at += size
    return int(at)


@inlined
def _queues(
    episode: Record,
    first: int,
    last: int,
    text: NDArray[np.uint8],
    at: int,
    queues: NDArray[np.int64],
) -> int:
    """Write the queues that are not empty, in order of the peers."""
    size = episode.nodes
    queues[:] = 0
    for k in range(first, last):
        peer = element(PEER, episode.peers_at, k)
        if peer.receiving != 0:
            queues[0, peer.node] = peer.receiving
        if peer.sending != 0:
            queues[1, peer.node] = peer.sending
            queues[2, peer.node] = peer.send_backlog
            queues[3, peer.node] = peer.sending_work
    for which in range(4):
        separator = _LIST + which
        for j in range(size):
            if queues[which, j] != 0:
                at = _put(text, at, separator)
                at = _with(text, at, _QUOTE, j)
                at = _with(text, at, _IS, queues[which, j])
                separator = _NEXT
        if separator == _NEXT:
            at = _put(text, at, _OBJECT_CLOSE)
    return int(at)


@inlined
def _answers(
    episode: Record, method: int, decision: Record, text: NDArray[np.uint8], at: int, page: Page
) -> int:
    """Write what peers answered; answers with a state are known from then on."""
    size, node, asked = episode.nodes, decision.node, decision.asked
    separator = _OPEN
    if asked != 0 and episode.silent == 0 and method != ASKS_NOBODY:
        slot = decision.slot
        if method in ASKS_STATES or _asks_all(method):
            state = method in ASKS_STATES
            for j in range(size):
                if j != node:
                    at = _answer(episode, slot, 0, j, state, text, _put(text, at, separator))
                    separator = _NEXT
            if state and size > 1:
                page.knows[node] = 1
        if method not in ASKS_STATES:
            for j in (decision.first, decision.second):
                if j >= 0 and j != node:
                    at = _put(text, at, separator)
                    at = _answer(episode, slot, asked - 1, j, True, text, at)
                    separator = _NEXT
                    page.knows[node] = 1
    if separator == _OPEN:
        at = _put(text, at, _OPEN)
    return int(_put(text, at, _CLOSE))


@compiled
def _answer(
    episode: Record,
    slot: int,
    question: int,
    j: int,
    state: bool,
    text: NDArray[np.uint8],
    at: int,
) -> int:
    """Write what peer ``j`` answered to a question about the task of ``slot``."""
    probe, delay = probe_at(episode, slot, question, j), episode.control_delay
    asked = slot * episode.slot_length + 2 * delay * question
    truth = _TRUTH + (1 if probe.overloaded != 0 else 0)
    at = _put(text, _with(text, at, _OPEN, j), _NEXT)
    at = _put(text, at, truth)
    if state:
        at = _put(text, _put(text, at, _STATE), truth)
        at = _with(text, at, _NEXT, probe.queue_length)
        at = _with(text, at, _NEXT, probe.backlog)
        at = _with(text, at, _NEXT, probe.inbound)
        at = _with(text, at, _NEXT, asked + delay)
        at = _with(text, at, _NEXT, probe.inbound_work)
        at = _put(text, at, _STATE_CLOSE)
    else:
        at = _put(text, at, _NO_STATE)
    at = _with(text, _number(text, at, asked), _NEXT, asked + 2 * delay)
    return _put(text, at, _CLOSE)


# --- tasks ----------------------------------------------------------------------------------


@compiled
def _write_tasks(
    episode: Record, complete: bool, text: NDArray[np.uint8], used: int, page: Page
) -> tuple[NDArray[np.uint8], int, int]:
    """Write the tasks of an episode that is over; returns all texts and the number of tasks."""
    first, following, ended = page.first, page.following, page.ended
    ends = 0
    # From the last step to the first, so that each task has its first one in the end.
    for k in range(episode.steps - 1, -1, -1):
        step = element(STEP, episode.steps_at, k)
        following[k] = first[step.task]
        first[step.task] = k
    for k in range(episode.steps):
        step = element(STEP, episode.steps_at, k)
        if step.kind == TASK_ENDED:
            ended[ends] = step.task
            ends += 1
    count = 0
    for m in range(episode.slots * episode.nodes):
        if first[m] >= 0:
            row = page.tasks[count]
            _measure(episode, m, row, page)
            row[STEPS] = used
            if complete:
                text = _larger(text, used, _OF_TASK)
                used = _write_steps(episode, m, text, used, page)
            row[STEPS_END] = used
            count += 1
    return text, used, count


@compiled
def _measure(episode: Record, m: int, row: NDArray[np.int64], page: Page) -> None:
    """Fold the steps of task ``m`` into its row, as ``testbed.model.history.fold`` does."""
    row[:] = -1
    row[NUMBER] = m
    row[SCHEDULED] = page.scheduled[m]
    source = m % episode.nodes
    begun = m // episode.nodes * episode.slot_length
    decided_at = sending_at = sent_at = received_at = started_at = -1
    records = 0
    k = page.first[m]
    at, node, value = 0, 0, 0
    while k >= 0:
        step = element(STEP, episode.steps_at, k)
        records += 1
        at, node, value = step.at, step.node, step.value
        if step.kind == DECIDED:
            decided_at = at
            row[GOES_TO] = value
        elif step.kind == TRANSMISSION_STARTED:
            sending_at = at
            row[NOMINAL_TRANSMISSION] = value
        elif step.kind == SENT:
            sent_at = at
        elif step.kind == RECEIVED:
            received_at = at
        elif step.kind == EXECUTION_STARTED:
            started_at = at
            row[NOMINAL_EXECUTION] = value
        k = page.following[k]
    # The last step is the end; an interval without its next step ends there, at the same node.
    row[RECORDS] = records
    row[OUTCOME] = value >> 4
    row[STAGE] = value & 15
    row[ELAPSED] = at - begun
    there = row[GOES_TO]
    remote = there >= 0 and there != source
    if remote and sending_at >= 0:
        row[TRANSMISSION_WAITING] = sending_at - decided_at
    elif remote and node == source:
        row[TRANSMISSION_WAITING] = at - decided_at
    if sent_at >= 0:
        row[TRANSMITTED] = sent_at - sending_at
    elif sending_at >= 0 and node == source:
        row[TRANSMITTED] = at - sending_at
    waits_from = received_at if remote else decided_at
    if waits_from >= 0 and started_at >= 0:
        row[EXECUTION_WAITING] = started_at - waits_from
    elif waits_from >= 0 and node == there:
        row[EXECUTION_WAITING] = at - waits_from
    if started_at >= 0 and node == there:
        row[EXECUTED] = at - started_at


@compiled
def _write_steps(episode: Record, m: int, text: NDArray[np.uint8], at: int, page: Page) -> int:
    """Write the records of task ``m``; returns where they end."""
    source, begun = m % episode.nodes, m // episode.nodes * episode.slot_length
    destination, separator = 0, _OPEN
    k = page.first[m]
    while k >= 0:
        step = element(STEP, episode.steps_at, k)
        kind, value = step.kind, step.value
        at = _put(text, at, separator)
        separator = _NEXT
        at = _with(text, at, _KIND + kind, step.node)
        at = _put(text, _with(text, at, _NEXT, step.at), _ON_TIME)
        if kind == DECIDED:
            destination = value
            at = _put(text, _with(text, at, _TO, value), _DATA_CLOSE)
        elif kind == TRANSMISSION_STARTED:
            at = _with(text, at, _PEER, destination)
            at = _put(text, _with(text, at, _AND_NOMINAL, value), _DATA_CLOSE)
        elif kind == SENT:
            at = _put(text, _with(text, at, _PEER, destination), _DATA_CLOSE)
        elif kind == RECEIVED:
            at = _with(text, at, _SENDER, source)
            at = _put(text, _with(text, at, _AND_ELAPSED, step.at - begun), _DATA_CLOSE)
        elif kind == EXECUTION_STARTED:
            at = _put(text, _with(text, at, _NOMINAL, value), _DATA_CLOSE)
        elif kind == TASK_ENDED:
            at = _put(text, _put(text, at, _ENDED_SO), _OUTCOME + (value >> 4))
            at = _with(text, at, _ELAPSED_SO, step.at - begun)
            at = _put(text, _put(text, at, _AND_STAGE), _STAGE + (value & 15))
            at = _put(text, at, _STAGE_CLOSE)
        else:
            at = _put(text, at, _CLOSE)
        k = page.following[k]
    return _put(text, at, _CLOSE)
