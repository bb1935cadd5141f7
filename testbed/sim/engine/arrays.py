"""From plans to the arrays of the compiled engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from testbed.errors import Problem, UsageError
from testbed.model.distributions import Choice, Constant, Distribution, Uniform
from testbed.model.encoders import ExtendedEncoder, Scales
from testbed.model.information import BITS, Asks, period_of, probes_of
from testbed.model.per_destination import HEARD_NAME
from testbed.model.refusal import CENTRAL_PRICE, OWN_PRICE
from testbed.model.scarcity import mean_cycles
from testbed.model.topology import OverloadMeasure
from testbed.model.units import SECOND, duration
from testbed.model.work_price import LEARNED
from testbed.scenario.plan import Plan
from testbed.sim.engine.compiled import (
    ANSWERS,
    BY_BACKLOG,
    BY_QUEUE_LENGTH,
    DECISION,
    EPISODE,
    EVENT,
    HEARD,
    LANE,
    LINK,
    MESSAGE,
    NODE,
    NUMBER,
    PEER,
    PROBE,
    STEP,
    TASK,
    TOLD,
    Batch,
    Record,
)
from testbed.sim.engine.journal import KINDS

_LARGEST: Final = 2**62 // SECOND
"""Amounts above this would overflow 64 bits when they are divided by a rate."""
_WORD: Final = 0xFFFF_FFFF_FFFF_FFFF
_LINE: Final = 64
_MOST_BUCKETS: Final = 2**13


def problems_of(plan: Plan) -> list[Problem]:
    """Return the reasons why the compiled engine cannot run ``plan``; empty if it can."""
    problems = []
    workload = plan.workload
    if plan.faults or plan.by_hand:
        count = len(plan.faults) + sum(map(len, plan.by_hand.values()))
        problems.append(Problem("faults", _faults(count), "none"))
    if plan.rules.link_delays is not None:
        seen = "control delays that differ from link to link"
        problems.append(Problem("rules.link_delays", seen, "the same for all links"))
    size = workload.size_bytes.maximum
    largest = max(size, 8 * size * workload.complexity.maximum)
    if largest > _LARGEST:
        seen = f"tasks of {largest:.3g} cycles or bytes"
        problems.append(Problem("workload", seen, f"<= {_LARGEST}"))
    if _minimum(workload.deadline) < 1:
        problems.append(Problem("workload.deadline", "0 us", "at least 1 us"))
    # Work that takes no time would end between two decisions of the same instant.
    smallest = int(_minimum(workload.size_bytes))
    fastest = max((max(row) for row in plan.topology.link_rate), default=0)
    if plan.topology.size > 1 and duration(smallest, fastest) < 1:
        problems.append(Problem("workload.size_bytes", "transmission times of 0 us", "1 us"))
    cycles = int(8 * _minimum(workload.size_bytes) * _minimum(workload.complexity))
    if duration(cycles, max(plan.topology.capacity_hz)) < 1:
        problems.append(Problem("workload.complexity", "execution times of 0 us", "1 us"))
    return problems


def problems_of_asking(plan: Plan, asks: Asks) -> list[Problem]:
    """Return the reasons why the engine cannot give what is asked; empty if it can.

    It keeps the two newest states that a node told, of which at least one has been heard.
    """
    period, delay = period_of(asks, plan.workload.slot), plan.rules.control_delay
    if period and delay >= period:
        return [Problem("rules.control_delay", f"{delay} us", f"less than the period {period} us")]
    return []


def _faults(count: int) -> str:
    return "1 fault" if count == 1 else f"{count} faults"


def without_control_delay(plan: Plan) -> Plan:
    """``plan`` with control messages that take no time, and all nodes of a slot deciding at once.

    The hash stays that of the given plan, because arrivals, tasks and fates are the same.
    """
    rules = dataclasses.replace(plan.rules, control_delay=0, link_delays=None, stagger=0)
    return dataclasses.replace(plan, rules=rules)


def check(plan: Plan, *, by_slot: bool = False) -> None:
    """Refuse a plan the compiled engine does not cover, or not ``by_slot``.

    Raises:
        UsageError: with every reason; ``testbed.sim.simulator`` runs all plans.
    """
    problems = problems_by_slot(plan) if by_slot else problems_of(plan)
    if problems:
        raise UsageError(f"the compiled engine cannot run scenario '{plan.name}'", problems)


def pack(
    plans: Sequence[Plan],
    encoder: str | None = None,
    *,
    asks: Asks = BITS,
    journal: bool = False,
) -> Batch:
    """One row per plan; the same plan may stand in several rows.

    ``encoder`` names what nodes will be observed by: what it looks at and no baseline does, the
    receiving queues and what nodes last heard of each other, is kept for it alone. ``asks`` is what
    a policy asks its peers. ``journal`` keeps the steps of tasks and the decisions, to be read
    after every stage.

    Raises:
        UsageError: a plan that is not covered, or plans that differ in nodes or slots.
    """
    distinct = list({id(plan): plan for plan in plans}.values())
    for plan in distinct:
        check(plan)
        if problems := problems_of_asking(plan, asks):
            raise UsageError(f"the compiled engine cannot run scenario '{plan.name}'", problems)
    sizes = {(plan.topology.size, plan.workload.slots) for plan in plans}
    if len(sizes) != 1:
        raise UsageError(
            "episodes that run side by side must have as many nodes and slots as one another; "
            f"these have {sorted(sizes)}"
        )
    ((size, slots),) = sizes
    rows, task_count = len(plans), slots * size
    widest = max(len(d.values) if isinstance(d, Choice) else 1 for p in plans for d in _drawn(p))
    rooms = [_Room.of(plan, encoder, journal, asks) for plan in distinct]
    batch = Batch(
        episodes=np.zeros(rows, EPISODE),
        nodes=np.zeros((rows, size), NODE),
        links=np.zeros((len(distinct), size, size), LINK),
        tasks=np.zeros((rows, task_count), TASK),
        choices=np.zeros((len(distinct), 3, widest)),
        rewards=np.zeros((rows, slots), np.float32),
        room=np.zeros((rows, max(room.bytes for room in rooms)), np.uint8),
    )
    first: dict[int, int] = {}
    for network, plan in enumerate(distinct):
        row = next(row for row, each in enumerate(plans) if each is plan)
        first[id(plan)] = row
        _fill(batch, row, network, plan)
        rooms[network].describe(batch.episodes[row])
        batch.episodes[row]["probed"] = probes_of(asks)
        batch.episodes[row]["gossip"] = period_of(asks, plan.workload.slot)
    for row, plan in enumerate(plans):
        same = first[id(plan)]
        if same != row:
            batch.episodes[row] = batch.episodes[same]
            batch.nodes[row] = batch.nodes[same]
        network = int(batch.episodes[row]["network"])
        _place(batch, row, network, rooms[network])
    return batch


_HEARING: Final = frozenset({ExtendedEncoder.name, HEARD_NAME})
"""Encoders that look at what nodes last heard of each other."""


def keeps(batch: Batch, encoder: str) -> bool:
    """Return whether ``batch`` keeps what ``encoder`` looks at."""
    episodes = batch.episodes
    kept = (episodes["heard_at"] != 0) | (episodes["told_at"] != 0)
    heard = encoder not in _HEARING or bool(kept.all())
    return heard and bool((episodes["receiving_at"] != 0).all())


class _Room(NamedTuple):
    """The layout of an episode's room to work in."""

    shift: int
    buckets: int
    lanes: int
    overlap: int
    parts: dict[str, int]
    """Bytes of each part, by the field that holds its address."""

    @classmethod
    def of(cls, plan: Plan, encoder: str | None, journal: bool, asks: Asks) -> _Room:
        """Return the room for episodes of ``plan``."""
        size, workload = plan.topology.size, plan.workload
        tasks = size * workload.slots
        longest = round(workload.deadline.maximum)
        # As many buckets for a slot as tasks are expected in it, as far as the ring stays small.
        arrivals = max(1, round(sum(plan.topology.arrival_probability)))
        shift = max((workload.slot // (2 * arrivals)).bit_length(), 1) - 1
        shift = max(shift, (longest // _MOST_BUCKETS).bit_length())
        buckets = 1 << ((longest >> shift) + 2).bit_length()
        lanes = min(size, workload.slots, longest // workload.slot + 1)
        overlap = _overlap(plan)
        parts = {
            "ring_at": buckets * NUMBER.itemsize,
            "near_at": (4 * tasks + 1) * EVENT.itemsize,
            "lanes_at": size * lanes * LANE.itemsize,
            "probes_at": overlap * 2 * (size + 1) * PROBE.itemsize,
            "asking_at": overlap * (size + 1) * NUMBER.itemsize,
        }
        if journal:
            decisions = (overlap + 2) * size
            parts["steps_at"] = len(KINDS) * tasks * STEP.itemsize
            parts["decisions_at"] = decisions * DECISION.itemsize
            parts["peers_at"] = decisions * (size + lanes) * PEER.itemsize
        if encoder is not None or journal:
            parts["messages_at"] = 2 * tasks * MESSAGE.itemsize
            parts["receiving_at"] = size * size * NUMBER.itemsize
        if period_of(asks, workload.slot):
            parts["told_at"] = 2 * size * TOLD.itemsize
        elif encoder in _HEARING:
            parts["heard_at"] = size * size * HEARD.itemsize
        return cls(shift, buckets, lanes, overlap, parts)

    @property
    def bytes(self) -> int:
        """Size of all parts, each of whole cache lines."""
        return sum(-(-part // _LINE) * _LINE for part in self.parts.values())

    def describe(self, episode: Record) -> None:
        """Write down the sizes of the parts."""
        for name in ("shift", "buckets", "lanes", "overlap"):
            episode[name] = getattr(self, name)


def _place(batch: Batch, row: int, network: int, room: _Room) -> None:
    """Write down where everything of an episode is."""
    episode = batch.episodes[row]
    episode["nodes_at"] = batch.nodes[row].ctypes.data
    episode["links_at"] = batch.links[network].ctypes.data
    episode["tasks_at"] = batch.tasks[row].ctypes.data
    episode["rewards_at"] = batch.rewards[row].ctypes.data
    episode["choices_at"] = batch.choices[network].ctypes.data
    at = batch.room[row].ctypes.data
    for name, size in room.parts.items():
        episode[name] = at
        at += -(-size // _LINE) * _LINE


def _offsets(plan: Plan) -> tuple[int, ...]:
    """Return the times of the stages of a decision, from the beginning of its turn."""
    delay, timeout = plan.rules.control_delay, plan.rules.probe_timeout
    if plan.topology.size == 1:
        return 0, 0, 0, 0, 0  # there is nobody to ask
    if _silent(plan):
        return 0, delay, timeout, timeout, timeout
    return 0, delay, 2 * delay, 3 * delay, 4 * delay


def _overlap(plan: Plan) -> int:
    """Return how many turns may have begun and not be decided, at most."""
    workload, stagger = plan.workload, _stagger(plan)
    last = max(_offsets(plan))
    slots = min(
        workload.slots, (last + plan.rules.turn(plan.topology.size - 1)) // workload.slot + 1
    )
    if stagger == 0:
        return slots
    # The last turn of a slot may be followed by the next slot sooner than by another turn.
    turns = 2 + last // workload.slot + last // stagger
    return max(slots, min(turns, workload.slots * plan.topology.size))


def _stagger(plan: Plan) -> int:
    """Return the time between turns; 0 also where one node has nobody to wait for."""
    return plan.rules.stagger if plan.topology.size > 1 else 0


def _silent(plan: Plan) -> bool:
    return plan.topology.size > 1 and 2 * plan.rules.control_delay > plan.rules.probe_timeout


def problems_by_slot(plan: Plan) -> list[Problem]:
    """Return the reasons why ``plan`` cannot be played slot by slot; empty if it can."""
    problems, waits = problems_of(plan), _offsets(plan)[ANSWERS]
    if waits >= plan.workload.slot:
        path = "rules.control_delay"
        problems.append(Problem(path, f"answers {waits} us after a slot began", "before the next"))
    if _stagger(plan):
        seen = f"a turn of its own for each node, {plan.rules.stagger} us apart"
        problems.append(Problem("rules.stagger", seen, "false: all nodes of a slot decide at once"))
    return problems


def _fill(batch: Batch, row: int, network: int, plan: Plan) -> None:
    topology, workload, rules = plan.topology, plan.workload, plan.rules
    episode, nodes, links = batch.episodes[row], batch.nodes[row], batch.links[network]
    by_backlog = rules.overload.measure is OverloadMeasure.BACKLOG
    episode["nodes"] = topology.size
    episode["slots"] = workload.slots
    episode["slot_length"] = workload.slot
    episode["measure"] = BY_BACKLOG if by_backlog else BY_QUEUE_LENGTH
    episode["drop_hopeless"] = rules.drop_hopeless
    episode["reject"] = rules.reject
    limit = rules.execution_queue_limit
    episode["queue_limit"] = -1 if limit is None else limit
    episode["control_delay"] = rules.control_delay
    episode["silent"] = _silent(plan)
    episode["stagger"] = _stagger(plan)
    episode["turns"] = topology.size if _stagger(plan) else 1
    episode["offset"] = _offsets(plan)
    episode["network"] = network
    episode["idle_slots"] = plan.log_idle_slots
    episode["widest"] = batch.choices.shape[2]
    episode["workload_seed"] = plan.seeds.workload & _WORD
    episode["faults_seed"] = plan.seeds.faults & _WORD
    episode["schedulers_seed"] = plan.seeds.schedulers & _WORD
    for which, distribution in enumerate(_drawn(plan)):
        match distribution:
            case Constant(value):
                episode["low"][which] = value
            case Uniform(low, high):
                episode["low"][which] = low
                episode["span"][which] = high - low
            case Choice(values):
                episode["distribution"][which] = len(values)
                batch.choices[network, which, : len(values)] = values
    nodes["cores"] = topology.cores
    nodes["capacity"] = topology.capacity_hz
    nodes["limit"] = [rules.overload.limit_for(cores) for cores in topology.cores]
    nodes["arrival"] = topology.arrival_probability
    nodes["failure"] = topology.execution_failure_rate
    links["rate"] = topology.link_rate
    links["failure"] = topology.link_failure_rate
    scales = Scales.of(plan)
    episode["max_size"] = scales.size_bytes
    episode["max_cycles"] = scales.cycles
    episode["max_deadline"] = scales.deadline
    episode["max_capacity"] = scales.capacity_hz
    episode["max_rate"] = scales.link_rate
    episode["max_arrival"] = scales.arrival_probability
    episode["max_failure"] = scales.execution_failure_rate
    episode["queue_scale"] = scales.queue_length
    episode["total_capacity"] = sum(topology.capacity_hz)
    episode["mean_cycles"] = mean_cycles(workload)
    episode["central_price"] = CENTRAL_PRICE / mean_cycles(workload)
    episode["price"] = LEARNED
    episode["own_price"] = OWN_PRICE / mean_cycles(workload)


def _drawn(plan: Plan) -> tuple[Distribution, Distribution, Distribution]:
    return plan.workload.size_bytes, plan.workload.complexity, plan.workload.deadline


def _minimum(distribution: Distribution) -> float:
    match distribution:
        case Constant(value):
            return value
        case Uniform(low, _):
            return low
        case Choice(values):
            return min(values)
