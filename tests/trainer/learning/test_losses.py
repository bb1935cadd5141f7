"""The offline losses against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from testbed.errors import UsageError
from trainer.learning.actor import NetworkSpec
from trainer.learning.cql import (
    CqlConfig,
    conservative_gap,
    cql_losses,
    soft_value,
    target_value,
)
from trainer.learning.module import (
    LOGITS,
    NEXT_LOGITS,
    NEXT_TARGET_Q,
    Q1,
    Q2,
    TARGET_Q,
    VALUE,
    exp,
    masked,
    masked_logits,
    masked_logsumexp,
    module_spec,
)

MASK = torch.tensor([[True, True, False]])


def test_a_masked_action_has_probability_exactly_zero_and_a_finite_logarithm() -> None:
    logits = masked_logits(torch.tensor([[1.0, 2.0, 1e6], [-80.0, 90.0, 3.0]]), MASK.repeat(2, 1))
    log_prob = torch.log_softmax(logits, dim=-1)
    assert log_prob.exp()[:, 2].tolist() == [0.0, 0.0]
    assert torch.isfinite(log_prob).all()
    assert torch.isfinite(log_prob.exp() * log_prob).all()
    torch.testing.assert_close(log_prob[0, :2].exp().sum(), torch.tensor(1.0))


def test_no_gradient_of_a_masked_softmax_is_nan() -> None:
    raw = torch.tensor([[1.0, 2.0, 300.0]], requires_grad=True)
    soft_value(masked_logits(raw, MASK), torch.tensor([[1.0, 5.0, 7.0]]), 0.05).sum().backward()
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()
    assert raw.grad[0, 2] == 0


def test_logsumexp_leaves_out_what_is_masked() -> None:
    values = torch.tensor([[math.log(2.0), math.log(3.0), 50.0]])
    torch.testing.assert_close(masked_logsumexp(values, MASK), torch.tensor([math.log(5.0)]))


def test_the_regulariser_by_hand() -> None:
    q = torch.tensor([[math.log(2.0), math.log(3.0), 50.0]])
    gap = conservative_gap(q, MASK, torch.tensor([0]))
    torch.testing.assert_close(gap, torch.tensor([math.log(5.0) - math.log(2.0)]))


def test_soft_value_by_hand() -> None:
    # pi = (1/4, 3/4), Q = (8, 4): 1/4 (8 - 0.05 ln 1/4) + 3/4 (4 - 0.05 ln 3/4)
    logits = masked_logits(torch.tensor([[0.0, math.log(3.0), 9.0]]), MASK)
    expected = 0.25 * (8 - 0.05 * math.log(0.25)) + 0.75 * (4 - 0.05 * math.log(0.75))
    value = soft_value(logits, torch.tensor([[8.0, 4.0, 1e6]]), 0.05)
    torch.testing.assert_close(value, torch.tensor([expected]))


def test_a_truncated_step_keeps_the_value_of_the_next_state_and_a_terminated_does_not() -> None:
    y = target_value(
        torch.tensor([1.0, 1.0]), torch.tensor([False, True]), torch.tensor([10.0, 10.0]), 0.9
    )
    torch.testing.assert_close(y, torch.tensor([10.0, 1.0]))


def hand_made() -> dict[str, torch.Tensor]:
    """One row; pi is uniform over two allowed actions everywhere."""
    even = masked_logits(torch.zeros(1, 3), MASK)
    return {
        LOGITS: even.clone().requires_grad_(),
        NEXT_LOGITS: even,
        VALUE: torch.tensor([2.0], requires_grad=True),
        Q1: torch.tensor([[1.0, 1.0, 99.0]], requires_grad=True),
        Q2: torch.tensor([[4.0, 4.0, -99.0]], requires_grad=True),
        TARGET_Q: torch.tensor([[3.0, 5.0, 99.0]]),
        NEXT_TARGET_Q: torch.tensor([[6.0, 8.0, 99.0]]),
    }


def losses_of(out: dict[str, torch.Tensor], config: CqlConfig) -> dict[str, torch.Tensor]:
    return cql_losses(
        out, MASK, torch.tensor([1]), torch.tensor([0.5]), torch.tensor([False]), config
    )


def test_all_losses_by_hand() -> None:
    config = CqlConfig(gamma=0.5, alpha=0.1, cql_weight=0.2)
    entropy = 0.1 * math.log(2.0)
    y = 0.5 + 0.5 * (7.0 + entropy)
    losses = losses_of(hand_made(), config)
    gap = math.log(2.0)  # both allowed Q are equal
    assert losses["q1_loss"].item() == pytest.approx((1 - y) ** 2 + 0.2 * gap, rel=1e-5)
    assert losses["q2_loss"].item() == pytest.approx((4 - y) ** 2 + 0.2 * gap, rel=1e-5)
    assert losses["value_loss"].item() == pytest.approx((2 - y) ** 2, rel=1e-5)
    assert losses["actor_loss"].item() == pytest.approx(-(4.0 + entropy), rel=1e-5)
    assert losses["entropy"].item() == pytest.approx(math.log(2.0), rel=1e-5)


def test_the_actor_can_be_judged_by_the_q_networks_themselves() -> None:
    losses = losses_of(hand_made(), CqlConfig(alpha=0.0, actor_q="online"))
    assert losses["actor_loss"].item() == pytest.approx(-1.0)


def test_the_regulariser_is_added_and_not_only_computed() -> None:
    """Trap: computed, logged, and left out of the loss."""

    def gradient(weight: float) -> torch.Tensor:
        out = hand_made()
        losses_of(out, CqlConfig(cql_weight=weight))["q1_loss"].backward()
        found = out[Q1].grad
        assert found is not None
        return found

    # d gap / dQ = softmax - one-hot = (1/2, -1/2, 0)
    torch.testing.assert_close(gradient(1.0) - gradient(0.0), torch.tensor([[0.5, -0.5, 0.0]]))


def test_each_loss_reaches_its_own_network_only() -> None:
    leaves = {"q1_loss": Q1, "q2_loss": Q2, "actor_loss": LOGITS, "value_loss": VALUE}
    for loss, own in leaves.items():
        for config in (CqlConfig(actor_q="target"), CqlConfig(actor_q="online")):
            out = hand_made()
            losses_of(out, config)[loss].backward()
            touched = {name for name in leaves.values() if out[name].grad is not None}
            assert touched == {own}


def test_targets_start_equal_to_their_own_networks() -> None:
    module = module_spec(NetworkSpec(4, 3), twin_q=True, seed=1).build()
    for target, source in module.target_pairs():
        for copy, original in zip(target.parameters(), source.parameters(), strict=True):
            assert torch.equal(copy, original)
            assert not copy.requires_grad
    first, second = module.q1[0].weight, module.q2[0].weight
    assert not torch.equal(first, second)


def test_settings_out_of_range_are_all_named() -> None:
    with pytest.raises(UsageError) as caught:
        CqlConfig(gamma=1.5, tau=0.0, batch_size=0)
    assert [p.path for p in caught.value.problems] == ["cql.gamma", "cql.batch_size", "cql.tau"]


def test_masked_entries_are_left_out_of_exponentials_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 30.0 * torch.randn(200, 9, generator=generator)
    mask = torch.rand(200, 9, generator=generator) < 0.5
    mask[:, 0] = True
    weights = torch.randn(200, 9, generator=generator)
    for mine, theirs in (
        (masked, masked_logits),
        (masked_logsumexp, lambda x, m: torch.logsumexp(masked_logits(x, m), -1)),
        (
            lambda x, m: exp(torch.log_softmax(masked(x, m), -1)),
            lambda x, m: torch.log_softmax(masked_logits(x, m), -1).exp(),
        ),
    ):
        found = []
        for call in (mine, theirs):
            given = logits.clone().requires_grad_()
            value = call(given, mask)
            (value * (weights if value.dim() == 2 else weights[:, 0])).sum().backward()
            assert given.grad is not None
            found.append((value.detach(), given.grad))
        for one, other in zip(*found, strict=True):
            np.testing.assert_array_equal(one.numpy(), other.numpy())
