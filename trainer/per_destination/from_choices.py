"""Decisions of RATC from the task log: between which two nodes it chose, and what that was worth.

RATC draws two nodes at random and chooses between them by their states (paper section V-B). So its
log shows every kind of destination under every kind of load, which is enough to learn from what a
task at a node is worth. Credit is that of ``credit``, as for the decisions of policies
(``from_logs``). The next stage is ``cloning``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from testbed.errors import Problem, UsageError
from testbed.model.events import DecisionRecord
from testbed.model.history import TaskRow
from testbed.model.per_destination import STATE_NAME, PerDestinationEncoder
from testbed.model.task import Outcome
from testbed.scenario.plan import Plan
from testbed.storage.tasklog import TaskLog
from trainer.credit.gains import gains_of_log

NAME: Final = "ratc"
"""The scheduler whose decisions are read."""


class Choices(NamedTuple):
    """D decisions in a network of C nodes."""

    rows: Tensor  # [D, C, F]
    candidates: Tensor  # [D, C], the nodes that were chosen between
    chosen: Tensor  # [D]
    own_row: Tensor  # [D, F], of the node that decided
    credit: Tensor  # [D]


@dataclass(frozen=True, slots=True)
class LoggedChoices:
    """Decisions of RATC in one network.

    ``plain`` lists the episodes (run/episode) whose queues could not be served again, with the
    reason; their decisions count by the outcome of their task. ``success_rate`` is by
    (run, episode).
    """

    choices: Choices
    success_rate: dict[tuple[str, int], float]
    plain: dict[str, str] = field(default_factory=dict)


def read_choices(
    task_log: TaskLog, run_ids: Sequence[str], plan: Plan, encoder: str = STATE_NAME
) -> LoggedChoices:
    """Return the decisions of RATC in these runs of the network ``plan``, in rows of ``encoder``.

    Raises:
        UsageError: RATC decided nothing in these runs.
    """
    rows: list[list[tuple[float, ...]]] = []
    candidates: list[list[bool]] = []
    chosen: list[int] = []
    nodes: list[int] = []
    credit: list[float] = []
    rates: dict[tuple[str, int], float] = {}
    plain: dict[str, str] = {}
    per_episode = plan.workload.slots * plan.topology.size
    for run_id in dict.fromkeys(run_ids):
        info = task_log.run(run_id).info
        numbers = range(info.first_episode, info.first_episode + info.episodes)
        for episode, gain, reason in gains_of_log(task_log, run_id, plan, numbers):
            rates[run_id, episode.number] = success_rate(episode.tasks)
            if reason is not None:
                plain[f"{run_id}/{episode.number}"] = reason
            for decision, seen in _made(task_log, run_id, plan, episode.number, encoder):
                task, destination = decision.observation.task, decision.destination
                assert task is not None
                assert destination is not None
                worth = gain[task.id % per_episode]
                between = between_which(decision, plan.topology.size)
                if math.isnan(worth) or not between[destination]:
                    continue
                rows.append(seen)
                candidates.append(between)
                chosen.append(destination)
                nodes.append(decision.node)
                credit.append(float(worth))
    if not chosen:
        raise UsageError(
            f"{NAME} decided nothing in these runs",
            [Problem("runs", ", ".join(run_ids) or "none", f"runs under --scheduler {NAME}")],
        )
    values = np.array(rows, np.float32)
    own = values[np.arange(len(nodes)), nodes]
    return LoggedChoices(
        Choices(
            torch.from_numpy(values),
            torch.from_numpy(np.array(candidates, np.bool_)),
            torch.from_numpy(np.array(chosen, np.int64)),
            torch.from_numpy(own),
            torch.from_numpy(np.array(credit, np.float32)),
        ),
        rates,
        plain,
    )


def between_which(decision: DecisionRecord, size: int) -> list[bool]:
    """Return by node [N] whether RATC chose between it and another one.

    Those that answered with their state; the own node where only one peer was asked.
    """
    answered = {each.peer for each in decision.observation.answers if each.state is not None}
    found = [node in answered for node in range(size)]
    found[decision.node] = len(answered) < 2
    return found


def success_rate(tasks: Sequence[TaskRow]) -> float:
    """Return the share of tasks that succeeded."""
    return float(np.mean([task.outcome is Outcome.SUCCEEDED for task in tasks]))


def _made(
    task_log: TaskLog, run_id: str, plan: Plan, episode: int, encoder: str
) -> Iterator[tuple[DecisionRecord, list[tuple[float, ...]]]]:
    """Yield the decisions of RATC in an episode with their rows, in order of node and time.

    Of nodes that were not asked nobody knows whether they are overloaded: they count as not.
    """
    made = [
        decision
        for decision in task_log.decisions(run_id, episode=episode)
        if decision.task_id is not None
        and decision.destination is not None
        and decision.scheduler == NAME
    ]
    size = plan.topology.size
    for node, of_node in groupby(made, key=lambda decision: decision.node):
        encode = PerDestinationEncoder(node, plan.topology, plan.rules, plan.workload, encoder)
        for decision in sorted(of_node, key=lambda decision: (decision.at, decision.slot)):
            task = decision.observation.task
            assert task is not None
            mask = [True] * size
            for answer in decision.observation.answers:
                mask[answer.peer] = not answer.overloaded
            yield decision, encode.rows(decision.observation, task, mask)
