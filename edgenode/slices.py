"""Short time slices: a process that wakes up with one gets a busy processor sooner.

Linux (from 6.12 on, ``sched_setattr`` with a runtime for SCHED_OTHER) lets a process say how long
it wants to run at a time. It gets its share of the processors all the same, but one that wakes up
and asks for less than the one that runs takes its place. What is due at a node takes microseconds,
and must not wait for milliseconds of something else. It needs no privilege.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import Final

SLICE_NS: Final = 100_000
"""The shortest slice that Linux gives."""

_SET: Final = {"x86_64": 314, "aarch64": 274}
"""Numbers of the system call ``sched_setattr``, for which the C library has no function."""

_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")
"""``struct sched_attr``: size, policy, flags, nice, priority, runtime, deadline, period."""


def ask_for_short_slices() -> bool:
    """Ask for short slices for this thread and those it starts; return whether Linux takes it.

    Leaves the nice value as it is. No-op on other systems, and for other scheduling policies.
    """
    number = _SET.get(platform.machine())
    if platform.system() != "Linux" or number is None:
        return False
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    asked = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, SLICE_NS, 0, 0)
    return bool(ctypes.CDLL(None).syscall(number, 0, asked, 0) == 0)
