"""The networks as an RLlib module: actor, value critic, twin Q with their own targets.

Observations reach the module flat: features followed by the action mask. The networks see the
features only; the mask acts on the logits. Masked logits are a finite large negative number, so
that probabilities of masked actions are exactly 0 and no NaN can arise.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from torch import Tensor, nn

from trainer.learning.actor import MASKED_LOGIT, Actor, NetworkSpec
from trainer.learning.checkpoint import Arrays
from trainer.learning.transitions import BoolArray, FloatArray

LOGITS = Columns.ACTION_DIST_INPUTS
VALUE, Q1, Q2 = "value", "q1", "q2"
TARGET_Q = "target_q"
NEXT_LOGITS, NEXT_TARGET_Q = "next_logits", "next_target_q"

ACTOR, CRITIC = "pi", "vf"
ONLINE_PARTS = (ACTOR, CRITIC)
"""The parts that go from the offline to the online phase (Algorithm 2, input)."""


class OffloadingModule(TorchRLModule, ValueFunctionAPI):  # type: ignore[misc]
    """pi, vf and, for offline training, q1, q2 with targets tq1, tq2.

    ``model_config``: ``network`` (`NetworkSpec.to_json`), ``twin_q`` (whether the Q networks
    exist; PPO has none, because every parameter must take part in every loss when gradients are
    averaged over learners) and ``seed`` of the initial weights.
    """

    def setup(self) -> None:
        """Build the networks; the same seed gives the same weights, whatever ran before."""
        spec = NetworkSpec.from_json(self.model_config["network"])
        self.spec = spec
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(self.model_config["seed"]))
            self.pi = perceptron(spec, spec.actions)
            self.vf = perceptron(spec, 1)
            self.twin_q = bool(self.model_config["twin_q"])
            if self.twin_q:
                self.q1 = perceptron(spec, spec.actions)
                self.q2 = perceptron(spec, spec.actions)
                self.tq1 = perceptron(spec, spec.actions)
                self.tq2 = perceptron(spec, spec.actions)
        if self.twin_q:
            for target, source in self.target_pairs():
                target.load_state_dict(source.state_dict())
                target.requires_grad_(False)
        offset = np.zeros(spec.features) if spec.offset is None else np.asarray(spec.offset)
        scale = np.ones(spec.features) if spec.scale is None else np.asarray(spec.scale)
        self.register_buffer("offset", torch.tensor(offset, dtype=torch.float32), persistent=False)
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32), persistent=False)
        self._normalised = spec.offset is None and spec.scale is None

    def target_pairs(self) -> tuple[tuple[nn.Module, nn.Module], ...]:
        """(target, source) of each Q network: every target tracks its own source."""
        return ((self.tq1, self.q1), (self.tq2, self.q2))

    def split(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Flat observations [B, D + A] as normalised features [B, D] and masks [B, A]."""
        features, mask = flat[:, : self.spec.features], flat[:, self.spec.features :]
        if not self._normalised:
            features = (features - self.offset) * self.scale
        return features, mask > 0.5

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Tensor]:
        features, mask = self.split(batch[Columns.OBS])
        return {LOGITS: masked_logits(self.pi(features), mask)}

    def _forward_train(self, batch: dict[str, Any], **_: Any) -> dict[str, Tensor]:
        # Everything a loss differentiates is computed here: with several learners only what
        # passes through this call has its gradients averaged.
        features, mask = self.split(batch[Columns.OBS])
        value = self.vf(features).squeeze(-1)
        out = {
            LOGITS: masked(self.pi(features), mask),
            VALUE: value,
            # PPO's loss hands "embeddings" back to compute_values, which so need not run again.
            Columns.EMBEDDINGS: value,
        }
        if self.twin_q:
            out[Q1], out[Q2] = self.q1(features), self.q2(features)
            with torch.no_grad():
                following, next_mask = self.split(batch[Columns.NEXT_OBS])
                out[TARGET_Q] = torch.minimum(self.tq1(features), self.tq2(features))
                out[NEXT_LOGITS] = masked_logits(self.pi(following), next_mask)
                out[NEXT_TARGET_Q] = torch.minimum(self.tq1(following), self.tq2(following))
        return out

    def compute_values(self, batch: dict[str, Any], embeddings: Tensor | None = None) -> Tensor:
        """Values [B] of the batch; ``embeddings`` are the values already computed, if given."""
        if embeddings is not None:
            return embeddings
        values: Tensor = self.vf(self.split(batch[Columns.OBS])[0]).squeeze(-1)
        return values


