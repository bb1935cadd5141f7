"""The resources that this process uses."""

from __future__ import annotations

import os
import time
from typing import Final, NamedTuple

from testbed.model.units import SECOND, Micros

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


FRESH_S: Final = 0.2
"""Seconds for which figures are good: all nodes of a process ask for them with each heartbeat."""


class Used(NamedTuple):
    """Resources of this process: resident memory (0 where the system does not say), CPU time since
    it started."""

    resident_bytes: int
    cpu: Micros


_last: tuple[float, Used] | None = None


def used() -> Used:
    """Return what this process uses; at most ``FRESH_S`` old."""
    global _last
    now = time.monotonic()
    if _last is None or now - _last[0] >= FRESH_S:
        _last = now, Used(_resident_bytes(), int(time.process_time() * SECOND))
    return _last[1]


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except OSError:
        return 0
