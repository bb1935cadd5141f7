"""Which scheduler a simulation of any family of work runs, and with which options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from testbed.scenario.plan import PlanHead

_Made = TypeVar("_Made", bound=Callable[..., Any])
"""What makes a scheduler."""


def chosen(
    plan: PlanHead, scheduler: str | _Made | None, options: Mapping[str, object] | None
) -> tuple[str | _Made, dict[str, object]]:
    """Return scheduler and options; for None the plan's, with its options where none are given."""
    if scheduler is None:
        scheduler = plan.scheduler.name
        options = plan.scheduler.options if options is None else options
    return scheduler, dict(options or {})
