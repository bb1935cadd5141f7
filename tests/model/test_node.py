from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.model.decision import Answer, Ask, Decision, Observation, PeerState
from testbed.model.draws import uniform
from testbed.model.events import (
    DeadlinePassed,
    DecisionBroken,
    DecisionRecord,
    ExecutionBroken,
    PeersAnswered,
    PeersSilent,
    Record,
    StartExecution,
    StartTransmission,
    TaskArrived,
    TransferAnnounced,
    TransferArrived,
    TransmissionBroken,
    TransmissionEnded,
)
from testbed.model.node import IllegalEvent, NodeState
from testbed.model.own_code import SchedulerFailed
from testbed.model.topology import Overload, OverloadMeasure
from testbed.model.units import SECOND, Micros
from tests.model.network import Network, Placed, always, rules, task, topology


def times(records: list[Record], task_id: int) -> dict[str, Micros]:
    return {str(r.kind): r.at for r in records if r.task.id == task_id}


class OneTaskTests:
    def test_executed_locally_takes_cycles_over_capacity(self) -> None:
        network = Network(topology([1000]), rules(), [always(0)])
        network.arrive(0, task(1, cycles=500))
        records = network.run()
        assert times(records, 1)["ended"] == SECOND // 2
        assert network.outcome(1) == "succeeded"

    def test_sent_to_a_peer_takes_transmission_and_execution(self) -> None:
        network = Network(topology([1000, 2000], link_rate=4000), rules(), [always(1), always(1)])
        network.arrive(0, task(1, size_bytes=1000, cycles=1000))
        at = times(network.run(), 1)
        assert at["sent"] == at["received"] == SECOND // 4
        assert at["ended"] == SECOND // 4 + SECOND // 2
        assert network.ended(1).data["elapsed"] == at["ended"]

    def test_records_are_numbered_across_the_nodes_that_held_it(self) -> None:
        network = Network(topology([1000, 1000]), rules(), [always(1), always(1)])
        network.arrive(0, task(1))
        assert [r.seq for r in network.run()] == list(range(8))

    def test_finishing_exactly_at_the_deadline_is_in_time(self) -> None:
        network = Network(topology([1000]), rules(drop_hopeless=False), [always(0)])
        network.arrive(0, task(1, cycles=1000, deadline=SECOND))
        network.arrive(0, task(2, cycles=1, deadline=SECOND))
        network.run()
        assert network.outcome(1) == "succeeded"
        assert network.outcome(2) == "dropped"


class DeadlinesTests:
    def test_a_hopeless_task_does_not_use_the_server(self) -> None:
        network = Network(topology([1000]), rules(), [always(0)])
        network.arrive(0, task(1, cycles=2000, deadline=SECOND))
        network.arrive(0, task(2, cycles=1000, deadline=SECOND))
        network.run()
        assert (network.outcome(1), network.ended(1).at) == ("dropped", 0)
        assert network.outcome(2) == "succeeded"

    def test_without_that_rule_it_holds_the_server_until_its_deadline(self) -> None:
        network = Network(topology([1000]), rules(drop_hopeless=False), [always(0)])
        network.arrive(0, task(1, cycles=2000, deadline=SECOND))
        network.arrive(0, task(2, cycles=1000, deadline=3 * SECOND))
        network.run()
        assert (network.ended(1).at, network.ended(1).data["stage"]) == (SECOND, "execution")
        assert (network.outcome(2), network.ended(2).at) == ("succeeded", 2 * SECOND)

    def test_in_transit_it_frees_the_link_at_that_instant(self) -> None:
        network = Network(topology([10**6] * 2, link_rate=1000), rules(), [always(1), always(1)])
        network.arrive(0, task(1, size_bytes=5000, deadline=SECOND))
        network.arrive(0, task(2, size_bytes=1000, cycles=1000, deadline=9 * SECOND))
        at = times(network.run(), 2)
        assert network.ended(1).data["stage"] == "transmission"
        assert at["transmission_started"] == SECOND
        assert network.nodes[1].receiving == (0, 0)

    def test_waiting_in_a_sending_queue_it_is_dropped_there(self) -> None:
        network = Network(topology([10**6] * 2, link_rate=1000), rules(), [always(1), always(1)])
        network.arrive(0, task(1, size_bytes=3000))
        network.arrive(0, task(2, size_bytes=1000, deadline=SECOND))
        network.run()
        assert (network.ended(2).at, network.ended(2).data["stage"]) == (SECOND, "sending")
        assert network.outcome(1) == "succeeded"

    def test_while_deciding_it_is_dropped_and_the_decision_stays_open(self) -> None:
        node = NodeState(
            0, topology([1000, 1000]), rules(), 0, 0, Placed(lambda _: Ask(peers=(1,)))
        )
        node.handle(TaskArrived(task(1, deadline=5)), 0)
        effects = node.handle(DeadlinePassed(1), 5)
        decision = next(e for e in effects if isinstance(e, DecisionRecord))
        assert decision.destination is None
        assert not node.held


