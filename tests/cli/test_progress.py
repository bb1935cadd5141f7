"""The lines that a run prints where there is no terminal."""

from __future__ import annotations

import dataclasses

import pytest

from testbed.api.running import complaints
from testbed.cli.calibrate import CalibrationDisplay
from testbed.cli.console import if_interrupted
from testbed.cli.o2o import _Teller
from testbed.cli.progress import Pace, ProgressDisplay, Snapshot, clock, paces
from testbed.experiment.calibration.questions import QUESTIONS
from testbed.experiment.calibration.search import Told
from testbed.experiment.calibration.values import Trial
from testbed.model.run_state import RunState
from tests.rpc.test_operator import PROGRESS
from trainer.o2o.settings import StageProgress


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

    with ProgressDisplay(lambda: 0.0) as display:
        display.show(snapshot(1, (5, 5), (8, 5)))
        display.show(snapshot(2, (95, 15), (95, 40)))
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("50.0 % of 10 tasks succeeded, so far 50.0 %")
    assert second.endswith("90.0 % of 100 tasks succeeded, so far 70.0 %")


def test_a_run_of_requests_tells_every_30_s_how_it_goes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = [0.0]

    def snapshot(served: int, refused: int, left: float, completed: int = 0) -> Snapshot:
        outcomes = {"served": served, "no_peer": refused, "lost": 0}
        return Snapshot(
            title="run",
            episodes=1,
            completed=completed,
            outcomes=outcomes,
            over=outcomes if completed else {},
            work="requests",
            success="served",
            latencies=(6_656, 22_528),
            seconds_left=left,
        )

    with ProgressDisplay(lambda: now[0]) as display:
        display.show(snapshot(10, 10, 99.0))
        now[0] = 31.0
        display.show(snapshot(900, 600, 69.0))
        now[0] = 32.0
        display.show(snapshot(910, 610, 68.0))
        display.show(snapshot(4_000, 1_000, 0.0, completed=1))
    told, end = capsys.readouterr().err.splitlines()
    assert told == ("run: 1500 requests, 40.0 % refused, p50 6.7 ms, p99 22.5 ms, 1 min 9 s left")
    assert end == "run: episode 1/1: 80.0 % of 5000 requests served, so far 80.0 %"


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        ("refused-rate", "refused-rate 20.0 % of 5000 requests, so far 20.0 %"),
        ("served-rate", "served-rate 80.0 % of 5000 requests, so far 80.0 %"),
        (
            "latency-p99",
            "80.0 % of 5000 requests served (latency-p99 follows at the end), so far 80.0 %",
        ),
    ],
)
def test_the_objective_is_named_where_it_is_not_the_success_rate(
    capsys: pytest.CaptureFixture[str], objective: str, told: str
) -> None:
    outcomes = {"served": 4_000, "no_peer": 1_000}
    with ProgressDisplay(lambda: 0.0) as display:
        display.show(
            Snapshot(
                *("run", 1, 1, outcomes, outcomes),
                work="requests",
                success="served",
                objective=objective,
            )
        )

    assert capsys.readouterr().err.splitlines() == [f"run: episode 1/1: {told}"]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.2, "1 s"), (59.4, "59 s"), (60, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_the_time_left_for_people(seconds: float, told: str) -> None:
    assert clock(seconds) == told


def test_the_time_left_is_told_once_there_is_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = [100.0]

    def snapshot(completed: int) -> Snapshot:
        over = {"succeeded": completed}
        return Snapshot(title="run", episodes=4, completed=completed, outcomes=over, over=over)

    pace = Pace("things done", 4, lambda: now[0])
    with ProgressDisplay(lambda: now[0]) as display:
        display.show(snapshot(1))
        pace.tell(1)
        now[0] += 10.0
        display.show(snapshot(2))
        pace.tell(2)
        pace.tell(3)
        display.show(snapshot(4))
    first, second, third, last = capsys.readouterr().err.splitlines()

    assert "left" not in first
    assert second.endswith(", 10 s left")
    assert third == "2 of 4 things done, 10 s left"
    assert "left" not in last


def test_a_run_in_which_nothing_arrived_says_so() -> None:
    empty = dataclasses.replace(
        PROGRESS, state=RunState.COMPLETED, generated=0, outcomes={}, invalid_because=()
    )
    assert list(complaints(empty)) == [
        f"no task arrived in run {PROGRESS.run}, so there is nothing to show or compare"
    ]
    failed = dataclasses.replace(empty, state=RunState.FAILED)
    assert not any("no task arrived" in line for line in complaints(failed))


def test_parts_of_work_have_a_pace_each(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    tell = paces("rows of {}", lambda: now[0])
    for at, part, done in ((0, "tasks", 0), (5, "tasks", 50), (6, "events", 10), (9, "events", 30)):
        now[0] = float(at)
        tell(part, done, 100)

    assert capsys.readouterr().err.splitlines() == [
        "50 of 100 rows of tasks, 5 s left",
        "30 of 100 rows of events, 7 s left",
    ]


def test_a_calibration_tells_the_episodes_of_each_trial(
    capsys: pytest.CaptureFixture[str],
) -> None:
    running = dataclasses.replace(
        PROGRESS,
        episodes=2,
        completed=1,
        outcomes={"succeeded": 12, "dropped": 8},
        completed_outcomes={"succeeded": 9, "dropped": 1},
    )
    begun = Told(QUESTIONS["nodes-metadata"], 1, 7, 20, None, 90.0)
    trial = Trial(20, True, (), {"arrivals": 0.5}, tasks_per_s=100.0, busy=0.4)
    with CalibrationDisplay() as display:
        for number in (20, 40):
            display.tell(dataclasses.replace(begun, level=number))
            display.watch(running)
            display.tell(dataclasses.replace(begun, level=number, trial=trial))

    title = QUESTIONS["nodes-metadata"].title
    told = capsys.readouterr().err.splitlines()
    assert told[:2] == [
        f"[1/7] {title}: 20 nodes ..., about 1 min 30 s left",
        f"[1/7] {title}: 20 nodes: episode 1/2: 90.0 % of 10 tasks succeeded, so far 90.0 %",
    ]
    assert told[2].startswith(f"[1/7] {title}: 20 nodes: valid, ")
    assert told[4] == told[1].replace("20 nodes", "40 nodes")


def test_an_experiment_tells_the_time_left_of_each_stage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = [0.0]
    tell = _Teller(5.0, lambda: now[0])
    for at, stage, done, notable in (
        (0, "logs", 0, False),
        (1, "logs", 1, False),
        (8, "logs", 20, False),
        (9, "logs", 21, True),
        (20, "network", 0, False),
        (30, "network", 50, False),
        (40, "network", 100, False),
    ):
        now[0] = float(at)
        tell(StageProgress(stage, done, 100, "said", notable))  # type: ignore[arg-type]

    assert capsys.readouterr().err.splitlines() == [
        "logs 0/100: said",
        "logs 20/100: said; 32 s left",
        "logs 21/100: said; 34 s left",
        "network 0/100: said",
        "network 50/100: said; 10 s left",
        "network 100/100: said",
    ]


def test_ctrl_c_says_what_was_kept(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), if_interrupted("nothing was written"):
        raise KeyboardInterrupt

    assert capsys.readouterr().err == "stopped; nothing was written\n"
