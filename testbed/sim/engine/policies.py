"""Policies as the nodes load them, for the compiled engine."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

import numpy as np

from testbed.errors import Problem, UsageError
from testbed.policies import Policy
from testbed.policies.inference import FEEDS, MASK, OUTPUT, accept, open_session
from testbed.sim.engine.scoring import ScoringWeights, probabilities_of

METADATA: Final = "scoring-weights"
"""Metadata key under which a per-destination ``actor.onnx`` holds its weights again."""


def encode_weights(weights: ScoringWeights) -> str:
    """Return the weights as one line of JSON, for the metadata of the actor."""
    return json.dumps(
        {
            name: {
                "shape": list(array.shape),
                "float32": base64.b64encode(array.astype("<f4").tobytes()).decode(),
            }
            for name, array in weights._asdict().items()
        }
    )


def decode_weights(text: str) -> ScoringWeights:
    """Return the weights that ``encode_weights`` wrote.

    Raises:
        UsageError: it is something else.
    """
    try:
        arrays = {
            name: np.frombuffer(base64.b64decode(array["float32"]), "<f4").reshape(array["shape"])
            for name, array in json.loads(text).items()
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UsageError(f"not the weights of a per-destination policy: {error}") from None
    return ScoringWeights.from_arrays(arrays)


def weights_of(policy: Policy) -> ScoringWeights:
    """Return the weights of a verified per-destination policy.

    Raises:
        UsageError: it is of another kind, or its actor does not state its weights, or it
            states others than its graph has.
    """
    card = policy.card
    if card.kind != "per-destination":
        raise UsageError(
            f"policy {card.id} does not score destinations",
            [Problem("kind", card.kind, "per-destination")],
        )
    accept(policy)
    session = open_session(policy)
    metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
    if METADATA not in metadata:
        raise UsageError(
            f"policy {card.id} cannot run in the compiled engine",
            [Problem("actor.onnx", f"no metadata '{METADATA}'", "a policy of this toolkit")],
        )
    weights = decode_weights(metadata[METADATA])
    if weights.encoder != card.encoder or not _agree(weights, session):
        raise UsageError(
            f"policy {card.id} cannot run in the compiled engine",
            [Problem("actor.onnx", f"another network than '{METADATA}'", "the same network twice")],
        )
    return weights


def _agree(weights: ScoringWeights, session: Any) -> bool:
    """Return whether graph and weights give the same distributions for rows drawn at random."""
    rng = np.random.default_rng(0)
    rows = rng.uniform(-1.0, 2.0, (8, 6, len(weights.w1))).astype(np.float32)
    mask = rng.random((8, 6)) < 0.7
    mask[:, 0] = True
    feed = {FEEDS["per-destination"]: rows, MASK: mask}
    (expected,) = session.run([OUTPUT], feed)
    room, found = np.empty((8, len(weights.b1)), np.float32), np.empty(6)
    for k in range(len(rows)):
        probabilities_of(weights, rows[k], mask[k], room, found)
        if not np.allclose(found, expected[k], atol=1e-4):
            return False
    return True
