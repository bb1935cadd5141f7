"""Whether a machine carries a plan in real time: a calibration, else a careful guess, against it.

A task costs a fixed time and, where bytes move, a time per byte; both follow from the knees of the
calibration (at a knee the machine is full). A plan is carried while the tasks of a second cost less
than a second, and those of one slot, which all arrive at one instant, no more than those of a slot
at the knee. Both shrink as the time scale grows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from testbed.experiment.calibration.questions import per_process
from testbed.experiment.calibration.values import Calibration, Knee, MachineFacts
from testbed.model.units import MILLISECOND, SECOND
from testbed.scenario.plan import FidelityLimits, Plan

MARGIN: Final = 1.15
"""A plan is warned about beyond this much of what was measured: runs of one machine differ so."""
GUESS_MARGIN: Final = 2.0
"""The same where nothing was measured: small networks are not warned about."""

GUESSED_TASKS_PER_S: Final[Mapping[tuple[bool, bool], float]] = {
    (False, False): 45.0,
    (True, False): 28.0,
    (False, True): 200.0,
    (True, True): 60.0,
}
"""Tasks per second and core, by (bytes move, processes are shared), where nothing was measured.

Those with processes of their own are 20 and 10 nodes of ``paper-testbed`` on two slow cores.
"""
_GUESSED_SLOT_S: Final = 0.1
_GUESSED_TASK_MB: Final = 1.5


@dataclass(frozen=True, slots=True)
class Load:
    """What a plan asks of its machine in real time; sizes in 10^6 bytes."""

    nodes: int
    tasks_per_s: float
    tasks_per_slot: float
    task_mb: float
    bytes_move: bool
    time_scale: float
    tightness: float

    @classmethod
    def of(cls, plan: Plan) -> Load:
        """Return the load of ``plan``, its faults left out.

        ``tightness`` is above 1 if its limits of fidelity are tighter than the default ones.
        """
        per_slot = sum(plan.topology.arrival_probability)
        slot_s = plan.workload.slot / SECOND * plan.time_scale
        usual, limits = FidelityLimits(), plan.limits
        tightness = max(
            usual.transmission_error / max(limits.transmission_error, MILLISECOND // 1000),
            usual.generator_lateness / max(limits.generator_lateness, MILLISECOND // 1000),
        )
        return cls(
            nodes=plan.topology.size,
            tasks_per_s=per_slot / slot_s,
            tasks_per_slot=per_slot,
            task_mb=plan.workload.size_bytes.mean / 1e6,
            bytes_move=plan.payload == "bytes",
            time_scale=plan.time_scale,
            tightness=tightness,
        )


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a machine carries, with nodes in processes of their own or in shared ones.

    ``tasks_per_s`` at time scale 1 of tasks of ``task_mb`` MB each; ``slot_s`` the length of the
    slots they were measured with. ``fastest`` is the smallest time scale at all. ``measured`` is
    False for a guess.
    """

    tasks_per_s: float
    without_bytes: float
    task_mb: float
    slot_s: float
    fastest: float
    measured: bool

    def used_by(self, load: Load) -> float:
        """Return the share of it that ``load`` needs; above 1 the runs are not faithful."""
        cost = self._cost(load)
        by_rate = load.tasks_per_s * cost
        # Errors are judged in emulated time.
        by_burst = load.tasks_per_slot * cost / self.slot_s / load.time_scale * load.tightness
        return max(by_rate, by_burst)

    def rate_for(self, load: Load) -> float:
        """Return how many tasks of ``load`` per real second it carries."""
        return 1 / self._cost(load)

    def _cost(self, load: Load) -> float:
        """Return the share of a second that a task of ``load`` takes."""
        fixed = 1 / self.without_bytes
        if not load.bytes_move:
            return fixed
        per_mb = max(0.0, 1 / self.tasks_per_s - fixed) / self.task_mb
        return fixed + per_mb * load.task_mb

    def time_scale_for(self, load: Load) -> float:
        """Return the smallest round time scale at which it carries ``load``."""
        needed = self.used_by(load) * load.time_scale * (1.0 if self.measured else MARGIN)
        return rounded_up(max(needed, self.fastest * max(1.0, load.tightness)))


_STEPS: Final = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)


def rounded_up(scale: float) -> float:
    """Return the next larger round number, as people choose them, from 0.001 to 1000."""
    power = 10.0 ** math.floor(math.log10(max(scale, 0.001)))
    for step in (*_STEPS, 10.0):
        if scale <= step * power * (1 + 1e-9):
            return min(1000.0, float(f"{step * power:.6g}"))
    return min(1000.0, 10 * power)


