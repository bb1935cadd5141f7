"""The history of one task in one run, or in several side by side, from the task log alone.

When it arrived, what was decided on which inputs, how long it queued, was sent and executed, how it
ended and why. Times are those of the log: durations measured by one host's clock each.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

from testbed.errors import Problem, UsageError
from testbed.experiment.by_hand import read
from testbed.experiment.measured import no_tasks
from testbed.model.codec import dumps
from testbed.model.events import DecisionRecord, Record, RecordKind
from testbed.model.history import TaskRow, fold
from testbed.model.task import Outcome, Task
from testbed.model.topology import Topology
from testbed.model.units import MILLISECOND, Micros
from testbed.scenario.plan import Plan
from testbed.storage.tasklog import Run, TaskLog

_STAGES: Final = {
    "deciding": "while the decision was being made",
    "sending": "while it waited to be sent to node {to}",
    "transmission": "while it was sent to node {to}",
    "handing_over": "while it was handed over to node {to}",
    "receiving": "in the receiving queue of node {to}",
    "waiting": "while it waited for execution at node {to}",
    "execution": "while node {to} executed it",
}
"""Place of a task when it ended, by the stage that the log names."""


@dataclass(frozen=True, slots=True)
class TaskHistory:
    """One task in one run: all its records in order, the decision about it, and its row.

    ``decision`` is None where the log has none: the node that decided died before it told.
    """

    run: Run
    task: Task
    row: TaskRow
    records: tuple[Record, ...]
    decision: DecisionRecord | None
    topology: Topology

    @property
    def why(self) -> str:
        """Return why it ended as it did, as a sentence without its full stop."""
        return reason(self.row, self.topology, failure_of(self.records))

    @property
    def facts(self) -> list[tuple[str, list[str]]]:
        """Return its labels for people, in a fixed order, each with one or more lines."""
        return [*self._decided(), *self._carried_out()]

    @property
    def document(self) -> dict[str, Any]:
        """The history as plain values for JSON; durations and instants in microseconds."""
        return {
            "run": self.run.id,
            "scheduler": self.row.scheduler or self.run.info.scheduler,
            "driver": self.run.info.driver,
            "task": self.task._asdict(),
            "destination": self.row.destination,
            "outcome": self.row.outcome.value,
            "stage": self.row.stage,
            "why": self.why,
            "elapsed": self.row.elapsed,
            "times": {
                name: {"measured": getattr(self.row, name), "nominal": nominal}
                for name, nominal in (
                    ("transmission_waiting", self.row.nominal_transmission_waiting),
                    ("transmission", self.row.nominal_transmission),
                    ("execution_waiting", self.row.nominal_execution_waiting),
                    ("execution", self.row.nominal_execution),
                )
            },
            "decision": None if self.decision is None else _decision_document(self.decision),
            "events": [
                {
                    "kind": record.kind.value,
                    "node": record.node,
                    "at": record.at,
                    "clock": record.clock,
                    "data": dict(record.data),
                }
                for record in self.records
            ],
        }

    def _decided(self) -> list[tuple[str, list[str]]]:
        decision = self.decision
        if decision is None:
            return [
                ("decided by", [self.row.scheduler or "not in the log"]),
                ("after", ["-"]),
                ("own queue", ["-"]),
                ("sending", ["-"]),
                ("answers", ["-"]),
                ("allowed", ["-"]),
                ("sent to", ["-" if self.row.destination is None else self._where()]),
            ]
        seen = decision.observation
        generated = next((r for r in self.records if r.kind is RecordKind.GENERATED), None)
        return [
            ("decided by", [decision.scheduler]),
            ("after", ["-" if generated is None else ms(decision.at - generated.at)]),
            ("own queue", [_queue(seen.queue_length, seen.backlog)]),
            ("sending", _sending(decision)),
            ("answers", _answers(decision)),
            ("allowed", _odds(decision)),
            ("sent to", [self._where()]),
        ]

    def _where(self) -> str:
        to = self.row.destination
        if to is None:
            return "not decided"
        return f"node {to}, where it arrived" if to == self.task.source else f"node {to}"

    def _carried_out(self) -> list[tuple[str, list[str]]]:
        row = self.row
        return [
            ("waited to be sent", [_time(row.transmission_waiting, None)]),
            ("transmission", [_time(row.transmission, row.nominal_transmission)]),
            ("waited for execution", [_time(row.execution_waiting, None)]),
            ("execution", [_time(row.execution, row.nominal_execution)]),
            ("outcome", [row.outcome.value.replace("_", " ")]),
            ("after", [_time(row.elapsed, None)]),
            ("why", [self.why]),
        ]


def task_history(log: TaskLog, run_id: str, task_id: int) -> TaskHistory:
    """Return the history of a task of a run.

    Raises: UsageError: no such run, the log has no such task, or the run's plan cannot be read.
    """
    run = log.run(run_id)
    plan = plan_of(run)
    episode, slot, source = place_of(plan, task_id)
    records = tuple(log.records(run.id, task_id=task_id))
    row = next((r for r in log.tasks(run.id, episode=episode) if r.task_id == task_id), None)
    if row is None and not records:
        last = run.info.first_episode + run.info.episodes - 1
        raise UsageError(
            f"run {run.id} has no task {task_id}",
            [
                Problem(
                    "task",
                    f"{task_id} would have arrived in episode {episode}, slot {slot}, at node "
                    f"{source}",
                    f"the log has none there; the run has episodes {run.info.first_episode} to "
                    f"{last}; `testbed tasks {run.id}` lists its tasks",
                )
            ],
        )
    decision = next(
        (d for d in log.decisions(run.id, episode=episode, node=source) if d.task_id == task_id),
        None,
    )
    task = records[0].task if row is None else row.task
    return TaskHistory(
        run=run,
        task=task,
        row=fold(task, records, decision) if row is None else row,
        records=records,
        decision=decision,
        topology=plan.topology,
    )


def plan_of(run: Run) -> Plan:
    """Return the plan of a run, with the faults that were injected into it by hand.

    Raises: UsageError: another version of this toolkit wrote it, it is damaged, or the run has no
    tasks.
    """
    try:
        plan = run.head
    except ValueError as error:
        raise UsageError(f"the plan of run {run.id} cannot be read: {error}") from None
    if not isinstance(plan, Plan):
        raise no_tasks(run)
    if not run.faults_by_hand:
        return plan
    return dataclasses.replace(plan, by_hand=read(run, plan.topology.size).faults)


def place_of(plan: Plan, task_id: int) -> tuple[int, int, int]:
    """Episode, slot and node in which the task with this id arrives, if one does."""
    before, source = divmod(task_id, plan.topology.size)
    episode, slot = divmod(before, plan.workload.slots)
    return episode, slot, source


def arrival(task: Task) -> str:
    """Return when and where a task arrived and what it asks for, in one line."""
    return (
        f"arrived in episode {task.episode}, slot {task.slot}, at node {task.source}: "
        f"{task.size_bytes / 1000:,.0f} kB, {task.cycles / 1e6:,.0f} million cycles, "
        f"deadline {ms(task.deadline)}"
    )


def rows(histories: Sequence[TaskHistory]) -> list[tuple[str, ...]]:
    """Return the facts of histories as lines of a table: a label, and a column for each."""
    table: list[tuple[str, ...]] = []
    for told in zip(*(history.facts for history in histories), strict=True):
        label = told[0][0]
        for line in zip_longest(*(lines for _, lines in told), fillvalue=""):
            table.append((label, *line))
            label = ""
    return table


def failure_of(records: Iterable[Record]) -> str:
    """Return what failed at a task: a user's own code, or a fault; empty if nothing."""
    for record in records:
        if "reason" in record.data:
            return str(record.data["reason"])
        if "fault" in record.data:
            return f"a fault of the scenario ({record.data['fault']})"
    return ""


