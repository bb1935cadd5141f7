"""Policies small enough to be made in a test, as ONNX models built by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from testbed.model.encoders import encoder
from testbed.model.per_destination import COLUMNS, COLUMNS_OF, NAME
from testbed.policies import Kind, PolicyCard


def linear(
    kind: Kind, weights: np.ndarray[Any, Any], *, output: str = "probabilities", feed: str = ""
) -> bytes:
    """softmax of ``features @ weights`` where the mask allows: [D, A] flat, [F] per destination."""
    width = weights.shape[0]
    flat = kind == "flat"
    free = "actions" if not flat else weights.shape[1]
    feed = feed or ("observation" if flat else "features")
    shape = ["batch", width] if flat else ["batch", free, width]
    matrix = weights if flat else weights[:, None]
    nodes = [helper.make_node("MatMul", [feed, "w"], ["scores" if flat else "tall"])]
    if not flat:
        nodes.append(helper.make_node("Squeeze", ["tall", "axis"], ["scores"]))
    initial = {"w": matrix.astype(np.float32)} | ({} if flat else {"axis": np.array([2], np.int64)})
    return _model(nodes, "scores", feed, shape, ["batch", free], initial, output)


def per_destination(
    name: str = "tiny", *, own: float = 0.0, **card: Any
) -> tuple[PolicyCard, bytes]:
    """Scores a candidate by its slack, and the own node by ``own`` more."""
    facts: dict[str, Any] = {"kind": "per-destination", "encoder": NAME, "nodes": None} | card
    columns = COLUMNS_OF.get(facts["encoder"], COLUMNS)
    weights = np.zeros(len(columns))
    weights[columns.index("slack")] = 1.0
    weights[columns.index("own")] = own
    actor = linear("per-destination", weights)
    return PolicyCard.describe(name, actor, **facts), actor


def flat(
    nodes: int, name: str = "tiny-flat", *, towards: Sequence[float] | None = None, **card: Any
) -> tuple[PolicyCard, bytes]:
    """Of the encoder ``paper-v1``; ``towards`` [N] are the scores of the destinations."""
    width = encoder("paper-v1").size(nodes)
    weights = np.zeros((width, nodes + 1))
    # Every observation has exactly one 1 among its first N numbers, so this is a bias.
    weights[:nodes, :nodes] = towards if towards is not None else np.linspace(0.0, 1.0, nodes)
    actor = linear("flat", weights)
    facts: dict[str, Any] = {"kind": "flat", "encoder": "paper-v1", "nodes": nodes} | card
    return PolicyCard.describe(name, actor, **facts), actor


def perceptron(nodes: int, hidden: int = 64) -> tuple[PolicyCard, bytes]:
    """A flat policy of the usual size: two hidden layers, random weights."""
    width = encoder("paper-v1").size(nodes)
    rng = np.random.default_rng(1)
    sizes = [width, hidden, hidden, nodes + 1]
    weights = {
        f"w{i}": rng.normal(0.0, 0.2, pair).astype(np.float32)
        for i, pair in enumerate(pairwise(sizes))
    }
    layers = []
    for i in range(3):
        layers.append(
            helper.make_node("MatMul", ["observation" if i == 0 else f"h{i}", f"w{i}"], [f"y{i}"])
        )
        if i < 2:
            layers.append(helper.make_node("Relu", [f"y{i}"], [f"h{i + 1}"]))
    actor = _model(layers, "y2", "observation", ["batch", width], ["batch", nodes + 1], weights)
    return (
        PolicyCard.describe("random-flat", actor, kind="flat", encoder="paper-v1", nodes=nodes),
        actor,
    )


def scoring(hidden: int = 48, given: Mapping[str, Any] | None = None) -> tuple[PolicyCard, bytes]:
    """A per-destination policy of the usual size: scores with a context, random weights.

    ``given`` are weights by the names of ``testbed.sim.engine.scoring.ScoringWeights``.
    """
    rng = np.random.default_rng(1)
    width = len(COLUMNS)
    shapes = {
        "w1": (width, hidden),
        "w2": (hidden, hidden),
        "wc": (hidden, hidden),
        "w3": (hidden,),
        "b1": (hidden,),
        "b2": (hidden,),
    }
    weights: dict[str, Any] = {
        name: rng.normal(0.0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()
    }
    weights |= given or {}
    weights["w3"] = weights["w3"].reshape(-1, 1)
    weights["last"] = np.array([2], np.int64)
    weights["middle"] = np.array([1], np.int64)
    make = helper.make_node
    nodes = [
        make("MatMul", ["features", "w1"], ["xw"]),
        make("Add", ["xw", "b1"], ["a"]),
        make("Relu", ["a"], ["h"]),
        make("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
        make("Unsqueeze", ["m", "last"], ["m3"]),
        make("Mul", ["h", "m3"], ["hm"]),
        make("ReduceSum", ["hm", "middle"], ["sum"], keepdims=1),
        make("ReduceSum", ["m3", "middle"], ["count"], keepdims=1),
        make("Div", ["sum", "count"], ["mean"]),
        make("MatMul", ["mean", "wc"], ["c"]),
        make("MatMul", ["h", "w2"], ["b"]),
        make("Add", ["b", "c"], ["bc"]),
        make("Add", ["bc", "b2"], ["second"]),
        make("Relu", ["second"], ["y"]),
        make("MatMul", ["y", "w3"], ["s3"]),
        make("Squeeze", ["s3", "last"], ["scores"]),
    ]
    actor = _model(
        nodes,
        "scores",
        "features",
        ["batch", "candidates", width],
        ["batch", "candidates"],
        weights,
    )
    card = PolicyCard.describe(
        "random-scoring", actor, kind="per-destination", encoder=NAME, nodes=None
    )
    return card, actor


def _model(
    nodes: list[Any],
    scores: str,
    feed: str,
    shape: list[str | int],
    mask_shape: list[str | int],
    weights: dict[str, Any],
    output: str = "probabilities",
) -> bytes:
    """The graph of ``nodes``, then the masked softmax of its ``scores``."""
    nodes = [
        *nodes,
        helper.make_node("Where", ["mask", scores, "low"], ["masked"]),
        helper.make_node("Softmax", ["masked"], [output], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info(feed, TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("mask", TensorProto.BOOL, mask_shape),
        ],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, mask_shape)],
        [
            numpy_helper.from_array(value, name)
            for name, value in {**weights, "low": np.array(-1e9, np.float32)}.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
