"""State of a testbed for those who watch it, from what the controller knows anyway."""

from __future__ import annotations

from controller.machine import machine_now
from controller.registry import Registry
from controller.run import AnyRun
from testbed.rpc.operator import FaultList, LiveState, NodeNow


def live_state(registry: Registry, run: AnyRun | None, policy: str, known: int) -> LiveState:
    """Return the state now, without the counts of the first ``known`` episodes of the run."""
    nodes = len(registry.nodes)
    now = None if run is None else run.now
    names = ("",) * nodes if run is None else run.changes.names
    loads = [None] * nodes if now is None else now.loads
    backlogs = [None] * nodes if now is None else now.backlogs
    return LiveState(
        at=registry.pulse.time,
        nodes=tuple(
            NodeNow(
                condition=node.condition,
                reason=node.reason,
                scheduler=names[node.node],
                load=loads[node.node],
                backlog=backlogs[node.node],
                lag=node.lag,
                cpu=node.cpu,
                resident_bytes=node.resident_bytes,
            )
            for node in registry.nodes
        ),
        machine=machine_now(),
        policy=policy,
        run=None if run is None else run.status,
        links=() if now is None else now.links,
        latencies=None if now is None else now.latencies,
        fidelity=() if now is None else now.fidelity,
        episodes=() if run is None else tuple(run.episodes[known:]),
        faults=run.fault_list() if run is not None and run.active else FaultList(),
    )
