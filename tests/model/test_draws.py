from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from testbed.model.draws import Purpose, extend, failure_after, key, uniform
from testbed.model.units import NEVER, SECOND

words = st.integers(min_value=0, max_value=2**63)


@given(st.lists(words, min_size=1, max_size=6))
def test_a_draw_depends_on_its_key_alone_and_lies_inside_the_unit_interval(
    parts: list[int],
) -> None:
    assert uniform(*parts) == uniform(*parts)
    assert 0.0 < uniform(*parts) < 1.0


@given(st.lists(words, min_size=1, max_size=3), st.lists(words, min_size=1, max_size=3))
def test_a_key_can_be_folded_in_parts(first: list[int], second: list[int]) -> None:
    assert extend(key(*first), *second) == key(*first, *second)


@pytest.mark.parametrize("varying", range(4))
def test_draws_are_uniform_whichever_word_of_the_key_varies(varying: int) -> None:
    drawn = []
    for i in range(4000):
        words = [7, int(Purpose.EXECUTION_FATE), 3, 11]
        words[varying] = i
        drawn.append(uniform(*words))
    assert stats.kstest(drawn, "uniform").pvalue > 1e-3


def test_neighbouring_keys_are_not_correlated() -> None:
    drawn = [uniform(1, 2, i) for i in range(5000)]
    assert abs(stats.pearsonr(drawn[:-1], drawn[1:]).statistic) < 0.05


def test_the_bits_of_a_known_key_never_change() -> None:
    # Logged runs and shipped figures can be repeated only while this holds.
    assert key(0) == 0xE220A8397B1DCDAF, "the first output of SplitMix64 with seed 0"
    assert key(1, 2, 3) == key(1, 2, 3)


@given(st.floats(min_value=0.01, max_value=10.0), st.floats(min_value=1e-6, max_value=1 - 1e-6))
def test_failure_times_follow_the_exponential_law(rate: float, u: float) -> None:
    after = failure_after(rate, u)
    # A task of duration x fails with probability 1 - exp(-rate x): u below exp(-rate x) survives.
    assert after == pytest.approx(-math.log(u) / rate * SECOND, abs=1)


def test_a_unit_that_never_fails_never_fails() -> None:
    assert failure_after(0.0, 0.5) == NEVER
