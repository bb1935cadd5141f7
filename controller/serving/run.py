"""A run of a serving network: its users' traffic, what nodes report of it, and the certificate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import structlog

from controller.attendance import named
from controller.configuring import proof
from controller.link import NodeLink
from controller.marker import RunMarker
from controller.registry import Registry
from controller.run import Order, Run, RunNow, shortened
from controller.serving.client import MOST_OPEN, FrontAddress
from controller.serving.episode import ServingEpisode, Watchers
from controller.serving.ledger import Joined
from controller.serving.recording import Batch, Content, ServingRecording, decode
from controller.serving.traffic import RequestTraffic
from controller.writer import LogWriter
from testbed.errors import Problem, UsageError
from testbed.model.certificate import Certificate, Machine
from testbed.model.latencies import Latencies
from testbed.model.serving.failures import RoutingFailure, RoutingFailures
from testbed.model.serving.fidelity import ServingFidelity
from testbed.model.serving.record import RequestOutcome
from testbed.model.units import Micros
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.operator import Progress
from testbed.scenario.plan import ServingPlan
from testbed.storage.tasklog import RequestRow

_log = structlog.get_logger("controller.run")


class ServingRun(Run[ServingPlan, ServingEpisode]):
    """A run of a serving network."""

    fault_kinds = ("node-down",)

    def __init__(
        self,
        plan: ServingPlan,
        order: Order,
        registry: Registry,
        writer: LogWriter,
        marker: RunMarker,
    ) -> None:
        super().__init__(plan, order, registry, writer, marker)
        self._all_logged = plan.log_requests == "all"
        self._recording: ServingRecording = ServingRecording(
            self.id, plan.size, writer, self._fail, requests=self._all_logged
        )
        self._fidelity = ServingFidelity(
            plan.network, plan.limits, trip=2 * plan.bus.delay, time_scale=self.plan.time_scale
        )
        self._outcomes: Counter[str] = Counter({outcome.value: 0 for outcome in RequestOutcome})
        self._over: dict[str, int] = dict(self._outcomes)
        self._latencies = Latencies()
        self._sent = 0
        self._unsent = 0
        self._failures = RoutingFailures()
        self._traffic = RequestTraffic(plan.size)

    @property
    def progress(self) -> Progress:
        """Progress of the run."""
        return self._progress(
            self._seen(),
            self._failures.lines,
            slots=self.plan.windows,
            generated=self._sent,
            outcomes=dict(self._outcomes),
            completed_outcomes=self._over,
            queue_lengths=(),
            latency_p50=self._latencies.percentile(0.50),
            latency_p99=self._latencies.percentile(0.99),
            seconds_left=self._seconds_left(),
            work="requests",
            success=RequestOutcome.SERVED.value,
        )

    @property
    def now(self) -> RunNow:
        """See ``Run``."""
        traffic = self._traffic
        return RunNow(
            loads=traffic.served,
            backlogs=[None] * self.plan.size,
            links=traffic.links(),
            latencies=self._latencies.percentiles(),
            fidelity=self._fidelity.so_far(),
        )

    def _seen(self) -> list[str]:
        """Return what degrades the run, in words."""
        told = shortened(self._overdue) + list(self._attendance.told())
        if self._unsent:
            told.append(f"{self._unsent} requests were not sent, because {MOST_OPEN} were open")
        if lost := self._outcomes[RequestOutcome.LOST]:
            told.append(f"{lost} requests have no known answer")
        return told

    def _seconds_left(self) -> float:
        """Return the real seconds in which users will send requests."""
        episode = self._episode
        if not self.active:
            return 0.0
        begun = self._completed + (episode is not None)
        later = max(0, self.order.episodes - begun) * self.plan.episode_seconds
        return later + (0.0 if episode is None else episode.seconds_left)

    async def _configure(self) -> None:
        await self._registry.settled()
        nodes = self._registry.nodes
        without = [each.node for each in nodes if each.condition == "healthy" and not each.http]
        if without:
            raise UsageError(
                "the run cannot begin",
                [
                    Problem(
                        named(without), "takes no HTTP requests", "start it with --http HOST:PORT"
                    )
                ],
            )
        await super()._configure()

    # --- one episode ------------------------------------------------------------------------

    def _new_episode(self, number: int) -> ServingEpisode:
        fronts = [
            None if node.node in self._attendance.out else FrontAddress(node.http, proof(node))
            for node in self._registry.nodes
        ]
        watchers = Watchers(self._late_by, self._ended, self._changed)
        return ServingEpisode(self.plan, number, fronts, watchers, awake=self._registry.pulse.awake)

    def _late_by(self, lateness: Micros) -> None:
        self._sent += 1
        self._fidelity.late(lateness)
        self._worst_lateness = max(self._worst_lateness, lateness)

    def _ended(self, joined: Joined[Batch]) -> None:
        """Take a complete row: it goes into the batch that waits for it, or on its own."""
        self._count(joined)
        if joined.batch is not None:
            self._recording.completed(joined.batch, joined.row)
        elif joined.record is None:
            self._recording.store_own([joined.row])

    def _count(self, joined: Joined[Batch]) -> None:
        row, seen = joined.row, joined.seen
        if seen is None:
            return
        outcome = row.outcome
        if not self._all_logged and seen.status is not None:
            # Nodes report counts alone: the client's word is all there is.
            outcome = seen.outcome
        self._outcomes[outcome.value] += 1
        answered = seen.status is not None
        if seen.answered is not None and outcome is RequestOutcome.SERVED:
            self._latencies.add(seen.answered)
        self._fidelity.ended(outcome, seen.outcome if answered or not seen.taken else None)
        if joined.record is not None and outcome is not seen.outcome and not self._excused(row):
            self._fidelity.differed()

    def _excused(self, row: RequestRow) -> bool:
        """Return whether client and node may tell different things of a request."""
        return self._stopping or row.source in self._attendance.out

    def _decode(self, batch: pb.EventBatch) -> Content:
        return decode(batch)

    def _take(self, link: NodeLink, number: int, content: Content) -> None:
        episode = self._episode
        batch = Batch(link, number, content.windows, content.routings)
        for record in content.requests:
            self._fidelity.answered(record)
            try:
                if episode is None or record.episode != episode.number:
                    # Its row was made when its episode was closed, without what came too late.
                    continue
                joined = episode.ledger.reported(record, batch)
            except KeyError:
                continue
            if joined is None:
                batch.missing += 1
            else:
                self._count(joined)
                batch.rows.append(joined.row)
        self._traffic.add(content.windows)
        for routing in content.routings:
            self._fidelity.routed(routing)
        self._fidelity.ticked(content.ticks)
        present, _ = self._position()
        now = 0 if episode is None else episode.now
        for node, reason in content.failures:
            self._failures.add(RoutingFailure(present, node, now, reason))
        self._recording.store_batch(batch)

    def _count_up(self, episode: ServingEpisode, complete: Collection[int]) -> Sequence[RequestRow]:
        rest = []
        for joined in episode.ledger.close():
            row, seen = joined.row, joined.seen
            self._count(joined)
            if joined.batch is not None:
                self._recording.completed(joined.batch, row)
                continue
            rest.append(row)
            answered = seen is not None and seen.outcome is not RequestOutcome.LOST
            if answered and self._all_logged and row.source in complete:
                self._fidelity.differed()
        # A node that a fault takes down begins anew, with turns that nobody else knows.
        down = {
            each for fault in self.faults.timeline(episode.number).faults for each in fault.nodes
        }
        for node in down | (set(range(self.plan.size)) - set(complete)):
            self._fidelity.leave_out(node)
        self._fidelity.end_episode()
        self._unsent += episode.unsent
        self._over = dict(self._outcomes)
        return rest

    # --- its end ----------------------------------------------------------------------------

    def _certify(self, machine: Machine, unfaithful: Sequence[str]) -> Certificate:
        return self._fidelity.certify(machine, unfaithful)

    def _found(self) -> Mapping[str, Any]:
        return {
            "code_failures": list(self._failures.lines),
            "requests_sent": self._sent,
            "requests_not_sent": self._unsent,
        }

    @property
    def _incomplete(self) -> bool:
        lost = self._outcomes[RequestOutcome.LOST]
        return bool(self._failures) or lost > self.plan.limits.lost_requests
