from __future__ import annotations

import pytest

from testbed.model.distributions import Choice, Constant, Uniform
from testbed.model.units import SECOND
from testbed.model.workload import Workload, tasks_of_episode

WORKLOAD = Workload(
    slots=400,
    slot=SECOND // 2,
    size_bytes=Uniform(1_000_000, 8_000_000),
    complexity=Uniform(800, 2400),
    deadline=Constant(4 * SECOND),
)


def test_arrivals_are_bernoulli_with_the_probability_of_the_node() -> None:
    slots = tasks_of_episode(WORKLOAD, (0.0, 0.3, 1.0), seed=1, episode=0)
    counts = [sum(task.source == node for tasks in slots for task in tasks) for node in range(3)]
    assert counts[0] == 0
    assert counts[1] == pytest.approx(120, abs=5 * (400 * 0.3 * 0.7) ** 0.5)
    assert counts[2] == 400


def test_tasks_are_what_the_distributions_say() -> None:
    slots = tasks_of_episode(WORKLOAD, (0.5, 0.5), seed=1, episode=2)
    tasks = [task for slot in slots for task in slot]
    assert len({task.id for task in tasks}) == len(tasks)
    for slot, arrived in enumerate(slots):
        for task in arrived:
            assert (task.episode, task.slot, task.deadline) == (2, slot, 4 * SECOND)
            assert task.id == (2 * 400 + slot) * 2 + task.source
            assert 1_000_000 <= task.size_bytes <= 8_000_000
            assert 800 <= task.cycles / (8 * task.size_bytes) <= 2400
    mean = sum(task.size_bytes for task in tasks) / len(tasks)
    assert mean == pytest.approx(4_500_000, rel=0.1)


def test_the_probability_of_one_node_changes_no_task_of_another() -> None:
    few = tasks_of_episode(WORKLOAD, (0.1, 0.5), seed=1, episode=0)
    many = tasks_of_episode(WORKLOAD, (0.9, 0.5), seed=1, episode=0)
    of_second = [[t for t in slot if t.source == 1] for slot in few]
    assert of_second == [[t for t in slot if t.source == 1] for slot in many]
    for slot_few, slot_many in zip(few, many, strict=True):
        assert {t for t in slot_few if t.source == 0} <= set(slot_many)


def test_episodes_and_seeds_differ() -> None:
    drawn = {
        tuple(t.size_bytes for s in tasks_of_episode(WORKLOAD, (0.5,), seed, episode) for t in s)
        for seed in range(2)
        for episode in range(2)
    }
    assert len(drawn) == 4


def test_choice_takes_each_value() -> None:
    choice = Choice((4.0, 8.0, 16.0))
    assert {choice.at(u) for u in (0.01, 0.4, 0.99)} == {4.0, 8.0, 16.0}
    assert choice.maximum == 16.0
