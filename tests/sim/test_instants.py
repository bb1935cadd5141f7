"""Cases small enough to work out every instant by hand, and what comes first at equal ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.model.decision import Ask, Decision, Observation, SchedulerContext, SchedulerFactory
from testbed.model.events import Record, RecordKind
from testbed.model.task import Outcome
from testbed.model.topology import Overload, OverloadMeasure, Rules
from testbed.model.units import MILLISECOND, SECOND, Micros
from testbed.sim.simulator import EpisodeResult, simulate_episode
from tests.sim.networks import GIGA, tiny_plan

OVERLOAD = Overload(OverloadMeasure.QUEUE_LENGTH, 2)


class To:
    """Sends everything to one node."""

    def __init__(self, destination: int) -> None:
        self.name = "to"
        self._destination = destination

    def decide(self, observation: Observation) -> Decision | Ask:
        return Decision(self._destination)


class AskThen:
    """Asks peers so many times, then stays; ``seen`` keeps the observations it decided on."""

    def __init__(self, peers: tuple[int, ...], rounds: int, seen: list[Observation]) -> None:
        self.name = "ask-then"
        self._peers = peers
        self._rounds = rounds
        self._seen = seen

    def decide(self, observation: Observation) -> Decision | Ask:
        self._seen.append(observation)
        if observation.round < self._rounds:
            return Ask(self._peers)
        return Decision(observation.node)


def _send_from_zero_to_one(context: SchedulerContext) -> To:
    return To(1)


def _history(result: EpisodeResult, task_id: int) -> list[tuple[str, int, Micros]]:
    """Kind, node and instant of a task's records."""
    records = sorted((r for r in result.records if r.task.id == task_id), key=lambda r: r.seq)
    return [(r.kind.value, r.node, r.at) for r in records]


def _end(result: EpisodeResult, task_id: int) -> Record:
    (record,) = (r for r in result.records if r.task.id == task_id and r.kind is RecordKind.ENDED)
    return record


def test_two_local_tasks_wait_for_each_other() -> None:
    plan = tiny_plan([1.0], slots=2, slot=400 * MILLISECOND)
    result = simulate_episode(plan, 0, "local")
    assert _history(result, 0) == [
        ("generated", 0, 0),
        ("decided", 0, 0),
        ("admitted", 0, 0),
        ("execution_started", 0, 0),
        ("ended", 0, 1_000_000),
    ]
    assert _history(result, 1) == [
        ("generated", 0, 400_000),
        ("decided", 0, 400_000),
        ("admitted", 0, 400_000),
        ("execution_started", 0, 1_000_000),
        ("ended", 0, 2_000_000),
    ]
    assert _end(result, 1).data["elapsed"] == 1_600_000
    assert result.outcomes == {0: Outcome.SUCCEEDED, 1: Outcome.SUCCEEDED}
    assert result.success_rate == 1.0


def test_sent_tasks_wait_for_the_link_and_then_for_the_server() -> None:
    # 1 MB over 10 MB/s takes 100 ms, slots are 50 ms: the second waits 50 ms for the link.
    plan = tiny_plan([1.0, 0.0], slots=2, slot=50 * MILLISECOND)
    result = simulate_episode(plan, 0, _send_from_zero_to_one)
    assert _history(result, 0) == [
        ("generated", 0, 0),
        ("decided", 0, 0),
        ("transmission_started", 0, 0),
        ("sent", 0, 100_000),
        ("received", 1, 100_000),
        ("admitted", 1, 100_000),
        ("execution_started", 1, 100_000),
        ("ended", 1, 1_100_000),
    ]
    assert _history(result, 2) == [
        ("generated", 0, 50_000),
        ("decided", 0, 50_000),
        ("transmission_started", 0, 100_000),
        ("sent", 0, 200_000),
        ("received", 1, 200_000),
        ("admitted", 1, 200_000),
        ("execution_started", 1, 1_100_000),
        ("ended", 1, 2_100_000),
    ]


def test_idle_slots_are_in_the_log_unless_switched_off() -> None:
    result = simulate_episode(tiny_plan([1.0, 0.0], slots=2), 0, "local")
    decided = [(d.node, d.slot, d.task_id, d.destination) for d in result.decisions]
    assert decided == [(0, 0, 0, 0), (1, 0, None, None), (0, 1, 2, 0), (1, 1, None, None)]


def test_finishing_at_the_deadline_is_in_time() -> None:
    on_time = simulate_episode(tiny_plan([1.0], deadline=1 * SECOND), 0, "local")
    assert on_time.outcomes == {0: Outcome.SUCCEEDED}
    late = simulate_episode(tiny_plan([1.0], deadline=1 * SECOND - 1), 0, "local")
    assert late.outcomes == {0: Outcome.DROPPED}
    assert _end(late, 0).at == 0, "hopeless at the head of the queue, dropped unstarted"


