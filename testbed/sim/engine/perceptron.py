"""The paper's flat policy network in compiled code: no library threads to wait for.

At the sizes of a slot (some hundred rows) a numpy product takes longer to spread over threads than
to compute, and far longer on a machine that does other things as well.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from testbed.errors import Problem, UsageError
from testbed.sim.engine.compiled import compiled
from testbed.sim.engine.scoring import add_product
from testbed.sim.engine.threads import usual_threads

_ROWS_PER_THREAD: Final = 100


class FlatNetwork(NamedTuple):
    """The weights of a flat policy for compiled functions: layers with ReLU between them.

    Its input is ``(features - offset) * scale``; its outputs are the logits of the actions.
    """

    weights: tuple[NDArray[np.float32], ...]  # [in, out] each
    biases: tuple[NDArray[np.float32], ...]  # [out] each
    offset: NDArray[np.float32]  # [D]
    scale: NDArray[np.float32]  # [D]

    @classmethod
    def of(
        cls,
        layers: Sequence[tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]],
        offset: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
    ) -> FlatNetwork:
        """Return the network of ``layers`` (weight [out, in], bias [out]), as torch has them.

        Raises:
            UsageError: layers that do not follow from one another.
        """
        shapes = [(np.shape(weight), np.shape(bias)) for weight, bias in layers]
        fits = bool(layers) and all(len(w) == 2 and b == (w[0],) for w, b in shapes)
        if not fits or any(a[0][0] != b[0][1] for a, b in itertools.pairwise(shapes)):
            raise UsageError(
                "the shapes of these layers do not fit together",
                [Problem("layers", str(shapes), "weights [out, in], biases [out]")],
            )
        width = shapes[0][0][1]
        return cls(
            tuple(np.ascontiguousarray(np.transpose(weight), np.float32) for weight, _ in layers),
            tuple(np.ascontiguousarray(bias, np.float32) for _, bias in layers),
            np.zeros(width, np.float32) if offset is None else np.asarray(offset, np.float32),
            np.ones(width, np.float32) if scale is None else np.asarray(scale, np.float32),
        )


@runtime_checkable
class CompiledPolicy(Protocol):
    """A policy whose network compiled functions can run, so that whole rollouts are compiled."""

    def network(self) -> FlatNetwork:
        """Return the network; actions come from a softmax over the logits of the allowed ones."""
        ...


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
        self._network = FlatNetwork.of(layers)
        self._threads = threads or usual_threads()
        self._pool = ThreadPoolExecutor(self._threads - 1) if self._threads > 1 else None

    def network(self) -> FlatNetwork:
        """See ``CompiledPolicy``."""
        return self._network

    def probabilities(
        self, features: NDArray[np.float32], mask: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """[B, A] for features [B, D] and masks [B, A]; 0 where the mask is False."""
        rows = len(mask)
        out = np.empty(mask.shape)
        arrays = (self._network, np.ascontiguousarray(features), mask, out)
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
def room_for(network: FlatNetwork) -> NDArray[np.float32]:
    """Return room [2, H] for ``distribution`` to work in."""
    widest = len(network.offset)
    for bias in network.biases:
        widest = max(widest, len(bias))
    return np.empty((2, widest), np.float32)


@compiled
def distribution(
    network: FlatNetwork,
    features: NDArray[np.float32],
    mask: NDArray[np.bool_],
    room: NDArray[np.float32],
    out: NDArray[np.float64],
) -> None:
    """The probabilities [A] for ``features`` [D] under ``mask`` [A]; 0 where masked."""
    weights, biases = network.weights, network.biases
    width = len(network.offset)
    for d in range(width):
        room[0, d] = (features[d] - network.offset[d]) * network.scale[d]
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
        if mask[action]:
            highest = max(highest, float(logits[action]))
    total = 0.0
    for action in range(width):
        p = math.exp(logits[action] - highest) if mask[action] else 0.0
        out[action] = p
        total += p
    for action in range(width):
        out[action] /= total


@compiled
def _forward(
    network: FlatNetwork,
    features: NDArray[np.float32],
    mask: NDArray[np.bool_],
    out: NDArray[np.float64],
    first: int,
    last: int,
) -> None:
    room = room_for(network)
    for k in range(first, last):
        distribution(network, features[k], mask[k], room, out[k])
