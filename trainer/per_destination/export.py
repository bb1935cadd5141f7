"""The trained policy as the artifact that nodes and simulators load without a training library."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import onnx
import torch
from torch import Tensor, nn

from testbed.errors import Problem, UsageError
from testbed.model.information import Asks, asked_by
from testbed.policies import LARGEST_ACTOR, Policy, PolicyCard, write_folder
from testbed.policies.card import Network, learned_on
from testbed.scenario.plan import Plan
from testbed.sim.engine.policies import METADATA, encode_weights
from testbed.sim.engine.scoring import ScoringWeights
from trainer.per_destination.network import ScoringNetwork, load_weights

OPSET: Final = 17


class _Probabilities(nn.Module):
    def __init__(self, network: ScoringNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        probabilities: Tensor = self.network(features, mask).exp()
        return probabilities


def network_of(weights: ScoringWeights) -> ScoringNetwork:
    """Return the torch network with these weights."""
    network = ScoringNetwork(*weights.w1.shape)
    load_weights(network, weights)
    return network


def actor_onnx(weights: ScoringWeights) -> bytes:
    """Return the policy as a checked ONNX model; the same weights give the same bytes.

    Inputs ``features`` [B, C, F] float32 and ``mask`` [B, C] bool, output ``probabilities`` [B, C]
    float32, 0 outside the mask. B and C are free. The metadata hold the weights as the compiled
    engine takes them.

    Raises:
        UsageError: the model is larger than a policy may be.
    """
    example = (torch.zeros(2, 3, len(weights.w1)), torch.ones(2, 3, dtype=torch.bool))
    axes = {"features": {0: "batch", 1: "candidates"}, "mask": {0: "batch", 1: "candidates"}}
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The TorchScript exporter needs no further package; this graph has no control flow.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            _Probabilities(network_of(weights)).eval(),
            example,
            cast(Any, buffer),
            input_names=["features", "mask"],
            output_names=["probabilities"],
            dynamic_axes=axes | {"probabilities": axes["mask"]},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_from_string(buffer.getvalue())
    onnx.helper.set_model_props(model, {METADATA: encode_weights(weights)})
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    if len(data) > LARGEST_ACTOR:
        raise UsageError(
            "this policy is too large for the nodes",
            [Problem("policy", f"{len(data)} bytes", f"at most {LARGEST_ACTOR}")],
        )
    return data


def write_policy(
    weights: ScoringWeights,
    folder: Path,
    name: str,
    *,
    asks: Asks | None = None,
    training: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> PolicyCard:
    """Write ``actor.onnx`` and its card to ``folder``; ``name`` begins the policy's id.

    ``asks`` is what it asks its peers, None where its encoder tells. ``training`` and
    ``evaluation`` are plain JSON values that the card keeps.

    Raises:
        UsageError: the model is larger than a policy may be, or something cannot stand in a card.
    """
    policy = policy_of(weights, name, asks, training=training, evaluation=evaluation)
    write_folder(folder, policy.card, policy.actor)
    return policy.card


def policy_of(
    weights: ScoringWeights,
    name: str,
    asks: Asks | None = None,
    *,
    plan: Plan | None = None,
    parents: tuple[str, ...] = (),
    training: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> Policy:
    """Return the same policy without writing it.

    ``plan`` is that of the network on which it was learned, None for no particular one, and
    ``parents`` are the ids of the policies from which it was learned.

    Raises: UsageError: as ``write_policy``.
    """
    actor = actor_onnx(weights)
    network: Network = {} if plan is None else learned_on(plan)
    card = PolicyCard.describe(
        name,
        actor,
        kind="per-destination",
        encoder=weights.encoder,
        nodes=None,
        asks=asked_by(weights.encoder) if asks is None else asks,
        parents=parents,
        training=dict(training or {}),
        evaluation=dict(evaluation or {}),
        **network,
    )
    return Policy(card, actor, name)