def test_what_is_not_dropped_as_hopeless_is_stopped_at_the_deadline() -> None:
    rules = Rules(OVERLOAD, drop_hopeless=False)
    plan = tiny_plan([1.0], deadline=SECOND - 1, rules=rules)
    result = simulate_episode(plan, 0, "local")
    assert _end(result, 0).at == SECOND - 1
    assert _end(result, 0).data["stage"] == "execution"


@pytest.mark.parametrize(("hopeless", "stage"), [(True, "waiting"), (False, "execution")])
def test_a_transfer_that_ends_at_the_deadline_is_handed_over_first(
    hopeless: bool, stage: str
) -> None:
    rules = Rules(OVERLOAD, drop_hopeless=hopeless)
    plan = tiny_plan([1.0, 0.0], deadline=100 * MILLISECOND, rules=rules)
    end = _end(simulate_episode(plan, 0, _send_from_zero_to_one), 0)
    assert (end.node, end.at) == (1, 100_000)
    assert end.data["outcome"] == Outcome.DROPPED
    assert end.data["stage"] == stage


def test_a_deadline_in_transmission_drops_at_the_sender_and_frees_the_link() -> None:
    plan = tiny_plan(
        [1.0, 0.0],
        slots=2,
        slot=50 * MILLISECOND,
        deadline=99 * MILLISECOND,
        rules=Rules(OVERLOAD, drop_hopeless=False),
    )
    result = simulate_episode(plan, 0, _send_from_zero_to_one)
    first, second = _end(result, 0), _end(result, 2)
    assert (first.node, first.at, first.data["stage"]) == (0, 99_000, "transmission")
    # The other starts then, and is dropped on its way at its own deadline.
    assert ("transmission_started", 0, 99_000) in _history(result, 2)
    assert (second.at, second.data["stage"]) == (149_000, "transmission")


def test_an_execution_that_ends_as_a_slot_begins_has_freed_the_server() -> None:
    seen: list[Observation] = []
    plan = tiny_plan([1.0], slots=2, slot=1 * SECOND)

    def factory(context: SchedulerContext) -> AskThen:
        return AskThen((), 0, seen)

    simulate_episode(plan, 0, factory)
    assert [(o.now, o.queue_length, o.backlog) for o in seen] == [(0, 0, 0), (SECOND, 0, 0)]


def _asking(
    seen: list[Observation], rounds: int = 1, decider: int | None = None
) -> SchedulerFactory:
    """All nodes ask all others; ``decider`` decides at once instead, to stay."""

    def factory(context: SchedulerContext) -> AskThen:
        peers = tuple(n for n in range(context.topology.size) if n != context.node)
        return AskThen(peers, 0 if context.node == decider else rounds, seen)

    return factory


def _told(seen: list[Observation], asker: int, about: int, round_: int = 1) -> int:
    """The queue length of ``about`` that ``asker`` decided on in this round."""
    (observation,) = (o for o in seen if o.node == asker and o.round == round_)
    return next(
        a.state.queue_length
        for a in reversed(observation.answers)
        if a.peer == about and a.state is not None
    )


def test_without_delay_all_who_ask_see_the_same_state() -> None:
    seen: list[Observation] = []
    simulate_episode(tiny_plan([1.0, 1.0, 1.0]), 0, _asking(seen))
    # Node 0 has decided to stay when node 2 hears from it, but was probed before.
    assert _told(seen, 1, 0) == _told(seen, 2, 0) == _told(seen, 0, 2) == 0


def test_without_delay_a_decision_that_asks_nobody_is_seen_by_all_who_ask() -> None:
    seen: list[Observation] = []
    simulate_episode(tiny_plan([1.0, 1.0, 1.0]), 0, _asking(seen, decider=2))
    # Node 2 comes last and is seen all the same.
    assert _told(seen, 0, 2) == _told(seen, 1, 2) == 1


def test_without_delay_a_second_round_sees_what_the_first_one_did() -> None:
    seen: list[Observation] = []

    def factory(context: SchedulerContext) -> AskThen:
        others = tuple(n for n in range(3) if n != context.node)
        return AskThen(others, 2 if context.node == 0 else 1, seen)

    simulate_episode(tiny_plan([1.0, 1.0, 1.0]), 0, factory)
    assert _told(seen, 0, 1, round_=1) == 0
    assert _told(seen, 0, 1, round_=2) == 1
    assert {o.now for o in seen} == {0}


