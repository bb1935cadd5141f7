"""States of testbeds for tests, made by hand."""

from __future__ import annotations

from typing import Any

from testbed.model.run_state import RunState
from testbed.rpc.operator import (
    LinkNow,
    LiveState,
    MachineNow,
    NodeNow,
    Progress,
    RunStatus,
    SchedulerChange,
)
from testbed.testing.runtime import small_plan
from testbed.ui.live.network import Network, network_of

NODES = 3
BUSY = NodeNow("healthy", "", "ratc", 1, 100_000, 500, 2_000_000, 30_000_000)


def network(nodes: int = NODES) -> Network:
    return network_of(small_plan(nodes))


def progress(**values: Any) -> Progress:
    """Return the progress of a run in its second episode."""
    given: dict[str, Any] = {
        "run": "r1",
        "state": RunState.RUNNING,
        "scheduler": "ratc",
        "first_episode": 0,
        "episodes": 4,
        "episode": 1,
        "completed": 1,
        "slot": 5,
        "slots": 20,
        "generated": 40,
        "outcomes": {"succeeded": 30, "dropped": 5, "lost": 0},
        "completed_outcomes": {"succeeded": 20, "dropped": 3, "lost": 0},
        "queue_lengths": (1,) * NODES,
    }
    return Progress(**{**given, **values})


def state(
    at: float = 10.0,
    *,
    run: Progress | None = None,
    idle: bool = False,
    changes: tuple[SchedulerChange, ...] = (),
    nodes: tuple[NodeNow, ...] = (BUSY,) * NODES,
    **values: Any,
) -> LiveState:
    """Return a state in which a run is under way, or none ever was."""
    given: dict[str, Any] = {
        "machine": MachineNow(2, 0.5, 100.0 + at, 10.0),
        "run": None if idle else RunStatus(run or progress(), "", changes),
        "links": (LinkNow(0, 1, 4, 400_000), LinkNow(1, 2, 1, 100_000)),
        "latencies": (100_000, 200_000, 300_000),
    }
    return LiveState(at=at, nodes=nodes, **{**given, **values})
