"""The paper's flat policy network in compiled code: no library threads to wait for.

At the sizes of a slot (some hundred rows) a numpy product takes longer to spread over threads than
to compute, and far longer on a machine that does other things as well.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from testbed.errors import Problem, UsageError
from testbed.sim.engine.compiled import compiled
from testbed.sim.engine.scoring import add_product
from testbed.sim.engine.threads import usual_threads

_ROWS_PER_THREAD: Final = 100


class Perceptron:
    """A masked softmax over layers with ReLU between them; a ``vector.FeaturePolicy``.

    ``layers`` are (weight [out, in], bias [out]) from the first to the last, as torch has them.
    ``threads`` None takes ``threads.usual_threads``.

    Raises:
        UsageError: layers that do not follow from one another.
    """

    def __init__(
        self,
        layers: Sequence[tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]],
        threads: int | None = None,
    ) -> None:
        shapes = [(np.shape(weight), np.shape(bias)) for weight, bias in layers]
        fits = bool(layers) and all(len(w) == 2 and b == (w[0],) for w, b in shapes)
        if not fits or any(a[0][0] != b[0][1] for a, b in itertools.pairwise(shapes)):
            raise UsageError(
                "the shapes of these layers do not fit together",
                [Problem("layers", str(shapes), "weights [out, in], biases [out]")],
            )
        self._weights = tuple(np.ascontiguousarray(weight.T, np.float32) for weight, _ in layers)
        self._biases = tuple(np.ascontiguousarray(bias, np.float32) for _, bias in layers)
        self._threads = threads or usual_threads()
        self._pool = ThreadPoolExecutor(self._threads - 1) if self._threads > 1 else None

    def probabilities(
        self, features: NDArray[np.float32], mask: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """[B, A] for features [B, D] and masks [B, A]; 0 where the mask is False."""
        rows = len(mask)
        out = np.empty(mask.shape)
        arrays = (self._weights, self._biases, np.ascontiguousarray(features), mask, out)
        parts = max(1, min(self._threads, rows // _ROWS_PER_THREAD))
        bounds = np.linspace(0, rows, parts + 1).astype(int).tolist()
        futures = []
        if self._pool is not None:
            futures = [
                self._pool.submit(_forward, *arrays, bounds[k], bounds[k + 1])
                for k in range(1, parts)
            ]
        _forward(*arrays, bounds[0], bounds[1])
        for future in futures:
            future.result()
        return out


@compiled
def _forward(
    weights: tuple[NDArray[np.float32], ...],
    biases: tuple[NDArray[np.float32], ...],
    features: NDArray[np.float32],
    mask: NDArray[np.bool_],
    out: NDArray[np.float64],
    first: int,
    last: int,
) -> None:
    widest = 0
    for bias in biases:
        widest = max(widest, len(bias))
    room = np.empty((2, max(widest, features.shape[1])), np.float32)
    for k in range(first, last):
        width = features.shape[1]
        room[0, :width] = features[k]
        for layer in range(len(weights)):
            given = room[layer % 2, :width]
            width = len(biases[layer])
            found = room[(layer + 1) % 2, :width]
            found[:] = biases[layer]
            add_product(given, weights[layer], found)
            if layer + 1 < len(weights):
                for h in range(width):
                    found[h] = max(found[h], np.float32(0.0))
        logits = room[len(weights) % 2]
        highest = -np.inf
        for action in range(width):
            if mask[k, action]:
                highest = max(highest, float(logits[action]))
        total = 0.0
        for action in range(width):
            p = math.exp(logits[action] - highest) if mask[k, action] else 0.0
            out[k, action] = p
            total += p
        for action in range(width):
            out[k, action] /= total
