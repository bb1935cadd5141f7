"""Whether a machine sends the requests of a serving run in time, as far as is known.

A run sends all requests of its users from one process, which takes a fixed time of one core for
each. Nodes have the other cores, and take longer for a request that they forward.
"""

from __future__ import annotations

from typing import Final

from testbed.experiment.calibration.estimate import rounded_up
from testbed.scenario.plan import ServingPlan

SENT_PER_S: Final = 2_000.0
"""Requests per real second that are sent and served in time on two cores (docs/benchmarks.md).

One process alone sends twice as many in time. At this rate it needs 0.4 of a core and nodes that
forward everything 1.2, which leaves some for the controller and for other programs.
"""


def too_many_requests(plan: ServingPlan, *, up_again: bool) -> str:
    """Return a warning if a run of ``plan`` has more requests than are sent in time, else "".

    ``up_again``: the testbed is up, so it has to be brought up again with another time scale.
    """
    rate = plan.highest_rate
    if rate <= SENT_PER_S:
        return ""
    scale = _in_time(plan)
    how = "bring it up again with" if up_again else "use"
    return (
        f"the users of this scenario send up to {rate:,.0f} requests per second of real time, and "
        f"one machine sends about {SENT_PER_S:,.0f} in time; the run will probably be invalid, "
        f"because requests come late: {how} --set timeScale={scale:g}, or fewer users"
    )


def slow_enough(plan: ServingPlan) -> float:
    """Return a time scale of at least 1 at which the requests of ``plan`` are sent in time."""
    return max(1.0, _in_time(plan))


def _in_time(plan: ServingPlan) -> float:
    return rounded_up(plan.time_scale * plan.highest_rate / SENT_PER_S)
