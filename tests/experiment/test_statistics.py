from __future__ import annotations

import math

import numpy as np
import pytest

from testbed.experiment.statistics import (
    Interval,
    chance_of,
    compare,
    corrected,
    holm,
    in_per_cent,
    mean_interval,
    rate_interval,
    smallest_detectable,
    with_spread,
)


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


def test_holm_as_computed_by_hand() -> None:
    # Times 4, 3, 2 and 1 from the smallest on; the third would be 0.06 and is raised to the second.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # Nothing is above 1, and what is alone stays as it is.
    assert holm([0.9, 0.7]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_what_one_comparison_shows_is_not_shown_among_many() -> None:
    one = compare(dict(enumerate([0.91, 0.92, 0.95, 0.96, 0.92])), dict.fromkeys(range(5), 0.9))
    assert one.real
    assert 0.025 < one.p_value < 0.05
    few = compare({0: 0.1}, {0: 0.2})

    (alone, _) = corrected([one, few])
    first, second, untested = corrected([one, one, few])

    assert alone == one
    assert first == second
    assert (first.real, first.tests) == (False, 2)
    assert first.p_adjusted == pytest.approx(2 * one.p_value)
    assert "adjusted p = " in first.verdict
    assert untested == few
    low, high = first.simultaneous.low, first.simultaneous.high
    assert low < 0 < one.difference.low < one.difference.high < high
    assert one.simultaneous == one.difference


def test_the_smallest_difference_that_episodes_show() -> None:
    # t(0.975, 9) = 2.2622, t(0.8, 9) = 0.8834; with two tests t(0.9875, 9) = 2.6850.
    of_ten = Interval(10, 0.0, -1.0, 1.0, 0.05)
    assert smallest_detectable(of_ten) == pytest.approx(
        (2.2622 + 0.8834) * 0.05 / 10**0.5, abs=1e-5
    )
    assert smallest_detectable(of_ten, tests=2) == pytest.approx(
        (2.6850 + 0.8834) * 0.05 / 10**0.5, abs=1e-5
    )
    assert math.isnan(smallest_detectable(Interval(1, 0.1, math.nan, math.nan, math.nan)))


def test_a_difference_of_that_size_is_shown_in_four_of_five_runs() -> None:
    rng = np.random.default_rng(3)
    true = smallest_detectable(Interval(20, 0.0, -1.0, 1.0, 0.02))
    shown = sum(
        bool(compare(dict(enumerate(rng.normal(true, 0.02, 20))), dict.fromkeys(range(20), 0)).real)
        for _ in range(500)
    )
    assert shown == pytest.approx(400, abs=35)


@pytest.mark.parametrize(
    ("shares", "shown"),
    [
        ((0.657, 0.343), [65.7, 34.3]),
        ((1 / 3, 1 / 3, 1 / 3), [33.3, 33.4, 33.3]),
        ((2 / 3, 1 / 6, 1 / 6), [66.7, 16.7, 16.6]),
        ((0.9996, 0.0002, 0.0002), [100.0, 0.0, 0.0]),
        ((0.0, 1.0), [0.0, 100.0]),
        ((0.12345, 0.45678, 0.41977), [12.3, 45.7, 42.0]),
    ],
)
def test_shares_of_a_whole_add_up_to_100_as_shown(
    shares: tuple[float, ...], shown: list[float]
) -> None:
    found = in_per_cent(shares)
    assert [f"{each:.1f}" for each in found] == [f"{each:.1f}" for each in shown]
    assert sum(round(10 * each) for each in found) == 1000
    assert f"{found[0]:.1f}" == f"{100 * shares[0]:.1f}"


def test_shares_of_several_wholes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"add up to 1\.002"):
        in_per_cent([0.657, 0.345])


def test_correction_keeps_errors_among_many_comparisons_as_rare_as_said() -> None:
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(500):
        intervals = [mean_interval(list(rng.normal(0.0, 1.0, size=6))) for _ in range(10)]
        wrong += min(holm([2 * min(chance_of(each)) for each in intervals])) < 0.05
    assert wrong == pytest.approx(25, abs=20)


def test_chances_are_those_of_the_t_test() -> None:
    interval = mean_interval([0.1, 0.2, 0.3, 0.4])
    above, below = chance_of(interval)
    assert above + below == pytest.approx(1.0)
    paired = compare({0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4}, dict.fromkeys(range(4), 0.0))
    assert 2 * above == pytest.approx(paired.p_value)
    assert chance_of(interval, 0.25) == (0.5, 0.5)
    assert chance_of(mean_interval([0.3])) == (1.0, 1.0)
    assert chance_of(mean_interval([0.3, 0.3])) == (0.0, 1.0)
