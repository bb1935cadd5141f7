from __future__ import annotations

import math

import numpy as np
import pytest

from testbed.experiment.statistics import compare, mean_interval, rate_interval, with_spread


def test_interval_of_known_values() -> None:
    # Standard deviation 1, standard error 1/2, t(0.975, 3) = 3.1824.
    values = [1.0 - 0.5**0.5 * 1.5**0.5, 1.0, 1.0, 1.0 + 0.5**0.5 * 1.5**0.5]
    interval = mean_interval(values)
    assert interval.mean == pytest.approx(1.0)
    assert interval.deviation == pytest.approx((2 * 0.75 / 3) ** 0.5)
    assert interval.high - interval.mean == pytest.approx(3.182446 * interval.deviation / 2)


def test_one_episode_has_no_interval() -> None:
    interval = mean_interval([0.7])
    assert math.isnan(interval.low)
    assert str(interval) == "0.700"


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(1000):
        interval = mean_interval(list(rng.normal(0.8, 0.03, size=8)))
        covered += interval.low <= 0.8 <= interval.high
    assert covered == pytest.approx(950, abs=30)


def test_pairing_finds_a_difference_that_is_small_beside_the_noise_of_episodes() -> None:
    rng = np.random.default_rng(2)
    arrivals = rng.normal(0.8, 0.05, size=10)
    one = dict(enumerate(arrivals + 0.01 + rng.normal(0, 0.003, size=10)))
    other = dict(enumerate(arrivals))
    comparison = compare(one, other)
    assert comparison.real is True
    assert comparison.difference.mean == pytest.approx(0.01, abs=0.003)
    assert "better" in comparison.verdict
    assert "worse" in compare(other, one).verdict


def test_equal_runs_do_not_differ() -> None:
    run = {0: 0.7, 1: 0.8, 2: 0.9, 3: 0.6}
    comparison = compare(run, run)
    assert (comparison.real, comparison.p_value) == (False, 1.0)


def test_few_episodes_decide_nothing() -> None:
    comparison = compare({0: 0.1, 1: 0.1, 7: 0.0}, {0: 0.9, 1: 0.9, 3: 0.0})
    assert comparison.episodes == (0, 1)
    assert comparison.real is None
    assert "too few" in comparison.verdict


def test_runs_without_a_shared_episode_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="share no episode"):
        compare({0: 0.1}, {1: 0.1})


def test_an_interval_of_rates_ends_at_0_and_1() -> None:
    high = rate_interval([1.0, 0.5])
    assert mean_interval([1.0, 0.5]).high > 1
    assert (high.mean, high.low, high.high) == (0.75, 0.0, 1.0)
    narrow = [0.8, 0.81, 0.79]
    assert rate_interval(narrow) == mean_interval(narrow)
    assert math.isnan(rate_interval([0.7]).low)


@pytest.mark.parametrize(
    ("interval", "shown"),
    [
        ((0.937, 0.907, 0.967), "93.7 ± 3.0"),
        ((0.97, 0.922, 1.018), "97.0 (92.2 .. 100.0)"),
        ((0.97, 0.922, 1.0), "97.0 (92.2 .. 100.0)"),
        ((0.02, -0.01, 0.05), "2.0 (0.0 .. 5.0)"),
        ((1.0, 1.0, 1.0), "100.0 ± 0.0"),
        ((0.5, math.nan, math.nan), "50.0"),
    ],
)
def test_what_is_shown_never_reaches_beyond_100_per_cent(
    interval: tuple[float, float, float], shown: str
) -> None:
    assert with_spread(*interval) == shown


def test_the_arms_of_a_cut_interval_differ() -> None:
    low, high = rate_interval([1.0, 0.9, 1.0, 1.0]).arms
    assert low > high == pytest.approx(0.025)
