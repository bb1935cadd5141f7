"""A scheduler that fails costs its task and says where; the node goes on."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from testbed.model.decision import Ask, Decision, Observation, checked
from testbed.model.events import DecisionBroken, DecisionRecord, Record, TaskArrived
from testbed.model.failures import Failures
from testbed.model.node import NodeState
from testbed.model.own_code import LONGEST_REASON, SchedulerFailed, described, interrupted
from tests.model.network import Placed, rules, task, topology

NODES = 3


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def give_up(_: Observation) -> Decision:
    raise KeyError("the key")


def leave(_: Observation) -> Decision:
    raise SystemExit(3)


def interrupt(_: Observation) -> Decision:
    raise KeyboardInterrupt


def unspeakable(_: Observation) -> Decision:
    raise Unspeakable


class Leaving(Exception):
    def __str__(self) -> str:
        raise SystemExit(1)


class Text(str):
    """Says something else wherever it is asked."""

    __slots__ = ()

    def splitlines(self, keepends: bool = False) -> list[str]:
        raise ValueError

    def __getitem__(self, which: Any) -> str:
        raise ValueError

    def __format__(self, how: str) -> str:
        raise ValueError


class Subclassed(Exception):
    def __str__(self) -> str:
        return Text("of a subclass")


class Meta(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise ValueError


class Nameless(Exception, metaclass=Meta):
    pass


class Causeless(Exception):
    @property
    def __traceback__(self) -> Any:  # type: ignore[override]
        raise ValueError


HOSTILE_NAME = type("Class\n\x1b[2J" * 100_000, (Exception,), {})


def megabytes(_: Observation) -> Decision:
    raise ValueError("x" * 10_000_000 + "\n" + "y" * 10_000_000)


def endless(_: Observation) -> Any:
    return Ask(itertools.count(1))  # type: ignore[arg-type]


def uncertain(_: Observation) -> Any:
    return Decision(0, itertools.repeat(0.1))  # type: ignore[arg-type]


class Odd:
    def __index__(self) -> int:
        raise Unspeakable

    def __repr__(self) -> str:
        raise SystemExit(2)


def raises(error: BaseException) -> Callable[[Observation], Decision]:
    def decide(_: Observation) -> Decision:
        raise error

    return decide


EXECUTABLE = compile("def decide(_): raise ValueError('why')", "/x" * 5000 + "/end.py", "exec")


def far_away(_: Observation) -> Any:
    names: dict[str, Any] = {}
    exec(EXECUTABLE, names)
    return names["decide"](_)


@pytest.mark.parametrize(
    ("decide", "told"),
    [
        (megabytes, r"raised ValueError: x{100,}\.\.\., at .*\.py:\d+ in megabytes"),
        (raises(ValueError("\ud800\udfff\0 and more")), r"ValueError:     and more, at .* decide"),
        (raises(Leaving()), r"raised Leaving: \(its text cannot be shown\), at .* in decide"),
        (raises(Subclassed()), r"raised Subclassed: of a subclass, at .* in decide"),
        (raises(Nameless("why")), r"raised Nameless: why, at .* in decide"),
        (raises(Causeless("why")), r"raised Causeless: why$"),
        (raises(HOSTILE_NAME("why")), r"raised Class  \[2JClass .*\.\.\.: why, at .* in decide"),
        (raises(SyntaxError("why", ("\ud800" * 10**6, 10**30, 1, ""))), r"SyntaxError: why, at "),
        (raises(ValueError("\n\n  second line")), r"raised ValueError: second line, at "),
        (far_away, r"raised ValueError: why, at \.\.\..*/end\.py:1 in decide"),
        (lambda _: Odd(), r"answered an object \(Odd\)"),
        (lambda _: Decision(Odd()), r"what raised Unspeakable: \(its text"),  # type: ignore[arg-type]
        (lambda _: HOSTILE_NAME(), r"\(Class  \[2JClass .*\.\.\.\); it has to be"),
        (lambda _: ["x" * 10**6] * 10**6, r"answered \['x+\.\.\..* \(list\)"),
        (endless, r"an Ask for peers \(1, 2, 3, 4\)"),
        (uncertain, r"more than 3 probabilities"),
    ],
)
def test_whatever_is_raised_or_answered_is_told_in_one_bounded_line(
    decide: Callable[[Observation], Any], told: str
) -> None:
    node = NodeState(0, topology([1000] * NODES), rules(), 0, 0, Placed(decide))
    with pytest.raises(SchedulerFailed, match=told) as failed:
        node.handle(TaskArrived(task(1)), 0)
    reason = failed.value.reason
    assert len(reason) <= LONGEST_REASON
    assert reason.isprintable()
    reason.encode()


@pytest.mark.parametrize("name", ["x\ud800\n" * 10**6, None, 3, Text("placed")])
def test_a_scheduler_that_changes_its_name_is_named(name: Any) -> None:
    scheduler = Placed(raises(ValueError("why")))
    node = NodeState(0, topology([1000]), rules(), 0, 0, scheduler)
    scheduler.name = name
    with pytest.raises(SchedulerFailed, match=r"scheduler '(x  x  .*|Placed|placed)' raised Val"):
        node.handle(TaskArrived(task(1)), 0)
    for effect in node.handle(DecisionBroken(1, "why"), 0):
        if isinstance(effect, DecisionRecord):
            effect.scheduler.encode()
            assert type(effect.scheduler) is str


@pytest.mark.parametrize(
    ("decide", "told"),
    [
        (give_up, r"raised KeyError: 'the key', at .*test_own_code\.py:\d+ in give_up"),
        (leave, r"raised SystemExit: 3, at .*test_own_code\.py:\d+ in leave"),
        (interrupt, r"raised KeyboardInterrupt, at .*test_own_code\.py:\d+ in interrupt"),
        (unspeakable, r"raised Unspeakable: .*cannot be shown.*in unspeakable"),
        (lambda _: None, r"answered None \(NoneType\); it has to be Decision.*network\.py:\d+"),
        (lambda _: 1, r"answered 1 \(int\); it has to be Decision"),
        (lambda _: (1, None, None), r"answered \(1, None, None\) \(tuple\)"),
        (lambda _: Decision(3), r"answered Decision\(3\); there are nodes 0 to 2"),
        (lambda _: Decision(-1), r"answered Decision\(-1\)"),
        (lambda _: Decision("1"), r"a destination '1' \(str\)"),  # type: ignore[arg-type]
        (lambda _: Decision(1.0), r"a destination 1.0 \(float\)"),  # type: ignore[arg-type]
        (lambda _: Decision(1, (0.5, 0.5)), r"2 probabilities; .* each of 3 nodes"),
        (lambda _: Decision(1, (0.5, float("nan"), 0.5)), r"probabilities .*nan"),
        (lambda _: Decision(1, 5), r"probabilities 5 \(int\)"),  # type: ignore[arg-type]
        (lambda _: Decision(1, None, (True,)), r"a mask of 1 entries"),
        (lambda _: Ask(()), r"an Ask for no peers"),
        (lambda _: Ask((0,)), r"its own node 0"),
        (lambda _: Ask((1, 1)), r"it may name each peer once"),
        (lambda _: Ask((7,)), r"there are nodes 0 to 2"),
        (lambda _: Ask(5), r"an Ask for 5 \(int\)"),  # type: ignore[arg-type]
        (lambda _: Ask(("a",)), r"a peer 'a' \(str\)"),  # type: ignore[arg-type]
        (lambda _: Ask((1,), enough=-1), r"enough=-1"),
    ],
)
def test_what_a_scheduler_does_wrong_is_told_and_costs_its_task(
    decide: Callable[[Observation], Any], told: str
) -> None:
    node = NodeState(0, topology([1000] * NODES), rules(), 0, 0, Placed(decide))
    with pytest.raises(SchedulerFailed, match=f"(?s)node 0, task 1: scheduler 'placed' .*{told}"):
        node.handle(TaskArrived(task(1)), 0)
    effects = node.handle(DecisionBroken(1, "why"), 0)
    ended = next(e for e in effects if isinstance(e, Record) and e.kind == "ended")
    assert (ended.data["outcome"], ended.data["stage"]) == ("lost", "deciding")
    assert ended.data["reason"] == "why"
    assert not node.held


def test_numbers_of_other_libraries_are_numbers() -> None:
    given = Decision(np.int64(1), np.array([0.5, 0.5]), np.array([True, False]))  # type: ignore[arg-type]
    answer = checked(given, 0, 2)
    assert answer == Decision(1, (0.5, 0.5), (True, False))
    assert [type(each) for each in answer[:1]] == [int]
    assert checked(Ask([np.int32(1)]), 0, 2) == Ask((1,))  # type: ignore[arg-type]


def test_a_real_interrupt_is_not_taken_for_the_schedulers() -> None:
    def decide(_: Observation) -> Decision:
        signal.raise_signal(signal.SIGINT)
        return Decision(0)

    node = NodeState(0, topology([1000]), rules(), 0, 0, Placed(decide))
    with pytest.raises(KeyboardInterrupt):
        node.handle(TaskArrived(task(1)), 0)


def test_a_raised_interrupt_can_be_told_from_a_real_one() -> None:
    with pytest.raises(KeyboardInterrupt) as raised:
        interrupt(None)  # type: ignore[arg-type]
    assert not interrupted(raised.value)


def test_a_long_or_unprintable_text_becomes_one_short_line() -> None:
    told = described(ValueError("first\x1b[31m " + "x" * 10_000 + "\nsecond"))
    assert len(told) < 500
    assert told.isprintable()


def test_failures_are_counted_and_the_first_is_kept() -> None:
    failures = Failures()
    node = NodeState(0, topology([1000]), rules(), 0, 0, Placed(give_up))
    for number in (1, 2):
        with pytest.raises(SchedulerFailed) as failed:
            node.handle(TaskArrived(task(number)), 0)
        for effect in node.handle(DecisionBroken(number, failed.value.reason), 0):
            if isinstance(effect, Record):
                failures.add(effect)
    (line,) = failures.lines
    assert line.startswith("the scheduler failed at 2 tasks, which are lost; the first: episode 0")
    assert "node 0, task 1: scheduler 'placed' raised KeyError" in line
