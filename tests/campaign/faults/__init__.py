"""The faults, one module for each family; importing this package registers them all."""

from __future__ import annotations

from tests.campaign.faults import (
    callers,
    clock,
    commands,
    links,
    processes,
    servers,
    several,
    storage,
    trainer,
)

__all__ = [
    "callers",
    "clock",
    "commands",
    "links",
    "processes",
    "servers",
    "several",
    "storage",
    "trainer",
]
