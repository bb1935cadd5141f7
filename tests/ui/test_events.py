"""What has happened between two states."""

from __future__ import annotations

from typing import Any

from testbed.model.run_state import RunState
from testbed.rpc.operator import FaultList, FaultStatus, LiveState, SchedulerChange
from testbed.ui.live.events import events_between
from tests.ui.states import BUSY, NODES, progress, state


def told(before: LiveState | None, after: LiveState) -> list[tuple[str, str, bool]]:
    return [(each.kind, each.text, each.bad) for each in events_between(before, after, 1.0)]


def fault(name: str, now: Any) -> FaultStatus:
    return FaultStatus(name, "slow-node", "node 0 at 0.2", 0, 5_000_000, now, by_hand=True)


def test_nothing_new_is_nothing() -> None:
    assert told(state(), state(11.0)) == []


def test_at_the_first_look_only_what_is_wrong_is_told() -> None:
    dead = BUSY._replace(condition="dead", reason="connection refused")
    first = state(nodes=(BUSY, dead, BUSY), faults=FaultList("r1", 0, 0, (fault("h.1", "active"),)))

    assert told(None, first) == [
        ("node", "node 1 is dead: connection refused", True),
        ("run", "run r1 is in progress under ratc", False),
    ]


def test_a_run_that_was_over_before_the_first_look_is_no_news() -> None:
    assert told(None, state(run=progress(state=RunState.COMPLETED))) == []


def test_a_node_that_dies_and_comes_back() -> None:
    dead = BUSY._replace(condition="dead", reason="its process has ended")
    with_dead = state(nodes=(BUSY, BUSY, dead))

    assert told(state(), with_dead) == [("node", "node 2 is dead: its process has ended", True)]
    assert told(with_dead, state(nodes=(BUSY,) * NODES)) == [("node", "node 2 is healthy", False)]


def test_a_run_begins_and_ends() -> None:
    idle = state(run=progress(run="r0", state=RunState.COMPLETED))
    over = state(run=progress(state=RunState.INVALID, invalid_because=("late",)))

    assert told(idle, state()) == [("run", "run r1 begins under ratc", False)]
    assert told(state(), over) == [("run", "run r1 is invalid: late", True)]
    assert told(over, over) == []


def test_a_run_that_was_too_short_to_be_seen_running() -> None:
    idle = state(run=progress(run="r0", state=RunState.COMPLETED))

    assert [text for _, text, _ in told(idle, state(run=progress(state=RunState.COMPLETED)))] == [
        "run r1 begins under ratc"
    ]


def test_changes_of_scheduler() -> None:
    accepted = SchedulerChange(1, 5, "rda", (0, 1, 2), accepted=True)
    refused = SchedulerChange(1, 7, "drl", (1,), accepted=False, reason="node 1: no policy")

    assert told(state(changes=(accepted,)), state(changes=(accepted, refused))) == [
        ("scheduler", "drl on node 1 was refused (episode 1, slot 7): node 1: no policy", True)
    ]
    assert told(state(), state(changes=(accepted,))) == [
        ("scheduler", "rda decides on nodes 0, 1, 2 (episode 1, slot 5)", False)
    ]


def test_faults_begin_and_end() -> None:
    active = state(faults=FaultList("r1", 1, 0, (fault("h.1", "active"),)))
    over = state(faults=FaultList("r1", 1, 0, (fault("h.1", "over"),)))

    assert told(state(), active) == [("fault", "fault h.1 begins: node 0 at 0.2", False)]
    assert told(active, over) == [("fault", "fault h.1 is over: node 0 at 0.2", False)]
    assert told(state(), over) == []


def test_a_policy_is_deployed_by_somebody() -> None:
    assert told(state(), state(policy="policies/a")) == [
        ("policy", "policy policies/a is deployed", False)
    ]


def test_own_code_that_fails_is_told_once() -> None:
    failing = state(run=progress(code_failures=("scheduler mine failed at 1 task: x",)))

    assert told(state(), failing) == [("problem", "scheduler mine failed at 1 task: x", True)]
    assert told(failing, failing) == []
