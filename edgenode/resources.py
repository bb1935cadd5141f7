"""The resources that this process uses."""

from __future__ import annotations

import os
import time
from typing import Final

from testbed.model.units import SECOND, Micros

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """Memory this process has resident; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except OSError:
        return 0


def cpu_time() -> Micros:
    """CPU time of this process since it started."""
    return int(time.process_time() * SECOND)
