"""What has to hold after every fault, checked against the task log and against what was done."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from testbed.model.events import RecordKind
from testbed.model.workload import tasks_of_episode
from testbed.storage.tasklog import Run, TaskLog

FINE: Final = frozenset({"completed", "invalid"})
"""States of a run that lost nothing; a busy machine makes it ``invalid``, which is true."""

ALMOST: Final = FINE | {"degraded"}
"""The same, or with tasks lost."""

COMPLETE: Final = frozenset({"completed", "invalid", "degraded", "stopped"})
"""States in which every task generated has ended and has its row."""

CLOSED: Final = COMPLETE | {"interrupted", "failed"}
"""The same once the next controller has closed what was cut short."""

_DIED: Final = re.compile(r"\bdied\b|process ended", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a fault makes of the run under way; what is not said has to be as without it.

    ``states`` the run may end in, and exit codes of ``testbed run`` (negative: the signal it was
    sent). Nodes in ``away`` may be named as having left, those in ``dead`` have to be, and only of
    them may be said that they died. ``reason`` is what a failure has to say. With ``damaged`` the
    task log need not be readable. ``runs`` says whether there was a run at all.
    """

    states: frozenset[str] = FINE
    exits: frozenset[int] = frozenset({0})
    away: frozenset[int] = frozenset()
    dead: frozenset[int] = frozenset()
    died: frozenset[int] = frozenset()
    reason: str = ""
    damaged: bool = False
    runs: bool = True
    problems: tuple[str, ...] = ()
    note: str = ""


def without_it(expected: Expected) -> Expected:
    """What is expected when the run had ended, or was about to, before the fault could tell."""
    return dataclasses.replace(
        expected,
        states=expected.states | ALMOST,
        exits=expected.exits | {0},
        away=expected.away | expected.dead,
        dead=frozenset(),
        died=expected.died | expected.dead,
    )


@dataclass(slots=True)
class Violation:
    """Something that must not be; ``kind`` is what the last line counts it under."""

    kind: str
    what: str


@dataclass(slots=True)
class Account:
    """The tasks of a run in the log: by number of endings, and whether rows agree."""

    run: str
    state: str
    generated: int = 0
    ended: int = 0
    rows: int = 0
    lost: int = 0
    open: int = 0
    problems: list[Violation] = field(default_factory=list)


def account(log: TaskLog, run: Run, *, final: bool = False) -> Account:
    """Count the tasks of a run in ``events`` and ``tasks``, and compare the two.

    ``final``: another controller has come since, so that runs that were cut short are closed.
    """
    generated: set[int] = set()
    ends: dict[int, list[str]] = {}
    for record in log.records(run.id):
        generated.add(record.task.id)
        if record.kind is RecordKind.ENDED:
            ends.setdefault(record.task.id, []).append(str(record.data["outcome"]))
    rows = {row.task_id: row.outcome.value for row in log.tasks(run.id)}
    found = Account(run.id, run.state.value, len(generated), len(ends), len(rows))
    found.lost = sum(outcome == "lost" for outcome in rows.values())
    found.open = len(generated - set(ends))

    def wrong(kind: str, what: str) -> None:
        found.problems.append(Violation(kind, f"run {run.id} ({run.state}): {what}"))

    if twice := {task: each for task, each in ends.items() if len(each) > 1}:
        wrong("double end", f"{len(twice)} tasks ended more than once: {_some(twice.items())}")
    differing = {
        task: (ends.get(task), outcome)
        for task, outcome in rows.items()
        if outcome not in ends.get(task, ())
    }
    if differing:
        wrong("contradiction", f"rows and events differ: {_some(differing.items())}")
    if run.state.value in (CLOSED if final else COMPLETE):
        if found.open:
            wrong("unaccounted", f"{found.open} tasks have no end: {_some(generated - set(ends))}")
        if without := set(ends) - set(rows):
            wrong("unaccounted", f"{len(without)} ended tasks have no row: {_some(without)}")
    certificate = run.certificate or {}
    if run.state.value in ALMOST:
        completed = certificate.get("episodes_completed", run.info.episodes)
        if completed != run.info.episodes:
            wrong("wrong state", f"{completed} of {run.info.episodes} episodes were completed")
        if missing := arrivals(run) - set(rows):
            wrong("unaccounted", f"{len(missing)} arrivals are not in the log: {_some(missing)}")
    return found


def arrivals(run: Run) -> set[int]:
    """Every task that arrives in the episodes of a run."""
    plan = run.plan
    first = run.info.first_episode
    return {
        task.id
        for episode in range(first, first + run.info.episodes)
        for tasks in tasks_of_episode(
            plan.workload, plan.topology.arrival_probability, plan.seeds.workload, episode
        )
        for task in tasks
    }


def judge(run: Run, found: Account, expected: Expected) -> list[Violation]:
    """Compare the final state of a run, and what is said of its nodes, with what was done."""
    wrong: list[Violation] = []
    certificate = run.certificate or {}
    state = run.state.value
    reason = str(certificate.get("failure") or "")
    left = {int(node): str(why) for node, why in (certificate.get("dead_nodes") or {}).items()}
    told = f"run {run.id} is {state}; reason {reason!r}, nodes that left {left}, lost {found.lost}"

    def say(what: str) -> None:
        wrong.append(Violation("wrong state", f"{what}: {told}"))

    if state not in expected.states and not _kept_up_not(state, certificate, expected):
        say(f"the state has to be one of {', '.join(sorted(expected.states))}")
    if extra := set(left) - expected.away - expected.dead:
        say(f"nodes {sorted(extra)} were not touched")
    if state in ALMOST and (missing := expected.dead - set(left)):
        say(f"nodes {sorted(missing)} died")
    for node, why in left.items():
        if node not in expected.dead | expected.died and _DIED.search(why):
            say(f"node {node} lives")
    # A run whose log could not be told has no certificate: the next controller ends it.
    if (
        state == "failed"
        and run.certificate is not None
        and not re.search(expected.reason, reason, re.IGNORECASE)
    ):
        say(f"the reason has to match {expected.reason!r}")
    if state == "degraded" and not (left or found.lost or certificate.get("illegal_stories")):
        say("nothing says what degraded it")
    if state in FINE and left:
        say("a node has left")
    if certificate.get("illegal_stories"):
        say(f"{certificate['illegal_stories']} histories are illegal")
    return wrong


def _kept_up_not(state: str, certificate: object, expected: Expected) -> bool:
    """Whether tasks were lost only because the machine was too busy, and that is what is said."""
    return state == "degraded" and bool(expected.states & FINE) and "keep up" in str(certificate)


def _some(values: Iterable[object]) -> str:
    listed = list(values)
    return ", ".join(map(str, listed[:5])) + (", ..." if len(listed) > 5 else "")


def counted(violations: Iterable[Violation]) -> dict[str, int]:
    """Number of violations by kind."""
    return dict(Counter(each.kind for each in violations))
