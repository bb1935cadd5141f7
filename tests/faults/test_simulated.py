"""What faults mean, to the microsecond, in the simulator.

Unless said otherwise a task takes 1 s to execute and 100 ms to be sent.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.model.decision import Ask, Decision, Observation, SchedulerContext
from testbed.model.distributions import Constant, Uniform
from testbed.model.draws import Purpose, extend, key, to_unit
from testbed.model.events import Record, RecordKind
from testbed.model.faults import Conditions, Exponential, FaultSpec
from testbed.model.history import fold_all
from testbed.model.task import Outcome
from testbed.model.topology import Overload, OverloadMeasure, Rules
from testbed.model.units import MILLISECOND, SECOND, Micros
from testbed.scenario.plan import Plan
from testbed.sim.engine.arrays import problems_of
from testbed.sim.play import evaluate
from testbed.sim.simulator import EpisodeResult, SchedulerChoice, simulate_episode
from tests.faults.plans import fault, with_faults
from tests.sim.networks import paper_simulation, paper_testbed, tiny_plan

MS = MILLISECOND
ONE = tiny_plan([1.0])
"""One task, executed from 0 to 1 s."""
TWO = tiny_plan([1.0, 0.0])
"""One task at node 0; node 1 has none."""


class To:
    """Everything to one node."""

    def __init__(self, destination: int) -> None:
        self.name = f"to-{destination}"
        self._destination = destination

    def decide(self, observation: Observation) -> Decision | Ask:
        return Decision(self._destination)


def to(destination: int) -> SchedulerChoice:
    return lambda context: To(destination)


class Curious:
    """Asks all peers once; decides for the first that answered, else here."""

    name = "curious"

    def __init__(self, context: SchedulerContext) -> None:
        self._peers = tuple(p for p in range(context.topology.size) if p != context.node)

    def decide(self, observation: Observation) -> Decision | Ask:
        if observation.round == 0:
            return Ask(self._peers)
        return Decision(observation.answers[0].peer if observation.answers else observation.node)


class Gossips:
    """All nodes tell each other their state once in a slot; tasks stay where they arrive."""

    name = "gossips"

    def __init__(self, context: SchedulerContext) -> None:
        self.gossip_period = context.workload.slot

    def decide(self, observation: Observation) -> Decision | Ask:
        return Decision(observation.node)


def end(result: EpisodeResult, task: int = 0) -> Record:
    (found,) = [r for r in result.records if r.task.id == task and r.kind is RecordKind.ENDED]
    return found


def at(result: EpisodeResult, kind: RecordKind, task: int = 0) -> Micros:
    (found,) = [r for r in result.records if r.task.id == task and r.kind is kind]
    return found.at


def ended(result: EpisodeResult, task: int = 0) -> tuple[str, str, Micros]:
    record = end(result, task)
    return str(record.data["outcome"]), str(record.data["stage"]), record.at


# --- execution ------------------------------------------------------------------------------------


def test_what_is_left_of_an_execution_goes_on_at_the_new_rate() -> None:
    slow = fault("slow-node", 500 * MS, 1500 * MS, nodes=(0,), factor=0.25)
    # Half is done, a quarter takes the second of the fault, the rest a quarter of a second.
    result = simulate_episode(with_faults(ONE, slow), 0)
    assert ended(result) == ("succeeded", "execution", 1_750_000)


def test_slow_nodes_multiply() -> None:
    slow = [fault("slow-node", 0, 10 * SECOND, nodes=(0,), factor=0.5)] * 2
    plan = with_faults(dataclasses.replace(ONE), *slow)
    assert ended(simulate_episode(plan, 0))[2] == 4 * SECOND


def test_a_deadline_holds_on_a_slow_node() -> None:
    slow = fault("slow-node", 0, 100 * SECOND, nodes=(0,), factor=0.1)
    result = simulate_episode(with_faults(ONE, slow), 0)
    assert ended(result) == ("dropped", "execution", 4 * SECOND)


def test_failures_are_added_while_they_hold_and_the_hazard_adds_up() -> None:
    u = to_unit(extend(key(1, Purpose.EXECUTION_FATE, 0), 0, 0))
    # Fails after 0.4 s at this rate, of which 0.3 s lie before a pause of the fault.
    rate = -math.log(u) / 0.4
    before = fault("node-failures", 0, 300 * MS, nodes=(0,), failure_rate=rate)
    after = fault("node-failures", 700 * MS, 5 * SECOND, nodes=(0,), failure_rate=rate)
    outcome, stage, instant = ended(simulate_episode(with_faults(ONE, before, after), 0))
    assert (outcome, stage) == ("execution_failed", "execution")
    assert abs(instant - 800 * MS) <= 1
    assert ended(simulate_episode(with_faults(ONE, before), 0))[0] == "succeeded"


# --- links ----------------------------------------------------------------------------------------


def test_what_is_left_of_a_transmission_goes_on_at_the_new_rate() -> None:
    slow = fault("link-rate", 50 * MS, 1 * SECOND, sources=(0,), destinations=(1,), factor=0.1)
    result = simulate_episode(with_faults(TWO, slow), 0, to(1))
    assert at(result, RecordKind.SENT) == 550 * MS


def test_a_link_that_is_slow_one_way_is_fast_the_other_way() -> None:
    slow = fault("link-rate", 0, 9 * SECOND, sources=(1,), destinations=(0,), factor=0.1)
    assert at(simulate_episode(with_faults(TWO, slow), 0, to(1)), RecordKind.SENT) == 100 * MS
    both = dataclasses.replace(slow, both_ways=True)
    assert at(simulate_episode(with_faults(TWO, both), 0, to(1)), RecordKind.SENT) == SECOND


def test_a_transfer_over_a_cut_link_waits_for_its_end() -> None:
    cut = fault("partition", 30 * MS, 2 * SECOND, sources=(0,), destinations=(1,))
    result = simulate_episode(with_faults(TWO, cut), 0, to(1))
    assert at(result, RecordKind.SENT) == 2 * SECOND + 70 * MS
    assert ended(result)[0] == "succeeded"


def test_a_transfer_over_a_cut_link_is_dropped_at_its_deadline() -> None:
    cut = fault("partition", 30 * MS, 9 * SECOND, sources=(0,), destinations=(1,))
    assert ended(simulate_episode(with_faults(TWO, cut), 0, to(1))) == (
        "dropped",
        "transmission",
        4 * SECOND,
    )


def test_a_cut_link_meets_no_failure_while_nothing_moves() -> None:
    u = to_unit(extend(key(1, Purpose.TRANSMISSION_FATE, 0), 0, 1))
    cut = fault("partition", 0, 2 * SECOND, sources=(0,), destinations=(1,))
    # It would fail after a second of work, of which it has a tenth.
    plan = with_faults(tiny_plan([1.0, 0.0], beta=-math.log(u)), cut)
    assert ended(simulate_episode(plan, 0, to(1)))[0] == "succeeded"


def test_transmissions_fail_more_often_where_a_fault_says_so() -> None:
    risky = fault("link-failures", 0, SECOND, sources=(0,), destinations=(1,), failure_rate=1e5)
    assert ended(simulate_episode(with_faults(TWO, risky), 0, to(1)))[:2] == (
        "transmission_failed",
        "transmission",
    )
    elsewhere = dataclasses.replace(risky, sources=(1,), destinations=(0,))
    assert ended(simulate_episode(with_faults(TWO, elsewhere), 0, to(1)))[0] == "succeeded"


# --- nodes that are down --------------------------------------------------------------------------


def test_a_killed_node_loses_what_it_holds() -> None:
    down = fault("node-down", 400 * MS, 600 * MS, nodes=(0,), mode="killed")
    result = simulate_episode(with_faults(ONE, down), 0)
    assert ended(result) == ("lost", "execution", 400 * MS)
    assert end(result).data["fault"] == "node-down"


def test_a_task_that_ends_as_its_node_is_killed_has_ended() -> None:
    down = fault("node-down", SECOND, 2 * SECOND, nodes=(0,), mode="killed")
    assert ended(simulate_episode(with_faults(ONE, down), 0))[0] == "succeeded"


def test_what_arrives_at_a_killed_node_is_lost_and_it_works_again_afterwards() -> None:
    plan = tiny_plan([1.0], slots=4, slot=SECOND // 2, deadline=9 * SECOND)
    down = fault("node-down", 250 * MS, 1200 * MS, nodes=(0,), mode="killed")
    result = simulate_episode(with_faults(plan, down), 0)
    assert ended(result, 1) == ("lost", "deciding", 500 * MS)
    assert ended(result, 2) == ("lost", "deciding", 1000 * MS)
    assert ended(result, 3) == ("succeeded", "execution", 2500 * MS)


def test_a_transfer_to_a_killed_node_begins_again_when_it_is_back() -> None:
    down = fault("node-down", 30 * MS, 2 * SECOND, nodes=(1,), mode="killed")
    result = simulate_episode(with_faults(TWO, down), 0, to(1))
    assert at(result, RecordKind.SENT) == 2 * SECOND + 100 * MS
    assert ended(result)[0] == "succeeded"


def test_a_hung_node_stands_still_and_goes_on() -> None:
    plan = tiny_plan([1.0], slots=2, slot=SECOND // 2, deadline=9 * SECOND)
    down = fault("node-down", 250 * MS, 1250 * MS, nodes=(0,), mode="hung")
    result = simulate_episode(with_faults(plan, down), 0)
    assert ended(result, 0) == ("succeeded", "execution", 2 * SECOND)
    assert at(result, RecordKind.GENERATED, 1) == 500 * MS
    assert at(result, RecordKind.DECIDED, 1) == 1250 * MS
    assert ended(result, 1) == ("succeeded", "execution", 3 * SECOND)


def test_a_transfer_to_a_hung_node_goes_on_where_it_was() -> None:
    down = fault("node-down", 30 * MS, 2 * SECOND, nodes=(1,), mode="hung")
    result = simulate_episode(with_faults(TWO, down), 0, to(1))
    assert at(result, RecordKind.SENT) == 2 * SECOND + 70 * MS


def test_a_killed_sender_takes_its_announcement_with_it() -> None:
    """Node 1 would otherwise count a task for ever that never comes."""
    plan = tiny_plan([1.0, 1.0], slots=3, slot=SECOND // 2, deadline=9 * SECOND)
    down = fault("node-down", 30 * MS, 40 * MS, nodes=(0,), mode="killed")
    result = simulate_episode(with_faults(plan, down), 0, to(1))
    last = [d for d in result.decisions if d.node == 1][-1]
    # One of slot 1 has been announced and come; the lost one is not among them.
    assert last.observation.receiving[0] in (0, 1)
    assert sum(last.observation.receiving) <= 1


# --- probes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "silence",
    [
        fault("partition", 0, SECOND, sources=(0,), destinations=(1,)),
        fault("partition", 0, SECOND, sources=(1,), destinations=(0,)),
        fault("node-down", 0, SECOND, nodes=(1,), mode="hung"),
        fault("node-down", 0, SECOND, nodes=(1,), mode="killed"),
    ],
)
def test_a_probe_that_does_not_get_through_is_never_answered(silence: FaultSpec) -> None:
    result = simulate_episode(with_faults(TWO, silence), 0, Curious)
    assert at(result, RecordKind.DECIDED) == TWO.rules.probe_timeout
    (decision,) = [d for d in result.decisions if d.task_id == 0]
    assert decision.destination == 0
    assert decision.observation.answers == ()


def test_those_who_can_still_answer() -> None:
    plan = tiny_plan([1.0, 0.0, 0.0])
    cut = fault("partition", 0, SECOND, sources=(0,), destinations=(1,))
    result = simulate_episode(with_faults(plan, cut), 0, Curious)
    (decision,) = [d for d in result.decisions if d.task_id == 0]
    assert [answer.peer for answer in decision.observation.answers] == [2]
    assert decision.at == plan.rules.probe_timeout


# --- arrivals, draws ------------------------------------------------------------------------------


def test_a_flash_crowd_adds_tasks_and_changes_none() -> None:
    plan = tiny_plan([0.2, 0.2], slots=100)
    crowd = fault("arrivals", 20 * SECOND, 60 * SECOND, nodes=(0,), factor=4.0)
    usual = {task for tasks in plan.tasks(0) for task in tasks}
    more = {task for tasks in with_faults(plan, crowd).tasks(0) for task in tasks}
    assert usual < more
    assert all(task.source == 0 and 20 <= task.slot < 60 for task in more - usual)
    assert len(more - usual) > 10
    none = {
        t for ts in with_faults(plan, dataclasses.replace(crowd, factor=0.0)).tasks(0) for t in ts
    }
    assert none == {task for task in usual if task.source != 0 or not 20 <= task.slot < 60}


RANDOM = FaultSpec(
    "node-down",
    Uniform(0.2 * SECOND, SECOND),
    every=Exponential(2 * SECOND),
    nodes="any",
    mode="killed",
)


def test_the_same_seed_gives_the_same_faults_and_another_episode_others() -> None:
    plan = with_faults(paper_simulation(5), RANDOM)
    assert plan.timeline(3).faults == plan.timeline(3).faults
    assert plan.timeline(3).faults != plan.timeline(4).faults
    assert len({fault.nodes for fault in plan.timeline(3).faults}) > 2


def test_a_fault_more_changes_none_of_those_before_it() -> None:
    plan = paper_simulation(5)
    alone = with_faults(plan, RANDOM).timeline(0).faults
    more = with_faults(plan, RANDOM, RANDOM).timeline(0).faults
    assert alone == tuple(fault for fault in more if fault.entry == 0)
    assert [f.begin for f in alone] != [f.begin for f in more if f.entry == 1]


def test_each_node_may_have_a_timeline_of_its_own() -> None:
    spec = dataclasses.replace(RANDOM, nodes=(0, 1, 2), together=False)
    faults = with_faults(paper_simulation(5), spec).timeline(0).faults
    assert {fault.nodes for fault in faults} == {(0,), (1,), (2,)}
    for node in range(3):
        mine = [fault for fault in faults if fault.nodes == (node,)]
        assert all(a.end <= b.begin for a, b in itertools.pairwise(mine))


def test_faults_per_slot_begin_with_slots_and_do_not_overlap() -> None:
    spec = FaultSpec("slow-node", Constant(3 * SECOND), per_slot=0.2, nodes=(0,), factor=0.5)
    plan = with_faults(paper_simulation(5), spec)
    faults = plan.timeline(0).faults
    assert len(faults) > 3
    assert all(fault.begin % plan.workload.slot == 0 for fault in faults)
    assert all(a.end <= b.begin for a, b in itertools.pairwise(faults))


@pytest.mark.parametrize("other", ["ratc", "random", "rda-masked"])
def test_faults_and_fates_are_the_same_under_every_scheduler(other: str) -> None:
    plan = with_faults(paper_simulation(5), RANDOM)

    def generated(scheduler: str) -> list[tuple[object, ...]]:
        records = simulate_episode(plan, 1, scheduler).records
        return sorted((r.task, r.at) for r in records if r.kind is RecordKind.GENERATED)

    assert generated("local") == generated(other)


# --- every timeline -------------------------------------------------------------------------------

SIZE = 4
nodes = st.one_of(
    st.just("any"), st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=3).map(tuple)
)
instants = st.one_of(
    st.integers(0, 12 * SECOND),
    # Where slots begin, so that things coincide.
    st.integers(0, 12).map(lambda slot: slot * SECOND // 2),
)


@st.composite
def specs(draw: Callable[..., object]) -> FaultSpec:
    kind = draw(
        st.sampled_from(
            [
                "node-down",
                "slow-node",
                "node-failures",
                "link-rate",
                "link-failures",
                "partition",
                "arrivals",
            ]
        )
    )
    when = draw(st.sampled_from(["at", "every", "per_slot"]))
    return FaultSpec(
        str(kind),
        Constant(draw(st.integers(1, 4 * SECOND))),  # type: ignore[arg-type]
        at=Constant(draw(instants)) if when == "at" else None,  # type: ignore[arg-type]
        every=Exponential(draw(st.integers(SECOND // 2, 5 * SECOND))) if when == "every" else None,  # type: ignore[arg-type]
        per_slot=0.2 if when == "per_slot" else None,
        nodes=draw(nodes),  # type: ignore[arg-type]
        sources=draw(nodes),  # type: ignore[arg-type]
        destinations=draw(nodes),  # type: ignore[arg-type]
        both_ways=bool(draw(st.booleans())),
        together=bool(draw(st.booleans())),
        factor=float(draw(st.sampled_from([0.05, 0.5, 1.0, 3.0]))),  # type: ignore[arg-type]
        failure_rate=float(draw(st.sampled_from([0.0, 0.5, 5.0]))),  # type: ignore[arg-type]
        mode=str(draw(st.sampled_from(["killed", "hung"]))),
    )


def hard_plan(seed: int, delay: bool, limit: bool) -> Plan:
    base = paper_simulation(SIZE, slots=25, seed=seed)
    rules = Rules(
        Overload(OverloadMeasure.QUEUE_LENGTH, 2),
        drop_hopeless=seed % 2 == 0,
        execution_queue_limit=1 if limit else None,
        control_delay=7 * MS if delay else 0,
    )
    workload = dataclasses.replace(base.workload, deadline=Uniform(0.3 * SECOND, 3 * SECOND))
    return dataclasses.replace(base, rules=rules, workload=workload)


@settings(max_examples=100, deadline=None)
@given(
    faults=st.lists(specs(), min_size=1, max_size=5),
    seed=st.integers(0, 50),
    scheduler=st.sampled_from(
        ["local", "random", "ratc", "rda-masked", "least-completion", "central", "oracle"]
    ),
    delay=st.booleans(),
    limit=st.booleans(),
)
def test_every_task_ends_exactly_once_whatever_goes_wrong(
    faults: list[FaultSpec], seed: int, scheduler: str, delay: bool, limit: bool
) -> None:
    plan = with_faults(hard_plan(seed, delay, limit), *faults)
    timeline = plan.timeline(seed)
    tasks = [task for tasks in plan.tasks(seed) for task in tasks]
    result = simulate_episode(plan, seed, scheduler)
    ends = Counter(r.task.id for r in result.records if r.kind is RecordKind.ENDED)
    assert ends == dict.fromkeys((task.id for task in tasks), 1)
    rows, illegal = fold_all(tasks, result.records, result.decisions)
    assert not illegal
    killed = any(f.kind == "node-down" and f.mode == "killed" for f in timeline.faults)
    lost = [r for r in rows if r.outcome is Outcome.LOST]
    assert killed or not lost
    # All faults end, and leave nothing behind.
    assert all(fault.end - fault.begin > 0 for fault in timeline.faults)
    last = {change.node: change.conditions for change in timeline.changes}
    assert all(conditions == Conditions() for conditions in last.values())
    # One decision per node and slot, whatever the state of the node.
    decided = Counter((d.node, d.slot) for d in result.decisions)
    assert set(decided.values()) == {1}
    assert len(decided) == SIZE * plan.workload.slots
    # The same again.
    assert simulate_episode(plan, seed, scheduler).records == result.records


@pytest.mark.parametrize("scheduler", ["local", "random", "ratc", "rda", "least-completion"])
@pytest.mark.parametrize("plan", [paper_simulation(6, slots=40), paper_testbed()])
def test_a_fault_that_changes_nothing_changes_nothing(plan: Plan, scheduler: str) -> None:
    """The node with faults is the node without, to the microsecond."""
    idle = fault("slow-node", 0, SECOND, nodes=(0,), factor=1.0)
    late = fault("link-rate", 10, 20, sources=(0,), destinations=(1,), factor=1.0)
    for episode in range(3):
        usual = simulate_episode(plan, episode, scheduler)
        assert simulate_episode(with_faults(plan, idle, late), episode, scheduler) == usual


def test_the_random_module_is_not_what_is_drawn_from() -> None:
    plan = with_faults(paper_simulation(5), RANDOM)
    random.seed(1)
    before = plan.timeline(0).faults
    random.seed(2)
    assert plan.timeline(0).faults == before


def test_the_compiled_engine_leaves_faults_to_the_simulator() -> None:
    plan = with_faults(paper_simulation(5), RANDOM)
    assert [problem.path for problem in problems_of(plan)] == ["faults"]
    rates = evaluate(plan, ["ratc"], 2)["ratc"]
    assert list(rates) == [simulate_episode(plan, n, "ratc").success_rate for n in range(2)]


def test_what_nodes_tell_unasked_does_not_pass_a_fault() -> None:
    plan = with_faults(
        tiny_plan([1.0, 1.0, 1.0], slots=6),
        fault("node-down", 1500 * MS, 3500 * MS, nodes=(1,)),
        fault("partition", 500 * MS, 2500 * MS, sources=(0,), destinations=(2,)),
    )
    told: dict[tuple[int, int], list[int | None]] = {}
    for decision in simulate_episode(plan, 0, Gossips).decisions:
        for peer, heard in enumerate(decision.observation.known):
            instant = None if heard is None else heard[0].at // SECOND
            told.setdefault((decision.node, peer), []).append(instant)
    # In each slot the newest is that of the one before.
    assert told[0, 2] == [None, 0, 1, 2, 3, 4]
    # Node 1 is away at 2 s and 3 s, and has forgotten what it had heard when it comes back.
    assert told[0, 1] == [None, 0, 1, 1, 1, 4]
    assert told[1, 0][-1] == told[1, 2][-1] == 4
    assert told[1, 0][-2] is told[1, 2][-2] is None
    # What node 0 tells node 2 at 1 s and 2 s is lost; what node 2 tells is not.
    assert told[2, 0] == [None, 0, 0, 0, 3, 4]
