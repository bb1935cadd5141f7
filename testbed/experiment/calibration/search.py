"""The search for the knee of a question: doubling, then coarse bisection, with a vote of runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from testbed.experiment.calibration.questions import Question
from testbed.experiment.calibration.values import TERMS, Knee, Trial


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is spent on a knee.

    A level counts as valid if ``majority`` runs at it are, of at most ``2 * majority - 1``.
    Bisection ends when the first invalid level is at most ``ratio`` times the last valid one. A run
    is not repeated where its worst term is ``hopeless`` times its limit, nor the first of a level
    where that is ``clear`` of it.
    """

    majority: int = 2
    ratio: float = 1.2
    hopeless: float = 2.0
    clear: float = 0.5
    episodes: int = 2


FULL: Final = Effort()
FIRST_GUESS_S: Final = 8.0
"""Seconds that an episode of a trial is taken to last until one has ended, with its testbed."""
QUICK: Final = Effort(majority=1, ratio=1.5, episodes=1)


class Runner(Protocol):
    """Makes the runs; the command's brings testbeds up, a test's computes an answer."""

    def __call__(self, question: Question, level: int, episodes: int) -> Trial:
        """Run ``episodes`` at a level and return what was measured."""
        ...


@dataclass(frozen=True, slots=True)
class Told:
    """Progress of a calibration, before a trial (``trial`` None) and after it.

    ``number`` counts from 1 to ``of`` questions. ``left`` is in seconds; until the first trial has
    ended it is worked out from ``FIRST_GUESS_S``.
    """

    question: Question
    number: int
    of: int
    level: int
    trial: Trial | None
    left: float


def expected_trials(question: Question, effort: Effort) -> float:
    """Return about how many trials a question takes: for the time that is left."""
    # Most machines are within five doublings of the first level.
    doublings = 5.0
    bisections = math.log2(math.log(2) / math.log(effort.ratio)) if effort.ratio < 2 else 0.0
    return doublings + effort.majority * (1.0 + bisections)


def climb(
    question: Question,
    effort: Effort,
    run: Callable[[int], Trial],
) -> Knee:
    """Return the knee of ``question``; ``run`` makes one run at a level.

    Where already the first level is invalid, lower ones are tried by halving.
    """
    trials: list[Trial] = []

    def holds(level: int) -> bool:
        for_it, against = 0, 0
        while max(for_it, against) < effort.majority:
            trial = run(level)
            trials.append(trial)
            if trial.valid:
                if not against and trial.worst <= effort.clear:
                    return True
                for_it += 1
            elif not trial.ran or not trial.terms or trial.worst > effort.hopeless:
                return False
            else:
                against += 1
        return for_it > against

    good, bad = 0, 0
    level = question.first
    while not bad and level <= question.most:
        if holds(level):
            good = level
            if level == question.most:
                break
            level = min(2 * level, question.most)
        else:
            bad = level
    while bad and not good and bad > 1:
        level = bad // 2
        if holds(level):
            good = level
        else:
            bad = level
    while good and bad and bad > good + 1 and bad > good * effort.ratio:
        level = min(max(round(math.sqrt(good * bad)), good + 1), bad - 1)
        if holds(level):
            good = level
        else:
            bad = level
    return Knee(question.name, good or None, bad or None, limited(trials, bad), tuple(trials))


def limited(trials: Sequence[Trial], beyond: int) -> str:
    """Return what is in the way of the level ``beyond``, in words; 0: nothing was."""
    failed = [each for each in trials if each.level == beyond and not each.valid]
    if not beyond or not failed:
        return "nothing: the largest level that is tried was valid"
    trial = failed[-1]
    if not trial.terms:
        return "; ".join(trial.reasons)
    over = [
        f"{TERMS.get(name, name)} at {value:.1f} times the limit"
        for name, value in sorted(trial.terms.items(), key=lambda each: -each[1])
        if value > 1.0
    ]
    what = ", ".join(over) or "; ".join(trial.reasons)
    return (
        f"{what}; cores busy {100 * trial.busy:.0f} % (nodes {trial.nodes:.2f}, "
        f"controller {trial.controller:.2f}, other programs {trial.others:.2f} cores), "
        f"memory {trial.memory / 1e9:.1f} GB"
    )


def calibrate(
    questions: Sequence[Question],
    effort: Effort,
    runner: Runner,
    tell: Callable[[Told], None] = lambda told: None,
) -> dict[str, Knee]:
    """Return the knee of every question by its name."""
    work = _Work(questions, effort, runner, tell)
    return {
        question.name: climb(question, effort, partial(work.run, number))
        for number, question in enumerate(questions)
    }


class _Work:
    """Makes the runs of all questions, and tells how far they are."""

    def __init__(
        self,
        questions: Sequence[Question],
        effort: Effort,
        runner: Runner,
        tell: Callable[[Told], None],
    ) -> None:
        self._questions = questions
        self._effort = effort
        self._runner = runner
        self._tell = tell
        self._expected = [expected_trials(each, effort) for each in questions]
        self._seconds: list[float] = []

    def run(self, number: int, level: int) -> Trial:
        """Make a run of question ``number``, counted from 0, at a level."""
        question, count = self._questions[number], len(self._questions)
        self._tell(Told(question, number + 1, count, level, None, self._left(number)))
        trial = self._runner(question, level, self._effort.episodes)
        if trial.ran:
            self._expected[number] -= 1
            self._seconds.append(trial.seconds)
        self._tell(Told(question, number + 1, count, level, trial, self._left(number)))
        return trial

    def _left(self, number: int) -> float:
        each = FIRST_GUESS_S * self._effort.episodes
        if self._seconds:
            each = sum(self._seconds) / len(self._seconds)
        return each * (max(1.0, self._expected[number]) + sum(self._expected[number + 1 :]))
