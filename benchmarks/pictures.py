"""Draws the pictures of README.md and docs/: ``python -m benchmarks.pictures``."""

from __future__ import annotations

from pathlib import Path

import testbed as tb

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "pictures"
SCHEDULERS = ("drl", "ratc", "rda", "local")


def main() -> None:
    """Simulate ``quickstart`` under four schedulers and write a picture of each kind."""
    plan = tb.load("quickstart")
    found = tb.compare(plan, SCHEDULERS, episodes=20)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in ("success", "outcomes", "latency"):
        found.figure(name).savefig(FOLDER / f"{name}.png", dpi=110)
    found["ratc"].figure("topology").savefig(FOLDER / "topology.png", dpi=110)
    print(found)


if __name__ == "__main__":
    main()
