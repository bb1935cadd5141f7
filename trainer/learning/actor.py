"""The policy as plain numpy: what rollouts sample from and what is exported to the nodes.

Equal to the torch module it was taken from up to float32 rounding; needs neither torch nor ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from testbed.errors import Problem, UsageError
from testbed.model.encoders import DEFAULT
from testbed.sim.engine.perceptron import FlatNetwork
from trainer.learning.checkpoint import Arrays, read_checkpoint, write_checkpoint
from trainer.learning.transitions import BoolArray, FloatArray, IntArray

MASKED_LOGIT = np.float32(-1e9)
"""Logit of a masked action: finite, so that no NaN can arise, and so low that exp gives 0."""


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """Sizes of the networks and the normalisation that stands before the first layer.

    ``features`` (D) and ``actions`` (A) come from the encoder. The input of every network is
    ``(observation - offset) * scale``; None means that the encoder normalises already.

    Raises:
        UsageError: a size below 1, or an offset or scale that is not D finite numbers.
    """

    features: int
    actions: int
    hidden: tuple[int, ...] = (64, 64)
    offset: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None
    encoder: str = DEFAULT

    def __post_init__(self) -> None:
        problems = [
            Problem(f"network.{name}", str(size), "at least 1")
            for name, size in [("features", self.features), ("actions", self.actions)]
            + [("hidden", size) for size in self.hidden]
            if size < 1
        ]
        for name, values in (("offset", self.offset), ("scale", self.scale)):
            if values is not None and (
                len(values) != self.features or not np.isfinite(values).all()
            ):
                seen = f"{len(values)} values"
                problems.append(Problem(f"network.{name}", seen, f"{self.features} finite numbers"))
        if problems:
            raise UsageError("this network cannot be built", problems)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able description; `from_json` reads it back."""
        described = {
            "features": self.features,
            "actions": self.actions,
            "hidden": list(self.hidden),
            "offset": None if self.offset is None else list(self.offset),
            "scale": None if self.scale is None else list(self.scale),
        }
        # Left out where it is the default, as in the checkpoints of earlier releases.
        return described if self.encoder == DEFAULT else {**described, "encoder": self.encoder}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> NetworkSpec:
        """Rebuild a description that `to_json` gave."""
        offset, scale = stored["offset"], stored["scale"]
        return cls(
            int(stored["features"]),
            int(stored["actions"]),
            tuple(int(size) for size in stored["hidden"]),
            None if offset is None else tuple(float(value) for value in offset),
            None if scale is None else tuple(float(value) for value in scale),
            str(stored.get("encoder", DEFAULT)),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Actor:
    """A masked softmax policy: layers of (weight [out, in], bias [out]) with ReLU between them."""

    spec: NetworkSpec
    layers: tuple[tuple[FloatArray, FloatArray], ...]

    @property
    def encoder(self) -> str:
        """The name of the encoder that makes its observations."""
        return self.spec.encoder

    def network(self) -> FlatNetwork:
        """Return the same network for compiled code, equal up to float32 rounding.

        See ``testbed.sim.engine.perceptron.CompiledPolicy``.
        """
        return FlatNetwork.of(self.layers, self.spec.offset, self.spec.scale)

    def log_probabilities(self, obs: FloatArray, mask: BoolArray) -> FloatArray:
        """Log-probabilities [B, A] of observations [B, D] under masks [B, A].

        A masked action has a finite value near -1e9, hence probability exactly 0.
        """
        hidden = obs
        if self.spec.offset is not None:
            hidden = hidden - np.asarray(self.spec.offset, dtype=np.float32)
        if self.spec.scale is not None:
            hidden = hidden * np.asarray(self.spec.scale, dtype=np.float32)
        for weight, bias in self.layers[:-1]:
            hidden = np.maximum(hidden @ weight.T + bias, np.float32(0.0))
        weight, bias = self.layers[-1]
        logits = np.where(mask, hidden @ weight.T + bias, MASKED_LOGIT)
        shifted = logits - logits.max(axis=1, keepdims=True)
        total: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return total

    def probabilities(self, features: FloatArray, mask: BoolArray) -> FloatArray:
        """Return the probabilities [B, A] of observations [B, D] under masks [B, A]; 0 if masked.

        See ``testbed.sim.engine.vector.FeaturePolicy``.
        """
        found: FloatArray = np.exp(self.log_probabilities(features, mask))
        return found

    def sample(
        self, obs: FloatArray, mask: BoolArray, uniform: NDArray[np.float64]
    ) -> tuple[IntArray, FloatArray]:
        """Draw one action per row by inversion: ``uniform`` [B] in [0, 1) decides.

        Returns the actions [B] and their log-probabilities [B]. Never a masked action.
        """
        log_prob = self.log_probabilities(obs, mask)
        cumulative = np.cumsum(np.exp(log_prob.astype(np.float64)), axis=1)
        below = cumulative <= (uniform * cumulative[:, -1])[:, None]
        action = below.sum(axis=1).astype(np.int64)
        chosen: FloatArray = log_prob[np.arange(len(action)), action]
        return action, chosen

    def modes(self, obs: FloatArray, mask: BoolArray) -> IntArray:
        """Return the most probable allowed action of every row."""
        best: IntArray = self.log_probabilities(obs, mask).argmax(axis=1).astype(np.int64)
        return best

    def arrays(self) -> Arrays:
        """Return the weights by name, for a checkpoint."""
        named: Arrays = {}
        for index, (weight, bias) in enumerate(self.layers):
            named[f"layer{index}.weight"] = weight
            named[f"layer{index}.bias"] = bias
        return named

    def save(self, path: Path) -> None:
        """Write the actor and its spec to one file; `load` reads it."""
        write_checkpoint(path, "actor", self.arrays(), {"network": self.spec.to_json()})

    @classmethod
    def from_arrays(cls, spec: NetworkSpec, arrays: Mapping[str, NDArray[Any]]) -> Actor:
        """Rebuild from `arrays`.

        Raises:
            UsageError: weights missing, of wrong shape, or not finite.
        """
        widths = (spec.features, *spec.hidden, spec.actions)
        problems, layers = [], []
        for index, (inputs, outputs) in enumerate(pairwise(widths)):
            pair = []
            for name, shape in (("weight", (outputs, inputs)), ("bias", (outputs,))):
                key = f"layer{index}.{name}"
                value = arrays.get(key)
                if value is None or value.shape != shape or not np.isfinite(value).all():
                    seen = "missing" if value is None else f"shape {value.shape}"
                    problems.append(Problem(key, seen, f"finite numbers of shape {shape}"))
                else:
                    pair.append(np.ascontiguousarray(value, dtype=np.float32))
            if len(pair) == 2:
                layers.append((pair[0], pair[1]))
        if problems:
            raise UsageError("this is not an actor of the described network", problems)
        return cls(spec, tuple(layers))

    @classmethod
    def load(cls, path: Path) -> Actor:
        """Read an actor file.

        Raises:
            UsageError: no file, altered, or weights that do not fit their description.
        """
        arrays, note = read_checkpoint(path, "actor")
        return cls.from_arrays(NetworkSpec.from_json(note["network"]), arrays)