def reason(row: TaskRow, topology: Topology, failure: str = "") -> str:
    """Return why a task ended as it did, from its row in the log and what ``failure_of`` says."""
    outcome, stage, elapsed = row.outcome, row.stage, row.elapsed
    to = "?" if row.destination is None else str(row.destination)
    at = _STAGES.get(stage or "", "").format(to=to)
    if outcome is Outcome.SUCCEEDED:
        return f"in time, {ms(row.deadline - (elapsed or 0))} before its deadline"
    if outcome is Outcome.TRANSMISSION_FAILED:
        return f"the link from node {row.source} to node {to} failed" + _into(
            row.transmission, row.nominal_transmission
        )
    if outcome is Outcome.EXECUTION_FAILED:
        return f"node {to} failed while executing it" + _into(row.execution, row.nominal_execution)
    if outcome is Outcome.REFUSED:
        return f"refused by {row.scheduler or 'its scheduler'}"
    if outcome is Outcome.LOST:
        where = f" {at}" if at else ""
        if failure:
            return f"lost{where}: {failure}"
        return f"lost{where}: a failure of the testbed, none that the scenario describes"
    if stage == "waiting" and row.destination is not None and (elapsed or 0) < row.deadline:
        needed = topology.execution_time(row.task, row.destination)
        return (
            f"at the head of the queue of node {to} it needed {ms(needed)} and had "
            f"{ms(row.deadline - (elapsed or 0))} left"
        )
    return f"its deadline passed {at}".rstrip()


