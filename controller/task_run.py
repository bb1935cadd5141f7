"""A run of tasks: their records, the rows and the certificate made from them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, TypeAlias

import structlog

from controller.episode import GRACE_S, Episode, Overdue, Seen
from controller.link import NodeLink
from controller.marker import RunMarker
from controller.recording import TaskRecording, decode
from controller.registry import Registry
from controller.run import Order, Run, RunNow, shortened
from controller.traffic import TaskTraffic
from controller.writer import LogWriter
from testbed.model.events import DecisionRecord, Record
from testbed.model.failures import Failures
from testbed.model.fidelity import Certificate, Fidelity, Machine
from testbed.model.hook import Decided
from testbed.model.task import Outcome
from testbed.model.units import SECOND, Micros
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.operator import Progress
from testbed.scenario.plan import Plan

_log = structlog.get_logger("controller.run")

LAG_TOLD: Final[Micros] = SECOND
"""Lag of a node's timers from which on it is named as what an episode waited for."""

MODELLED_APPLICATIONS: Final = frozenset({"emulated", "busy"})
"""Applications that take the modelled time; of others the execution times are not judged."""

_Content: TypeAlias = tuple[list[Record], list[Decided]]


class TaskRun(Run[Plan, Episode]):
    """A run of tasks."""

    def __init__(
        self,
        plan: Plan,
        order: Order,
        registry: Registry,
        writer: LogWriter,
        marker: RunMarker,
    ) -> None:
        super().__init__(plan, order, registry, writer, marker)
        self._fidelity = Fidelity(
            plan.topology,
            plan.limits,
            time_scale=self.plan.time_scale,
            execution_modelled=plan.application.name in MODELLED_APPLICATIONS,
            timeline=self.faults.timeline,
        )
        self._recording: TaskRecording = TaskRecording(self.id, plan.size, writer, self._fail)
        self._lost: set[int] = set()
        self._lost_late = 0
        self._failures = Failures()
        self._generated = 0
        self._outcomes = {outcome.value: 0 for outcome in Outcome}
        self._queue_lengths: list[int | None] = [None] * plan.size
        self._backlogs: list[Micros | None] = [None] * plan.size
        self._traffic = TaskTraffic()

    @property
    def progress(self) -> Progress:
        """Progress of the run."""
        episode = self._episode
        outcomes = dict(self._outcomes)
        if episode is not None:
            for name, count in episode.ledger.outcomes.items():
                outcomes[name] += count
        return self._progress(
            shortened(self._overdue) or self._attendance.told(),
            self._failures.lines,
            slots=self.plan.workload.slots,
            generated=self._generated + (episode.ledger.generated if episode else 0),
            outcomes=outcomes,
            completed_outcomes=dict(self._outcomes),
            queue_lengths=tuple(self._queue_lengths),
        )

    @property
    def now(self) -> RunNow:
        """See ``Run``."""
        return RunNow(
            loads=self._queue_lengths,
            backlogs=self._backlogs,
            links=self._traffic.links.so_far(),
            latencies=self._traffic.latencies.percentiles(),
            fidelity=self._fidelity.so_far(),
        )

    def _new_episode(self, number: int) -> Episode:
        return Episode(
            self.plan,
            number,
            [
                None if node in self._attendance.out else link
                for node, link in enumerate(self._links)
            ],
            Seen(self._lost, self._arrival_late, self._changed, self._registry.pulse.awake),
            run=self.id,
            timeline=self.faults.timeline(number),
        )

    def _arrival_late(self, lateness: Micros) -> None:
        self._fidelity.late(lateness)
        self._worst_lateness = max(self._worst_lateness, lateness)

    def _count_up(self, episode: Episode, complete: Collection[int]) -> Sequence[Record]:
        records = episode.close(complete)
        if episode.overdue is not None:
            self._not_in_time(episode.number, episode.overdue, len(records))
        for record in records:
            self._fidelity.add(record)
        self._generated += episode.ledger.generated
        for name, count in episode.ledger.outcomes.items():
            self._outcomes[name] += count
        return records

    def _decode(self, batch: pb.EventBatch) -> _Content:
        return decode(batch)

    def _take(self, link: NodeLink, number: int, content: _Content) -> None:
        records, decisions = content
        late = [record for record in records if self._is_late(record)]
        accepted = [
            record for record in records if not self._is_late(record) and self._count(record)
        ]
        for decision in decisions:
            if isinstance(decision, DecisionRecord):
                observation = decision.observation
                self._queue_lengths[decision.node] = observation.queue_length
                self._backlogs[decision.node] = observation.backlog
        self._traffic.add(accepted)
        self._recording.store_batch(link, number, accepted, decisions, late)

    def _is_late(self, record: Record) -> bool:
        """Return whether the episode of its task is over, so that all its tasks have ended."""
        return self._episode is None or record.task.episode != self._episode.number

    def _count(self, record: Record) -> bool:
        assert self._episode is not None
        if not self._episode.take(record):
            return False
        self._fidelity.add(record)
        self._failures.add(record)
        self.faults.add(record)
        return True

    def _not_in_time(self, number: int, overdue: Overdue, lost: int) -> None:
        """Note that an episode was ended by its hard bound, with ``lost`` tasks open."""
        blamed = self._silent_in(number, overdue)
        if blamed:
            cause = "; ".join(blamed)
        else:
            cause = "the machine could not keep up"
            self._lost_late += lost
        reason = f"episode {number} did not finish within its bound: {cause} ({_told(overdue)})"
        _log.error("hard bound", run=self.id, reason=reason)
        self._overdue.append(reason)

    def _silent_in(self, number: int, overdue: Overdue) -> list[str]:
        """Return what was seen of single nodes that others had to wait for in an episode."""
        seen = {**self._attendance.silences.get(number, {}), **self._attendance.out}
        nodes = self._registry.nodes
        behind = [node for node in nodes if node.episode_lag > LAG_TOLD]
        others = {node.node for node in nodes} - {node.node for node in behind}
        if 2 * len(behind) < len(nodes) and not any(
            overdue.lateness[node] >= LAG_TOLD for node in others
        ):
            for node in behind:
                seen.setdefault(node.node, f"did not run for {node.episode_lag / SECOND:.1f} s")
        return [f"node {node}: {reason}" for node, reason in sorted(seen.items())]

    def _certify(self, machine: Machine, unfaithful: Sequence[str]) -> Certificate:
        for reason in unfaithful:
            self._fidelity.unfaithful(reason)
        return self._fidelity.certify(machine)

    def _found(self) -> Mapping[str, Any]:
        return {
            "illegal_stories": self._recording.illegal,
            "code_failures": list(self._failures.lines),
        }

    @property
    def _incomplete(self) -> bool:
        # Tasks that a machine lost which could not keep up make the run invalid, and it says so.
        # Nor do those that a fault of the scenario took with their node say that anything is wrong.
        lost = self._outcomes[Outcome.LOST] - self._lost_late - self.faults.lost
        return bool(self._recording.illegal or self._failures or lost > self.plan.limits.lost_tasks)


def _told(overdue: Overdue) -> str:
    """Return what an episode that ran into its bound lacked."""
    late = f"arrivals came up to {max(overdue.lateness) / SECOND:.1f} s late"
    arrivals = overdue.arrivals
    if overdue.not_begun:
        return f"{overdue.not_begun} of {arrivals} tasks had not arrived at their nodes, {late}"
    return (
        f"{overdue.open} of {arrivals} tasks had not ended {GRACE_S:g} s after the last "
        f"deadline, {late}"
    )
