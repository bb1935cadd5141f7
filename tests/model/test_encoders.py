"""Observations as numbers: every number where it belongs, none of them lost (model section 6)."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from testbed.errors import UsageError
from testbed.model.decision import Answer, Observation, PeerState
from testbed.model.distributions import Choice, Constant, Uniform
from testbed.model.encoders import ENCODERS, Encoder, Scales, action_mask, encoder, time_slot
from testbed.model.task import Task
from testbed.model.topology import Overload, OverloadMeasure, Rules, Topology
from testbed.model.units import MILLISECOND, SECOND
from testbed.model.workload import Workload


@dataclass(frozen=True)
class Sample:
    topology: Topology
    rules: Rules
    workload: Workload


NETWORK = Sample(
    Topology(
        cores=(4, 8, 16),
        capacity_hz=(12_000_000_000, 24_000_000_000, 48_000_000_000),
        arrival_probability=(0.2, 0.4, 0.8),
        execution_failure_rate=(0.1, 0.05, 0.025),
        link_rate=((0, 10_000_000, 40_000_000), (20_000_000, 0, 30_000_000), (1, 2, 0)),
        link_failure_rate=((0.0, 0.01, 0.02), (0.01, 0.0, 0.02), (0.01, 0.02, 0.0)),
    ),
    Rules(Overload(OverloadMeasure.QUEUE_LENGTH, 2)),
    Workload(
        100,
        500 * MILLISECOND,
        Uniform(1_000_000, 8_000_000),
        Choice((800, 2400)),
        Constant(4 * SECOND),
    ),
)
TASK = Task(4, 0, 1, 1, 4_000_000, 38_400_000_000, 2 * SECOND)
STATE = PeerState(False, 1, 3 * SECOND, 0, 400_000)
OBSERVATION = Observation(
    node=1,
    now=1_500_000,
    episode=0,
    slot=1,
    task=TASK,
    queue_length=3,
    backlog=2 * SECOND,
    receiving=(5, 0, 1),
    sending=(1, 0, 2),
    send_backlog=(400_000, 0, 800_000),
    answers=(),
    known=((STATE, 500_000), None, None),
    round=1,
)
PAPER = [
    *(0.0, 1.0, 0.0),
    *(0.5, 0.5, 0.5),
    0.3,
    *(0.5, 0.0, 0.1),
    *(0.5, 1.0, 0.75),
    *(0.5, 0.25, 0.5),
]


def test_paper_v1_is_the_observation_of_the_paper() -> None:
    assert encoder("paper-v1").encode(OBSERVATION, NETWORK) == PAPER


def test_extended_v1_adds_backlogs_and_how_old_they_are() -> None:
    assert encoder("extended-v1").encode(OBSERVATION, NETWORK) == [
        *PAPER,
        *(0.1, 0.0, 0.2),
        *(0.75, 0.5, 0.0),
        *(0.25, 0.0, 1.0),
    ]


def test_old_knowledge_is_no_older_than_a_deadline() -> None:
    ages = encoder("extended-v1").encode(OBSERVATION._replace(now=60 * SECOND), NETWORK)[-3:]
    assert ages == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("each", ENCODERS.values(), ids=list(ENCODERS))
def test_every_encoder_has_a_name_and_a_column_for_every_number(each: Encoder) -> None:
    numbers = each.encode(OBSERVATION, NETWORK)
    assert len(numbers) == each.size(3) == len(each.columns(3)) == len(set(each.columns(3)))
    assert all(type(number) is float for number in numbers)
    assert each.bind(NETWORK)(OBSERVATION) == numbers
    assert ENCODERS[each.name] is each
    named = dict(zip(each.columns(3), numbers, strict=True))
    assert named["is_node_1"] == 1.0
    assert named["queue_length"] == 0.3
    assert named["receiving_2"] == 0.1
    assert named["deadline"] == 0.5


@pytest.mark.parametrize("each", ENCODERS.values(), ids=list(ENCODERS))
def test_a_slot_without_a_task_has_zeros_for_it(each: Encoder) -> None:
    numbers = each.encode(OBSERVATION._replace(task=None), NETWORK)
    start = each.columns(3).index("size")
    assert numbers[start : start + 3] == [0.0, 0.0, 0.0]
    with_task = each.encode(OBSERVATION, NETWORK)
    assert numbers[:start] + numbers[start + 3 :] == with_task[:start] + with_task[start + 3 :]


@pytest.mark.parametrize("each", ENCODERS.values(), ids=list(ENCODERS))
def test_capacities_and_queues_are_told_apart(each: Encoder) -> None:
    # Integer division once turned the capacity into 0 for all nodes but the fastest.
    capacity = each.columns(3).index("capacity")
    seen = [each.encode(OBSERVATION._replace(node=i), NETWORK)[capacity] for i in range(3)]
    assert seen == [0.25, 0.5, 1.0]


def test_a_network_without_failures_or_links_has_no_division_by_zero() -> None:
    alone = Sample(
        Topology((4,), (12_000_000_000,), (0.0,), (0.0,), ((0,),), ((0.0,),)),
        NETWORK.rules,
        NETWORK.workload,
    )
    observation = Observation(0, 0, 0, 0, None, 0, 0, (0,), (0,), (0,), (), (None,), 0)
    numbers = encoder("paper-v1").encode(observation, alone)
    assert numbers == [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    assert Scales.of(alone).cycles == 8 * 8_000_000 * 2400


def test_an_unknown_encoder_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="known are paper-v1, extended-v1"):
        encoder("paper-v0")


def answered(*bits: tuple[int, bool]) -> Observation:
    return OBSERVATION._replace(
        answers=tuple(Answer(peer, overloaded, None, 0, 1) for peer, overloaded in bits)
    )


def test_without_a_task_only_no_task_is_allowed() -> None:
    observation = answered((0, True))._replace(task=None)
    assert action_mask(observation, 3) == [False, False, False, True]


def test_overloaded_peers_are_masked_and_the_own_node_never_is() -> None:
    assert action_mask(answered(), 3) == [True, True, True, False]
    assert action_mask(answered((0, True), (2, False)), 3) == [False, True, True, False]
    assert action_mask(answered((0, True), (1, True), (2, True)), 3) == [False, True, False, False]
    # Asked again, the later answer counts.
    assert action_mask(answered((0, True), (0, False)), 3) == [True, True, True, False]


def test_what_ends_after_the_last_slot_belongs_to_the_last_slot() -> None:
    assert [time_slot(at, NETWORK) for at in (0, 499_999, 500_000)] == [0, 0, 1]
    assert time_slot(49_500_000, NETWORK) == time_slot(90_000_000, NETWORK) == 99
