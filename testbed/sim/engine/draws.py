"""Random draws of the compiled engine, bit for bit those of ``testbed.model``."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from testbed.model.draws import GOLDEN, MIX_1, MIX_2, Purpose
from testbed.model.units import NEVER
from testbed.sim.engine.compiled import (
    ABSENT,
    CHOICE,
    DECIDING,
    OPEN,
    Record,
    compiled,
    element,
    inlined,
    node_at,
    task_at,
)

_GOLDEN: Final = np.uint64(GOLDEN)
_MIX_1: Final = np.uint64(MIX_1)
_MIX_2: Final = np.uint64(MIX_2)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_ARRIVAL: Final = int(Purpose.ARRIVAL)
_SIZE: Final = int(Purpose.SIZE)
_COMPLEXITY: Final = int(Purpose.COMPLEXITY)
_DEADLINE: Final = int(Purpose.DEADLINE)
_EXECUTION_FATE: Final = int(Purpose.EXECUTION_FATE)
_TRANSMISSION_FATE: Final = int(Purpose.TRANSMISSION_FATE)
_SCHEDULER: Final = int(Purpose.SCHEDULER)
_NEVER: Final = int(NEVER)


@inlined
def extend(state: np.uint64, word: int | np.uint64) -> np.uint64:
    """``testbed.model.draws.extend`` by one word."""
    state = (state ^ np.uint64(word)) + _GOLDEN
    state = (state ^ (state >> _S30)) * _MIX_1
    state = (state ^ (state >> _S27)) * _MIX_2
    return state ^ (state >> _S31)


@inlined
def to_unit(state: np.uint64) -> float:
    """``testbed.model.draws.to_unit``."""
    return (float(np.int64(state >> _S11)) + 0.5) * 2.0**-53


@inlined
def key(seed: np.uint64, purpose: int, episode: int) -> np.uint64:
    """``testbed.model.draws.key(seed, purpose, episode)``."""
    return extend(extend(extend(np.uint64(0), seed), purpose), episode)


@compiled
def failure_after(rate: float, u: float) -> int:
    """``testbed.model.draws.failure_after``."""
    if rate <= 0.0:
        return _NEVER
    after = -math.log(u) / rate * 1000000.0
    if after >= float(_NEVER):
        return _NEVER
    return int(after)


@inlined
def failure_within(rate: float, work: int, state: np.uint64) -> int:
    """``failure_after`` of the draw ``state`` if it is less than ``work``, else ``work``."""
    u = to_unit(state)
    # -log(u) is at least 1 - u: most need no logarithm.
    if (1.0 - u) * 1000000.0 > rate * float(work) * 1.000001:
        return work
    return min(failure_after(rate, u), work)


@inlined
def duration(amount: int, per_second: int) -> int:
    """``testbed.model.units.duration``, of amounts that are not negative."""
    twice = np.uint64(2 * per_second)
    return int(np.int64((np.uint64(2000000 * amount) + np.uint64(per_second)) // twice))


@inlined
def task_id(episode: Record, task: int) -> int:
    """Return the id, unique in the run, of task number ``task`` of this episode."""
    return int(episode.episode * episode.slots * episode.nodes + task)


@inlined
def scheduler_stream(episode: Record, node: int, task: int) -> np.uint64:
    """Return the key of the draws of the scheduler of ``node`` for ``task``."""
    return extend(extend(episode.scheduler_draws, task_id(episode, task)), node)


@inlined
def scheduler_draw(episode: Record, node: int, task: int, counter: int) -> float:
    """``SchedulerContext.uniform`` of ``node`` for ``task``."""
    return to_unit(extend(scheduler_stream(episode, node, task), counter))


@compiled
def fold_keys(episode: Record, number: int) -> None:
    """Prepare the keys of all draws of episode ``number``."""
    episode.episode = number
    episode.execution_fates = key(episode.faults_seed, _EXECUTION_FATE, number)
    episode.transmission_fates = key(episode.faults_seed, _TRANSMISSION_FATE, number)
    episode.scheduler_draws = key(episode.schedulers_seed, _SCHEDULER, number)
    arrival = key(episode.workload_seed, _ARRIVAL, number)
    size = key(episode.workload_seed, _SIZE, number)
    complexity = key(episode.workload_seed, _COMPLEXITY, number)
    deadline = key(episode.workload_seed, _DEADLINE, number)
    for i in range(episode.nodes):
        draws = node_at(episode, i).draws
        draws[0] = extend(arrival, i)
        draws[1] = extend(size, i)
        draws[2] = extend(complexity, i)
        draws[3] = extend(deadline, i)


@compiled
def draw_slot(episode: Record, slot: int) -> None:
    """Draw the tasks that arrive in ``slot``."""
    size = episode.nodes
    begins = slot * episode.slot_length
    for i in range(size):
        node, task = node_at(episode, i), task_at(episode, slot * size + i)
        draws = node.draws
        # Drawn also where none arrives: cheaper than a branch that nobody can predict.
        arrives = to_unit(extend(draws[0], slot)) < node.arrival
        task.stage = DECIDING if arrives else ABSENT
        episode.tasks += 1 if arrives else 0
        task.size = _draw(episode, 0, to_unit(extend(draws[1], slot)))
        per_bit = _value(episode, 1, to_unit(extend(draws[2], slot)))
        task.cycles = np.int64(np.rint(float(8 * task.size) * per_bit))
        task.deadline = _draw(episode, 2, to_unit(extend(draws[3], slot)))
        task.deadline_at = begins + task.deadline
        task.outcome = OPEN
        task.destination = -1
        task.ready_at = -1
        task.started_at = -1
        task.ended_at = -1
        task.failing = 0
        task.announced = 0


@inlined
def _value(episode: Record, which: int, u: float) -> float:
    count = episode.distribution[which]
    if count > 0:
        place = which * episode.widest + np.int64(u * count)
        return float(element(CHOICE, episode.choices_at, place).value)
    return float(episode.low[which] + episode.span[which] * u)


@inlined
def _draw(episode: Record, which: int, u: float) -> int:
    return int(np.rint(_value(episode, which, u)))
