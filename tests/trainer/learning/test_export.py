from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from testbed.errors import UsageError
from trainer.learning.actor import Actor, NetworkSpec
from trainer.learning.export import LARGEST_BYTES, OPSET, actor_onnx, write_actor_onnx
from trainer.learning.module import actor_of, module_spec


def actor_with(spec: NetworkSpec) -> Actor:
    module = module_spec(spec, twin_q=False, seed=3).build()
    return actor_of(spec, {name: v.numpy() for name, v in module.state_dict().items()})


def paper_actor(*, normalised: bool) -> Actor:
    """Sizes of 20 nodes with the paper's observation."""
    draw = np.random.default_rng(0)
    offset = tuple(draw.normal(size=67)) if not normalised else None
    scale = tuple(draw.uniform(0.1, 9, size=67)) if not normalised else None
    return actor_with(NetworkSpec(67, 21, offset=offset, scale=scale))


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("rows", [1, 300])
def test_the_exported_actor_equals_torch(rows: int, normalised: bool) -> None:
    actor = paper_actor(normalised=normalised)
    draw = np.random.default_rng(rows)
    observation = draw.normal(size=(rows, 67)).astype(np.float32)
    mask = draw.random((rows, 21)) < 0.4
    mask[:, 0] = True
    session = onnxruntime.InferenceSession(actor_onnx(actor))
    log_prob, probabilities = session.run(None, {"observation": observation, "mask": mask})
    expected = actor.log_probabilities(observation, mask)
    np.testing.assert_allclose(log_prob[mask], expected[mask], atol=1e-5)
    np.testing.assert_allclose(probabilities, np.exp(expected), atol=1e-5)
    assert (probabilities[~mask] == 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_one_small_file_with_named_inputs_and_outputs(tmp_path: Path) -> None:
    path = tmp_path / "policy" / "actor.onnx"
    size = write_actor_onnx(paper_actor(normalised=False), path)
    assert list(path.parent.iterdir()) == [path]
    assert size == path.stat().st_size < LARGEST_BYTES
    model = onnx.load(path)
    assert [item.name for item in model.graph.input] == ["observation", "mask"]
    assert [item.name for item in model.graph.output] == ["log_prob", "probabilities"]
    assert [(item.domain, item.version) for item in model.opset_import] == [("", OPSET)]


def test_the_same_actor_gives_the_same_bytes() -> None:
    actor = paper_actor(normalised=True)
    assert actor_onnx(actor) == actor_onnx(actor)


def test_a_policy_too_large_for_the_nodes_is_refused() -> None:
    with pytest.raises(UsageError, match="too large for the nodes"):
        actor_onnx(actor_with(NetworkSpec(200, 21, hidden=(256, 256))))


def test_an_actor_file_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    actor = actor_with(NetworkSpec(4, 3, (8,)))
    actor.save(tmp_path / "actor.npz")
    again = Actor.load(tmp_path / "actor.npz")
    assert again.spec == actor.spec
    with pytest.raises(UsageError, match=r"layer0\.weight: shape \(8, 4\)"):
        Actor.from_arrays(NetworkSpec(5, 3, (8,)), actor.arrays())
    broken = actor.arrays()
    broken["layer1.bias"] = np.full(3, np.nan, dtype=np.float32)
    with pytest.raises(UsageError, match=r"layer1\.bias"):
        Actor.from_arrays(actor.spec, broken)
    with pytest.raises(UsageError, match="no such file"):
        Actor.load(tmp_path / "missing.npz")


def test_impossible_networks_are_refused() -> None:
    with pytest.raises(UsageError) as caught:
        NetworkSpec(0, 3, (8, 0), scale=(1.0,))
    assert [p.path for p in caught.value.problems] == [
        "network.features",
        "network.hidden",
        "network.scale",
    ]
