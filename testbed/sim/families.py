"""Families of work in the simulator: what plays the episodes of a plan."""

from __future__ import annotations

from typing import Final

from testbed.scenario.families import ByModel
from testbed.scenario.plan import TASKS
from testbed.sim.simulator import Simulation

SIMULATIONS: Final = ByModel("the simulator", {TASKS: Simulation})
"""By the model of the plan; made with a plan, a scheduler (None: the plan's) and its options."""