def test_without_delay_all_who_ask_twice_see_the_same_state() -> None:
    seen: list[Observation] = []
    simulate_episode(tiny_plan([1.0, 1.0, 1.0]), 0, _asking(seen, rounds=2))
    assert {_told(seen, 2, about, round_=2) for about in (0, 1)} == {0}


def test_announcements_come_after_the_decisions_of_their_instant() -> None:
    seen: list[Observation] = []
    plan = tiny_plan([1.0, 1.0], slots=2, slot=10 * MILLISECOND)

    def factory(context: SchedulerContext) -> To | AskThen:
        return To(1) if context.node == 0 else AskThen((0,), 1, seen)

    simulate_episode(plan, 0, factory)
    # In the first slot nothing is known of the task on its way here, in the second it is.
    assert [o.receiving for o in seen] == [(0, 0), (0, 0), (1, 0), (1, 0)]


def test_questions_and_answers_take_the_control_delay_each() -> None:
    seen: list[Observation] = []
    delay = 5 * MILLISECOND
    plan = tiny_plan([1.0, 0.0], rules=Rules(OVERLOAD, control_delay=delay))
    result = simulate_episode(plan, 0, _asking(seen, rounds=2))
    (last,) = (o for o in seen if o.round == 2)
    assert [(a.asked, a.state.at if a.state else None, a.answered) for a in last.answers] == [
        (0, delay, 2 * delay),
        (2 * delay, 3 * delay, 4 * delay),
    ]
    assert last.now == 4 * delay
    assert ("decided", 0, 4 * delay) in _history(result, 0)
    # The deadline runs from the arrival, not from the decision.
    assert _end(result, 0).data["elapsed"] == 4 * delay + SECOND


def test_announcements_take_the_control_delay() -> None:
    seen: list[Observation] = []
    delay = 20 * MILLISECOND
    plan = tiny_plan(
        [1.0, 1.0], slots=4, slot=10 * MILLISECOND, rules=Rules(OVERLOAD, control_delay=delay)
    )

    def factory(context: SchedulerContext) -> To | AskThen:
        return To(1) if context.node == 0 else AskThen((), 0, seen)

    simulate_episode(plan, 0, factory)
    assert [o.receiving[0] for o in seen] == [0, 0, 0, 1]


def test_answers_that_would_come_after_the_timeout_do_not_come() -> None:
    seen: list[Observation] = []
    rules = Rules(OVERLOAD, control_delay=6 * MILLISECOND, probe_timeout=11 * MILLISECOND)
    simulate_episode(tiny_plan([1.0, 0.0], rules=rules), 0, _asking(seen))
    assert [(o.now, o.round, o.answers) for o in seen] == [(0, 0, ()), (11_000, 1, ())]
    seen.clear()
    in_time = Rules(OVERLOAD, control_delay=6 * MILLISECOND, probe_timeout=12 * MILLISECOND)
    simulate_episode(tiny_plan([1.0, 0.0], rules=in_time), 0, _asking(seen))
    assert [(o.now, len(o.answers)) for o in seen] == [(0, 0), (12_000, 1)]


def _delays(**rows: tuple[Micros, ...]) -> Rules:
    """Rules with control delays in milliseconds, row by row, and a probe timeout of 100 ms."""
    delays = tuple(tuple(each * MILLISECOND for each in row) for row in rows.values())
    return Rules(
        OVERLOAD,
        control_delay=max(map(max, delays)),
        probe_timeout=100 * MILLISECOND,
        link_delays=delays,
    )


def test_a_slow_peer_answers_later_and_the_decision_waits_for_it() -> None:
    seen: list[Observation] = []
    rules = _delays(i=(0, 30, 5), j=(40, 0, 1), k=(10, 1, 0))
    result = simulate_episode(tiny_plan([1.0, 0.0, 0.0], rules=rules), 0, _asking(seen, rounds=2))
    (last,) = (o for o in seen if o.round == 2)
    told = [(a.peer, a.asked, a.state.at if a.state else None, a.answered) for a in last.answers]
    assert told == [
        (2, 0, 5_000, 15_000),
        (1, 0, 30_000, 70_000),
        (2, 70_000, 75_000, 85_000),
        (1, 70_000, 100_000, 140_000),
    ]
    assert ("decided", 0, 140_000) in _history(result, 0)
    assert last.known[1] == (last.answers[3].state, 140_000)


