"""The lines that a run prints where there is no terminal."""

from __future__ import annotations

import pytest

from testbed.cli.progress import ProgressDisplay, Snapshot


def test_so_far_is_the_mean_of_the_episodes_that_are_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Not of tasks: neither do tasks of the next episode count, nor do long episodes more."""

    def snapshot(completed: int, over: tuple[int, int], now: tuple[int, int]) -> Snapshot:
        return Snapshot(
            title="run",
            episodes=3,
            completed=completed,
            outcomes={"succeeded": now[0], "dropped": now[1]},
            over={"succeeded": over[0], "dropped": over[1]},
        )

    with ProgressDisplay() as display:
        display.show(snapshot(1, (5, 5), (8, 5)))
        display.show(snapshot(2, (95, 15), (95, 40)))
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("50.0 % of 10 tasks succeeded, so far 50.0 %")
    assert second.endswith("90.0 % of 100 tasks succeeded, so far 70.0 %")
