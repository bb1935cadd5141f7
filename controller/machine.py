"""Load of the machine during a run: pressure on its processors, lateness of its timers."""

from __future__ import annotations

import os
import time
from pathlib import Path

from controller.registry import Registry
from testbed.model.fidelity import ControllerPause, Machine
from testbed.model.units import SECOND, Micros
from testbed.rpc.operator import MachineNow

_PRESSURE = Path("/proc/pressure/cpu")
_TIMES = Path("/proc/stat")


def _stalled() -> Micros | None:
    """Time since boot in which something waited for a processor; None where nobody counts it."""
    try:
        first = _PRESSURE.read_text().splitlines()[0]
        return int(first.rpartition("total=")[2])
    except (OSError, IndexError, ValueError):
        return None


def _busy() -> float | None:
    """Seconds that all processors have worked since boot; None where nobody counts it."""
    try:
        first = _TIMES.read_text().splitlines()[0]
        user, nice, system, _idle, _waiting, *interrupts = map(int, first.split()[1:9])
    except (OSError, IndexError, ValueError):
        return None
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def machine_now() -> MachineNow:
    """Return what this machine's processors do."""
    stalled = _stalled()
    return MachineNow(
        cpus=os.cpu_count() or 1,
        load_average=os.getloadavg()[0],
        busy=_busy(),
        stalled=None if stalled is None else stalled / SECOND,
    )


class MachineWatch:
    """Measures from when it is made to ``result``."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._started = time.monotonic()
        self._began = registry.pulse.time
        self._stalled = _stalled()
        for node in registry.nodes:
            node.worst_lag = 0

    def result(self, controller_lag: Micros) -> Machine:
        """Return the figures up to now; ``controller_lag`` is the worst lateness of an arrival."""
        stalled = _stalled()
        pressure = None
        if stalled is not None and self._stalled is not None:
            elapsed = (time.monotonic() - self._started) * SECOND
            pressure = min(1.0, (stalled - self._stalled) / max(1.0, elapsed))
        return Machine(
            cpus=os.cpu_count() or 1,
            load_average=os.getloadavg()[0],
            cpu_pressure=pressure,
            controller_lag=controller_lag,
            node_lag=tuple(node.worst_lag for node in self._registry.nodes),
            pauses=tuple(
                ControllerPause(
                    int(max(0.0, pause.at - self._began) * SECOND), int(pause.seconds * SECOND)
                )
                for pause in self._registry.pulse.pauses
                if pause.at + pause.seconds > self._began
            ),
            sharing=tuple(node.sharing for node in self._registry.nodes),
        )
