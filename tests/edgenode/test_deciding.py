"""A scheduler that never answers is left, and says where it was."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from edgenode.deciding import OVERRUNS, Bounded, DecisionWatch, NotInTime
from testbed.model.decision import Ask, Decision, Observation
from testbed.model.own_code import defined_at, described

ANYTHING = cast("Observation", None)


class Own:
    """A scheduler whose ``decide`` is a function of the test."""

    name = "own"

    def __init__(self, decide: Callable[[Observation], Decision | Ask]) -> None:
        self._decide = decide
        self.asked = 0

    def decide(self, observation: Observation) -> Decision | Ask:
        self.asked += 1
        return self._decide(observation)


def wait(_: Observation) -> Decision:
    threading.Event().wait()
    raise AssertionError("nobody has set it")


def turn(_: Observation) -> Decision:
    while True:
        pass


def go_on(_: Observation) -> Decision:
    while True:
        try:
            threading.Event().wait()
        except Exception:  # noqa: BLE001 - as careless code does
            continue


def answer(_: Observation) -> Decision:
    return Decision(1)


@pytest.fixture
def watch() -> Iterator[DecisionWatch]:
    with DecisionWatch(0.02) as entered:
        yield entered


@pytest.mark.parametrize("decide", [wait, turn, go_on])
def test_a_decision_without_end_is_left(
    watch: DecisionWatch, decide: Callable[[Observation], Decision]
) -> None:
    bounded = Bounded(Own(decide), watch)
    with pytest.raises(NotInTime) as raised:
        bounded.decide(ANYTHING)
    told = described(raised.value)
    assert "decide() had no answer after" in told
    assert "test_deciding.py" in told
    assert f"in {decide.__name__}" in told
    assert Bounded(Own(answer), watch).decide(ANYTHING) == Decision(1)


def test_one_that_catches_everything_once_is_left_too(watch: DecisionWatch) -> None:
    caught = []

    def stubborn(_: Observation) -> Decision:
        try:
            threading.Event().wait()
        except BaseException as error:  # noqa: BLE001 - as careless code does
            caught.append(error)
        return wait(ANYTHING)

    with pytest.raises(NotInTime):
        Bounded(Own(stubborn), watch).decide(ANYTHING)
    assert len(caught) == 1


def test_a_scheduler_without_answers_is_not_asked_for_ever(watch: DecisionWatch) -> None:
    own = Own(wait)
    bounded = Bounded(own, watch)
    for _ in range(OVERRUNS + 2):
        with pytest.raises(NotInTime):
            bounded.decide(ANYTHING)
    assert own.asked == OVERRUNS
    with pytest.raises(NotInTime, match="not asked any more"):
        bounded.decide(ANYTHING)


def test_what_stands_in_messages_is_the_scheduler_itself(watch: DecisionWatch) -> None:
    bounded = Bounded(Own(answer), watch)
    assert bounded.name == "own"
    assert defined_at(bounded.decide) == defined_at(Own(answer).decide) != ""
