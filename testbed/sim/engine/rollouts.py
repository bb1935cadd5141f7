"""Episodes played by a flat policy wholly in compiled code: observed, decided and carried out.

Equal to ``VectorEnv`` slot by slot with the same policy: the same observations, the same draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from testbed.sim.engine.compiled import DECIDING, Batch, compiled, task_at
from testbed.sim.engine.events import advance, finish, open_episode, place
from testbed.sim.engine.features import kernel_of, observe
from testbed.sim.engine.perceptron import FlatNetwork, distribution, room_for
from testbed.sim.engine.threads import Threads
from testbed.sim.engine.vector import Seen, VectorEnv


class Kept(NamedTuple):
    """What a rollout keeps of each slot; with E 0 nothing."""

    features: NDArray[np.float32]  # [E, N, T + 1, D]
    mask: NDArray[np.bool_]  # [E, N, T + 1, N + 1]
    actions: NDArray[np.int64]  # [E, N, T]
    log_probability: NDArray[np.float32]  # [E, N, T]


def roll_out(
    env: VectorEnv, network: FlatNetwork, numbers: Sequence[int], kept: Kept | None = None
) -> None:
    """Play episodes ``numbers`` of ``env`` to their end with actions sampled from ``network``.

    What is seen and done goes to ``kept``, where it is given.

    Raises:
        ValueError: not one number per episode, or a network of another width.
    """
    batch, size, width = env.batch, env.size, env.features
    if len(numbers) != env.episodes:
        raise ValueError(f"{len(numbers)} episode numbers for {env.episodes} episodes")
    if len(network.offset) != width or len(network.biases[-1]) != size + 1:
        shape = f"{len(network.offset)} features x {len(network.biases[-1])} actions"
        raise ValueError(f"a network of {shape}, expected {width} x {size + 1}")
    shape_of_all = (env.episodes, size)
    last = Seen(
        np.empty((*shape_of_all, width), np.float32),
        np.empty((*shape_of_all, size + 1), np.bool_),
        np.empty(shape_of_all),
    )
    if kept is None:
        kept = Kept(
            np.empty((0, size, 1, width), np.float32),
            np.empty((0, size, 1, size + 1), np.bool_),
            np.empty((0, size, 0), np.int64),
            np.empty((0, size, 0), np.float32),
        )
    encoder = kernel_of(env.encoder)
    rows = Threads(env.episodes, env.threads)
    rows.each(_roll_out, batch, network, encoder, np.asarray(numbers, np.int64), kept, last)
    env.end(last)


@compiled
def _roll_out(
    batch: Batch,
    first: int,
    last: int,
    network: FlatNetwork,
    encoder: int,
    numbers: NDArray[np.int64],
    kept: Kept,
    last_seen: Seen,
) -> None:
    keep = len(kept.actions) > 0
    size, width = batch.nodes.shape[1], len(network.offset)
    features = np.empty((size, width), np.float32)
    mask = np.empty((size, size + 1), np.bool_)
    draws, probabilities = np.empty(size), np.empty(size + 1)
    room = room_for(network)
    for e in range(first, last):
        episode = batch.episodes[e]
        open_episode(episode, numbers[e])
        for slot in range(episode.slots):
            episode.slot = slot
            advance(episode, slot * episode.slot_length)
            observe(episode, encoder, features, mask, draws)
            if keep:
                for i in range(size):
                    for d in range(width):
                        kept.features[e, i, slot, d] = features[i, d]
                    for a in range(size + 1):
                        kept.mask[e, i, slot, a] = mask[i, a]
            for i in range(size):
                m = slot * size + i
                action, log_probability = size, 0.0
                if task_at(episode, m).stage == DECIDING:
                    distribution(network, features[i], mask[i], room, probabilities)
                    action = _chosen(probabilities, draws[i])
                    log_probability = math.log(probabilities[action])
                    place(episode, m, action)
                if keep:
                    kept.actions[e, i, slot] = action
                    kept.log_probability[e, i, slot] = log_probability
        episode.slot = episode.slots
        advance(episode, episode.slots * episode.slot_length)
        observe(episode, encoder, last_seen.features[e], last_seen.mask[e], last_seen.draws[e])
        if keep:
            for i in range(size):
                for d in range(width):
                    kept.features[e, i, episode.slots, d] = last_seen.features[e, i, d]
                for a in range(size + 1):
                    kept.mask[e, i, episode.slots, a] = last_seen.mask[e, i, a]
        finish(episode)


@compiled
def _chosen(probabilities: NDArray[np.float64], draw: float) -> int:
    """Return one action by inversion of ``draw``, as ``vector.sample``."""
    total = 0.0
    for p in probabilities:
        total += p
    left, last = draw * total, 0
    for action in range(len(probabilities)):
        p = probabilities[action]
        if p > 0.0:
            last = action
            if left < p:
                break
            left -= p
    return last
