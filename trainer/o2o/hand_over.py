"""From a trained actor to the artifact that nodes load: ONNX and card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed.policies import PolicyCard, save, write_folder
from testbed.policies.card import learned_on
from testbed.scenario.plan import Plan
from testbed.storage.artifacts import ArtifactStore
from trainer.learning.actor import Actor
from trainer.learning.export import actor_onnx


def artifact_of(
    actor: Actor,
    plan: Plan,
    name: str,
    *,
    data_hash: str = "",
    parents: tuple[str, ...] = (),
    evaluation: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> tuple[PolicyCard, bytes]:
    """Card and ONNX file of a policy for the network of ``plan``; the same actor, the same bytes.

    Raises:
        UsageError: the policy is too large for the nodes.
    """
    onnx = actor_onnx(actor)
    card = PolicyCard.describe(
        name,
        onnx,
        kind="flat",
        encoder=actor.encoder,
        nodes=plan.topology.size,
        dataset_hash=data_hash or None,
        parents=parents,
        evaluation=evaluation or {},
        training=training or {},
        **learned_on(plan),
    )
    return card, onnx


def keep(
    card: PolicyCard, onnx: bytes, folder: Path | None, store: ArtifactStore | str | None
) -> str:
    """Write the artifact to ``folder`` and ``store``, where given; returns its id."""
    if folder is not None:
        write_folder(folder, card, onnx)
    if store is not None:
        save(store, card, onnx)
    return card.id