def module_spec(spec: NetworkSpec, *, twin_q: bool, seed: int) -> RLModuleSpec:
    """Return the specification by which RLlib builds the module in any process."""
    width = spec.features + spec.actions
    return RLModuleSpec(
        module_class=OffloadingModule,
        observation_space=gym.spaces.Box(-np.inf, np.inf, (width,), np.float32),
        action_space=gym.spaces.Discrete(spec.actions),
        model_config={"network": spec.to_json(), "twin_q": twin_q, "seed": seed},
    )


def perceptron(spec: NetworkSpec, outputs: int) -> nn.Sequential:
    """Fully connected layers with ReLU between them (section V-A: two hidden layers of 64)."""
    widths = (spec.features, *spec.hidden)
    layers: list[nn.Module] = []
    for inputs, width in pairwise(widths):
        layers += [nn.Linear(inputs, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))


def masked_logits(logits: Tensor, mask: Tensor) -> Tensor:
    """Logits [B, A] with those outside the mask [B, A] at `MASKED_LOGIT`."""
    return torch.where(mask, logits, float(MASKED_LOGIT))


class _Masked(torch.autograd.Function):
    """`masked_logits`, by arithmetic instead of choices, which takes a tenth of the time."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, mask: Tensor) -> Tensor:
        kept = mask.to(logits.dtype)
        ctx.save_for_backward(kept)
        return torch.addcmul((kept - 1.0) * -float(MASKED_LOGIT), logits, kept)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return gradients[0] * kept, None


def masked(logits: Tensor, mask: Tensor) -> Tensor:
    """`masked_logits` of finite logits, for learners: equal, and faster with its gradient."""
    found: Tensor = _Masked.apply(logits, mask)  # type: ignore[no-untyped-call]
    return found


class _Exp(torch.autograd.Function):
    """The exponential, without the slow way that libraries take for arguments below its range.

    Masked entries are such; they made half of the time of the losses.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        found = exp_in_range(values)
        ctx.save_for_backward(found)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (found,) = ctx.saved_tensors
        product: Tensor = gradients[0] * found
        return product


class _LogSumExp(torch.autograd.Function):
    """log of the sum of exp over the last dimension, as `torch.logsumexp`, with `_Exp`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        highest = values.amax(-1, keepdim=True)
        total = exp_in_range(values - highest).sum(-1).log_().add_(highest.squeeze(-1))
        ctx.save_for_backward(values, total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        values, total = ctx.saved_tensors
        return gradients[0].unsqueeze(-1) * exp_in_range(values - total.unsqueeze(-1))


_LEAST: Final = -104.0
"""The exponential of what is less is 0 in float32."""


def exp_in_range(values: Tensor) -> Tensor:
    """Return ``values.exp()``, equal bit for bit."""
    kept = (values > _LEAST).to(values.dtype)
    return (values * kept).exp_().mul_(kept)


def exp(values: Tensor) -> Tensor:
    """Return ``values.exp()`` of values of which some are those of masked entries."""
    found: Tensor = _Exp.apply(values)  # type: ignore[no-untyped-call]
    return found


def logsumexp(values: Tensor) -> Tensor:
    """Return ``values.logsumexp(-1)`` of values of which some are those of masked entries."""
    found: Tensor = _LogSumExp.apply(values)  # type: ignore[no-untyped-call]
    return found


def masked_logsumexp(values: Tensor, mask: Tensor) -> Tensor:
    """log of the sum of exp over allowed actions only: [B, A] and [B, A] to [B]."""
    return logsumexp(masked(values, mask))


def flat_observations(obs: FloatArray, mask: BoolArray) -> FloatArray:
    """Return features [M, D] and masks [M, A] as the module wants them: [M, D + A] float32."""
    return np.concatenate([obs, mask.astype(np.float32)], axis=1)


def actor_of(spec: NetworkSpec, weights: dict[str, NDArray[Any]]) -> Actor:
    """The numpy actor from the weights of a module (`pi.0.weight`, `pi.0.bias`, `pi.2.weight` ...).

    Raises:
        UsageError: weights missing or of another shape.
    """
    arrays: Arrays = {}
    for index in range(len(spec.hidden) + 1):
        for name in ("weight", "bias"):
            value = weights.get(f"{ACTOR}.{2 * index}.{name}")
            if value is not None:
                arrays[f"layer{index}.{name}"] = np.array(value, dtype=np.float32)
    return Actor.from_arrays(spec, arrays)
