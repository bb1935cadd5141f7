"""``python -m tests.overload``: how fast a node that drowns answers probes on this machine."""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from pathlib import Path

from tests.overload.drowning import drown


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        waits, peak = asyncio.run(drown(Path(folder), slots=10_000))
    ordered = sorted(waits)
    sys.stdout.write(
        f"{len(waits)} probes: median {1000 * statistics.median(waits):.1f} ms, "
        f"p99 {1000 * ordered[int(0.99 * len(ordered))]:.1f} ms, "
        f"worst {1000 * ordered[-1]:.1f} ms; peak memory {peak >> 20} MB\n"
    )


if __name__ == "__main__":
    main()
