"""What a policy's graph gives, and graphs that are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from testbed.errors import UsageError
from testbed.model.per_destination import COLUMNS, NAME
from testbed.policies import Kind, Policy, PolicyCard
from testbed.policies.inference import open_actor
from tests.policies import tiny


def policy(pair: tuple[PolicyCard, bytes]) -> Policy:
    return Policy(*pair, "here")


def of(actor: bytes, kind: Kind = "per-destination", nodes: int | None = None) -> Policy:
    encoder = NAME if kind == "per-destination" else "paper-v1"
    return policy((PolicyCard.describe("x", actor, kind=kind, encoder=encoder, nodes=nodes), actor))


def test_probabilities_are_the_masked_softmax_of_the_scores() -> None:
    actor = open_actor(policy(tiny.per_destination(own=0.5)))
    rng = np.random.default_rng(3)
    for candidates in (1, 2, 5, 30):
        rows = rng.normal(size=(candidates, len(COLUMNS)))
        mask = [bool(each) for each in rng.random(candidates) < 0.6]
        mask[0] = True
        scores = rows[:, COLUMNS.index("slack")] + 0.5 * rows[:, COLUMNS.index("own")]
        weights = np.exp(scores) * mask
        given = actor.probabilities(rows.tolist(), mask)
        assert given == pytest.approx((weights / weights.sum()).tolist(), abs=1e-5)


def test_a_flat_policy_gets_one_row() -> None:
    actor = open_actor(policy(tiny.flat(3, towards=[0.0, 1.0, 2.0])))
    observation = [1.0, 0.0, 0.0, *[0.0] * 13]
    given = actor.probabilities(observation, [True, False, True, False])
    odds = np.exp([0.0, 2.0]) / np.exp([0.0, 2.0]).sum()
    assert given == pytest.approx([odds[0], 0.0, odds[1], 0.0], abs=1e-6)


def test_the_same_policy_is_opened_once() -> None:
    first = open_actor(policy(tiny.per_destination(own=7.0)))
    assert open_actor(policy(tiny.per_destination(own=7.0))) is first
    assert open_actor(policy(tiny.per_destination(own=8.0))) is not first


def _flat(width: int, actions: int, **names: Any) -> bytes:
    return tiny.linear("flat", np.zeros((width, actions)), **names)


def _rows(width: int, **names: Any) -> bytes:
    return tiny.linear("per-destination", np.zeros(width), **names)


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (of(b"no graph"), "an ONNX model"),
        (of(tiny.per_destination()[1][:-20]), "an ONNX model"),
        (of(_rows(len(COLUMNS), output="chances")), "one called probabilities"),
        (of(_rows(len(COLUMNS), feed="observation")), "features, mask"),
        (of(_rows(len(COLUMNS) - 1)), rf"{len(COLUMNS)} on axis 2"),
        (of(_flat(15, 4), "flat", 3), "16 on axis 1"),
        (of(_flat(16, 3), "flat", 3), "4 on axis 1"),
        (of(_flat(16, 4), "flat", 4), "19 on axis 1"),
        (of(_rows(len(COLUMNS)), "flat", 3), "mask, observation"),
        (of(tiny.linear("per-destination", np.full(len(COLUMNS), np.nan))), "add up to 1"),
    ],
)
def test_graphs_that_are_not_what_the_card_says(refused: Policy, message: str) -> None:
    with pytest.raises(UsageError, match=f"(?s)policy x-.* cannot be used.*{message}"):
        open_actor(refused)


def test_neither_heuristics_nor_cards_import_onnxruntime_or_numpy() -> None:
    program = (
        "import sys\n"
        "import edgenode.process, edgenode.policies\n"
        "from testbed.policies import shipped_names, inference\n"
        "from testbed.schedulers import drl, registry\n"
        "from testbed.testing.schedulers import situation\n"
        "registry.create('ratc', situation(3, 0).context)\n"
        "print(sorted({'numpy', 'onnxruntime', 'torch', 'ray'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"


def test_the_runtime_leaves_nothing_in_the_home_and_reports_to_nobody(tmp_path: Path) -> None:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ORT_", "XDG_"))}

    subprocess.run(
        [sys.executable, "-c", "from testbed.policies.inference import import_runtime as r; r()"],
        env={**kept, "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])},
        check=True,
        timeout=60,
    )

    assert list(tmp_path.rglob("*")) == []
