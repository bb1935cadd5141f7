"""Episodes played by a network that scores destinations, wholly in compiled code.

The network (docs/per-destination.md): h = relu(W1 x + b1) for every row x of a decision,
y = relu(W2 h + b2 + Wc mean of h over the unmasked rows), score = w3 y; a softmax over the unmasked
rows. The same weights serve networks of any size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from testbed.errors import Problem, UsageError
from testbed.model.units import NEVER
from testbed.sim.compiled import DECIDING, Batch, Record, Records, compiled
from testbed.sim.engine import advance, answer_probes, place, scheduler_draw
from testbed.sim.features import WIDTH, per_destination
from testbed.sim.rows import Rows, success_rates

_NEVER: Final = int(NEVER)


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
        """The weights by name.

        Raises:
            UsageError: one is missing, of the wrong shape, or not finite.
        """
        hidden = np.shape(arrays.get("b1", ()))[0] if np.ndim(arrays.get("b1", 0)) == 1 else 0
        square = (hidden, hidden)
        shapes = {"w1": (WIDTH, hidden), "b1": (hidden,), "w2": square, "wc": square}
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
            raise UsageError("these are no weights of a per-destination policy", problems)
        return cls(*(np.ascontiguousarray(arrays[name], np.float32) for name in shapes))


class Decisions(NamedTuple):
    """What was decided in a batch of episodes, D decisions in order of episode and task."""

    rows: NDArray[np.float32]  # [D, N, F]
    mask: NDArray[np.bool_]  # [D, N]
    chosen: NDArray[np.int64]  # [D]
    log_probability: NDArray[np.float32]  # [D]
    episode: NDArray[np.int64]  # [D]
    task: NDArray[np.int64]  # [D]


def play_scoring(
    batch: Batch,
    rows: Rows,
    weights: ScoringWeights,
    numbers: Sequence[int],
    *,
    deterministic: bool = False,
) -> NDArray[np.float64]:
    """Play episodes ``numbers`` of ``batch`` to their end; returns the success rates [E].

    ``deterministic`` takes the most probable destination instead of sampling.
    """
    rows.open(batch, numbers)
    nothing = _room(0, batch)
    offset = np.zeros(len(numbers), np.int64)
    rows.each(_play, batch, weights, deterministic, False, offset, *nothing[:4], nothing.task)
    return success_rates(batch)


def record_scoring(
    batch: Batch, rows: Rows, weights: ScoringWeights, numbers: Sequence[int]
) -> Decisions:
    """Play episodes ``numbers`` with sampled destinations and keep all that was decided."""
    rows.open(batch, numbers)
    counts = batch.episodes["tasks"]
    offset = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    kept = _room(int(offset[-1]), batch)
    rows.each(_play, batch, weights, False, True, offset[:-1], *kept[:4], kept.task)
    kept.episode[:] = np.repeat(np.arange(len(counts)), counts)
    return kept


def _room(count: int, batch: Batch) -> Decisions:
    size = batch.nodes.shape[1]
    return Decisions(
        rows=np.empty((count, size, WIDTH), np.float32),
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


@compiled
def _decide_slot(
    episode: Record,
    nodes: Records,
    links: Records,
    tasks: Records,
    events: Records,
    rewards: NDArray[np.float32],
    weights: ScoringWeights,
    deterministic: bool,
    x: NDArray[np.float32],
    mask: NDArray[np.bool_],
    hidden: NDArray[np.float32],
    p: NDArray[np.float64],
    chosen: NDArray[np.int64],
    log_probability: NDArray[np.float32],
    who: NDArray[np.int64],
) -> int:
    """Decide and place the tasks of the present slot; fill the arrays with what was decided."""
    size = episode.nodes
    count = 0
    for i in range(size):
        m = episode.slot * size + i
        if tasks[m].stage == DECIDING:
            if count == 0:
                answer_probes(episode, nodes, links)
            rows = x[count * size : (count + 1) * size]
            per_destination(episode, nodes, links, tasks, i, m, rows, mask[count])
            who[count] = m
            count += 1
    for k in range(count):
        m = who[k]
        probabilities_of(weights, x[k * size : (k + 1) * size], mask[k], hidden, p)
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
        chosen[k] = best
        log_probability[k] = math.log(p[best])
        place(episode, nodes, links, tasks, events, rewards, m, best)
    return count


@compiled
def _play(
    episodes: Records,
    nodes: Records,
    links: Records,
    tasks: Records,
    events: Records,
    choices: NDArray[np.float64],
    rewards: NDArray[np.float32],
    first: int,
    last: int,
    weights: ScoringWeights,
    deterministic: bool,
    keep: bool,
    offset: NDArray[np.int64],
    rows: NDArray[np.float32],
    mask: NDArray[np.bool_],
    chosen: NDArray[np.int64],
    log_probability: NDArray[np.float32],
    task: NDArray[np.int64],
) -> None:
    """Play opened episodes ``first`` to ``last``; episode e writes from ``offset[e]`` on."""
    size = nodes.shape[1]
    width = weights.w1.shape[0]
    x = np.empty((size * size, width), np.float32)
    allowed = np.empty((size, size), np.bool_)
    hidden = np.empty((size + 2, len(weights.b1)), np.float32)
    probabilities = np.empty(size, np.float64)
    actions = np.empty(size, np.int64)
    logs = np.empty(size, np.float32)
    who = np.empty(size, np.int64)
    for e in range(first, last):
        episode = episodes[e]
        at = offset[e]
        for slot in range(episode.slots):
            until = slot * episode.slot_length
            advance(episode, nodes[e], links[e], tasks[e], events[e], rewards[e], until)
            count = _decide_slot(
                episode,
                nodes[e],
                links[e],
                tasks[e],
                events[e],
                rewards[e],
                weights,
                deterministic,
                x,
                allowed,
                hidden,
                probabilities,
                actions,
                logs,
                who,
            )
            if keep:
                for k in range(count):
                    rows[at + k] = x[k * size : (k + 1) * size]
                    mask[at + k] = allowed[k]
                    chosen[at + k] = actions[k]
                    log_probability[at + k] = logs[k]
                    task[at + k] = who[k]
                at += count
            episode.slot = slot + 1
        advance(episode, nodes[e], links[e], tasks[e], events[e], rewards[e], _NEVER)
