"""The search for a knee, with runs that are computed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from testbed.experiment.calibration.questions import QUESTIONS, Question
from testbed.experiment.calibration.search import (
    FIRST_GUESS_S,
    FULL,
    QUICK,
    Effort,
    Told,
    calibrate,
    climb,
    expected_trials,
)
from testbed.experiment.calibration.values import Trial

NODES = QUESTIONS["nodes-metadata"]


def machine(knee: float) -> Callable[[int], Trial]:
    """Runs on a machine whose error grows with the level and is at its limit at ``knee``."""

    def run(level: int) -> Trial:
        worst = level / knee
        reasons = () if worst <= 1 else ("too late",)
        terms = {"transmission": worst, "arrivals": worst / 2}
        return Trial(level, worst <= 1, reasons, terms, busy=0.5, seconds=10.0)

    return run


@pytest.mark.parametrize("knee", [1, 2, 3, 7, 20, 33, 100, 640, 999])
@pytest.mark.parametrize("effort", [FULL, QUICK])
def test_the_knee_is_found_to_the_ratio_that_is_asked_for(knee: int, effort: Effort) -> None:
    found = climb(NODES, effort, machine(knee + 0.5))

    assert found.level is not None
    assert found.beyond is not None
    assert found.level <= knee < found.beyond
    assert found.beyond <= max(found.level * effort.ratio, found.level + 1)
    assert found.best is not None
    assert found.best.level == found.level
    assert "transmission times" in found.limit


def test_a_machine_that_carries_everything_has_no_level_beyond() -> None:
    found = climb(NODES, FULL, machine(1e9))

    assert (found.level, found.beyond) == (NODES.most, None)
    assert found.limit.startswith("nothing")


def test_a_machine_that_carries_nothing_has_no_knee() -> None:
    found = climb(NODES, QUICK, machine(0.5))

    assert (found.level, found.beyond, found.best) == (None, 1, None)


def test_one_bad_run_of_three_does_not_move_the_knee() -> None:
    even = machine(45)
    made: dict[int, int] = {}

    def run(level: int) -> Trial:
        made[level] = made.get(level, 0) + 1
        if level == 20 and made[level] == 1:
            return Trial(level, False, ("unlucky",), {"arrivals": 1.3})
        return even(level)

    assert climb(NODES, FULL, run).level == climb(NODES, FULL, even).level
    assert made[20] == 3


def test_what_is_hopeless_is_not_repeated() -> None:
    def run(level: int) -> Trial:
        return machine(9 if level < 10 else 1)(level)

    found = climb(NODES, FULL, run)

    runs = [trial.level for trial in found.trials]
    assert (runs.count(5), runs.count(10)) == (2, 1)


def test_what_is_clearly_valid_is_not_repeated() -> None:
    found = climb(NODES, FULL, machine(100))

    runs = [trial.level for trial in found.trials]
    assert [runs.count(level) for level in (5, 10, 20, 40, 80)] == [1, 1, 1, 1, 2]


def test_a_level_that_does_not_fit_into_memory_is_the_limit() -> None:
    even = machine(1e9)

    def run(level: int) -> Trial:
        if level > 100:
            return Trial(level, False, ("150 nodes need 30 GB of memory",), ran=False)
        return even(level)

    found = climb(NODES, QUICK, run)

    assert found.level == 80
    assert "need 30 GB" in found.limit


def test_progress_names_each_run_before_and_after_it_and_the_time_left() -> None:
    told: list[Told] = []
    questions = [QUESTIONS["nodes-metadata"], QUESTIONS["tasks"]]

    def runner(question: Question, level: int, episodes: int) -> Trial:
        assert episodes == QUICK.episodes
        return machine(4 * question.first)(level)

    knees = calibrate(questions, QUICK, runner, told.append)

    assert list(knees) == ["nodes-metadata", "tasks"]
    assert [each.trial is None for each in told] == [True, False] * (len(told) // 2)
    assert {each.number for each in told} == {1, 2}
    # A guess before the first has ended, then what has been measured.
    trials = sum(expected_trials(question, QUICK) for question in questions)
    assert told[0].left == pytest.approx(trials * FIRST_GUESS_S * QUICK.episodes)
    left = [each.left for each in told[1:]]
    assert left[0] > left[-1] > 0


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=lambda each: each.name)
def test_every_question_can_be_asked_at_its_levels(question: Question) -> None:
    from testbed.scenario.load import load
    from testbed.scenario.resolve import plan

    for level in (1, question.first, min(question.most, 16 * question.first)):
        drawn = plan(load("paper-testbed", question.settings(level, 2)))
        assert drawn.topology.size == question.nodes(level)
        assert (drawn.payload == "bytes") == question.bytes_move


def test_the_link_is_used_at_its_rate_and_by_all_tasks() -> None:
    from testbed.scenario.load import load
    from testbed.scenario.resolve import plan
    from testbed.sim.simulator import simulate

    drawn = plan(load("paper-testbed", QUESTIONS["link"].settings(100, 2)), episodes=1)
    [episode] = simulate(drawn, drawn.scheduler.name, 1, keep=False)

    assert sum(episode.counts.values()) == drawn.workload.slots
    sent = drawn.workload.slots * drawn.workload.size_bytes.mean
    assert 80e6 < sent / drawn.episode_seconds < 100e6
    succeeded = {outcome.value: count for outcome, count in episode.counts.items()}["succeeded"]
    assert succeeded == drawn.workload.slots


def test_the_small_tasks_come_at_their_rate_and_succeed() -> None:
    from testbed.scenario.load import load
    from testbed.scenario.resolve import plan
    from testbed.sim.simulator import simulate

    drawn = plan(load("paper-testbed", QUESTIONS["tasks"].settings(800, 2)), episodes=1)
    [episode] = simulate(drawn, drawn.scheduler.name, 1, keep=False)

    tasks = sum(episode.counts.values())
    assert tasks / drawn.episode_seconds == pytest.approx(800, rel=0.01)
    succeeded = {outcome.value: count for outcome, count in episode.counts.items()}["succeeded"]
    assert succeeded == tasks
