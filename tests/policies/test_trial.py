"""Graphs that must not be loaded: found by a look at the file, or in a process of their own."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from testbed.errors import UsageError
from testbed.model.per_destination import COLUMNS, NAME
from testbed.policies import Policy, PolicyCard, trial
from testbed.policies.graph import problems_of
from testbed.policies.inference import accept, open_actor
from testbed.policies.trial import tried
from tests.policies import tiny

Change = Callable[[onnx.ModelProto], None]
make = helper.make_node


def policy_of(actor: bytes, name: str = "odd") -> Policy:
    card = PolicyCard.describe(name, actor, kind="per-destination", encoder=NAME, nodes=None)
    return Policy(card, actor, "somewhere")


def changed(change: Change) -> bytes:
    model = onnx.load_from_string(tiny.per_destination()[1])
    change(model)
    content: bytes = model.SerializeToString()
    return content


def external(name: str = "far") -> Any:
    tensor = numpy_helper.from_array(np.zeros(1, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def subgraph(*nodes: Any, initializer: tuple[Any, ...] = ()) -> Any:
    return helper.make_graph(nodes, "inner", [], [], list(initializer))


def in_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(external())


def in_sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().values.CopyFrom(external())


def in_sparse_indices(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().indices.CopyFrom(external())


def in_attribute(model: onnx.ModelProto) -> None:
    model.graph.node.append(make("Constant", [], ["c"], value=external()))


def in_attribute_list(model: onnx.ModelProto) -> None:
    node = model.graph.node.add(op_type="Constant")
    node.attribute.add(name="x").tensors.append(external())


def in_subgraph(model: onnx.ModelProto) -> None:
    inner = subgraph(make("Constant", [], ["c"], value=external()))
    model.graph.node.append(make("If", ["b"], ["y"], then_branch=inner, else_branch=subgraph()))


def deep_in_subgraphs(model: onnx.ModelProto) -> None:
    inner = subgraph(initializer=(external(),))
    for _ in range(2):
        inner = subgraph(make("If", ["b"], ["y"], then_branch=inner))
    model.graph.node.append(make("If", ["b"], ["y"], then_branch=inner))


def in_graph_list(model: onnx.ModelProto) -> None:
    node = model.graph.node.add(op_type="If")
    node.attribute.add(name="x").graphs.append(subgraph(initializer=(external(),)))


def in_function(model: onnx.ModelProto) -> None:
    constant = make("Constant", [], ["c"], value=external())
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("mine", "F", [], ["c"], [constant], opsets))


def in_training(model: onnx.ModelProto) -> None:
    model.training_info.add().algorithm.initializer.append(external())


def without_location(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].external_data.add(key="location", value="x")


def only_location(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


@pytest.mark.parametrize(
    "change",
    [
        *(in_initializer, in_sparse, in_sparse_indices, in_attribute, in_attribute_list),
        *(in_subgraph, deep_in_subgraphs, in_graph_list, in_function, in_training),
        *(without_location, only_location),
    ],
)
def test_data_in_another_file_is_found_wherever_it_is(change: Change) -> None:
    with pytest.raises(UsageError, match=r"cannot be used\n.*another file, which no checksum"):
        accept(policy_of(changed(change)))


def custom(model: onnx.ModelProto) -> None:
    model.graph.node.append(make("Anything", ["features"], ["y"], domain="com.example"))


def contributed(model: onnx.ModelProto) -> None:
    inner = subgraph(make("Gelu", ["features"], ["y"], domain="com.microsoft"))
    model.graph.node.append(make("If", ["b"], ["y"], then_branch=inner))


def looping(model: onnx.ModelProto) -> None:
    model.graph.node.append(make("Loop", ["", ""], ["y"], body=subgraph()))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (custom, "operator 'Anything': is of the domain 'com.example'"),
        (contributed, "operator 'Gelu': is of the domain 'com.microsoft'"),
        (looping, "operator 'Loop': may run without end"),
    ],
)
def test_operators_that_are_not_onnx_or_do_not_end_are_refused(change: Change, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        accept(policy_of(changed(change)))


def test_other_formats_and_torn_files_are_refused() -> None:
    whole = tiny.per_destination()[1]
    assert not problems_of(whole)
    assert not problems_of(tiny.scoring()[1])
    for wrong in (b"\x08\x08\x12\x00ORTM" + whole, whole[:-7], b"no graph", b"\x0b" * 100):
        assert problems_of(wrong)
    nested = b""
    for tag in [*b"\x32\x2a\x0a" * 20, 0x3A]:
        # A graph in an attribute in a node in a graph, and so on.
        size = len(nested)
        nested = bytes([tag, size & 0x7F | 0x80, size >> 7]) + nested
    (problem,) = problems_of(nested)
    assert "nested" in problem.seen


@given(st.binary(max_size=200), st.integers(0, 300))
def test_no_file_is_a_defect(noise: bytes, at: int) -> None:
    whole = tiny.per_destination()[1]
    for each in (noise, whole[:at] + noise + whole[at:], whole[:at] + noise):
        assert isinstance(problems_of(each), list)


def _built(nodes: list[Any], functions: list[Any] | None = None, rank: int = 2) -> bytes:
    width = len(COLUMNS)
    shape: list[str | int] = ["batch", "candidates", width]
    free: list[str | int] = ["batch", "candidates"]
    graph = helper.make_graph(
        nodes,
        "odd",
        [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("mask", TensorProto.BOOL, free),
        ],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None] * rank)],
        [
            numpy_helper.from_array(np.array(1 << 40, np.int64), "many"),
            numpy_helper.from_array(np.array([1 << 18, 1 << 18], np.int64), "huge"),
            numpy_helper.from_array(np.array(True), "always"),
            numpy_helper.from_array(np.array([0], np.int64), "first"),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def endless() -> bytes:
    body = helper.make_graph(
        [make("Identity", ["going"], ["goes_on"]), make("Identity", ["kept"], ["keeps"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("kept", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("keeps", TensorProto.FLOAT, None),
        ],
    )
    begin = make("Cast", ["mask"], ["m"], to=TensorProto.FLOAT)
    loop = make("Loop", ["many", "always", "m"], ["probabilities"], body=body)
    return _built([begin, loop])


def greedy() -> bytes:
    return _built(
        [
            make("ConstantOfShape", ["huge"], ["all"]),
            make("ReduceSum", ["all"], ["total"], keepdims=0),
            make("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
            make("Add", ["m", "total"], ["probabilities"]),
        ]
    )


def wrong_shape() -> bytes:
    return _built(
        [
            make("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
            make("Unsqueeze", ["m", "first"], ["probabilities"]),
        ],
        rank=3,
    )


@pytest.mark.parametrize(
    ("actor", "told"),
    [
        (endless, "took more than 2 s of processor time|not loaded and run within"),
        (greedy, "needs more than 512 MiB of memory"),
        (wrong_shape, "probabilities that add up to 1"),
    ],
)
def test_what_holds_up_a_process_holds_up_none_of_the_testbeds(
    actor: Callable[[], bytes], told: str
) -> None:
    policy = policy_of(actor())
    for _ in range(2):
        with pytest.raises(UsageError, match=f"policy odd-.* cannot be used\n.*({told})"):
            tried(policy)


def test_a_flat_policy_of_an_unknown_encoder_is_refused() -> None:
    card, actor = tiny.flat(3)
    other = PolicyCard.describe("x", actor, kind="flat", encoder="nobodys", nodes=card.nodes)
    with pytest.raises(UsageError, match="encoder: 'nobodys'; known are"):
        accept(Policy(other, actor, "somewhere"))


def test_a_verdict_is_kept_for_this_user_only_and_a_wrong_place_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    policy = policy_of(tiny.per_destination(own=0.25)[1])
    open_actor(policy)
    (folder,) = (each for each in tmp_path.iterdir() if each.name.endswith("policies"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (verdict,) = folder.iterdir()
    assert verdict.read_text() == "[]"
    # What somebody else could have written is not believed.
    verdict.write_text('[["actor.onnx", "is bad", "a good one"]]')
    with pytest.raises(UsageError, match="is bad"):
        tried(policy)
    os.chmod(folder, 0o777)
    tried(policy)


def test_another_process_that_holds_the_verdict_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(trial, "WAIT_S", 0.2)
    policy = policy_of(tiny.per_destination(own=0.25)[1])
    tried(policy)
    (verdict,) = tmp_path.glob("*/*")
    # As by a process that was stopped while it tried the same policy.
    with verdict.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        tried(policy)
        assert not caplog.records, "what is known already needs no lock"
        held.truncate(0)
        tried(policy)
        (record,) = caplog.records
        assert f"another process has held {verdict} for 0 s" in record.getMessage()
        assert verdict.read_text() == "", "it belongs to whoever holds it"
    tried(policy)
    assert verdict.read_text() == "[]"
