"""Episodes played by a network that scores destinations, wholly in compiled code.

The network (docs/per-destination.md): h = relu(W1 x + b1) for every row x of a decision,
y = relu(W2 h + b2 + Wc mean of h over the unmasked rows), score = w3 y; a softmax over the unmasked
rows. The same weights serve networks of any size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from testbed.errors import Problem, UsageError
from testbed.model.information import Asks, asked_by
from testbed.model.per_destination import NAME
from testbed.model.refusal import BACKLOG, CAPACITY, EXPOSURE, IN_TIME, KNOWN, KNOWN_IN_TIME, SCALE
from testbed.scenario.plan import Plan
from testbed.sim.engine.arrays import keeps, pack
from testbed.sim.engine.compiled import (
    ARRIVAL,
    DECIDING,
    PROBES,
    Batch,
    Record,
    asking_at,
    compiled,
    task_at,
)
from testbed.sim.engine.draws import scheduler_draw
from testbed.sim.engine.events import finish, place, refuse, settle
from testbed.sim.engine.features import ENCODER_OF, WIDTH, per_destination
from testbed.sim.engine.hearing import tell_states
from testbed.sim.engine.slots import (
    AT_ONCE,
    ONE_QUESTION,
    answer_probes,
    begins_at,
    next_stage,
    nobody_answers,
    stages_of,
    tasks_arrive,
    turn_of,
)
from testbed.sim.engine.threads import Threads, success_rates


class ScoringWeights(NamedTuple):
    """Weights as they are multiplied from the right: ``x @ w1``. float32, contiguous."""

    w1: NDArray[np.float32]  # [F, H]
    b1: NDArray[np.float32]  # [H]
    w2: NDArray[np.float32]  # [H, H]
    wc: NDArray[np.float32]  # [H, H]
    b2: NDArray[np.float32]  # [H]
    w3: NDArray[np.float32]  # [H]

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> ScoringWeights:
        """Return the weights by name; the shape of ``w1`` tells for which encoder.

        Raises:
            UsageError: one is missing, of the wrong shape, or not finite.
        """
        hidden = np.shape(arrays.get("b1", ()))[0] if np.ndim(arrays.get("b1", 0)) == 1 else 0
        square = (hidden, hidden)
        given = np.shape(arrays.get("w1", ()))
        width = given[0] if given and given[0] in ENCODER_OF else WIDTH
        shapes = {"w1": (width, hidden), "b1": (hidden,), "w2": square, "wc": square}
        shapes |= {"b2": (hidden,), "w3": (hidden,)}
        problems = [
            Problem(name, f"shape {np.shape(arrays[name])}", f"finite numbers of shape {shape}")
            if name in arrays
            else Problem(name, "missing", f"shape {shape}")
            for name, shape in shapes.items()
            if name not in arrays
            or np.shape(arrays[name]) != shape
            or not np.isfinite(arrays[name]).all()
        ]
        if problems or hidden == 0:
            raise UsageError("not the weights of a per-destination policy", problems)
        return cls(*(np.ascontiguousarray(arrays[name], np.float32) for name in shapes))

    @property
    def encoder(self) -> str:
        """Name of the encoder whose rows these weights are for."""
        return ENCODER_OF[len(self.w1)]


def pack_for(plans: Sequence[Plan], weights: ScoringWeights, asks: Asks | None = None) -> Batch:
    """Return a batch that keeps what a policy with these weights looks at; see ``pack``.

    ``asks`` is what it asks its peers; None: the one thing that others with its encoder ask.

    Raises:
        UsageError: a plan that is not covered, or plans that differ in nodes or slots.
        ValueError: no ``asks`` for an encoder that does not tell it.
    """
    asks = asked_by(weights.encoder) if asks is None else asks
    # Of overload bits nothing has to be kept.
    return pack(plans, None if weights.encoder == NAME else weights.encoder, asks=asks)


class Decisions(NamedTuple):
    """Decisions of a batch of episodes, D of them in order of episode and task."""

    rows: NDArray[np.float32]  # [D, N, F]
    mask: NDArray[np.bool_]  # [D, N]
    chosen: NDArray[np.int64]  # [D]
    log_probability: NDArray[np.float32]  # [D]
    episode: NDArray[np.int64]  # [D]
    task: NDArray[np.int64]  # [D]


def play_scoring(
    batch: Batch,
    rows: Threads,
    weights: ScoringWeights,
    numbers: Sequence[int],
    *,
    deterministic: bool = False,
    refusing: bool = False,
) -> NDArray[np.float64]:
    """Play episodes ``numbers`` of ``batch`` to their end; returns the success rates [E].

    ``deterministic`` takes the most probable destination instead of sampling. ``refusing`` refuses
    tasks that are not worth their work (``testbed.model.refusal``).

    Raises:
        ValueError: a batch that was not packed for these weights; see ``pack_for``.
    """
    _check(batch, weights)
    rows.open(batch, numbers)
    offset = np.zeros(len(numbers), np.int64)
    kept = _decisions(0, batch, weights)
    rows.each(_play, batch, weights, deterministic, refusing, False, offset, kept)
    return success_rates(batch)


def record_scoring(
    batch: Batch, rows: Threads, weights: ScoringWeights, numbers: Sequence[int]
) -> Decisions:
    """Play episodes ``numbers`` with sampled destinations and keep all that was decided.

    Raises:
        ValueError: a batch that was not packed for these weights; see ``pack_for``.
    """
    _check(batch, weights)
    rows.open(batch, numbers)
    counts = batch.episodes["tasks"]
    offset = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    kept = _decisions(int(offset[-1]), batch, weights)
    kept.task[:] = -1
    rows.each(_play, batch, weights, False, False, True, offset[:-1], kept)
    kept.episode[:] = np.repeat(np.arange(len(counts)), counts)
    decided = kept.task >= 0
    # A task whose deadline passes before the answers come is not decided.
    if decided.all():
        return kept
    return Decisions._make(array[decided] for array in kept)


def _check(batch: Batch, weights: ScoringWeights) -> None:
    if weights.encoder != NAME and not keeps(batch, weights.encoder):
        raise ValueError(f"the batch was not packed for encoder {weights.encoder}")


def _decisions(count: int, batch: Batch, weights: ScoringWeights) -> Decisions:
    size = batch.nodes.shape[1]
    return Decisions(
        rows=np.empty((count, size, len(weights.w1)), np.float32),
        mask=np.empty((count, size), np.bool_),
        chosen=np.empty(count, np.int64),
        log_probability=np.empty(count, np.float32),
        episode=np.empty(count, np.int64),
        task=np.empty(count, np.int64),
    )


@compiled
def add_product(
    x: NDArray[np.float32], weights: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """``out += x @ weights`` for one row; a library call would cost more than it does."""
    for k in range(len(x)):
        factor = x[k]
        if factor != np.float32(0.0):
            row = weights[k]
            for h in range(len(out)):
                out[h] += factor * row[h]


@compiled
def probabilities_of(
    weights: ScoringWeights,
    x: NDArray[np.float32],
    mask: NDArray[np.bool_],
    hidden: NDArray[np.float32],
    out: NDArray[np.float64],
) -> None:
    """The distribution [N] for rows ``x`` [N, F] under ``mask`` [N]; 0 where masked.

    ``hidden`` [N + 2, H] is room to work in.
    """
    size, width = len(mask), len(weights.b1)
    context, second = hidden[size], hidden[size + 1]
    second[:] = np.float32(0.0)
    free = 0
    for j in range(size):
        if mask[j]:
            free += 1
            row = hidden[j]
            row[:] = weights.b1
            add_product(x[j], weights.w1, row)
            for h in range(width):
                row[h] = max(row[h], np.float32(0.0))
                second[h] += row[h]
    for h in range(width):
        second[h] /= np.float32(free)
    context[:] = weights.b2
    add_product(second, weights.wc, context)
    highest = -np.inf
    for j in range(size):
        if mask[j]:
            second[:] = context
            add_product(hidden[j], weights.w2, second)
            score = np.float32(0.0)
            for h in range(width):
                score += max(second[h], np.float32(0.0)) * weights.w3[h]
            out[j] = score
            highest = max(highest, out[j])
    total = 0.0
    for j in range(size):
        out[j] = math.exp(out[j] - highest) if mask[j] else 0.0
        total += out[j]
    for j in range(size):
        out[j] /= total


class Room(NamedTuple):
    """Room for the decisions of one turn, K at most N of them, and for the network to work in."""

    rows: NDArray[np.float32]  # [N, N, F]
    mask: NDArray[np.bool_]  # [N, N]
    hidden: NDArray[np.float32]  # [N + 2, H]
    probabilities: NDArray[np.float64]  # [N]
    chosen: NDArray[np.int64]  # [N]
    log_probability: NDArray[np.float32]  # [N]
    task: NDArray[np.int64]  # [N]
    pool: NDArray[np.int64]  # [N]


@compiled
def _room_for(size: int, weights: ScoringWeights) -> Room:
    return Room(
        np.empty((size, size, weights.w1.shape[0]), np.float32),
        np.empty((size, size), np.bool_),
        np.empty((size + 2, len(weights.b1)), np.float32),
        np.empty(size, np.float64),
        np.empty(size, np.int64),
        np.empty(size, np.float32),
        np.empty(size, np.int64),
        np.empty(size, np.int64),
    )


@compiled
def _refuses(episode: Record, m: int, rows: NDArray[np.float32], mask: NDArray[np.bool_]) -> bool:
    """``Drl._refuses``."""
    best, work, capacity = 0.0, 0.0, 0.0
    for j in range(len(mask)):
        row = rows[j]
        in_time = row[KNOWN_IN_TIME] if row[KNOWN] > np.float32(0.0) else row[IN_TIME]
        if mask[j] and in_time > np.float32(0.0):
            best = max(best, math.exp(-float(row[EXPOSURE]) / SCALE))
        work += float(row[CAPACITY]) * float(row[BACKLOG])
        capacity += float(row[CAPACITY])
    fill = work / capacity
    return bool(best <= episode.own_price * fill * fill * task_at(episode, m).cycles)


@compiled
def _decide_turn(
    episode: Record,
    turn: int,
    weights: ScoringWeights,
    deterministic: bool,
    refusing: bool,
    room: Room,
) -> int:
    """Decide and place the tasks of ``turn``; ``room`` then holds what was decided."""
    size = episode.nodes
    count = 0
    for k in range(asking_at(episode, turn, size).value):
        i = asking_at(episode, turn, k).value
        m = turn // episode.turns * size + i
        if task_at(episode, m).stage == DECIDING:
            per_destination(episode, turn, i, m, room.rows[count], room.mask[count], room.pool)
            room.task[count] = m
            count += 1
    p = room.probabilities
    for k in range(count):
        m = room.task[k]
        if refusing and _refuses(episode, m, room.rows[k], room.mask[k]):
            room.chosen[k] = -1
            refuse(episode, m)
            continue
        probabilities_of(weights, room.rows[k], room.mask[k], room.hidden, p)
        best = 0
        if deterministic:
            best = int(np.argmax(p))
        else:
            left = scheduler_draw(episode, m % size, m, 0)
            for j in range(size):
                if p[j] > 0.0:
                    best = j
                    if left < p[j]:
                        break
                    left -= p[j]
        room.chosen[k] = best
        room.log_probability[k] = math.log(p[best])
        place(episode, m, best)
        settle(episode)
    return count


@compiled
def _play(
    batch: Batch,
    first: int,
    last: int,
    weights: ScoringWeights,
    deterministic: bool,
    refusing: bool,
    keep: bool,
    offset: NDArray[np.int64],
    kept: Decisions,
) -> None:
    """Play opened episodes ``first`` to ``last``; episode e is kept from ``offset[e]`` on."""
    room = _room_for(batch.nodes.shape[1], weights)
    for e in range(first, last):
        episode = batch.episodes[e]
        at = offset[e]
        silent = episode.silent != 0
        # Where states are told unasked, nobody is asked.
        asks = episode.gossip == 0
        stages = stages_of(episode, ONE_QUESTION) if asks else AT_ONCE
        while True:
            following = min(episode.cursor[ARRIVAL], episode.slots * episode.turns - 1)
            tell_states(episode, begins_at(episode, following))
            stage = next_stage(episode, stages)
            if stage < 0:
                break
            turn = turn_of(episode, stage)
            if stage == ARRIVAL:
                tasks_arrive(episode, turn)
                if asks and silent:
                    nobody_answers(episode, turn)
                if asks:
                    continue
            if stage == PROBES:
                answer_probes(episode, turn, 0)
                continue
            count = _decide_turn(episode, turn, weights, deterministic, refusing, room)
            if keep:
                for k in range(count):
                    kept.rows[at + k] = room.rows[k]
                    kept.mask[at + k] = room.mask[k]
                    kept.chosen[at + k] = room.chosen[k]
                    kept.log_probability[at + k] = room.log_probability[k]
                    kept.task[at + k] = room.task[k]
                at += count
        finish(episode)