def capacity(
    calibration: Calibration | None, machine: MachineFacts, *, bytes_move: bool, shared: bool
) -> Capacity:
    """Return what ``machine`` carries by its calibration; by a guess where that has no answer."""
    tail = "-shared" if shared else ""
    moved = _knee(calibration, f"nodes-bytes{tail}") if bytes_move else None
    light = _knee(calibration, f"nodes-metadata{tail}")
    found = moved or (None if bytes_move else light)
    if found is None or found.best is None:
        plain = GUESSED_TASKS_PER_S[False, shared] * machine.cores
        rate = GUESSED_TASKS_PER_S[bytes_move, shared] * machine.cores
        return Capacity(rate, plain, _GUESSED_TASK_MB, _GUESSED_SLOT_S, 1.0, measured=False)
    best = found.best
    plain = best.tasks_per_s
    if light is not None and light.best is not None:
        plain = max(plain, light.best.tasks_per_s)
    fast = _knee(calibration, "time-scale")
    return Capacity(
        tasks_per_s=best.tasks_per_s,
        without_bytes=plain,
        task_mb=best.task_mb or _GUESSED_TASK_MB,
        slot_s=best.tasks_per_slot / best.tasks_per_s,
        fastest=1.0 if fast is None or fast.level is None else 1 / fast.level,
        measured=True,
    )


def nodes_carried(calibration: Calibration | None, machine: MachineFacts) -> int:
    """Return how many nodes as busy as those of ``paper-testbed`` a machine carries at most.

    Without bytes and with shared processes, where that is better.
    """
    both = (
        capacity(calibration, machine, bytes_move=False, shared=shared) for shared in (True, False)
    )
    return int(max(each.tasks_per_s for each in both) / _TASKS_PER_NODE_S)


_TASKS_PER_NODE_S: Final = 5.0
"""A task in every second slot of 100 ms."""


def _knee(calibration: Calibration | None, name: str) -> Knee | None:
    knee = None if calibration is None else calibration.knees.get(name)
    return knee if knee is not None and knee.best is not None else None


@dataclass(frozen=True, slots=True)
class Forecast:
    """Whether a plan can be faithful on a machine, and what would help if it cannot.

    ``used`` is the share of the capacity it needs. ``time_scale`` is one that would carry it.
    ``sharing`` is a number of nodes per process with which it is carried as it is; None if that
    does not help, or is not to be had. ``metadata`` says whether it is carried without the bytes.
    """

    load: Load
    capacity: Capacity
    shared: bool
    used: float
    time_scale: float
    sharing: int | None
    metadata: bool

    @property
    def doubtful(self) -> bool:
        """Whether a run will probably be outside its limits of fidelity."""
        return self.used > (MARGIN if self.capacity.measured else GUESS_MARGIN)

    def warning(self, *, up_again: bool = False) -> str:
        """Return what is expected and what to do, in a sentence each.

        ``up_again``: the testbed is up already, so that a change means to bring it up anew.
        """
        load, carried = self.load, self.capacity.rate_for(self.load)
        payload = "real bytes" if load.bytes_move else "metadata"
        processes = "in shared processes" if self.shared else "in processes of their own"
        basis = "was measured to carry" if self.capacity.measured else "probably carries"
        ways = [f"--time-scale {self.time_scale:g}"]
        anew = "testbed up ... " if up_again else ""
        if self.sharing is not None:
            ways.append(f"{anew}--nodes-per-process {self.sharing}")
        if self.metadata:
            ways.append(f"{anew}--set payload=metadata")
        hint = "" if self.capacity.measured else "; `testbed calibrate` measures this machine"
        at = "" if load.time_scale == 1.0 else f" at time scale {load.time_scale:g}"
        return (
            f"runs will probably not be faithful: {load.nodes} nodes with {payload}, {processes}, "
            f"get about {load.tasks_per_s:.0f} tasks/s{at}, and this machine {basis} "
            f"{carried:.0f}{self._burst(carried)}; use {' or '.join(ways)}{hint}"
        )

    def _burst(self, carried: float) -> str:
        if self.load.tasks_per_s > carried:
            return ""
        return f" (here {self.load.tasks_per_slot:.0f} arrive at one instant)"


def forecast(
    plan: Plan, calibration: Calibration | None, machine: MachineFacts, *, shared: bool
) -> Forecast:
    """Return whether runs of ``plan`` will be faithful; ``shared``: nodes share processes."""
    load = Load.of(plan)

    def carries(load: Load, shared: bool) -> Capacity:
        return capacity(calibration, machine, bytes_move=load.bytes_move, shared=shared)

    here = carries(load, shared)
    sharing = None
    if not shared and carries(load, shared=True).used_by(load) <= 1.0:
        sharing = per_process(load.nodes, machine.cores)
    light = replace(load, bytes_move=False)
    return Forecast(
        load,
        here,
        shared,
        here.used_by(load),
        here.time_scale_for(load),
        sharing,
        metadata=load.bytes_move and carries(light, shared).used_by(light) <= 1.0,
    )
