"""Metrics of the nodes of this process, as they are now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client.metrics_core import Metric

from edgenode.node import EdgeNode
from edgenode.resources import used
from testbed.model.units import SECOND, seconds
from testbed.rpc.generated import edge_pb2 as pb
from testbed.rpc.metrics import MetricsServer, counter, gauge

_GAUGES: Final = (
    ("queue_length", "Tasks in the execution queue", lambda found: found.queue_length),
    (
        "backlog_seconds",
        "Emulated seconds until the execution queue is empty",
        lambda found: seconds(found.backlog),
    ),
    ("tasks_held", "Tasks that have not ended and that the node holds", lambda found: found.held),
    ("open_requests", "Requests that have no answer yet", lambda found: found.open_requests),
    ("receiving", "Tasks that are on their way to the node", lambda found: len(found.receiving)),
    (
        "sending",
        "Tasks that are sent, or wait for it, to all peers",
        lambda found: sum(found.sending),
    ),
)


def serve(bind: str, nodes: Sequence[EdgeNode]) -> MetricsServer:
    """Serve the metrics of ``nodes`` at ``bind``.

    Raises: PrerequisiteMissing, UsageError: as ``MetricsServer``.
    """
    return MetricsServer(bind, lambda: _collect(nodes))


def _collect(nodes: Sequence[EdgeNode]) -> Iterator[Metric]:
    found = {str(node.index): _state(node) for node in nodes}
    for name, about, value in _GAUGES:
        values = (((node,), float(value(state))) for node, state in found.items())
        yield gauge(f"local_{name}", about, values, ("node",))
    yield gauge(
        "local_spool_batches",
        "Batches of the log that the controller has not stored yet",
        (((str(node.index),), node.spool.unacknowledged) for node in nodes),
        ("node",),
    )
    yield gauge(
        "local_scheduler_info",
        "What decides at the node, with the policy if it is a learned one",
        (((str(node.index), node.scheduler_name), 1.0) for node in nodes if node.scheduler_name),
        ("node", "scheduler"),
    )
    process = used()
    yield gauge(
        "local_resident_bytes", "Resident memory of the process", [((), process.resident_bytes)]
    )
    yield counter(
        "local_cpu_seconds", "Processor time of the process", [((), process.cpu / SECOND)]
    )


def _state(node: EdgeNode) -> pb.NodeDescription:
    state = pb.NodeDescription()
    if node.driver is not None:
        node.driver.describe(state)
    return state
