"""The monotonic clock that the processes of one machine share.

An instant on ``time.monotonic`` means the same to all processes on one boot of one kernel, in
containers too, and nothing elsewhere. So an instant travels with the name of its clock, and whoever
has a clock of another name does not use it.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path


@cache
def clock_name() -> str:
    """Return the name of this process's monotonic clock; empty where it cannot be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        # A time namespace shifts the clock of those who are in it.
        shifted = os.readlink("/proc/self/ns/time")
    except OSError:
        return ""
    return f"{boot} {shifted}"
