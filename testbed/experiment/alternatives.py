"""Outcomes of one task of a logged run at each destination, from the simulator.

All other tasks go where they went in the run, and everything meets the same fates, so what differs
is the consequence of this one decision. Others may end differently too, because they share queues.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from testbed.experiment.history import TaskHistory, plan_of, reason
from testbed.model.decision import Ask, Decision, Observation, SchedulerContext
from testbed.model.events import DecisionRecord
from testbed.model.history import TaskRow, fold_all
from testbed.model.task import Outcome
from testbed.sim.simulator import EpisodeResult, Simulation
from testbed.storage.tasklog import TaskLog


@dataclass(frozen=True, slots=True)
class Alternative:
    """One destination: how the task would have ended there.

    ``others`` is how many more of the other tasks of the episode succeed than with the destination
    that was chosen. ``taken`` marks that one; it is simulated as well, so that all can be compared.
    """

    destination: int
    row: TaskRow
    why: str
    others: int
    taken: bool

    @property
    def document(self) -> dict[str, Any]:
        """The alternative as plain values for JSON; durations in microseconds."""
        return {
            "destination": self.destination,
            "taken": self.taken,
            "outcome": self.row.outcome.value,
            "stage": self.row.stage,
            "elapsed": self.row.elapsed,
            "why": self.why,
            "others": self.others,
        }


class LoggedScheduler:
    """Decides as a log says, as late as the log says.

    Raises: LookupError: nothing was decided about a task; so it is lost and takes no one's time.
    """

    name = "logged"

    def __init__(self, context: SchedulerContext, decisions: Mapping[int, tuple[int, int]]) -> None:
        self._node = context.node
        self._size = context.topology.size
        self._decisions = decisions

    def decide(self, observation: Observation) -> Decision | Ask:
        """Return the logged destination, after as many rounds of asking as the log has."""
        assert observation.task is not None
        destination, rounds = self._decisions[observation.task.id]
        if observation.round < rounds and self._size > 1:
            # What is answered does not matter, only that asking takes its time.
            peer = (self._node + 1 + observation.round % (self._size - 1)) % self._size
            return Ask((peer,), bits_only=True)
        return Decision(destination)


def alternatives(log: TaskLog, history: TaskHistory) -> Iterator[Alternative]:
    """Return what each destination would have given for a task, in order of the nodes.

    Raises: UsageError: the run's plan cannot be read.
    """
    plan = plan_of(history.run)
    task = history.task
    decided = {
        decision.task_id: (decision.destination, _rounds(decision))
        for decision in log.decisions(history.run.id, episode=task.episode)
        if decision.task_id is not None and decision.destination is not None
    }
    chosen = history.row.destination

    def simulated(destination: int | None) -> EpisodeResult:
        decisions = dict(decided)
        if destination is not None:
            decisions[task.id] = (destination, decided.get(task.id, (0, 0))[1])
        simulation = Simulation(plan, lambda context: LoggedScheduler(context, decisions))
        return simulation.episode(task.episode)

    reference = _others(simulated(None), task.id)
    for destination in range(plan.topology.size):
        result = simulated(destination)
        records = [record for record in result.records if record.task.id == task.id]
        (row,) = fold_all([task], records).rows
        yield Alternative(
            destination=destination,
            row=row,
            why=reason(row, plan.topology),
            others=_others(result, task.id) - reference,
            taken=destination == chosen,
        )


def _rounds(decision: DecisionRecord) -> int:
    return decision.observation.round


def _others(result: EpisodeResult, task_id: int) -> int:
    return sum(
        outcome is Outcome.SUCCEEDED
        for other, outcome in result.outcomes.items()
        if other != task_id
    )
