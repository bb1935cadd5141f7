"""The gate: what is clearly worse is refused, and early; what is equal or better is not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from testbed.experiment.live import gate

FIRST = 100


def decided(
    candidate: Mapping[int, float], *references: Mapping[int, float], look: int = 4
) -> tuple[gate.Verdict, list[tuple[int, int]]]:
    asked: list[tuple[int, int]] = []

    def run(first: int, size: int) -> dict[int, float]:
        asked.append((first, size))
        numbers = range(first, first + size)
        return {number: candidate[number] for number in numbers if number in candidate}

    named = {f"reference-{index}": rates for index, rates in enumerate(references)}
    verdict, _ = gate.tested(run, named, FIRST, gate.parts(12, look), None)
    return verdict, asked


def rates(mean: float, spread: float, seed: int) -> dict[int, float]:
    rng = np.random.default_rng(seed)
    return {FIRST + each: mean + spread * rng.standard_normal() for each in range(12)}


def test_parts_add_up_and_none_is_too_small_for_a_test() -> None:
    assert gate.parts(12, 4) == [4, 4, 4]
    assert gate.parts(14, 4) == [5, 5, 4]
    assert gate.parts(4, 1) == [4]
    assert gate.parts(32, 16) == [16, 16]


def test_a_policy_that_is_worse_everywhere_is_refused_after_the_first_part() -> None:
    before = rates(0.95, 0.02, 1)
    worse = {number: rate - 0.2 - 0.001 * (number % 3) for number, rate in before.items()}
    verdict, asked = decided(worse, before)
    assert not verdict.accepted
    assert asked == [(FIRST, 4)]
    assert verdict.difference == pytest.approx(-0.201, abs=1e-3)
    assert verdict.p_worse < 0.001


def test_a_better_and_an_equal_policy_are_accepted_after_all_parts() -> None:
    before = rates(0.9, 0.02, 1)
    for change in (0.0, 0.01):
        verdict, asked = decided({n: rate + change for n, rate in before.items()}, before)
        assert verdict.accepted
        assert asked == [(FIRST, 4), (FIRST + 4, 4), (FIRST + 8, 4)]
        assert (verdict.episodes, verdict.looks) == (12, 3)


def test_noise_alone_is_seldom_called_worse() -> None:
    verdicts = [
        decided(rates(0.9, 0.03, 2 * seed), rates(0.9, 0.03, 2 * seed + 1))[0]
        for seed in range(400)
    ]
    # Three looks share 5 %, of which 20 are expected at most.
    assert sum(verdict.p_worse < gate.ERROR / 3 for verdict in verdicts) <= 30


def test_what_is_below_in_the_end_is_refused_whatever_the_noise() -> None:
    before = rates(0.9, 0.0, 1)
    low = {number: 0.88 + 0.1 * (-1) ** number for number in before}
    verdict, asked = decided(low, before)
    assert (verdict.accepted, len(asked)) == (False, 3)
    assert verdict.p_worse > 0.2
    near = {number: 0.895 + 0.1 * (-1) ** number for number in before}
    assert decided(near, before)[0].accepted


def test_a_reference_is_run_anew_before_it_refuses() -> None:
    before = rates(0.95, 0.01, 1)
    # Since then the network has become worse for all.
    now = {number: rate - 0.2 for number, rate in before.items()}
    candidate = {number: rate + 0.002 * (number % 3) for number, rate in now.items()}
    asked: list[tuple[str, int, int]] = []

    def again(name: str, first: int, size: int) -> dict[int, float]:
        asked.append((name, first, size))
        return {number: now[number] for number in range(first, first + size)}

    def run(first: int, size: int) -> dict[int, float]:
        return {number: candidate[number] for number in range(first, first + size)}

    verdict, _ = gate.tested(run, {"before": before}, FIRST, [4, 4, 4], again)
    assert verdict.accepted
    assert asked[0] == ("before", FIRST, 4)
    assert verdict.difference > 0
    worse = {number: rate - 0.1 - 0.001 * (number % 3) for number, rate in now.items()}
    verdict, _ = gate.tested(
        lambda first, size: {number: worse[number] for number in range(first, first + size)},
        {"before": before},
        FIRST,
        [4, 4, 4],
        again,
    )
    assert (verdict.accepted, verdict.looks) == (False, 1)


def test_what_drifts_below_the_best_is_refused_though_the_one_before_was_as_low() -> None:
    best = rates(0.95, 0.002, 1)
    before = {number: rate - 0.01 for number, rate in best.items()}
    candidate = {number: rate + 0.0002 * (-1) ** number for number, rate in before.items()}
    verdict, _ = decided(candidate, before, best)
    assert not verdict.accepted
    assert decided(candidate, before)[0].accepted


def test_episodes_without_a_task_do_not_count() -> None:
    before = rates(0.9, 0.02, 1)
    del before[FIRST + 2]
    verdict, _ = decided({**rates(0.9, 0.02, 1)}, before)
    assert (verdict.accepted, verdict.episodes) == (True, 11)
    verdict, _ = decided({}, before)
    assert (verdict.accepted, verdict.episodes) == (True, 0)
    assert verdict.document()["difference"] is None