@pytest.mark.parametrize(("back", "answering", "decided"), [(70, [2, 1], 100), (71, [2], 100)])
def test_a_peer_whose_answer_comes_after_the_timeout_is_silent_and_the_others_are_not(
    back: int, answering: list[int], decided: int
) -> None:
    seen: list[Observation] = []
    rules = _delays(i=(0, 30, 5), j=(back, 0, 1), k=(10, 1, 0))
    simulate_episode(tiny_plan([1.0, 0.0, 0.0], rules=rules), 0, _asking(seen))
    (last,) = (o for o in seen if o.round == 1)
    assert [answer.peer for answer in last.answers] == answering
    assert last.now == decided * MILLISECOND


def test_announcements_take_the_delay_of_their_link() -> None:
    seen: list[Observation] = []
    rules = _delays(i=(0, 1, 35), j=(1, 0, 15), k=(1, 1, 0))
    plan = tiny_plan([1.0, 1.0, 1.0], slots=5, slot=10 * MILLISECOND, rules=rules)

    def factory(context: SchedulerContext) -> To | AskThen:
        return AskThen((), 0, seen) if context.node == 2 else To(2)

    simulate_episode(plan, 0, factory)
    assert [o.receiving[0] for o in seen] == [0, 0, 0, 0, 1]
    assert [o.receiving[1] for o in seen] == [0, 0, 1, 1, 1]


class Gossips(AskThen):
    """Asks nobody and hears from all."""

    gossip_period = 20 * MILLISECOND


def test_what_nodes_tell_takes_the_delay_of_its_link() -> None:
    seen: list[Observation] = []
    rules = _delays(i=(0, 9, 9), j=(12, 0, 9), k=(25, 9, 0))
    plan = tiny_plan([1.0, 0.0, 0.0], slots=4, slot=10 * MILLISECOND, rules=rules)
    simulate_episode(plan, 0, lambda context: Gossips((), 0, seen))
    heard = [[k and (k[0].at // 1000, k[1] // 1000) for k in o.known[1:]] for o in seen if o.task]
    assert heard == [[None, None], [None, None], [(0, 12), None], [(0, 12), (0, 25)]]


@pytest.mark.parametrize("scheduler", ["ratc", "rda", "least-completion", "drl"])
@pytest.mark.parametrize("timeout", [17, 18])
def test_the_same_delay_on_every_link_is_a_delay_of_all_links(scheduler: str, timeout: int) -> None:
    rules = Rules(OVERLOAD, control_delay=9 * MILLISECOND, probe_timeout=timeout * MILLISECOND)
    plan = tiny_plan([0.8] * 4, slots=30, slot=50 * MILLISECOND, alpha=0.2, beta=0.5, rules=rules)
    spelled = tuple(tuple(0 if i == j else 9 * MILLISECOND for j in range(4)) for i in range(4))
    matrix = replace(plan, rules=replace(rules, link_delays=spelled))
    assert simulate_episode(matrix, 0, scheduler) == simulate_episode(plan, 0, scheduler)


def test_a_deadline_that_passes_while_answers_are_awaited_ends_the_task_there() -> None:
    rules = Rules(OVERLOAD, control_delay=10 * MILLISECOND)
    plan = tiny_plan([1.0, 0.0], deadline=15 * MILLISECOND, rules=rules)
    result = simulate_episode(plan, 0, _asking([]))
    assert _end(result, 0).data["stage"] == "deciding"
    assert [d.destination for d in result.decisions if d.task_id == 0] == [None]


def test_central_sees_the_decisions_before_its_own_in_the_slot() -> None:
    # Two free nodes for three tasks that must be in time: nodes 0 and 1 are too slow for them.
    plan = tiny_plan(
        [1.0, 1.0, 0.0, 0.0],
        capacity_hz=(GIGA, GIGA, 8 * GIGA, 8 * GIGA),
        deadline=1200 * MILLISECOND,
    )
    result = simulate_episode(plan, 0, "central")
    assert {d.destination for d in result.decisions if d.task_id is not None} == {2, 3}
    assert set(result.outcomes.values()) == {Outcome.SUCCEEDED}
    # Deciding on the state before the slot, both would go to the same node.
    greedy = simulate_episode(plan, 0, "least-completion")
    assert {d.destination for d in greedy.decisions if d.task_id is not None} == {2}
    assert greedy.counts == {Outcome.SUCCEEDED: 1, Outcome.DROPPED: 1}


def test_the_oracle_avoids_the_failures_that_central_cannot_see() -> None:
    plan = tiny_plan([0.5] * 3, slots=40, slot=2 * SECOND, alpha=0.7, beta=0.5)
    central, oracle = (simulate_episode(plan, 0, name) for name in ("central", "oracle"))
    assert central.counts[Outcome.EXECUTION_FAILED] > 10
    assert oracle.success_rate > central.success_rate + 0.2
