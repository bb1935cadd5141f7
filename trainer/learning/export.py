"""The actor as one ONNX file for the nodes: normalisation and mask in the graph.

A node runs it with onnxruntime alone. The file is written by name and moved into place, holds no
external data, and stays under 100 KB (section IV-C3).
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from testbed.errors import Problem, UsageError
from testbed.files import ORDINARY, write_atomically
from trainer.learning.actor import Actor
from trainer.learning.module import masked_logits, perceptron

OPSET = 17
LARGEST_BYTES = 100_000
INPUTS = ("observation", "mask")
OUTPUTS = ("log_prob", "probabilities")


class _Graph(nn.Module):
    """The graph of the exported file: [B, D] and [B, A] to two of [B, A]."""

    offset: Tensor
    scale: Tensor

    def __init__(self, actor: Actor) -> None:
        super().__init__()
        spec = actor.spec
        self.pi = perceptron(spec, spec.actions)
        linear = [layer for layer in self.pi if isinstance(layer, nn.Linear)]
        with torch.no_grad():
            for layer, (weight, bias) in zip(linear, actor.layers, strict=True):
                layer.weight.copy_(torch.from_numpy(np.array(weight)))
                layer.bias.copy_(torch.from_numpy(np.array(bias)))
        offset = np.zeros(spec.features) if spec.offset is None else np.asarray(spec.offset)
        scale = np.ones(spec.features) if spec.scale is None else np.asarray(spec.scale)
        self.normalised = spec.offset is None and spec.scale is None
        self.register_buffer("offset", torch.tensor(offset, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    def forward(self, observation: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        features = observation
        if not self.normalised:
            features = (features - self.offset) * self.scale
        log_prob = torch.log_softmax(masked_logits(self.pi(features), mask), dim=-1)
        return log_prob, log_prob.exp()


def actor_onnx(actor: Actor) -> bytes:
    """Return the actor as a checked ONNX model; the same actor gives the same bytes.

    Inputs ``observation`` [B, D] float32, as the encoder gives it, and ``mask`` [B, A] bool;
    outputs ``log_prob`` and ``probabilities`` [B, A] float32, 0 outside the mask. B is free.

    Raises:
        UsageError: the model is larger than a policy may be.
    """
    graph = _Graph(actor).eval()
    example = (
        torch.zeros(2, actor.spec.features),
        torch.ones(2, actor.spec.actions, dtype=torch.bool),
    )
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The TorchScript exporter needs no further package and is deprecated for what it cannot
        # trace; this graph has no control flow.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            graph,
            example,
            buffer,  # type: ignore[arg-type]  # annotated as a path, documented as a stream too
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_axes={name: {0: "batch"} for name in (*INPUTS, *OUTPUTS)},
            opset_version=OPSET,
            dynamo=False,
        )
    data = buffer.getvalue()
    if len(data) > LARGEST_BYTES:
        raise UsageError(
            "this policy is too large for the nodes",
            [Problem("policy", f"{len(data)} bytes", f"at most {LARGEST_BYTES}")],
        )
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    return data


def write_actor_onnx(actor: Actor, path: Path) -> int:
    """Write `actor_onnx` to ``path``, whole or not at all; return its size in bytes.

    Raises:
        UsageError: the model is larger than a policy may be.
    """
    data = actor_onnx(actor)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data, ORDINARY)
    return len(data)
