"""Generalised advantage estimation over trajectories of any lengths (equations 13 to 15)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.learning.transitions import BoolArray, FloatArray, IntArray


def advantages_of(
    reward: FloatArray,
    value: FloatArray,
    lengths: IntArray,
    terminated: BoolArray,
    gamma: float,
    lambda_: float,
) -> FloatArray:
    """Advantages of S trajectories laid end to end: one value per decision, [sum(lengths)].

    ``reward`` has one value per decision, ``value`` one more per trajectory: V of the state after
    its last decision, which counts where the trajectory was cut (truncated) and is taken as 0
    where it ``terminated`` [S]. Nothing passes from one trajectory to another.
    """
    count, longest = len(lengths), int(lengths.max())
    inside = np.arange(longest) < lengths[:, None]  # [S, T]
    inside_values = np.arange(longest + 1) <= lengths[:, None]  # [S, T + 1]
    rewards = _laid_out(reward, inside)
    values = _laid_out(value, inside_values)
    values[np.arange(count), lengths] *= ~terminated
    delta = rewards + gamma * values[:, 1:] - values[:, :-1]
    advantage = np.zeros_like(delta)
    running = np.zeros(count)
    for t in range(longest - 1, -1, -1):
        running = np.where(inside[:, t], delta[:, t] + gamma * lambda_ * running, 0.0)
        advantage[:, t] = running
    return advantage[inside].astype(np.float32)


def _laid_out(flat: NDArray[Any], inside: BoolArray) -> NDArray[np.float64]:
    laid = np.zeros(inside.shape)
    laid[inside] = flat
    return laid