class WorkOnItsWayTests:
    def test_it_is_known_to_sender_and_receiver_until_it_is_there_or_withdrawn(self) -> None:
        network = Network(topology([1000, 2000], link_rate=1000), rules(), [always(1), always(1)])
        network.arrive(0, task(1, size_bytes=1000, cycles=4000))
        network.arrive(0, task(2, size_bytes=1000, cycles=1000))
        sender, receiver = network.nodes
        network.run(until=SECOND // 2)
        # Both will be executed at 2000 cycles a second; only the first one was announced.
        assert sender.sending_work == (0, 2 * SECOND + SECOND // 2)
        assert receiver.inbound_work == receiver.peer_state(SECOND).inbound_work == 2 * SECOND
        assert sender.observe(SECOND, 1).sending_work == sender.sending_work
        assert receiver.observe(SECOND, 1).inbound_work == 2 * SECOND
        network.run()
        assert (sender.sending_work, receiver.inbound_work) == ((0, 0), 0)

    def test_what_will_not_come_is_counted_no_more(self) -> None:
        network = Network(topology([10**6] * 2, link_rate=1000), rules(), [always(1), always(1)])
        network.arrive(0, task(1, size_bytes=5000, cycles=1000, deadline=SECOND))
        network.run(until=SECOND // 2)
        assert network.nodes[1].inbound_work == 1000
        network.run()
        assert network.ended(1).data["stage"] == "transmission"
        assert network.nodes[1].inbound_work == 0
        assert network.nodes[0].sending_work == (0, 0)

    def test_a_task_that_waits_for_room_is_still_on_its_way(self) -> None:
        limited = rules(limit=0)
        node = NodeState(0, topology([1000] * 2), limited, 0, 0, always(0))
        for number in (1, 2):
            coming = task(number, source=1, cycles=500)
            node.handle(TransferAnnounced(coming, 1), number)
            node.handle(TransferArrived(coming, 1, 0, 3), number)
        assert (node.inbound_work, node.peer_state(2).inbound) == (SECOND // 2, 1)


class AskingTests:
    def ask_then(self, enough: int | None) -> tuple[NodeState, list[Observation]]:
        seen: list[Observation] = []

        def place(observation: Observation) -> Decision | Ask:
            seen.append(observation)
            return Ask((1, 2), enough=enough) if observation.round == 0 else Decision(0)

        node = NodeState(0, topology([1000] * 3), rules(), 0, 0, Placed(place))
        node.handle(TaskArrived(task(1)), 0)
        return node, seen

    def answer(self, peer: int, at: Micros) -> PeersAnswered:
        state = PeerState(False, 0, 0, 0, at)
        return PeersAnswered(1, 0, (Answer(peer, False, state, 0, at),))

    def test_all_answers_are_awaited(self) -> None:
        node, seen = self.ask_then(enough=None)
        node.handle(self.answer(2, 3), 3)
        assert len(seen) == 1
        node.handle(self.answer(1, 4), 4)
        assert [a.peer for a in seen[1].answers] == [2, 1]
        assert seen[1].known[2] == (PeerState(False, 0, 0, 0, 3), 3)

    def test_the_first_answers_are_enough(self) -> None:
        node, seen = self.ask_then(enough=1)
        node.handle(self.answer(2, 3), 3)
        assert [a.peer for a in seen[1].answers] == [2]
        node.handle(self.answer(1, 4), 4)
        assert len(seen) == 2

    def test_unreachable_peers_are_not_awaited(self) -> None:
        node, seen = self.ask_then(enough=None)
        node.handle(PeersSilent(1, 0, (1,)), 1)
        node.handle(self.answer(2, 3), 3)
        assert len(seen) == 2

    def test_the_time_to_answer_ends_the_question(self) -> None:
        node, seen = self.ask_then(enough=None)
        node.handle(PeersSilent(1, 0), 250)
        assert seen[1].answers == ()

    def test_a_scheduler_that_asks_for_ever_is_a_defect(self) -> None:
        node = NodeState(0, topology([1000] * 2), rules(), 0, 0, Placed(lambda _: Ask((1,))))
        node.handle(TaskArrived(task(1)), 0)
        for round_ in range(3):
            node.handle(PeersSilent(1, round_), round_)
        with pytest.raises(SchedulerFailed, match="at most 4"):
            node.handle(PeersSilent(1, 3), 3)
        node.handle(DecisionBroken(1), 3)
        assert not node.held

    def test_a_new_scheduler_decides_about_later_tasks_only(self) -> None:
        node, seen = self.ask_then(enough=None)
        node.scheduler = always(1)
        node.handle(PeersSilent(1, 0), 1)
        assert len(seen) == 2, "the one that began the decision ends it"
        effects = node.handle(TaskArrived(task(2)), 2)
        assert any(isinstance(e, StartTransmission) and e.task.id == 2 for e in effects)


class InfrastructureFailuresTests:
    def test_a_dead_peer_loses_the_task_and_frees_the_link(self) -> None:
        node = NodeState(0, topology([1000] * 2), rules(), 0, 0, always(1))
        node.handle(TaskArrived(task(1)), 0)
        node.handle(TaskArrived(task(2)), 0)
        effects = node.handle(TransmissionBroken(1, 1), 10)
        ended = next(e for e in effects if isinstance(e, Record) and e.kind == "ended")
        assert ended.data["outcome"] == "lost"
        assert any(isinstance(e, StartTransmission) and e.task.id == 2 for e in effects)

    def test_a_task_the_peer_may_have_taken_is_not_ended_here(self) -> None:
        node = NodeState(0, topology([1000] * 2), rules(), 0, 0, always(1))
        node.handle(TaskArrived(task(1)), 0)
        handed = node.hand_over(1, 1, 1000)
        assert handed is not None
        assert handed.elapsed == 1000
        effects = node.handle(TransmissionBroken(1, 1, handed_over=True), 1001)
        assert not [e for e in effects if isinstance(e, Record)]
        assert not node.held

    def test_the_deadline_does_not_ring_while_a_task_is_handed_over(self) -> None:
        node = NodeState(0, topology([1000] * 2), rules(), 0, 0, always(1))
        node.handle(TaskArrived(task(1, deadline=1000)), 0)
        handed = node.hand_over(1, 1, 999)
        assert handed is not None
        assert node.handle(DeadlinePassed(1), 1000) == []
        (sent,) = node.handle(TransmissionEnded(1, 1), 1001)
        assert isinstance(sent, Record)
        assert sent.kind == "sent"
        assert handed.seq == sent.seq + 1

    def test_a_broken_application_loses_the_task_and_frees_the_server(self) -> None:
        node = NodeState(0, topology([1000]), rules(), 0, 0, always(0))
        node.handle(TaskArrived(task(1)), 0)
        node.handle(TaskArrived(task(2)), 0)
        effects = node.handle(ExecutionBroken(1), 10)
        ended = next(e for e in effects if isinstance(e, Record) and e.kind == "ended")
        assert ended.data["outcome"] == "lost"
        assert any(isinstance(e, StartExecution) and e.task.id == 2 for e in effects)

    def test_a_driver_that_breaks_the_contract_is_told(self) -> None:
        node = NodeState(0, topology([1000]), rules(), 0, 0, always(0))
        node.handle(TaskArrived(task(1)), 10)
        with pytest.raises(IllegalEvent, match="generated twice"):
            node.handle(TaskArrived(task(1)), 10)
        with pytest.raises(IllegalEvent, match="backwards"):
            node.handle(TaskArrived(task(2)), 9)


class ReceivingTests:
    def test_the_queue_counts_what_is_announced_and_what_waits_for_room(self) -> None:
        node = NodeState(0, topology([1000] * 2), rules(limit=1), 0, 0, always(0))
        for i in range(3):
            node.handle(TransferAnnounced(task(i, source=1), 1), 0)
        assert node.receiving == (0, 3)
        for i in range(3):
            node.handle(TransferArrived(task(i, source=1), 1, 0, 0), 1)
        # One runs, one waits in the execution queue, one waits for room.
        assert (node.queue_length, node.receiving) == (2, (0, 1))

    def test_an_announcement_overtaken_by_its_task_counts_once(self) -> None:
        node = NodeState(0, topology([1000] * 2), rules(), 0, 0, always(0))
        node.handle(TransferArrived(task(1, source=1), 1, 0, 0), 1)
        node.handle(TransferAnnounced(task(1, source=1), 1), 2)
        assert node.receiving == (0, 0)

    def test_admission_is_oldest_arrival_first_local_tasks_included(self) -> None:
        network = Network(
            topology([1000, 1000], link_rate=10**6), rules(limit=0), [always(0), always(0)]
        )
        network.arrive(0, task(1, cycles=1000))
        network.arrive(500, task(2, source=1, size_bytes=1000, cycles=1000))
        network.arrive(900, task(3, cycles=1000))
        records = network.run()
        started = [r.task.id for r in records if r.kind == "execution_started"]
        assert started == [1, 3, 2]


@pytest.mark.parametrize(
    ("measure", "limit", "cores", "queue_length", "backlog", "expected"),
    [
        (OverloadMeasure.QUEUE_LENGTH, 2, 4, 1, 0, False),
        (OverloadMeasure.QUEUE_LENGTH, 2, 4, 2, 0, True),
        (OverloadMeasure.QUEUE_LENGTH_PER_4_CORES, 3, 8, 5, 0, False),
        (OverloadMeasure.QUEUE_LENGTH_PER_4_CORES, 3, 8, 6, 0, True),
        (OverloadMeasure.BACKLOG, SECOND, 4, 9, SECOND - 1, False),
        (OverloadMeasure.BACKLOG, SECOND, 4, 0, SECOND, True),
    ],
)
def test_overload(
    measure: OverloadMeasure,
    limit: int,
    cores: int,
    queue_length: int,
    backlog: Micros,
    expected: bool,
) -> None:
    overload = Overload(measure, limit)
    assert overload.holds(cores=cores, queue_length=queue_length, backlog=backlog) is expected


# --- properties of whole episodes -----------------------------------------------------------

arrivals = st.lists(
    st.tuples(
        st.integers(0, 2_000_000),  # instant
        st.integers(0, 2),  # source
        st.integers(1, 400_000),  # size, bytes
        st.integers(1, 900_000),  # cycles
        st.integers(1, 1_500_000),  # deadline
    ),
    max_size=25,
)


def run_network(
    arrived: list[tuple[int, int, int, int, int]],
    choice: int,
    *,
    limit: int | None,
    drop_hopeless: bool,
    control_delay: Micros,
    rate: float,
) -> Network:
    """Three nodes with failures; where tasks go depends on ``choice`` and the task."""

    def place(observation: Observation) -> Decision | Ask:
        assert observation.task is not None
        destination = int(3 * uniform(choice, observation.task.id))
        if choice % 2 and observation.round == 0:
            others = tuple(i for i in range(3) if i != observation.node)
            return Ask(others, bits_only=choice % 3 == 0)
        return Decision(destination)

    network = Network(
        topology([10**6, 2 * 10**6, 3 * 10**6], alpha=rate, beta=rate),
        rules(limit=limit, drop_hopeless=drop_hopeless, control_delay=control_delay),
        [Placed(place)] * 3,
    )
    for i, (when, source, size, cycles, deadline) in enumerate(arrived):
        network.arrive(
            when, task(i, source=source, size_bytes=size, cycles=cycles, deadline=deadline)
        )
    network.run()
    return network


settings = {
    "arrived": arrivals,
    "choice": st.integers(0, 50),
    "limit": st.sampled_from([None, 0, 1, 3]),
    "drop_hopeless": st.booleans(),
    "control_delay": st.sampled_from([0, 1000, 300_000]),
    "rate": st.sampled_from([0.0, 0.5, 5.0]),
}


@given(**settings)
def test_every_task_ends_exactly_once(
    arrived: list[tuple[int, int, int, int, int]],
    choice: int,
    limit: int | None,
    drop_hopeless: bool,
    control_delay: Micros,
    rate: float,
) -> None:
    # The network also checks at every step that no node idles with work or runs two tasks.
    network = run_network(
        arrived,
        choice,
        limit=limit,
        drop_hopeless=drop_hopeless,
        control_delay=control_delay,
        rate=rate,
    )
    ended = [r.task.id for r in network.records if r.kind == "ended"]
    assert sorted(ended) == list(range(len(arrived)))
    for i in range(len(arrived)):
        history = [r for r in network.records if r.task.id == i]
        assert [r.seq for r in history] == list(range(len(history)))
        assert history[-1].kind == "ended"
        in_time = int(history[-1].data["elapsed"]) <= history[-1].task.deadline
        assert in_time, "a task outlived its deadline"
    for node in network.nodes:
        assert node.receiving == (0, 0, 0)
        assert node.sending == (0, 0, 0)
        assert (node.queue_length, node.backlog(10**9)) == (0, 0)


@given(**settings)
def test_every_queue_is_first_in_first_out(
    arrived: list[tuple[int, int, int, int, int]],
    choice: int,
    limit: int | None,
    drop_hopeless: bool,
    control_delay: Micros,
    rate: float,
) -> None:
    network = run_network(
        arrived,
        choice,
        limit=limit,
        drop_hopeless=drop_hopeless,
        control_delay=control_delay,
        rate=rate,
    )
    entered: dict[tuple[str, int, int], list[int]] = defaultdict(list)
    left: dict[tuple[str, int, int], list[int]] = defaultdict(list)
    for r in network.records:
        if r.kind == "decided" and r.data["destination"] != r.node:
            entered["send", r.node, int(r.data["destination"])].append(r.task.id)
        elif r.kind == "transmission_started":
            left["send", r.node, int(r.data["peer"])].append(r.task.id)
        elif r.kind == "admitted":
            entered["execute", r.node, 0].append(r.task.id)
        elif r.kind == "execution_started":
            left["execute", r.node, 0].append(r.task.id)
    for queue, served in left.items():
        order = [i for i in entered[queue] if i in set(served)]
        assert served == order


@given(arrivals, st.integers(0, 50), st.integers(0, 50))
def test_a_task_meets_the_same_fate_at_the_same_unit_under_any_scheduler(
    arrived: list[tuple[int, int, int, int, int]], one: int, other: int
) -> None:
    fates = []
    for choice in (one, other):
        network = run_network(
            arrived, choice, limit=None, drop_hopeless=True, control_delay=0, rate=5.0
        )
        fate: dict[tuple[int, int], tuple[bool, Micros]] = {}
        started: dict[int, Micros] = {}
        for r in network.records:
            if r.kind == "execution_started":
                started[r.task.id] = r.at
            elif r.data.get("outcome") in ("succeeded", "execution_failed"):
                failed = r.data["outcome"] == "execution_failed"
                fate[r.task.id, r.node] = (failed, r.at - started[r.task.id])
        fates.append(fate)
    for unit in fates[0].keys() & fates[1].keys():
        assert fates[0][unit] == fates[1][unit]
