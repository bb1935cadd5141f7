"""Student's t against scipy's, which the toolkit does not load for it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from testbed.experiment.student_t import quantile, two_sided

DEGREES = (1, 2, 3, 4, 7, 19, 39, 399, 10_000)


@pytest.mark.parametrize("degrees", DEGREES)
def test_tails_equal_those_of_scipy(degrees: int) -> None:
    for t in (0.0, 1e-3, *np.geomspace(0.01, 1e4, 60).tolist()):
        wanted = 2 * stats.t.sf(t, degrees)
        assert two_sided(t, degrees) == pytest.approx(wanted, rel=1e-9, abs=1e-290)
        assert two_sided(-t, degrees) == two_sided(t, degrees)
    assert two_sided(float("inf"), degrees) == 0.0


@pytest.mark.parametrize("degrees", DEGREES)
@pytest.mark.parametrize("probability", [0.5, 0.6, 0.9, 0.95, 0.975, 0.995, 0.9999])
def test_quantiles_equal_those_of_scipy(probability: float, degrees: int) -> None:
    wanted = stats.t.ppf(probability, degrees)
    assert quantile(probability, degrees) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_what_is_no_distribution_is_refused() -> None:
    with pytest.raises(ValueError, match="degree"):
        two_sided(1.0, 0)
    with pytest.raises(ValueError, match="probability"):
        quantile(1.0, 3)
    with pytest.raises(ValueError, match="probability"):
        quantile(0.4, 3)


def test_an_interval_needs_no_scipy() -> None:
    program = (
        "import sys; from testbed.experiment.statistics import compare;"
        "compare(dict(enumerate([0.5, 0.6, 0.7, 0.9])), dict(enumerate([0.4, 0.6, 0.5, 0.8])));"
        "sys.exit('scipy' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=250).returncode == 0
