"""Campaigns of real networks: 40 faults, and 300 with real servers where there is more time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaign.campaign import Counts, Plan, carry_out


def found(counts: Counts) -> str:
    """What a failed test says: each violation, with the command that repeats its trial."""
    return "\n".join(
        f"#{result.trial.number} {result.trial.fault}: {each.kind}: {each.what}"
        for result in counts.failed
        for each in result.violations
    )


@pytest.mark.timeout(1800)
def test_forty_faults(tmp_path: Path) -> None:
    said: list[str] = []
    counts = carry_out(Plan(faults=40, seed=1, lanes=3), tmp_path, said.append)
    assert not counts.failed, found(counts)
    assert (counts.faults, len(said)) == (40, 40)


@pytest.mark.long
@pytest.mark.mysql
@pytest.mark.hdfs
@pytest.mark.timeout(10_800)
def test_three_hundred_faults(tmp_path: Path) -> None:
    plan = Plan(faults=300, seed=1, stores=("sqlite", "mysql"), hdfs=True, long=True, lanes=3)
    counts = carry_out(plan, tmp_path, lambda line: None)
    assert not counts.failed, found(counts)
    assert counts.faults == 300