def ms(micros: Micros) -> str:
    """Return a duration as text for people."""
    return f"{micros / MILLISECOND:,.1f} ms"


def _decision_document(decision: DecisionRecord) -> dict[str, Any]:
    seen = decision.observation
    return {
        "scheduler": decision.scheduler,
        "at": decision.at,
        "destination": decision.destination,
        "probabilities": decision.probabilities,
        "mask": decision.mask,
        "queue_length": seen.queue_length,
        "backlog": seen.backlog,
        "receiving": seen.receiving,
        "sending": seen.sending,
        "send_backlog": seen.send_backlog,
        "answers": [
            {
                "peer": answer.peer,
                "overloaded": answer.overloaded,
                "asked": answer.asked,
                "answered": answer.answered,
                "state": None
                if answer.state is None
                else json.loads(dumps(dict(zip(answer.state._fields, answer.state, strict=True)))),
            }
            for answer in seen.answers
        ],
    }


def _queue(length: int, backlog: Micros) -> str:
    return f"{length} {'task' if length == 1 else 'tasks'}, {ms(backlog)}"


def _sending(decision: DecisionRecord) -> list[str]:
    seen = decision.observation
    return [
        f"to node {peer}: {_queue(length, seen.send_backlog[peer])}"
        for peer, length in enumerate(seen.sending)
        if length
    ] or ["nothing"]


def _answers(decision: DecisionRecord) -> list[str]:
    lines = []
    for answer in decision.observation.answers:
        state = "overloaded" if answer.overloaded else "free"
        told = "" if answer.state is None else f", {_queue(*answer.state[1:3])}"
        lines.append(f"node {answer.peer}: {state}{told}")
    return lines or ["asked nobody, or nobody answered"]


def _odds(decision: DecisionRecord) -> list[str]:
    mask, odds = decision.mask, decision.probabilities
    if mask is None and odds is None:
        return ["all nodes"]
    allowed = [n for n in range(len(mask or odds or ())) if mask is None or mask[n]]
    if odds is None:
        return [f"nodes {', '.join(map(str, allowed))}"]
    return [f"node {node}: {100 * odds[node]:.1f} %" for node in allowed]


def _time(measured: Micros | None, nominal: Micros | None) -> str:
    if measured is None:
        return "-"
    if nominal is None:
        return ms(measured)
    return f"{ms(measured)} of {ms(nominal)}"


def _into(measured: Micros | None, nominal: Micros | None) -> str:
    if measured is None or nominal is None:
        return ""
    return f" after {ms(measured)} of {ms(nominal)}"
