"""Metrics of a controller: its runs, its nodes as it knows them, and the task log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, get_args

from prometheus_client import Histogram
from prometheus_client.metrics_core import Metric

from controller.registry import Registry
from controller.run import AnyRun
from controller.traffic import LinkTraffic
from controller.writer import LogWriter, Pending, PendingRecords
from testbed.model.events import RecordKind
from testbed.model.units import SECOND, seconds
from testbed.rpc.metrics import PREFIX, MetricsServer, counter, gauge
from testbed.rpc.operator import NodeCondition
from testbed.scenario.plan import PlanHead

_DURATIONS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_COMMITS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_CONDITIONS: Final[tuple[str, ...]] = get_args(NodeCondition)


class ControllerMetrics:
    """Serves them at ``bind`` from now on, until ``close``.

    What happens to tasks is counted when it is stored: ``writer`` tells it. A batch that a node
    sends again after a broken connection counts again.

    Raises: PrerequisiteMissing, UsageError: as ``MetricsServer``.
    """

    def __init__(
        self,
        bind: str,
        plan: PlanHead,
        registry: Registry,
        writer: LogWriter,
        *,
        runs: Callable[[], Iterable[AnyRun]],
        policy: Callable[[], str],
    ) -> None:
        self._plan, self._nodes, self._writer = plan, registry, writer
        self._runs, self._policy = runs, policy
        self._links = LinkTraffic()
        self._backlog: dict[int, int] = {}
        self._server = MetricsServer(bind, self._collect)
        self._durations = Histogram(
            f"{PREFIX}task_duration_seconds",
            "Emulated seconds from the arrival of a task to its end",
            ["outcome"],
            buckets=_DURATIONS,
            registry=self._server.registry,
        )
        self._commits = Histogram(
            f"{PREFIX}store_commit_seconds",
            "Seconds that a commit to the task log took",
            buckets=_COMMITS,
            registry=self._server.registry,
        )
        writer.observer = self._stored

    @property
    def address(self) -> str:
        """Address of the metrics, as host:port."""
        return self._server.address

    def close(self) -> None:
        """Serve them no more."""
        self._writer.observer = None
        self._server.close()

    def _stored(self, entries: Sequence[Pending], took_s: float) -> None:
        self._commits.observe(took_s)
        for entry in entries:
            if isinstance(entry, PendingRecords):
                self._count(entry)

    def _count(self, entry: PendingRecords) -> None:
        for records in (entry.records, entry.late):
            for record in records:
                if record.kind is RecordKind.ENDED:
                    outcome = str(record.data["outcome"])
                    elapsed = int(record.data["elapsed"])
                    self._durations.labels(outcome).observe(seconds(elapsed))
                elif record.kind is RecordKind.SENT:
                    self._links.sent(record)
        for decision in entry.decisions:
            backlog = getattr(getattr(decision, "observation", None), "backlog", None)
            if backlog is not None:
                self._backlog[decision.node] = backlog

    def _collect(self) -> Iterator[Metric]:
        yield from self._of_runs(list(self._runs()))
        yield from self._of_nodes()
        yield counter(
            "link_bytes",
            "Bytes of tasks that came over a link completely",
            (((str(a), str(b)), count) for (a, b), count in self._links.bytes.items()),
            ("source", "destination"),
        )
        policy = [((self._policy(),), 1.0)] if self._policy() else []
        yield gauge("policy_info", "The policy that was deployed last", policy, ("policy",))
        yield counter(
            "store_rows",
            "Records and decisions that were new to the task log",
            [((), self._writer.rows)],
        )
        yield gauge(
            "store_waiting_rows",
            "Records and decisions that wait to be stored",
            [((), self._writer.waiting)],
        )

    def _of_runs(self, runs: Sequence[AnyRun]) -> Iterator[Metric]:
        ended: Counter[tuple[str, str]] = Counter()
        generated: Counter[str] = Counter()
        for run in runs:
            scheduler, progress = run.order.scheduler.name, run.progress
            generated[scheduler] += progress.generated
            for outcome, count in progress.outcomes.items():
                ended[scheduler, outcome] += count
        yield counter(
            "tasks",
            "Tasks that have ended, by the scheduler that the run began with",
            ended.items(),
            ("scheduler", "outcome"),
        )
        yield counter(
            "tasks_generated",
            "Tasks that have arrived",
            (((scheduler,), count) for scheduler, count in generated.items()),
            ("scheduler",),
        )
        yield gauge("runs", "Runs of this controller so far", [((), len(runs))])
        current = runs[-1] if runs else None
        active = current is not None and current.active
        yield gauge("run_active", "1 while a run is under way", [((), float(active))])
        if current is None:
            return
        progress = current.progress
        names = (progress.run, current.order.scheduler.name, self._plan.name)
        yield gauge("run_info", "The latest run", [(names, 1.0)], ("run", "scheduler", "scenario"))
        yield gauge("run_episodes", "Episodes that it was given", [((), progress.episodes)])
        yield gauge("run_episodes_completed", "Those that are over", [((), progress.completed)])
        yield gauge(
            "node_queue_length",
            "Tasks in the execution queue of a node, as of its last decision",
            (
                ((str(node),), length)
                for node, length in enumerate(progress.queue_lengths)
                if length is not None
            ),
            ("node",),
        )
        yield gauge(
            "node_backlog_seconds",
            "Emulated seconds until the queue of a node is empty, as of its last decision",
            (((str(node),), seconds(backlog)) for node, backlog in sorted(self._backlog.items())),
            ("node",),
        )

    def _of_nodes(self) -> Iterator[Metric]:
        nodes = self._nodes.nodes
        label = ("node",)
        yield gauge(
            "node_condition",
            "1 for the condition that a node is in",
            (
                ((str(node.node), condition), float(node.condition == condition))
                for node in nodes
                for condition in _CONDITIONS
            ),
            ("node", "condition"),
        )
        heard = [node for node in nodes if node.heard]
        now = self._nodes.pulse.awake()
        yield gauge(
            "node_heartbeat_age_seconds",
            "Seconds since a node was heard last",
            (((str(node.node),), max(0.0, now - node.heard)) for node in heard),
            label,
        )
        for name, about, value in (
            ("node_timer_lag_seconds", "Lateness of the timers of a node", "lag"),
            ("node_timer_lag_max_seconds", "The worst lateness of its timers so far", "worst_lag"),
        ):
            found = (((str(node.node),), getattr(node, value) / SECOND) for node in heard)
            yield gauge(name, about, found, label)
        yield gauge(
            "node_resident_bytes",
            "Resident memory of a node; its share, where nodes share a process",
            (((str(node.node),), node.resident_bytes) for node in heard),
            label,
        )
        yield counter(
            "node_cpu_seconds",
            "Processor time that the process of a node has used",
            (((str(node.node),), node.cpu / SECOND) for node in heard),
            label,
        )
