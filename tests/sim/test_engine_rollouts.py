"""Rollouts wholly in compiled code against the same policy asked slot by slot."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from testbed.model.encoders import ENCODERS
from testbed.sim.engine.episodes import Played, play, record
from testbed.sim.engine.perceptron import CompiledPolicy, FlatNetwork, Perceptron
from testbed.sim.engine.vector import VectorEnv
from tests.sim.plans import OVERLOADS, random_plan
from tests.sim.test_engine import by_engine

PLANS = [random_plan(50 + k, size=5, slots=12, overload=rule) for k, rule in enumerate(OVERLOADS)]
NUMBERS = [*range(3, 21)]


class SlotBySlot:
    """The same policy without a network that compiled code could run."""

    def __init__(self, policy: Perceptron) -> None:
        self._policy = policy

    def probabilities(
        self, features: NDArray[np.float32], mask: NDArray[np.bool_]
    ) -> NDArray[np.floating[Any]]:
        return self._policy.probabilities(features, mask)


def perceptron(*widths: int) -> Perceptron:
    rng = np.random.default_rng(1)
    return Perceptron(
        [(rng.normal(0, 0.5, (b, a)), rng.normal(size=b)) for a, b in itertools.pairwise(widths)]
    )


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("plan", PLANS, ids=[plan.rules.overload.measure for plan in PLANS])
def test_a_compiled_rollout_sees_and_does_the_same(plan: Any, encoder: str) -> None:
    played: list[Played] = []
    endings, after = [], []
    policy = perceptron(ENCODERS[encoder].size(5), 16, 8, 6)
    assert isinstance(policy, CompiledPolicy)
    assert not isinstance(SlotBySlot(policy), CompiledPolicy)
    for threads, each in ((1, SlotBySlot(policy)), (1, policy), (3, policy)):
        env = VectorEnv([plan] * len(NUMBERS), threads, encoder)
        played.append(record(env, each, NUMBERS))
        endings.append([by_engine(env.batch, row) for row in range(len(NUMBERS))])
        after.append(env.observe())
        rates = play(env, each, NUMBERS)
        assert rates.tolist() == played[-1].success_rates.tolist()
        np.testing.assert_array_equal(env.observe().features, after[-1].features)
        with pytest.raises(ValueError, match="call reset first"):
            env.step(np.full((len(NUMBERS), 5), 5))
    expected, *others = played
    assert (expected.actions < 5).any()
    for k, found in enumerate(others, 1):
        for name in ("features", "mask", "actions", "rewards", "success_rates"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
        np.testing.assert_allclose(found.log_probability, expected.log_probability, rtol=1e-6)
        assert endings[k] == endings[0]
        for seen, wanted in zip(after[k], after[0], strict=True):
            np.testing.assert_array_equal(seen, wanted)


def test_an_offset_and_a_scale_stand_before_the_first_layer() -> None:
    width = ENCODERS["paper-v1"].size(5)
    weight, bias = np.ones((6, width)), np.arange(6.0)
    offset, scale = np.linspace(0, 1, width), np.linspace(1, 2, width)
    shifted = FlatNetwork.of([(weight, bias)], offset.tolist(), scale.tolist())
    folded = FlatNetwork.of([(weight * scale, bias - weight @ (offset * scale))])

    class Given:
        def __init__(self, network: FlatNetwork) -> None:
            self._network = network

        def network(self) -> FlatNetwork:
            return self._network

        def probabilities(self, features: Any, mask: Any) -> Any:
            raise NotImplementedError

    env = VectorEnv([PLANS[0]] * 2)
    first, second = (record(env, Given(network), [0, 1]) for network in (shifted, folded))
    np.testing.assert_allclose(first.log_probability, second.log_probability, atol=1e-4)


def test_a_network_of_another_width_is_refused() -> None:
    env = VectorEnv([PLANS[0]] * 2)
    with pytest.raises(ValueError, match="expected 22 x 6"):
        record(env, perceptron(22, 5), [0, 1])
    with pytest.raises(ValueError, match="2 episodes"):
        record(env, perceptron(22, 6), [0])
